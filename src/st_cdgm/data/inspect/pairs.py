"""Whether coarse predictors and fine targets belong together, before anyone trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from st_cdgm.data.files.open import Paths
from st_cdgm.data.inspect.pair_weather import (
    FEWEST_CELLS,
    Counterpart,
    PairedWeather,
    some_days,
)
from st_cdgm.data.inspect.roles import cell_width
from st_cdgm.data.inspect.similarity import LAGS
from st_cdgm.data.read.readers import read_channels, read_targets
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import is_global, wrap_near
from st_cdgm.data.time.calendar import CalendarDays, shared_steps
from st_cdgm.typing import Floats

FEWEST_DAYS = 60  # shared days below which nothing can be learned
PAIRED = 0.3  # correlation of area means that unpaired weather does not reach
SHIFT, SHIFT_ALONE = 0.1, 0.5  # gain in Fisher's z that speaks for another day
TURNED, MOVED = 0.1, 0.06  # gain in pattern correlation that speaks for a layout
LEAST_PATTERN = 0.3
SCRAMBLED, SAME_WEATHER = 0.15, 0.5
COARSER = 1.5  # ratio of cell sizes that makes a downscaling task
CLOSE_DEG = 1e-6


@dataclass(frozen=True)
class Finding:
    """Something that keeps a pair from being used, and what to do about it."""

    problem: str
    remedy: str


# Findings, and in plain words what is worth knowing.
Said = Iterator[Finding | str]


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What ``st-cdgm inspect --pair`` shows.

    Attributes
    ----------
    lr, hr : str
        Files.
    calendars : (str, str)
        CF calendars of both.
    shared_days, lr_only_days, hr_only_days : int
        Days in both and in one alone.
    period : str or None
        First and last shared day.
    cell_ratio : float
        Width of a coarse cell over that of a fine one.
    outside_share : float
        Share of fine cells that no coarse cell covers.
    short_deg : dict
        How far the coarse cells end short of the fine ones: ``south``, ``north``,
        ``west``, ``east``, degrees; 0 where they enclose them.
    days_compared : int
        Days whose values were compared.
    best_lag : int or None
        Days by which the coarse record has to be moved to fit; 0 in a sound pair.
    counterparts : tuple of Counterpart
        One per target.
    findings : tuple of Finding
        What keeps the pair from being used.
    notes : tuple of str
        What is worth knowing.
    """

    lr: str
    hr: str
    calendars: tuple[str, str]
    shared_days: int
    lr_only_days: int
    hr_only_days: int
    period: str | None
    cell_ratio: float
    outside_share: float
    short_deg: dict[str, float]
    days_compared: int
    best_lag: int | None
    counterparts: tuple[Counterpart, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing was found that keeps the pair from being used."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return {"usable": self.usable, **asdict(self)}


def inspect_pair(
    lr: Paths,
    hr: Paths,
    *,
    lr_variables: Sequence[str] | None = None,
    hr_variables: Sequence[str] | None = None,
) -> PairReport:
    """Compare predictors and targets: days, region, cell sizes, and the weather itself.

    Area means of the anomalies are correlated for lags of -5 to 5 days: a sound pair
    has its largest correlation on the same day, a record whose days are labelled
    wrongly elsewhere, a free-running model nowhere. Patterns are correlated for
    several layouts of the coarse values: turned, moved, axes exchanged. At most 730
    days are read, in blocks spread over the record.

    Parameters
    ----------
    lr, hr : str, Path or sequence of these
        Predictors and targets.
    lr_variables, hr_variables : sequence of str, optional
        As for training; all if None.

    Raises
    ------
    MissingFileError, MissingVariableError, InputError
        If one of the two cannot be used by itself.
    """
    coarse = read_channels(lr, variables=lr_variables)
    fine = read_targets(hr, variables=hr_variables)

    # Days and region tell whether the weather can be compared at all.
    shared = np.empty(0, np.int64)
    if coarse.days.calendar == fine.days.calendar:
        _, shared, _ = shared_steps(coarse.days, fine.days)
    short, outside = _shortfall(coarse.grid, fine.grid)
    ratio = cell_width(coarse.grid) / cell_width(fine.grid)
    said = [
        *_check_days(coarse.days, fine.days, len(shared)),
        *_check_region(short, outside, ratio),
    ]

    pairs: tuple[Counterpart, ...] = ()
    lag, compared = None, 0
    if len(shared) >= FEWEST_DAYS and not any(isinstance(s, Finding) for s in said):
        weather = PairedWeather(coarse, fine, some_days(shared, fine.grid))
        pairs = tuple(weather.compare(c) for c in range(len(fine.targets)))
        compared = len(weather.day)
        lag, more = _check_weather(pairs)
        said += more

    return PairReport(
        lr=coarse.file,
        hr=fine.file,
        calendars=(coarse.days.calendar, fine.days.calendar),
        shared_days=len(shared),
        lr_only_days=len(coarse.days) - len(shared),
        hr_only_days=len(fine.days) - len(shared),
        period=fine.days.select(shared).period() if len(shared) else None,
        cell_ratio=ratio,
        outside_share=outside,
        short_deg=short,
        days_compared=compared,
        best_lag=lag,
        counterparts=pairs,
        findings=tuple(s for s in said if isinstance(s, Finding)),
        notes=tuple(s for s in said if isinstance(s, str)),
    )


# -- Days and region -------------------------------------------------------------------


def _check_days(lr: CalendarDays, hr: CalendarDays, shared: int) -> Said:
    if lr.calendar != hr.calendar:
        # Then no day can be shared.
        yield Finding(
            f"the calendars differ: {lr.calendar} and {hr.calendar}",
            "convert one file (xarray: Dataset.convert_calendar), or set "
            "data.calendar_align for a standard and a noleap calendar",
        )
    elif not shared:
        yield Finding(
            f"no day is in both: {lr.period()} and {hr.period()}",
            "take files of the same period",
        )
    elif shared < FEWEST_DAYS:
        yield Finding(
            f"only {shared} days are in both, too few to learn from",
            f"take files that share at least {FEWEST_DAYS} days, better several years",
        )


def _shortfall(lr: Grid, hr: Grid) -> tuple[dict[str, float], float]:
    """How far the coarse cells end short on each side, and the share left outside."""
    north_south = 0.5 * _steps(lr.lat2d, 0)
    east_west = 0.5 * _steps(lr.lon2d, 1)
    lon = wrap_near(hr.lon2d, lr.lon)
    low, high = lr.lat.min() - north_south, lr.lat.max() + north_south
    west, east = lr.lon.min() - east_west, lr.lon.max() + east_west
    inside = (hr.lat2d >= low - CLOSE_DEG) & (hr.lat2d <= high + CLOSE_DEG)
    sides = {"south": low - hr.lat.min(), "north": hr.lat.max() - high}
    if not (lr.regular and is_global(lr.lon)):
        inside &= (lon >= west - CLOSE_DEG) & (lon <= east + CLOSE_DEG)
        sides |= {"west": west - lon.min(), "east": lon.max() - east}

    short = {side: round(max(float(by), 0.0), 6) for side, by in sides.items()}
    return short, float((~inside).mean())


def _steps(coordinate: Floats, axis: int) -> float:
    """Typical step of a coordinate along an axis, degrees."""
    steps = np.abs(np.diff(coordinate, axis=axis))
    return float(np.median(steps)) if steps.size else 0.0


def _check_region(short: dict[str, float], outside: float, ratio: float) -> Said:
    sides = ", ".join(f"{by:.3g} degrees in the {s}" for s, by in short.items() if by)
    if outside >= 0.5:
        yield Finding(
            f"the regions differ: {outside:.0%} of the fine cells lie outside the "
            f"coarse grid (short by {sides})",
            "take predictors of a region that encloses the targets",
        )
    elif outside > 0.0:
        yield (
            f"{outside:.0%} of the fine cells lie outside the coarse grid (short by "
            f"{sides}); the nearest coarse values are used there"
        )

    if ratio < COARSER:
        turned = ratio < 1.0 / COARSER
        yield Finding(
            "the predictors are not coarser than the targets: their cells are "
            f"{ratio:.2g} times as wide",
            "exchange the two files"
            if turned
            else "take coarser predictors or finer targets",
        )


# -- Verdict ---------------------------------------------------------------------------


def _check_weather(
    pairs: Sequence[Counterpart],
) -> tuple[int | None, list[Finding | str]]:
    """Return the lag of the best fit, None where none fits, and what to say."""
    lags = np.array([[r or 0.0 for r in pair.lag_correlations] for pair in pairs])
    if lags.max(initial=0.0) < PAIRED:
        unpaired = Finding(
            "the days are not paired: area means of predictors and targets correlate "
            f"with at most {lags.max(initial=0.0):.2f} at any lag of -5 to 5 days",
            "take a reanalysis, or a regional run driven by it, that shows the weather "
            "of the target days; a free-running climate model can only be downscaled "
            "with a model trained on such a pair",
        )
        return None, [unpaired]

    z = np.arctanh(np.minimum(lags, 0.999)).mean(axis=0)  # Fisher's z per lag
    zero, best = LAGS.index(0), int(z.argmax())
    certain = SHIFT_ALONE if len(pairs) == 1 and abs(LAGS[best]) == 1 else SHIFT
    if float(z[best] - z[zero]) > certain:
        correlation = lags.mean(axis=0)
        return LAGS[best], [_shift(LAGS[best], correlation[zero], correlation[best])]

    return 0, [*_lag_notes(pairs), *_mean_notes(pairs), *_check_layout(pairs)]


def _shift(lag: int, given: float, best: float) -> Finding:
    days = f"{abs(lag)} day" + ("s" if abs(lag) > 1 else "")
    side = "later" if lag > 0 else "earlier"
    return Finding(
        f"the predictors are shifted: they fit the targets best {days} {side} "
        f"(correlation {best:.2f} instead of {given:.2f})",
        f"move the predictors' time axis by {-lag} days (cdo shifttime,{-lag}day), or "
        "find out how either file labels its days",
    )


def _lag_notes(pairs: Sequence[Counterpart]) -> Iterator[str]:
    """Say which targets fit another day better although the pair as a whole does not.

    A minimum temperature of the early morning, or fields of 00 UTC, can resemble the
    day before as much as the day itself.
    """
    for pair in pairs:
        known = [r or 0.0 for r in pair.lag_correlations]
        best = int(np.argmax(known))
        if LAGS[best] != 0 and known[best] >= PAIRED:
            yield (
                f"{pair.target} resembles the predictors of {LAGS[best]:+d} day "
                f"({known[best]:.2f}) more than those of the same day "
                f"({known[LAGS.index(0)]:.2f}): its day may begin at another hour"
            )


def _mean_notes(pairs: Sequence[Counterpart]) -> Iterator[str]:
    """Say where the means of one quantity differ so much that units may be wrong."""
    for pair in pairs:
        fine, coarse = pair.target_mean, pair.channel_mean
        if not pair.same_quantity or fine is None or coarse is None:
            continue
        ratio = coarse / fine if fine else 1.0
        rain = pair.target_units == "mm day-1" and not 0.25 <= ratio <= 4.0
        warmth = pair.target_units == "degC" and abs(coarse - fine) > 15.0
        if rain or warmth:
            yield (
                f"the means of {pair.channel} ({coarse:.3g} {pair.target_units}) and "
                f"{pair.target} ({fine:.3g}) differ much: check the units"
            )


def _check_layout(pairs: Sequence[Counterpart]) -> Said:
    known = [p for p in pairs if p.same_quantity and p.pattern is not None]
    if not known:
        yield (
            "places were not compared: no predictor is of a target's quantity, or the "
            f"targets lie in fewer than {FEWEST_CELLS} coarse cells"
        )

    turned = [pair for pair in known if _turned(pair)]
    for layout in dict.fromkeys(pair.best_layout for pair in turned):
        yield _misplaced([p for p in turned if p.best_layout == layout])

    # Where no other layout fits, patterns may have nothing in common at all.
    rest = [pair for pair in known if not _turned(pair)]
    lost = [pair for pair in rest if _scrambled(pair)]
    if lost:
        worst = min(lost, key=lambda p: p.pattern or 0.0)
        yield Finding(
            f"{_names(lost)} of the predictors: scrambled in space; the area mean "
            f"follows {worst.target} (correlation {worst.correlation:.2f}), the "
            f"patterns do not ({worst.pattern:.2f})",
            "look at a map of one day; the values are probably written in another "
            "order than the coordinates",
        )
    for pair in rest:
        if not _scrambled(pair) and (pair.pattern or 0.0) < LEAST_PATTERN:
            yield (
                f"patterns of {pair.channel} and {pair.target} have little in common "
                f"(correlation {pair.pattern:.2f})"
            )


def _turned(pair: Counterpart) -> bool:
    """Whether another layout of the coarse values fits clearly better."""
    given, best = pair.pattern or 0.0, pair.best_pattern or 0.0
    least = MOVED if pair.best_layout.startswith("moved") else TURNED
    return best - given > least and best >= LEAST_PATTERN


def _scrambled(pair: Counterpart) -> bool:
    """Whether area means agree while patterns do not."""
    alike = (pair.correlation or 0.0) >= SAME_WEATHER
    return alike and (pair.pattern or 0.0) < SCRAMBLED


def _misplaced(pairs: Sequence[Counterpart]) -> Finding:
    """Say that one layout fits these pairs better."""
    best = max(pairs, key=lambda p: (p.best_pattern or 0.0) - (p.pattern or 0.0))
    return Finding(
        f"{_names(pairs)} of the predictors: the values are not where the coordinates "
        f"say; they fit the targets better with {best.best_layout} (correlation of "
        f"patterns {best.best_pattern:.2f} instead of {best.pattern:.2f})",
        "rearrange the values so, or correct the coordinates; inspect again",
    )


def _names(pairs: Sequence[Counterpart]) -> str:
    return ", ".join(dict.fromkeys(pair.channel for pair in pairs))
