"""One field of a file: its range, its missing values, and where they are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from st_cdgm.data.files.open import file_label
from st_cdgm.data.inspect.roles import cell_width, number, one_line
from st_cdgm.data.inspect.scrambling import Arrangement, Order, arrangement
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.axis import iso
from st_cdgm.data.variables.levels import level_of, level_values, vertical_name
from st_cdgm.data.variables.limits import physical_limits
from st_cdgm.data.variables.table import Quantity, quantity_of
from st_cdgm.data.variables.units import canonical_units, conversion
from st_cdgm.errors import InputError

MOST_STEPS = 120  # steps whose arrangement is looked at
MOST_VALUES = 10**6  # values of them
BLOCK_VALUES = 5 * 10**6  # values read at once to find a place


@dataclass(frozen=True, kw_only=True)
class OutOfRange:
    """Values outside the physical range, in the units of the file.

    There are ``count``, a ``share`` of all values, on ``steps`` time steps. ``worst``
    are the lowest below and the highest above the ``limits``, each with its ``place``:
    coordinates by name, dates as ISO text.
    """

    count: int
    steps: int
    share: float
    limits: tuple[float, float]
    worst: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class VariableReport:
    """One field of a file, in the units of the file.

    Attributes
    ----------
    name : str
        Variable name.
    dims : tuple of str
        Dimensions.
    units : str or None
        As in the file.
    canonical_units : str
        Units in which it is used as a predictor.
    standard_name : str or None
        As in the file.
    levels : list of float
        Pressures in hPa, empty for a single-level field.
    minimum, maximum : float or None
        Over all values; None where there are none.
    nan_share : float
        Share of missing values, in [0, 1].
    roughness : float or None
        See :func:`st_cdgm.data.inspect.scrambling.roughness`, over the steps looked at.
    missing : str
        ``nowhere``, ``always in the same cells`` or ``in changing cells``.
    order : str or None
        What is wrong with the order of the values, if anything.
    arrangement : Arrangement or None
        The measures behind ``order``.
    outside : OutOfRange or None
        Values that no place on Earth has, if any.
    """

    name: str
    dims: tuple[str, ...]
    units: str | None
    canonical_units: str
    standard_name: str | None
    levels: list[float]
    minimum: float | None
    maximum: float | None
    nan_share: float
    roughness: float | None
    missing: str = "nowhere"
    order: Order | None = None
    arrangement: Arrangement | None = None
    outside: OutOfRange | None = None


@dataclass(frozen=True, kw_only=True)
class _Values:
    """What one reading of a field gives."""

    low: float
    high: float
    nan_share: float
    missing: str
    outside: int
    outside_steps: int
    sample: NDArray[Any]
    cell_width: float | None


def inspect_field(
    ds: xr.Dataset, name: str, step_hours: float | None, problems: list[str]
) -> VariableReport:
    """Describe one field; what is wrong with it is added to ``problems``.

    ``step_hours`` is the length of a time step where it is known.
    """
    da = ds[name]
    units, quantity = da.attrs.get("units"), quantity_of(name, da.attrs)
    _check_units(name, units, quantity, problems)

    # How the values lie, and which of them cannot be true.
    limits = physical_limits(da, step_hours)
    values = _read(ds, name, limits, problems)
    laid = order = outside = None
    if values is not None:
        smooth = quantity is not None and quantity.smooth
        laid = arrangement(values.sample, cell_width=values.cell_width)
        order = laid.verdict(smooth=smooth)
        if order is not None:
            problems.append(_order_text(name, order, laid))

        if not np.isfinite(values.low) and not np.isfinite(values.high):
            problems.append(f"no values (variable {name})")
        elif limits is not None and values.outside:
            outside = _outside(ds, name, values, limits)
            problems.append(_outside_text(name, outside, units))

    return VariableReport(
        name=name,
        dims=tuple(str(d) for d in da.dims),
        units=None if units is None else str(units),
        canonical_units=canonical_units(name, da.attrs),
        standard_name=da.attrs.get("standard_name"),
        levels=_levels(da, name, file_label(ds), problems),
        minimum=number(values.low) if values else None,
        maximum=number(values.high) if values else None,
        nan_share=values.nan_share if values else 0.0,
        roughness=laid.roughness if laid else None,
        missing=values.missing if values else "nowhere",
        order=order,
        arrangement=laid,
        outside=outside,
    )


def _check_units(
    name: str, units: Any, quantity: Quantity | None, problems: list[str]
) -> None:
    if quantity is None:
        return
    if units is None:
        problems.append(f"no units (variable {name})")
    elif conversion(str(units), quantity) is None:
        problems.append(
            f"units do not fit (variable {name}; found {units!r}, expected "
            f"something that converts to {quantity.units!r})"
        )


def _levels(da: xr.DataArray, name: str, file: str, problems: list[str]) -> list[float]:
    vertical = vertical_name(da)
    try:
        if vertical is not None and vertical in da.coords and da.sizes[vertical] > 1:
            return [float(level) for level in level_values(da[vertical], file=file)]
    except InputError as error:
        problems.append(one_line(error))
        return []
    _, level = level_of(name, da)
    return [] if level is None else [level]


# -- Reading ---------------------------------------------------------------------------


def _read(
    ds: xr.Dataset,
    name: str,
    limits: tuple[float, float] | None,
    problems: list[str],
) -> _Values | None:
    """Read a field once, in pieces; None where it is empty or cannot be read."""
    da = ds[name]
    if da.size == 0:
        problems.append(f"no values (variable {name})")
        return None

    *space, width = _space(ds, name)
    others = [d for d in da.dims if d not in space]
    finite = cast("xr.DataArray", np.isfinite(da))
    low, high = limits or (-np.inf, np.inf)
    beyond = (da < low) | (da > high)

    # All at once, so that the values are read once.
    try:
        smallest, largest, nulls, ever, always, count, steps, sample = compute(  # type: ignore[no-untyped-call]
            da.min(),
            da.max(),
            da.isnull().mean(),
            finite.any(others),
            finite.all(others),
            beyond.sum(),
            beyond.any(space).sum(),
            _sampled(da, space),
        )
    except (OSError, RuntimeError) as error:
        problems.append(f"the values cannot be read (variable {name}; {error})")
        return None

    return _Values(
        low=float(smallest),
        high=float(largest),
        nan_share=float(nulls),
        missing=_missing(ever.values, always.values),
        outside=int(count),
        outside_steps=int(steps),
        sample=np.asarray(sample.values),
        cell_width=width,
    )


def _missing(ever: NDArray[np.bool_], always: NDArray[np.bool_]) -> str:
    if always.all():
        return "nowhere"
    same = bool((ever == always).all())
    return "always in the same cells" if same else "in changing cells"


def _space(ds: xr.Dataset, name: str) -> tuple[str, str, float | None]:
    """Row and column dimension, and degrees; without coordinates the last two."""
    grid = _grid(ds, name)
    if grid is None:
        first, second = ds[name].dims[-2:]
        return str(first), str(second), None
    return grid.y_name, grid.x_name, cell_width(grid)


def _grid(ds: xr.Dataset, name: str) -> Grid | None:
    try:
        return read_grid(ds, variable=name)
    except InputError:
        return None


def _sampled(da: xr.DataArray, space: Sequence[str]) -> xr.DataArray:
    """Select steps, evenly spread, of one level; levels where there is no time.

    Shape ``(T, Y, X)``.
    """
    others = [d for d in da.dims if d not in space]
    dated = (d for d in others if d in da.coords and da[d].dtype == object)
    along = next(dated, None)
    if along is None:
        along = max(others, key=lambda d: da.sizes[d], default=None)
    if along is None:
        return da.transpose(*space).expand_dims("step")

    one = {d: da.sizes[d] // 2 for d in others if d != along}
    cells = max(int(np.prod([da.sizes[d] for d in space])), 1)
    count = int(np.clip(MOST_VALUES // cells, 3, MOST_STEPS))
    steps = np.unique(np.linspace(0, da.sizes[along] - 1, count).astype(int))
    return da.isel({**one, along: steps}).transpose(along, *space)


# -- What is wrong ---------------------------------------------------------------------


_ORDER_TEXTS: dict[Order, str] = {
    "swapped axes": "latitude and longitude are exchanged in memory (variable {name}; "
    "{laid.swap_gain:.1f} times smoother as {laid.swapped})",
    "scattered": "the field is as rough as shuffled values (variable {name}; roughness "
    "{laid.roughness:.2f}, weather is well below)",
    "broken": "parts of the field are in the wrong place (variable {name}; a step "
    "between two rows or columns is {laid.seam:.0f} times the usual one)",
    "displaced": "the values are not where the coordinates say (variable {name}; "
    "{what})",
}


def _order_text(name: str, order: Order, laid: Arrangement) -> str:
    share = laid.misplaced or laid.far
    if share:
        what = f"{share:.0%} of the cells resemble a distant cell most"
    else:
        adjacent = laid.adjacent or 0.0
        what = f"only {adjacent:.0%} of the rows or columns resemble the next most"
    return _ORDER_TEXTS[order].format(name=name, laid=laid, what=what)


def _outside(
    ds: xr.Dataset, name: str, values: _Values, limits: tuple[float, float]
) -> OutOfRange:
    low, high = values.low < limits[0], values.high > limits[1]
    wanted = [values.low] * low + [values.high] * high
    return OutOfRange(
        count=values.outside,
        steps=values.outside_steps,
        share=values.outside / ds[name].size,
        limits=limits,
        worst=tuple({"value": v, "place": _place(ds, name, v)} for v in wanted),
    )


def _place(ds: xr.Dataset, name: str, value: float) -> dict[str, Any]:
    """Coordinates of the first cell that has the value, found block by block."""
    da = ds[name]
    first = da.dims[0]
    size = max(1, BLOCK_VALUES * da.sizes[first] // da.size)
    for start in range(0, da.sizes[first], size):
        block = da.isel({first: slice(start, start + size)})
        found = np.argwhere(block.values == value)
        if len(found):
            position = dict(zip(da.dims, found[0].tolist(), strict=True))
            position[first] += start
            return _coordinates(ds, name, position)

    return {}


def _coordinates(ds: xr.Dataset, name: str, position: dict[Any, int]) -> dict[str, Any]:
    cell = ds[name].isel(position)
    place: dict[str, Any] = {}
    for dim in position:
        if dim in cell.coords:
            here = cell[dim].values[()]
            place[str(dim)] = iso(here) if hasattr(here, "isoformat") else float(here)
        else:
            place[str(dim)] = position[dim]

    grid = _grid(ds, name)
    if grid is not None:
        at = position[grid.y_name], position[grid.x_name]
        del place[grid.y_name], place[grid.x_name]
        place |= {"lat": float(grid.lat2d[at]), "lon": float(grid.lon2d[at])}
    return place


def _outside_text(name: str, outside: OutOfRange, units: Any) -> str:
    low, high = outside.limits
    worst = "; ".join(
        f"{one['value']:.6g} at {_shown(one['place'])}" for one in outside.worst
    )
    many = "; most values: the units must be wrong" if outside.share > 0.5 else ""
    return (
        f"values outside the physical range (variable {name}; {outside.count} in "
        f"{outside.steps} fields, not within {low:.4g}..{high:.4g} {units}; "
        f"{worst}{many})"
    )


def _shown(place: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.5g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in place.items()
    )
