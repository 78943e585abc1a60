"""Gradients on the sphere, geostrophic wind and humidity, on plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import is_global, unit_vectors
from st_cdgm.errors import InputError
from st_cdgm.typing import Floats, Indices

EARTH_RADIUS = 6_371_229.0  # m, the sphere of GRIB2 and of most models
# A row this close to a pole (half a metre) has no zonal direction.
POLE_COSINE = 1e-6
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
    it needs is. From ``(..., Y, X)`` to two arrays of that shape, per metre.

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
    shrink = np.where(width > POLE_COSINE, width, np.nan)[:, None]
    turn = EARTH_RADIUS * 2 * np.pi if is_global(grid.lon) else None

    def gradient(field: NDArray[Any]) -> tuple[Floats, Floats]:
        wide = field.astype(np.float64)
        return _derivative(wide, x, -1, turn) / shrink, _derivative(wide, y, -2)

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
    if (np.abs(area) <= 1e-6 * np.abs(area).max()).any():
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


def _derivative(
    field: Floats, at: NDArray[Any], axis: int, period: float | None = None
) -> Floats:
    first, second, *weights = difference_weights("coordinates", at, period)
    along = [1] * field.ndim
    along[axis] = -1
    a, b = (weight.reshape(along) for weight in weights)
    near, far = (np.take(field, index, axis) for index in (first, second))
    out: Floats = a * (near - field) + b * (far - field)
    return out


def difference_weights(
    name: str, x: NDArray[Any], period: float | None = None
) -> tuple[Indices, Indices, Floats, Floats]:
    """Return the first derivative along an axis as weights of differences.

    f'(x_i) = a_i (f_p - f_i) + b_i (f_q - f_i): p and q are the neighbours inside, the
    next two at an end. Exact for parabolas, so second order for any spacing.

    Parameters
    ----------
    name : str
        Of the axis, for messages.
    x : ndarray
        Coordinates. Shape ``(n,)``, as p, q (int64), a and b (float64).
    period : float, optional
        Length of a closed axis, without ends.

    Raises
    ------
    InputError
        Fewer than two points, or points that are not in order.

    References
    ----------
    Fornberg, Generation of finite difference formulas on arbitrarily spaced grids,
    doi:10.1090/S0025-5718-1988-0935077-0.
    """
    n, x = len(x), x.astype(np.float64)
    step = np.diff(x)
    if n < 2 or not ((step > 0).all() or (step < 0).all()):
        raise InputError(
            "no derivative along an axis that does not rise or fall throughout",
            variable=name,
            found=f"{n} points" if n < 2 else "a step backwards or of length 0",
            expected="2 or more points in order",
        )

    first, second = np.arange(n) - 1, np.arange(n) + 1
    if period is None:
        first[0], second[0] = 1, min(2, n - 1)
        first[-1], second[-1] = n - 2, max(n - 3, 0)
    h1, h2 = x[first % n] - x, x[second % n] - x
    if period is not None:
        turn = np.copysign(period, step[0])
        h1[0] -= turn
        h2[-1] += turn

    if n == 2:  # one difference is all there is
        return first % n, second % n, 1 / h1, np.zeros(n)
    return first % n, second % n, h2 / h1 / (h2 - h1), -h1 / h2 / (h2 - h1)


def geostrophic_wind(grid: Grid) -> Gradient:
    r"""Return a function that gives the geostrophic wind of a geopotential.

    .. math:: u_g = -\frac{1}{f} \frac{\partial \Phi}{\partial y}, \qquad
              v_g = \frac{1}{f} \frac{\partial \Phi}{\partial x}, \qquad
              f = 2 \Omega \sin \varphi

    Eastward and northward, also on rotated grids. Missing within 5 degrees of the
    equator and where :func:`horizontal_gradient` is. From m2 s-2, shape ``(..., Y,
    X)``, to two arrays of that shape, m s-1.
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

    with :math:`e, e_s, p` in hPa, :math:`t` in degC, :math:`\epsilon = 0.622`; the
    arguments are kg kg-1, K and hPa. Supersaturation stays above 100; negative q counts
    as 0.

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
