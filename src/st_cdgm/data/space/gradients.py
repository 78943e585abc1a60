"""Gradients on the sphere, geostrophic wind and humidity, on plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import is_global, unit_vectors
from st_cdgm.errors import InputError
from st_cdgm.typing import Floats

EARTH_RADIUS = 6.371229e6  # m
OMEGA = 7.292115e-5  # s-1, rotation of the Earth
# Nearer to the equator than this the wind is not geostrophic and f goes to 0.
EQUATOR_DEG = 5.0
EPSILON = 0.622  # molar mass of water vapour over that of dry air
ZERO_CELSIUS = 273.15
Gradient = Callable[[NDArray[Any]], tuple[Floats, Floats]]


def horizontal_gradient(grid: Grid) -> Gradient:
    """Return a function that gives the eastward and northward derivative of a field.

    Central differences inside, one-sided ones at the borders, both of second order in
    the spacing (of first order where an axis has two points). A global regular grid is
    periodic in longitude. On rotated and curvilinear grids the derivatives along rows
    and columns are turned into eastward and northward ones by the local vectors between
    cells. The derivative is missing at the poles and where the cell or a neighbour that
    it needs is.

    Returns
    -------
    callable
        From ``(..., Y, X)`` to two arrays of that shape, units of the field per metre.

    Raises
    ------
    InputError
        If the grid has fewer than two rows or columns, or cells without extent.
    """
    if min(grid.shape) < 2:
        raise InputError(
            "no horizontal gradient on a grid with a single row or column",
            found=f"{grid.shape[0]} x {grid.shape[1]} cells",
            expected="at least 2 x 2",
        )
    return _regular(grid) if grid.regular else _curvilinear(grid)


def _regular(grid: Grid) -> Gradient:
    y = EARTH_RADIUS * np.deg2rad(grid.lat)
    x = EARTH_RADIUS * np.deg2rad(grid.lon)
    width = np.cos(np.deg2rad(grid.lat))
    # A millionth: half a metre from the pole.
    shrink = np.where(width > 1e-6, width, np.nan)[:, None]
    turn = EARTH_RADIUS * 2 * np.pi * np.sign(x[-1] - x[0])
    ring = is_global(grid.lon)

    def gradient(field: NDArray[Any]) -> tuple[Floats, Floats]:
        wide = field.astype(np.float64)
        if ring:
            closed = np.concatenate([wide[..., -1:], wide, wide[..., :1]], axis=-1)
            at = np.concatenate([x[-1:] - turn, x, x[:1] + turn])
            along_x = _derivative(closed, at, -1)[..., 1:-1]
        else:
            along_x = _derivative(wide, x, -1)
        return along_x / shrink, _derivative(wide, y, -2)

    return gradient


def _curvilinear(grid: Grid) -> Gradient:
    position = EARTH_RADIUS * unit_vectors(grid.lat, grid.lon)  # (Y, X, 3)
    lon = np.deg2rad(grid.lon)
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
    north = np.cross(unit_vectors(grid.lat, grid.lon), east)
    rows, columns = np.arange(grid.shape[0]), np.arange(grid.shape[1])
    step_x = _derivative(position, columns, 1)
    step_y = _derivative(position, rows, 0)
    # [[a, b], [c, d]]: metres east and north per column, per row.
    a, b = (np.einsum("yxk,yxk->yx", step_x, axis) for axis in (east, north))
    c, d = (np.einsum("yxk,yxk->yx", step_y, axis) for axis in (east, north))
    area = a * d - b * c
    if (np.abs(area) < 1e-6 * np.abs(area).max()).any():
        raise InputError(
            "no horizontal gradient on a grid with cells without extent",
            found=str(grid),
            expected="rows and columns that cross at an angle everywhere",
            remedy="regrid the file to a regular grid (cdo remapbil)",
        )

    def gradient(field: NDArray[Any]) -> tuple[Floats, Floats]:
        wide = field.astype(np.float64)
        per_column = _derivative(wide, columns, -1)
        per_row = _derivative(wide, rows, -2)
        along_x = (d * per_column - b * per_row) / area
        return along_x, (a * per_row - c * per_column) / area

    return gradient


def _derivative(field: Floats, at: NDArray[Any], axis: int) -> Floats:
    order: Any = 2 if len(at) > 2 else 1
    plain: Any = np.gradient  # its stubs have no overload for one axis of several
    out: Floats = plain(field, at.astype(np.float64), axis=axis, edge_order=order)
    # Central differences do not see the cell itself: it stays missing where it is.
    return out + 0.0 * field


def geostrophic_wind(grid: Grid) -> Gradient:
    r"""Return a function that gives the geostrophic wind of a geopotential.

    .. math:: u_g = -\frac{1}{f} \frac{\partial \Phi}{\partial y}, \qquad
              v_g = \frac{1}{f} \frac{\partial \Phi}{\partial x}, \qquad
              f = 2 \Omega \sin \varphi

    Eastward and northward, also on rotated grids. Missing within 5 degrees of the
    equator and where :func:`horizontal_gradient` is.

    Returns
    -------
    callable
        From m2 s-2, shape ``(..., Y, X)``, to two arrays of that shape, m s-1.
    """
    lat = grid.lat2d
    f = 2.0 * OMEGA * np.sin(np.deg2rad(lat))
    f = np.where(np.abs(lat) < EQUATOR_DEG, np.nan, f)
    gradient = horizontal_gradient(grid)

    def wind(geopotential: NDArray[Any]) -> tuple[Floats, Floats]:
        along_x, along_y = gradient(geopotential)
        return -along_y / f, along_x / f

    return wind


def relative_humidity(
    q: NDArray[Any], t: NDArray[Any], pressure: float
) -> NDArray[np.float64]:
    r"""Return relative humidity over water, %.

    .. math:: e = \frac{q p}{\epsilon + (1 - \epsilon) q}, \qquad
              e_s = 6.112 \exp \frac{17.67\, t}{t + 243.5}, \qquad H = 100\, e / e_s

    with :math:`e, e_s, p` in hPa, :math:`t` in degC, :math:`\epsilon = 0.622`.
    Supersaturation stays above 100; negative q counts as 0.

    Parameters
    ----------
    q : ndarray
        Specific humidity, kg kg-1.
    t : ndarray
        Temperature, K.
    pressure : float
        hPa.

    References
    ----------
    Bolton (1980), equation 10, doi:10.1175/1520-0493(1980)108<1046:TCOEPT>2.0.CO;2;
    good to 0.1 % from -30 to 35 degC.
    """
    share = np.maximum(q.astype(np.float64), 0.0)
    celsius = t.astype(np.float64) - ZERO_CELSIUS
    vapour = share * pressure / (EPSILON + (1.0 - EPSILON) * share)
    saturated = 6.112 * np.exp(17.67 * celsius / (celsius + 243.5))
    return 100.0 * vapour / saturated
