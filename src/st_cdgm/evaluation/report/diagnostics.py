"""The content of ``diagnostics.nc`` as the figures of a report need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.evaluation.metrics.calibration.windows import Scale
from st_cdgm.evaluation.report.maps import DayMaps, MapGrid
from st_cdgm.evaluation.scorecard import BOUNDS
from st_cdgm.typing import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownDay:
    """One day shown as maps, with the rule that chose it."""

    day: str
    label: str
    why: str
    fields: list[DayMaps]


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnostics:
    """The content of ``diagnostics.nc``.

    Attributes
    ----------
    grid : MapGrid
        Fine grid.
    cases : list of ShownDay
        Days to show.
    units : dict
        Variable to units.
    wavenumber : ndarray
        Cycles per grid cell. Shape ``(K,)``.
    truth_spectrum : dict
        Variable to mean power, shape ``(K,)``.
    spectra, ranks : dict
        Variable to source to mean power, shape ``(K,)``, or to the rank histogram of M
        members, shape ``(M + 1,)``; only sources that have one.
    scale_ranks : dict
        Variable to scale to the rank histogram of the first source, with its bounds.
        Shape ``(3, M + 1)``.
    variograms, quantiles : Curves
        At so many cells, and at these levels; empty in files of earlier versions.
    """

    grid: MapGrid
    cases: list[ShownDay]
    units: dict[str, str]
    wavenumber: Floats
    truth_spectrum: dict[str, Floats]
    spectra: dict[str, dict[str, Floats]]
    ranks: dict[str, dict[str, Floats]]
    scale_ranks: dict[str, dict[Scale, Floats]] = field(default_factory=dict)
    variograms: Curves | None = None
    quantiles: Curves | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Curves of the truth and of the sources on one axis.

    Attributes
    ----------
    axis : ndarray
        Shape ``(K,)``.
    truth : dict
        Variable to a curve, shape ``(K,)``; only where it is known.
    sources : dict
        Variable to source to a curve.
    """

    axis: Floats
    truth: dict[str, Floats]
    sources: dict[str, dict[str, Floats]]


def read_diagnostics(path: Path) -> Diagnostics:
    """Read the file; parts that an earlier version did not write are empty."""
    with xr.open_dataset(path, decode_times=False) as dataset:
        data = dataset.load()
    names = [str(name) for name in data["variable"].values]
    sources = [str(name) for name in data["source"].values]
    units = dict(zip(names, map(str, data["units"].values), strict=True))
    sizes = data["ensemble_size"].values

    # Only sources that have one: a single member has no ranks.
    spectra: dict[str, dict[str, Floats]] = {name: {} for name in names}
    ranks: dict[str, dict[str, Floats]] = {name: {} for name in names}
    for (v, name), (s, source) in product(enumerate(names), enumerate(sources)):
        power = data["spectra"].values[s, v]
        if np.isfinite(power).any():
            spectra[name][source] = power
        counts = data["rank_histogram"].values[s, v, : int(sizes[s]) + 1]
        if sizes[s] > 1 and np.isfinite(counts).all():
            ranks[name][source] = counts

    truth = data["truth_spectrum"].values
    return Diagnostics(
        grid=_map_grid(data, path),
        cases=[_case(data, c, units) for c in range(data.sizes["case"])],
        units=units,
        wavenumber=np.asarray(data["wavenumber"].values, dtype=np.float64),
        truth_spectrum={name: truth[v] for v, name in enumerate(names)},
        spectra=spectra,
        ranks=ranks,
        scale_ranks=_scale_ranks(data, names, int(sizes[0])),
        variograms=_curves(data, "lag", "variograms", "truth_variogram"),
        quantiles=_curves(data, "level", "quantiles", "truth_quantiles"),
    )


def _curves(data: xr.Dataset, axis: str, name: str, of_truth: str) -> Curves | None:
    """Return the curves that are known; None where the file has none."""
    if name not in data:
        return None
    variables = [str(variable) for variable in data["variable"].values]
    truth = dict(zip(variables, data[of_truth].values, strict=True))

    return Curves(
        axis=data[axis].values.astype(np.float64),
        truth={v: curve for v, curve in truth.items() if np.isfinite(curve).any()},
        sources={
            v: {
                str(source): curve
                for source, curve in zip(
                    data["source"].values, data[name].values[:, i], strict=True
                )
                if np.isfinite(curve).any()
            }
            for i, v in enumerate(variables)
        },
    )


def _scale_ranks(
    data: xr.Dataset, names: list[str], members: int
) -> dict[str, dict[Scale, Floats]]:
    """Return the rank histograms of the first source at every scale."""
    if "rank_histogram_scale" not in data or members < 2:
        return {}
    parts = ("rank_histogram_scale", *(f"rank_histogram_scale_{b}" for b in BOUNDS))
    values = np.stack([data[part].values[0] for part in parts], axis=-2)
    scales = list(product(data["block"].values, data["window"].values))

    found: dict[str, dict[Scale, Floats]] = {}
    for name, variable in zip(names, values, strict=True):
        ranks = variable.reshape(len(scales), 3, -1)[..., : members + 1]
        found[name] = {
            Scale(int(block), int(days)): own
            for (block, days), own in zip(scales, ranks, strict=True)
            if np.isfinite(own[0]).all()
        }
    return found


def _map_grid(data: xr.Dataset, path: Path) -> MapGrid:
    grid = read_grid(data, file=path, variable="truth")
    land = None
    if "sftlf" in data and data["sftlf"].shape == grid.shape:
        fraction = data["sftlf"].values.astype(np.float64)
        # CMIP files give per cent, others a fraction.
        land = fraction / 100 if np.nanmax(fraction) > 1.5 else fraction
    return MapGrid(lat=grid.lat2d, lon=grid.lon2d, land=land)


def _case(data: xr.Dataset, case: int, units: Mapping[str, str]) -> ShownDay:
    number = int(data["day"].values[case])
    day = f"{number // 10000:04d}-{number // 100 % 100:02d}-{number % 100:02d}"

    fields = [
        DayMaps(
            variable=name,
            units=units[name],
            day=day,
            truth=_plane(data, "truth", (case, v)),
            baseline=_plane(data, "baseline", (case, v)),
            mean=_plane(data, "mean", (0, case, v)),
            spread=_plane(data, "spread", (0, case, v)),
            members=_members(data, case, v),
        )
        for v, name in enumerate(units)
    ]

    return ShownDay(
        day=day,
        label=str(data["case"].values[case]),
        why=str(data["why"].values[case]) if "why" in data else "",
        fields=fields,
    )


def _plane(data: xr.Dataset, name: str, index: tuple[int, ...]) -> Floats | None:
    """Return one map of the first source, None where it was not stored."""
    if name not in data:
        return None
    plane = data[name].values[index].astype(np.float64)
    return plane if np.isfinite(plane).any() else None


def _members(data: xr.Dataset, case: int, variable: int) -> Floats:
    members = data["members"].values[0, :, case, variable].astype(np.float64)
    return np.asarray(members[np.isfinite(members).any(axis=(1, 2))])
