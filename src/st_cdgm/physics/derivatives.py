"""Divergence and vorticity as difference operators on one grid.

With longitude lambda, latitude phi and radius a, eastward u and northward v::

    div  = [du/dlambda + d(v cos phi)/dphi] / (a cos phi)
    zeta = [dv/dlambda - d(u cos phi)/dphi] / (a cos phi)

References
----------
Holton & Hakim, An introduction to dynamic meteorology, 5th ed., ch. 2,
doi:10.1016/C2009-0-63394-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from st_cdgm.data.space.gradients import (
    EARTH_RADIUS,
    POLE_COSINE,
    difference_weights,
)
from st_cdgm.data.space.sphere import is_global
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.typing import Floats


@dataclass(frozen=True)
class _AxisDifference:
    """First derivative along one axis; see `difference_weights`."""

    first: Tensor  # (n,), int64
    second: Tensor  # (n,), int64
    a: Tensor  # (n,), float64
    b: Tensor  # (n,), float64

    @classmethod
    def along(
        cls, name: str, x: Floats, *, period: float | None = None
    ) -> _AxisDifference:
        parts = (torch.from_numpy(v) for v in difference_weights(name, x, period))
        return cls(*parts)

    def __call__(self, f: Tensor, dim: int) -> Tensor:
        shape = [-1 if axis == dim else 1 for axis in (-2, -1)]
        near, far = self._neighbours(f, dim)
        a, b = (w.to(f).view(shape) for w in (self.a, self.b))
        return a * (near - f) + b * (far - f)

    def covered(self, known: Tensor, dim: int) -> Tensor:
        """Where all the points that a derivative needs are known, bool."""
        near, far = self._neighbours(known, dim)
        return known & near & far

    def _neighbours(self, f: Tensor, dim: int) -> list[Tensor]:
        pair = self.first, self.second
        return [f.index_select(dim, index.to(f.device)) for index in pair]


@dataclass(frozen=True)
class WindDerivatives:
    """Divergence and vorticity on one grid, one-sided at its borders.

    Build it with :meth:`planar` or :meth:`spherical`.

    Attributes
    ----------
    along_x, along_y : callable
        Derivatives along columns and rows.
    cosine : Tensor
        cos(phi) of each row, 1 on a plane. Shape ``(Y, 1)``, float64.
    scale : Tensor
        1 / (a cos phi), 1 on a plane; NaN at a pole. Shape ``(Y, 1)``, float64.
    """

    along_x: _AxisDifference
    along_y: _AxisDifference
    cosine: Tensor
    scale: Tensor

    @classmethod
    def planar(
        cls, shape: Sequence[int], dx: float = 1.0, dy: float = 1.0
    ) -> WindDerivatives:
        """On a plane with ``shape[-2]`` rows and ``shape[-1]`` columns.

        ``dx`` and ``dy`` are the distances of columns and rows in the unit of length
        wanted; ``dy`` is negative where rows run from north to south.

        Raises
        ------
        ConfigError
            A distance of 0.
        """
        for name, step in (("dx", dx), ("dy", dy)):
            if not (np.isfinite(step) and step != 0):
                raise ConfigError(
                    "the distance of grid points is not a length",
                    variable=name,
                    found=step,
                    expected="a finite number other than 0",
                )

        y: Floats = np.arange(int(shape[-2]), dtype=np.float64) * np.float64(dy)
        x: Floats = np.arange(int(shape[-1]), dtype=np.float64) * np.float64(dx)
        one = torch.ones(len(y), 1, dtype=torch.float64)
        along = _AxisDifference.along
        return cls(along("x", x), along("y", y), one, one)

    @classmethod
    def spherical(
        cls, lat: ArrayLike, lon: ArrayLike, *, radius: float = EARTH_RADIUS
    ) -> WindDerivatives:
        """On a sphere, for a regular grid in any order and with any spacing.

        ``lat`` and ``lon`` are degrees, shapes ``(Y,)`` and ``(X,)``; on a rotated
        grid, whose wind components follow the grid, the rotated ones. A circle of
        longitudes is periodic. ``radius`` is in the unit of length wanted.

        Raises
        ------
        InputError
            Coordinates that are not those of a regular grid.
        """
        phi: Floats = np.asarray(lat, np.float64)
        lam: Floats = np.asarray(lon, np.float64)
        if phi.ndim != 1 or lam.ndim != 1:
            raise InputError(
                "derivatives on the sphere need a regular grid",
                variable="lat, lon",
                found=f"shapes {phi.shape} and {lam.shape}",
                expected="latitudes (Y,) and longitudes (X,)",
                remedy="on a rotated grid pass the rotated coordinates",
            )

        lam = np.unwrap(lam, period=360.0)
        period = 2 * np.pi if is_global(lam) else None
        cosine = np.cos(np.deg2rad(phi))
        scale = np.full_like(cosine, np.nan)
        np.divide(1.0, radius * cosine, out=scale, where=cosine > POLE_COSINE)
        return cls(
            _AxisDifference.along("lon", np.deg2rad(lam), period=period),
            _AxisDifference.along("lat", np.deg2rad(phi)),
            torch.from_numpy(cosine)[:, None],
            torch.from_numpy(scale)[:, None],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns ``(Y, X)``."""
        return len(self.along_y.first), len(self.along_x.first)

    def divergence(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the divergence of ``(..., Y, X)``."""
        outward = self.along_y(v * self.cosine.to(v), -2)
        return self.scale.to(u) * (self.along_x(u, -1) + outward)

    def vorticity(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the vertical component of the curl of ``(..., Y, X)``."""
        return self.divergence(v, -u)  # of the wind turned to the right

    def covered(self, known: Tensor) -> Tensor:
        """Where both derivatives use known cells only. Shape ``(..., Y, X)``, bool."""
        inside = self.along_x.covered(known, -1) & self.along_y.covered(known, -2)
        return inside & torch.isfinite(self.scale).to(known.device)
