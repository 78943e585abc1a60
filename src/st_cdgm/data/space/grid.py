"""Horizontal grids: compared, and interpolated between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from st_cdgm.data.space.sphere import (
    degrees_to_chord,
    is_global,
    periodic,
    unit_vectors,
    widest_spacing,
    wrap_near,
)
from st_cdgm.errors import GridMismatchError
from st_cdgm.typing import Floats

SAME_DEG = 1e-3  # two cell centres closer than this are the same cell
CF_ATTRS = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}
NEIGHBOURS = 4  # corners of a bilinear cell, neighbours on a curvilinear source


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A horizontal grid with its rows and columns in the order of the file.

    Attributes
    ----------
    lat, lon : ndarray
        Cell centres in degrees north and east: shapes ``(Y,)`` and ``(X,)`` on a
        regular grid, both ``(Y, X)`` on a rotated or curvilinear one. Longitudes have
        no jump inside the region.
    y_name, x_name : str
        Dimension names in the file.
    y, x : ndarray or None
        One-dimensional dimension coordinates (``rlat``, projection metres) where
        ``lat`` and ``lon`` are two-dimensional.
    y_attrs, x_attrs : dict
        Attributes of the dimension coordinates.
    mapping : dict or None
        Grid mapping attributes; the key ``variable`` holds the variable's name.
    """

    lat: Floats
    lon: Floats
    y_name: str
    x_name: str
    y: Floats | None = None
    x: Floats | None = None
    y_attrs: dict[str, Any] = field(default_factory=dict)
    x_attrs: dict[str, Any] = field(default_factory=dict)
    mapping: dict[str, Any] | None = None

    @property
    def regular(self) -> bool:
        """True where latitude depends on the row alone and longitude on the column."""
        return self.lat.ndim == 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns ``(Y, X)``."""
        return len(self.lat), self.lon.shape[-1]

    @property
    def lat2d(self) -> Floats:
        """Latitude of every cell. Shape ``(Y, X)``, degrees north."""
        return (
            np.broadcast_to(self.lat[:, None], self.shape) if self.regular else self.lat
        )

    @property
    def lon2d(self) -> Floats:
        """Longitude of every cell. Shape ``(Y, X)``, degrees east."""
        return (
            np.broadcast_to(self.lon[None, :], self.shape) if self.regular else self.lon
        )

    @property
    def half_cell(self) -> float:
        """How far outermost cells of a regular grid reach beyond their centres, deg."""
        axes = (self.lat, self.lon) if self.regular else ()
        steps = [float(np.abs(np.diff(axis)).max(initial=0.0)) for axis in axes]
        return 0.5 * max(steps, default=0.0)

    @property
    def kind(self) -> str:
        """``regular``, ``curvilinear`` or the CF name of the projection."""
        if self.regular:
            return "regular"
        rotated = self.y_attrs.get("standard_name") == "grid_latitude"
        unnamed = "rotated_latitude_longitude" if rotated else "curvilinear"
        named = str((self.mapping or {}).get("grid_mapping_name", "curvilinear"))
        return unnamed if named == "curvilinear" else named

    def __str__(self) -> str:
        lat, lon = self.lat, self.lon
        first, last = lat.flat[0], lat.flat[-1]
        order = "north to south" if first > last else "south to north"
        return (
            f"{self.shape[0]} x {self.shape[1]} {self.kind}, "
            f"lat {lat.min():.4g}..{lat.max():.4g} ({order}), "
            f"lon {lon.min():.4g}..{lon.max():.4g}"
        )

    def coords(self) -> dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]]:
        """Coordinates a writer needs, as ``name -> (dims, values, attributes)``.

        On a regular grid the two dimension coordinates; otherwise these (where the file
        had them) and two-dimensional ``lat`` and ``lon``. The grid mapping variable, if
        any, comes under its own name.
        """
        made: dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]] = {}
        y, x = (self.lat, self.lon) if self.regular else (self.y, self.x)
        if y is not None:
            made[self.y_name] = ((self.y_name,), y, self.y_attrs)
        if x is not None:
            made[self.x_name] = ((self.x_name,), x, self.x_attrs)

        if not self.regular:
            dims = (self.y_name, self.x_name)
            for values, long_name in ((self.lat, "latitude"), (self.lon, "longitude")):
                name = long_name if long_name[:3] in dims else long_name[:3]
                made[name] = (dims, values, dict(CF_ATTRS[long_name]))
        if self.mapping:
            attrs = {k: v for k, v in self.mapping.items() if k != "variable"}
            made[str(self.mapping["variable"])] = ((), np.int32(0), attrs)

        return made

    def area_weights(self) -> NDArray[np.float32]:
        """Relative cell areas with mean 1. Shape ``(Y, X)``.

        ``cos(lat)`` on a regular grid; elsewhere the area spanned by the differences of
        neighbouring cell centres on the sphere, which on a rotated grid is cos(rlat).
        """
        if self.regular or min(self.shape) < 2:
            area = np.cos(np.deg2rad(self.lat2d))
        else:
            xyz = unit_vectors(self.lat, self.lon)  # (Y, X, 3)
            along_y, along_x = np.gradient(xyz, axis=0), np.gradient(xyz, axis=1)
            area = np.linalg.norm(np.cross(along_y, along_x), axis=-1)
        area = np.clip(area, 0.0, None)
        return cast("NDArray[np.float32]", (area / area.mean()).astype(np.float32))

    def contains(self, other: Grid, tolerance_deg: float = 0.0) -> bool:
        """Whether every cell centre of ``other`` lies within; see :meth:`inside`."""
        return bool(self.inside(other, tolerance_deg).all())

    def inside(self, other: Grid, tolerance_deg: float) -> NDArray[np.bool_]:
        """Return which cell centres of ``other`` lie within this grid.

        Within means between the outermost cell centres of a regular grid, give or take
        ``tolerance_deg``; on a curvilinear grid no farther from a cell centre than the
        widest spacing plus ``tolerance_deg``. Shape ``(Y, X)`` of ``other``.
        """
        if not self.regular:
            distance, _ = _tree(self).query(_points(other))
            widest = widest_spacing(self.lat, self.lon)
            near = distance <= degrees_to_chord(widest + tolerance_deg)
            return cast("NDArray[np.bool_]", near.reshape(other.shape))
        lat, lon = other.lat2d, wrap_near(other.lon2d, self.lon)
        south, north = self.lat.min() - tolerance_deg, self.lat.max() + tolerance_deg
        west, east = self.lon.min() - tolerance_deg, self.lon.max() + tolerance_deg
        inside = (lon >= west) & (lon <= east) | is_global(self.lon)
        return cast("NDArray[np.bool_]", inside & (lat >= south) & (lat <= north))

    def check_same(
        self, other: Grid, *, file: str | Path | None = None, role: str = "input"
    ) -> None:
        """Raise unless ``other`` has this grid's cells in this grid's order.

        Raises
        ------
        GridMismatchError
            If shapes differ or a cell centre is more than 1e-3 degrees off. A grid that
            is only turned upside down is told apart, with the remedy.
        """
        problem = f"the {role} grid has another shape"
        remedy = "regrid the file to the expected grid (cdo remapbil, remapcon)"
        if self.shape == other.shape:
            if same_cells(self, other.lat2d, other.lon2d):
                return
            problem = f"the {role} grid has other cell centres"
            if same_cells(self, other.lat2d[::-1], other.lon2d[::-1]):
                problem = f"the {role} grid has the opposite latitude order"
                remedy = "turn the latitudes, for example: cdo invertlat in.nc out.nc"
        raise GridMismatchError(
            problem, file=file, found=str(other), expected=str(self), remedy=remedy
        )

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what JSON can hold, and the arrays."""
        meta = ("y_name", "x_name", "y_attrs", "x_attrs", "mapping")
        axes = {"lat": self.lat, "lon": self.lon, "y": self.y, "x": self.x}
        return {name: getattr(self, name) for name in meta}, {
            name: np.ascontiguousarray(axis)
            for name, axis in axes.items()
            if axis is not None
        }

    @classmethod
    def from_state(
        cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Grid:
        """Inverse of :meth:`to_state`."""
        axes = ("lat", "lon", "y", "x")
        known = {n: np.asarray(arrays[n], np.float64) for n in axes if n in arrays}
        return cls(
            **known,
            y_name=str(meta["y_name"]),
            x_name=str(meta["x_name"]),
            y_attrs=dict(meta["y_attrs"]),
            x_attrs=dict(meta["x_attrs"]),
            mapping=None if meta["mapping"] is None else dict(meta["mapping"]),
        )


# -- Distances -------------------------------------------------------------------------


def same_cells(grid: Grid, lat: Floats, lon: Floats) -> bool:
    """Whether the cells of a grid lie at the latitudes and longitudes given."""
    off_lon = (lon - grid.lon2d + 180.0) % 360.0 - 180.0
    return bool(
        (np.abs(lat - grid.lat2d) <= SAME_DEG).all()
        and (np.abs(off_lon) <= SAME_DEG).all()
    )


def _points(grid: Grid) -> Floats:
    return unit_vectors(grid.lat2d, grid.lon2d).reshape(-1, 3)  # (Y*X, 3)


def _tree(grid: Grid) -> Any:
    return cKDTree(_points(grid))


# -- Between grids ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Interpolation:
    """A sparse linear map from one grid to another.

    Attributes
    ----------
    index : ndarray
        Flat source cells of each target cell. Shape ``(Y*X, K)``, int64.
    weight : ndarray
        Their weights, rows sum to 1. Shape ``(Y*X, K)``, float32.
    target_shape : tuple
        ``(Y, X)``.
    """

    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    target_shape: tuple[int, int]

    def apply(self, field: NDArray[Any]) -> NDArray[Any]:
        """Interpolate ``(..., y, x)`` to ``(..., Y, X)``.

        Missing corners are left out and the other weights scaled up; a target cell is
        NaN only where all its corners with weight are.
        """
        given = np.asarray(field)
        flat = given.reshape(-1, given.shape[-2] * given.shape[-1])
        flat = flat.astype(np.result_type(flat.dtype, np.float32), copy=False)
        matrix = self._matrix(flat.shape[1])
        missing = np.isnan(flat)
        if missing.any():
            total = matrix @ np.where(missing, 0, flat).T
            weight = matrix @ (~missing).T.astype(flat.dtype)
            # Below this the corners left have no weight beyond rounding.
            lost = weight <= 1e-6
            total = np.where(lost, np.nan, total / np.where(lost, 1, weight))
        else:
            total = matrix @ flat.T
        out = np.ascontiguousarray(total.T, dtype=flat.dtype)
        return out.reshape(*given.shape[:-2], *self.target_shape)

    def _matrix(self, source_cells: int) -> Any:
        """Weights as a sparse matrix of shape ``(Y*X, y*x)``."""
        rows = np.repeat(np.arange(len(self.index)), self.index.shape[1])
        return csr_array(
            (self.weight.ravel(), (rows, self.index.ravel())),
            shape=(len(self.index), source_cells),
        )


def interpolation(source: Grid, target: Grid) -> Interpolation:
    """Weights from ``source`` to ``target`` by coordinates, not by indices.

    Bilinear in latitude and longitude on a regular source; beyond its outermost cell
    centres the nearest edge value holds, so nothing is ever missing. A global source is
    periodic. On a curvilinear source: the four nearest cells on the sphere, weighted
    by inverse distance.
    """
    if not source.regular:
        return _inverse_distance(source, target)
    lat, lon = target.lat2d.ravel(), wrap_near(target.lon2d.ravel(), source.lon)
    row, up = _bracket(source.lat, np.arange(len(source.lat)), lat)
    column, right = _bracket(*periodic(source.lon), lon)
    index = row[:, :, None] * len(source.lon) + column[:, None, :]
    weight = up[:, :, None] * right[:, None, :]
    return Interpolation(
        index=index.reshape(-1, NEIGHBOURS).astype(np.int64),
        weight=weight.reshape(-1, NEIGHBOURS).astype(np.float32),
        target_shape=target.shape,
    )


def _bracket(
    axis: Floats, number: NDArray[np.int64], at: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Two neighbours on an axis and their weights for each point. Shapes ``(P, 2)``."""
    if len(axis) == 1:
        weight = np.tile([1.0, 0.0], (len(at), 1))
        return np.repeat(number, 2 * len(at)).reshape(-1, 2), weight
    order = np.argsort(axis)
    axis, number = axis[order], number[order]
    at = np.clip(at, axis[0], axis[-1])
    lower = np.clip(np.searchsorted(axis, at, side="right") - 1, 0, len(axis) - 2)
    share = (at - axis[lower]) / (axis[lower + 1] - axis[lower])
    pair = np.stack([number[lower], number[lower + 1]], axis=-1)
    return pair, np.stack([1.0 - share, share], axis=-1)


def _inverse_distance(source: Grid, target: Grid) -> Interpolation:
    count = min(NEIGHBOURS, source.shape[0] * source.shape[1])
    distance, index = _tree(source).query(_points(target), k=count)
    distance, index = distance.reshape(-1, count), index.reshape(-1, count)
    # A target on a cell centre takes that cell alone (1e-9 rad is 6 mm).
    weight = 1.0 / np.maximum(distance, 1e-9)
    weight /= weight.sum(axis=1, keepdims=True)
    return Interpolation(
        index=index.astype(np.int64),
        weight=weight.astype(np.float32),
        target_shape=target.shape,
    )


def nearest_index(source: Grid, target: Grid) -> NDArray[np.int64]:
    """Flat index of the source cell nearest to each target cell, on the sphere.

    Shape ``(Y*X,)``, row-major over the target.
    """
    _, index = _tree(source).query(_points(target))
    return cast("NDArray[np.int64]", np.asarray(index, np.int64).reshape(-1))
