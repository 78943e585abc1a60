"""What a report draws besides numbers: spectra, rank histograms, a few days.

Layout of ``diagnostics.nc`` (missing values NaN):

========================  ==============================================  =============
variable                  dimensions                                      units
========================  ==============================================  =============
``spectra``               source, variable, wavenumber                    squared
``truth_spectrum``        variable, wavenumber                            squared
``variograms``            source, variable, lag                           squared
``truth_variogram``       variable, lag                                   squared
``rank_histogram``        source, variable, rank                          1 (sum 1)
``rank_histogram_scale``  source, variable, block, window, rank           1 (sum 1)
``..._low``, ``..._high`` the same                                        1
``quantiles``             source, variable, level                         variable's
``truth_quantiles``       variable, level                                 variable's
``crps_daily``            source, variable, time                          variable's
``truth``                 case, variable, y, x                            variable's
``baseline`` (optional)   case, variable, y, x                            variable's
``mean``, ``spread``      source, case, variable, y, x                    variable's
``members``               source, member, case, variable, y, x            variable's
``sftlf`` (optional)      y, x                                            1
========================  ==============================================  =============

Coordinates: ``source`` (names, the model first), ``variable`` (names), ``units``
(variable), ``ensemble_size`` (source), ``wavenumber`` (cycles per grid cell), ``lag``
(cells), ``block`` (cells a side, 0 the domain), ``window`` (consecutive days),
``level`` (of quantiles), ``case`` (``wettest``, ``coldest`` ...), ``day`` (case;
YYYYMMDD), ``why`` (case; the rule that chose the day and its value), ``member`` (0, 1,
2) and those of the grid, whose dimensions keep their names (``lat``, ``lon``, or
``rlat``, ``rlon`` ...); of the scored days ``time`` and ``scored_day`` (time;
YYYYMMDD). A rank histogram of M members fills the first M + 1 ranks;
``rank_histogram_scale_low`` and ``..._high`` are its 95 % intervals over days. Spectra
are of days on which every cell is counted, variograms of the others. ``spread`` is the
standard deviation (with M - 1). ``crps_daily`` is the area mean of the fair CRPS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from st_cdgm.data.time.calendar import ORIGIN
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import PRECIPITATION, TEMPERATURE
from st_cdgm.evaluation.alignment import Aligned
from st_cdgm.evaluation.metrics.calibration.windows import BLOCKS, WINDOWS, Scale
from st_cdgm.evaluation.metrics.quantiles import LEVELS
from st_cdgm.evaluation.metrics.variograms import LAGS
from st_cdgm.evaluation.scoring import Shown
from st_cdgm.evaluation.source import Source
from st_cdgm.outputs import write_atomically
from st_cdgm.typing import FloatArray, Floats

SHOWN_MEMBERS = 3

Key = tuple[str, str]  # source, variable


@dataclass(frozen=True)
class Case:
    """A day to show."""

    index: int  # among the scored days
    label: str  # wettest, coldest, warmest, lowest, highest or median
    why: str  # the rule and the value it found


def choose_cases(
    means: Mapping[str, Floats], targets: Sequence[TargetVariable]
) -> list[Case]:
    """Choose days by the truth alone, before any forecast is looked at.

    The wettest day (largest area mean of precipitation), the coldest and the warmest
    (of the first temperature), and the day whose area mean of the first variable is the
    median. Without precipitation and temperature: lowest and highest of the first
    variable. A day chosen twice is shown once, with both labels.

    Parameters
    ----------
    means : mapping of str to ndarray
        Area mean of the truth per day, NaN on days without truth. Shape ``(T,)``.
    targets : sequence of TargetVariable
        The variables.
    """
    rows = {t.name: t.row for t in targets}
    kinds = {name: row and row.quantity for name, row in rows.items()}
    wet = [t for t in targets if kinds[t.name] is PRECIPITATION]
    warm = [t for t in targets if kinds[t.name] is TEMPERATURE]
    rules: list[tuple[str, TargetVariable, float]] = []
    rules += [("wettest", t, 1.0) for t in wet[:1]]
    rules += [(n, t, q) for t in warm[:1] for n, q in (("coldest", 0), ("warmest", 1))]
    if not rules:
        rules = [("lowest", targets[0], 0.0), ("highest", targets[0], 1.0)]
    rules.append(("median", targets[0], 0.5))

    cases: dict[int, Case] = {}
    for label, target, q in rules:
        index = _day_of_quantile(means[target.name], q)
        if index is None:
            continue

        value = means[target.name][index]
        rank = {0.0: "smallest", 0.5: "median", 1.0: "largest"}[q]
        why = f"{rank} area mean of {target.name}: {value:.3g} {target.units}"
        if known := cases.get(index):
            label, why = f"{known.label}, {label}", f"{known.why}; {why}"
        cases[index] = Case(index, label, why)
    return list(cases.values())


def _day_of_quantile(values: Floats, q: float) -> int | None:
    known = np.flatnonzero(np.isfinite(values))
    if known.size == 0:
        return None
    order = known[np.argsort(values[known], kind="stable")]
    return int(order[int(q * (order.size - 1))])


def build_diagnostics(
    aligned: Aligned,
    shown: Mapping[Key, Shown],
    *,
    baseline: Source | None = None,
    land: FloatArray | None = None,
) -> xr.Dataset:
    """Assemble the data set described at the top of this module."""
    means = {t.name: _area_mean(aligned, t.name) for t in aligned.targets}
    cases = choose_cases(means, aligned.targets)
    fields = _fields(aligned, cases, baseline)
    if land is not None:
        grid = aligned.truth.grid
        about = {"standard_name": "land_area_fraction", "units": "1"}
        fields["sftlf"] = ((grid.y_name, grid.x_name), land, about)

    wavenumber = next(iter(shown.values())).spectrum.wavenumber
    return xr.Dataset(
        _curves(aligned, shown)
        | _ranks(aligned, shown)
        | {"crps_daily": _daily(aligned, shown)}
        | fields,
        coords=_coordinates(aligned, cases, wavenumber),
        attrs={
            "title": "Evaluation diagnostics",
            "Conventions": "CF-1.11",
            "period": aligned.days.period(),
            "calendar": aligned.days.calendar,
        },
    )


def _area_mean(aligned: Aligned, variable: str) -> Floats:
    pair = aligned.pair(aligned.truth, variable)
    out = np.full(len(aligned.days), np.nan)
    for days in pair.slices():
        truth = pair.reference(days).astype(np.float64)
        weight = np.where(np.isfinite(truth), pair.weights, 0)
        total = weight.sum(axis=(1, 2))
        mean = (weight * np.nan_to_num(truth)).sum(axis=(1, 2))
        out[days] = np.where(total > 0, mean / np.where(total > 0, total, 1), np.nan)
    return out


def _coordinates(
    aligned: Aligned, cases: Sequence[Case], wavenumber: Floats
) -> dict[str, tuple[object, ...]]:
    days = aligned.days
    wave_attrs = {"units": "1", "long_name": "cycles per grid cell"}
    index = np.array([case.index for case in cases], dtype=np.int64)

    # Names, axes of the curves, the cases, and the scored days.
    coords: dict[str, tuple[object, ...]] = {
        "source": ("source", [s.name for s in aligned.sources]),
        "ensemble_size": ("source", [s.members for s in aligned.sources]),
        "variable": ("variable", [t.name for t in aligned.targets]),
        "units": ("variable", [t.units for t in aligned.targets]),
        "wavenumber": ("wavenumber", wavenumber, wave_attrs),
        "lag": ("lag", list(LAGS), {"units": "1", "long_name": "grid cells"}),
        "block": ("block", list(BLOCKS), {"long_name": "cells a side, 0: the domain"}),
        "window": ("window", list(WINDOWS), {"long_name": "consecutive days"}),
        "level": ("level", list(LEVELS), {"units": "1"}),
        "case": ("case", [case.label for case in cases]),
        "why": ("case", [case.why for case in cases]),
        "day": ("case", days.day[index], {"long_name": "day as YYYYMMDD"}),
        "member": ("member", np.arange(SHOWN_MEMBERS)),
        "time": (
            "time",
            days.ordinal,
            {"standard_name": "time", "units": ORIGIN, "calendar": days.calendar},
        ),
        "scored_day": ("time", days.day, {"long_name": "day as YYYYMMDD"}),
    }
    return coords | dict(aligned.truth.grid.coords())


def _curves(
    aligned: Aligned, shown: Mapping[Key, Shown]
) -> dict[str, tuple[object, ...]]:
    """Return spectra, variograms and quantiles, of the sources and of the truth."""
    found: dict[str, tuple[object, ...]] = {}
    for name, of_truth, axis, about in (
        ("spectra", "truth_spectrum", "wavenumber", "mean power per mode, squared"),
        ("variograms", "truth_variogram", "lag", "semivariance, squared"),
        ("quantiles", "truth_quantiles", "level", "quantile of all values"),
    ):
        curves = {key: _curve(part, name) for key, part in shown.items()}
        size = next(iter(curves.values()))[1].size
        shape = (len(aligned.sources), len(aligned.targets), size)
        sources, truth = np.full(shape, np.nan), np.full(shape[1:], np.nan)
        for key, (forecast, reference) in curves.items():
            at = _place(aligned, key)
            sources[at], truth[at[1]] = forecast, reference

        attrs = _attrs(about, "units of the variable")
        found[name] = (("source", "variable", axis), sources, attrs)
        found[of_truth] = (("variable", axis), truth, attrs)
    return found


def _curve(shown: Shown, name: str) -> tuple[Floats, Floats]:
    """Return a curve of the forecast and of the truth."""
    if name == "spectra":
        return shown.spectrum.forecast.mean(axis=0), shown.spectrum.reference
    part = shown.variogram if name == "variograms" else shown.quantiles
    return part.forecast, part.reference


def _ranks(
    aligned: Aligned, shown: Mapping[Key, Shown]
) -> dict[str, tuple[object, ...]]:
    """Return rank histograms; an ensemble of fewer members fills the first ranks."""
    most = max(source.members for source in aligned.sources) + 1
    scales = (len(BLOCKS), len(WINDOWS))
    shape = (len(aligned.sources), len(aligned.targets), *scales, most)
    shares, low, high = (np.full(shape, np.nan) for _ in range(3))
    for key, part in shown.items():
        for (b, block), (w, days) in product(enumerate(BLOCKS), enumerate(WINDOWS)):
            ranks = part.scales[Scale(block, days)].ranks
            for out, values in zip((shares, low, high), ranks, strict=True):
                out[(*_place(aligned, key), b, w, slice(values.size))] = values

    about = _attrs("relative frequency of the rank of the truth", "1")
    dims = ("source", "variable", "block", "window", "rank")
    return {
        "rank_histogram": ((*dims[:2], "rank"), shares[:, :, 0, 0], about),
        "rank_histogram_scale": (dims, shares, about),
        "rank_histogram_scale_low": (dims, low, about),
        "rank_histogram_scale_high": (dims, high, about),
    }


def _daily(aligned: Aligned, shown: Mapping[Key, Shown]) -> tuple[object, ...]:
    shape = (len(aligned.sources), len(aligned.targets), len(aligned.days))
    out = np.full(shape, np.nan)
    for key, part in shown.items():
        out[_place(aligned, key)] = part.daily.value
    about = _attrs("area mean of the fair CRPS per day", "units of the variable")
    return ("source", "variable", "time"), out, about


def _attrs(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}


def _place(aligned: Aligned, key: Key) -> tuple[int, int]:
    """Return the index of a source and of a variable."""
    sources = [s.name for s in aligned.sources]
    return sources.index(key[0]), [t.name for t in aligned.targets].index(key[1])


def _fields(
    aligned: Aligned, cases: Sequence[Case], baseline: Source | None
) -> dict[str, tuple[object, ...]]:
    grid = aligned.truth.grid
    names = [t.name for t in aligned.targets]
    plane = ("case", "variable", grid.y_name, grid.x_name)
    shape = (len(cases), len(names), *grid.shape)
    S = len(aligned.sources)
    truth = np.full(shape, np.nan, np.float32)
    mean, spread = (np.full((S, *shape), np.nan, np.float32) for _ in range(2))
    members = np.full((S, SHOWN_MEMBERS, *shape), np.nan, np.float32)

    for (c, case), (v, name) in product(enumerate(cases), enumerate(names)):
        day = np.array([case.index])
        truth[c, v] = aligned.truth.read(name, day)[0, 0]
        for s, source in enumerate(aligned.sources):
            if name not in source.fields:
                continue
            ensemble = source.read(name, day)[0]  # (M, Y, X)
            shown = ensemble[:SHOWN_MEMBERS]
            members[s, : len(shown), c, v] = shown
            # The mean and the spread are of all members, also those not shown.
            mean[s, c, v] = ensemble.mean(axis=0, dtype=np.float64)
            if len(ensemble) > 1:
                spread[s, c, v] = ensemble.std(axis=0, ddof=1, dtype=np.float64)

    fields: dict[str, tuple[object, ...]] = {
        "truth": (plane, truth),
        "mean": (("source", *plane), mean),
        "spread": (("source", *plane), spread),
        "members": (("source", "member", *plane), members),
    }
    if baseline is not None:
        fields["baseline"] = (plane, _baseline_fields(aligned, cases, baseline, shape))
    return fields


def _baseline_fields(
    aligned: Aligned, cases: Sequence[Case], baseline: Source, shape: tuple[int, ...]
) -> FloatArray:
    out = np.full(shape, np.nan, np.float32)
    for c, case in enumerate(cases):
        at = np.flatnonzero(baseline.days.day == aligned.days.day[case.index])
        for v, target in enumerate(aligned.targets):
            if at.size and target.name in baseline.fields:
                out[c, v] = baseline.read(target.name, at)[0, 0]
    return out


def write_diagnostics(dataset: xr.Dataset, path: Path) -> Path:
    """Write the data set as compressed NetCDF-4, whole or not at all."""
    numbers = [n for n, v in dataset.data_vars.items() if v.dtype.kind == "f"]
    encoding = {name: {"zlib": True, "complevel": 1} for name in numbers}
    return write_atomically(
        path,
        lambda p: dataset.to_netcdf(
            p, engine="netcdf4", format="NETCDF4", encoding=encoding
        ),
    )
