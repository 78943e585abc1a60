"""Split a record into training, validation and test days."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np

from st_cdgm.data.time.calendar import DAY, CalendarDays
from st_cdgm.data.time.periods import parse_period, period_days
from st_cdgm.errors import ConfigError, InputError, check_between, check_least
from st_cdgm.typing import Indices

logger = logging.getLogger(__name__)
SPLITS = ("train", "validation", "test")
SplitKind = Literal["none", "periods", "years", "folds"]
_SECTION = "data.splits."
MIN_FOLDS = 3  # one block to test, one to validate, the rest to train


@dataclass(kw_only=True)
class SplitConfig:
    """The three splits: by period, by list of years, or by blocks of years (folds).

    Only one of the three ways may be given.

    Attributes
    ----------
    train, validation, test : list of str
        ``[start, end]``, both included, as ``YYYY-MM-DD`` (or ``YYYY-MM``, ``YYYY``;
        with steps shorter than a day also ``YYYY-MM-DDThh:mm``). An empty list leaves
        the split out; ``train`` is needed.
    train_years, validation_years, test_years : list of int
        The years of each split, in any order; ``train_years`` is needed.
    folds, fold : int
        Number of blocks of consecutive years into which the record is cut, at least 3,
        and which of them is the test block, from 0. The next block (after the last, the
        first) is for validation, the others are for training.
    season_start_month : int
        Month in which a year begins, for lists and folds. A year is named after the
        calendar year in which it ends: with 12, the winter 1991/92 belongs to 1992
        (December 1991 to November 1992). 1 gives calendar years.
    embargo_days : int
        Days kept free between two splits, on every border. They are taken from the
        training days before the validation days, and never from the test days.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    train_years: list[int] = field(default_factory=list)
    validation_years: list[int] = field(default_factory=list)
    test_years: list[int] = field(default_factory=list)
    folds: int = 0
    fold: int = 0
    season_start_month: int = 1
    embargo_days: int = 0

    def kind(self) -> SplitKind:
        """Return which of the ways is given.

        Raises
        ------
        ConfigError
            If it is more than one.
        """
        ways: dict[SplitKind, Any] = {
            "periods": self.train or self.validation or self.test,
            "years": self.train_years or self.validation_years or self.test_years,
            "folds": self.folds,
        }
        chosen = [way for way, given in ways.items() if given]
        if len(chosen) > 1:
            raise ConfigError(
                "the splits are given in more than one way",
                variable="data.splits",
                found=" and ".join(chosen),
                expected="periods (train, ...), years (train_years, ...) or folds",
                remedy="keep one of them",
            )

        return chosen[0] if chosen else "none"

    def given(self) -> bool:
        """Whether any split is given."""
        return self.kind() != "none"

    def names(self) -> tuple[str, ...]:
        """Names of the splits that the configuration gives."""
        kind = self.kind()
        if kind == "folds":
            return SPLITS
        suffix = "_years" if kind == "years" else ""
        return tuple(name for name in SPLITS if getattr(self, f"{name}{suffix}"))

    def check(self) -> None:
        """Raise ConfigError unless the splits are whole, in order and disjoint."""
        kind = self.kind()
        if kind == "folds":
            check_least("folds", self.folds, MIN_FOLDS, section=_SECTION)
            check_between("fold", self.fold, 0, self.folds - 1, section=_SECTION)
        elif kind == "years":
            self._check_years()
        else:
            self._check_periods()

        if self.embargo_days < 0:
            check_least("embargo_days", self.embargo_days, 0, section=_SECTION)
        month = self.season_start_month
        if month not in range(1, 13):
            check_between("season_start_month", month, 1, 12, section=_SECTION)

    def periods(self) -> dict[str, list[str]]:
        """Return ``[start, end]`` of every split, as far as known without the record.

        Lists of years give ``[start, end, start, end, ...]``, one pair per run of
        years, as ``YYYY-MM``. Folds depend on the record and give nothing here: see
        :func:`described_periods`.
        """
        if self.kind() == "years":
            return {name: self._year_periods(name) for name in self.names()}
        named = {name: [str(d) for d in getattr(self, name)] for name in SPLITS}
        return {name: period for name, period in named.items() if period}

    def describe(self) -> dict[str, Any]:
        """Return the splits as they were given, for a protocol (JSON)."""
        kind = self.kind()
        out: dict[str, Any] = dict(self.periods()) if kind == "periods" else {}
        if kind == "years":
            keys = [f"{name}_years" for name in self.names()]
            out = {key: [int(year) for year in getattr(self, key)] for key in keys}
        if kind == "folds":
            out = {"folds": self.folds, "fold": self.fold}
        if kind in ("years", "folds") and self.season_start_month != 1:
            out["season_start_month"] = self.season_start_month
        return out

    def _check_periods(self) -> None:
        if not self.train:
            raise ConfigError(
                "the training period is missing",
                variable="data.splits.train",
                expected="[start, end], e.g. [1991-01-01, 1999-12-31]",
            )

        periods, bounds = self.periods(), []
        for name, period in periods.items():
            variable = f"data.splits.{name}"
            if len(period) != 2:
                raise ConfigError(
                    "a period needs a start and an end",
                    variable=variable,
                    found=period,
                    expected="[start, end]",
                )
            bounds.append((*parse_period(*period, variable=variable), name))

        # One must have ended before the next begins.
        for (_, end, name), (start, _, other) in pairwise(sorted(bounds)):
            if start <= end:
                raise ConfigError(
                    "two splits share days",
                    variable=f"data.splits.{other}",
                    found=f"{name} {periods[name]}, {other} {periods[other]}",
                    expected="periods without a common day",
                )

    def _check_years(self) -> None:
        if not self.train_years:
            raise ConfigError(
                "the training years are missing",
                variable="data.splits.train_years",
                expected="a list of years, e.g. [1991, 1992]",
            )

        owner: dict[int, str] = {}
        for name in SPLITS:
            for year in getattr(self, f"{name}_years"):
                if year in owner:
                    raise ConfigError(
                        "a year is listed twice",
                        variable=f"data.splits.{name}_years",
                        found=f"{year} in {owner[year]}_years and {name}_years",
                        expected="every year in one list, once",
                    )
                owner[year] = name

    def _year_periods(self, name: str) -> list[str]:
        """Return first and last month of every run of listed years."""
        years = np.unique(np.asarray(getattr(self, f"{name}_years"), np.int64))
        runs = np.split(years, np.flatnonzero(np.diff(years) > 1) + 1)
        month = self.season_start_month
        early = int(month > 1)  # the year begins in the calendar year before
        out: list[str] = []
        for run in runs:
            start = f"{run[0] - early:04d}-{month:02d}"
            out += [start, f"{run[-1]:04d}-{month - 1 or 12:02d}"]
        return out


def season_years(day: Indices, start_month: int = 1) -> Indices:
    """Return the year of each day; see ``SplitConfig.season_start_month``."""
    later = (start_month > 1) & (day // 100 % 100 >= start_month)
    return day // 10000 + later


def split_days(
    days: CalendarDays, config: SplitConfig, *, file: str | None = None
) -> dict[str, Indices]:
    """Return the indices of the days of each split, the embargo between them.

    A split may be in several pieces; windows of consecutive days made of its own days
    never cross from one piece to the next.

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test`` to increasing int64 indices; empty for a
        split that is not given.

    Raises
    ------
    ConfigError
        If the splits overlap or cannot be understood.
    InputError
        If a split has no day in the record, or the embargo leaves none.
    """
    config.check()
    kind = config.kind()
    choose = _by_period if kind in ("none", "periods") else _by_year
    out = {name: np.empty(0, dtype=np.int64) for name in SPLITS}
    out |= choose(days, config, file)
    # The later name of the pair is the one that keeps its days.
    free = config.embargo_days * DAY // days.step_seconds
    for i, name in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            out[name] = _keep_away(days, out[name], out[other], free)
    for name in config.names():
        if not len(out[name]):
            raise InputError(
                f"the embargo leaves no day in {name}",
                file=file,
                found=f"embargo of {config.embargo_days} days",
                remedy="shorten data.splits.embargo_days or lengthen the period",
            )
    return out


def _by_period(
    days: CalendarDays, config: SplitConfig, file: str | None
) -> dict[str, Indices]:
    out = {
        name: period_days(
            days.key,
            start,
            end,
            file=file,
            calendar=days.calendar,
            variable=f"data.splits.{name}",
        )
        for name, (start, end) in config.periods().items()
    }
    everything = np.concatenate(list(out.values()))
    if len(np.unique(everything)) < len(everything):  # hours of a day, daily data
        raise ConfigError(
            "two splits share days",
            variable="data.splits",
            found=str(config.periods()),
            expected="periods without a common day, as the data are daily",
        )

    return out


def _by_year(
    days: CalendarDays, config: SplitConfig, file: str | None
) -> dict[str, Indices]:
    label = season_years(days.day, config.season_start_month)
    known = np.unique(label)
    if config.kind() == "folds":
        wanted = _fold_years(known, config, file)
    else:
        wanted = {n: getattr(config, f"{n}_years") for n in config.names()}

    out: dict[str, Indices] = {}
    for name, years in wanted.items():
        absent = sorted(set(map(int, years)) - set(known.tolist()))
        out[name] = np.flatnonzero(np.isin(label, years)).astype(np.int64)
        if not len(out[name]):
            raise InputError(
                f"no day lies in the {name} years",
                file=file,
                found=f"the years {', '.join(map(str, known.tolist()))}",
                expected=f"days in {', '.join(map(str, years))}",
                remedy=f"choose data.splits.{name}_years of which the file has days",
            )
        if absent:
            logger.warning("%s: no day in the %s years %s", file, name, absent)

    return out


def _fold_years(
    known: Indices, config: SplitConfig, file: str | None
) -> dict[str, Indices]:
    """Return the years of each split of one fold."""
    if len(known) < config.folds:
        raise InputError(
            "the record has fewer years than folds",
            file=file,
            variable="data.splits.folds",
            found=f"{len(known)} years, {config.folds} folds",
            expected="at least one year per fold",
            remedy="lower data.splits.folds",
        )
    blocks = np.array_split(known, config.folds)
    test, validation = config.fold, (config.fold + 1) % config.folds
    rest = [b for i, b in enumerate(blocks) if i not in (test, validation)]
    chosen = (np.concatenate(rest), blocks[validation], blocks[test])
    return dict(zip(SPLITS, chosen, strict=True))


def _keep_away(
    days: CalendarDays, index: Indices, other: Indices, free: int
) -> Indices:
    """Drop the steps of ``index`` with at most ``free`` steps to one of ``other``."""
    if not len(other) or not len(index):
        return index
    own, theirs = days.ordinal[index], days.ordinal[other]
    after = np.searchsorted(theirs, own)
    to_next = theirs[np.minimum(after, len(theirs) - 1)] - own
    to_last = own - theirs[np.maximum(after - 1, 0)]
    distance = np.minimum(np.abs(to_next), np.abs(to_last))
    return cast("Indices", index[distance > free])
