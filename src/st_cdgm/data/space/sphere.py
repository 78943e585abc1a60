"""Longitudes on the circle and directions on the sphere, as plain numbers."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.typing import Floats


def wrap_near(lon: Floats, reference: Floats) -> Floats:
    """Longitudes shifted by whole turns to lie around the middle of the reference."""
    middle = 0.5 * (reference.min() + reference.max())
    return cast("Floats", middle + (lon - middle + 180.0) % 360.0 - 180.0)


def is_global(lon: Floats) -> bool:
    """Whether a 1-D longitude closes the circle, last cell beside the first."""
    if len(lon) < 3:
        return False
    step = float(np.abs(np.diff(lon)).mean())
    return bool(abs(abs(lon[-1] - lon[0]) + step - 360.0) < 0.01 * step)


def unit_vectors(lat: Floats, lon: Floats) -> Floats:
    """Cartesian directions of points in degrees. Shape ``(..., 3)``."""
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    xyz = (np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi))
    return np.stack(xyz, axis=-1)


def degrees_to_chord(degrees: float) -> float:
    """Length of the chord under an angle, on the unit sphere."""
    return float(2.0 * np.sin(np.deg2rad(min(degrees, 180.0)) / 2.0))


def widest_spacing(lat: Floats, lon: Floats) -> float:
    """Largest distance of neighbouring points on a grid ``(Y, X)``, degrees."""
    xyz = unit_vectors(lat, lon)
    chords = [np.linalg.norm(np.diff(xyz, axis=a), axis=-1) for a in (0, 1)]
    widest = max((float(c.max()) for c in chords if c.size), default=0.0)
    return float(np.rad2deg(2.0 * np.arcsin(min(widest / 2.0, 1.0))))


def periodic(lon: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Longitudes with their column numbers, closed at both ends if they are global."""
    column = np.arange(len(lon))
    if not is_global(lon):
        return lon, column
    turn = np.copysign(360.0, lon[-1] - lon[0])
    closed = np.concatenate([[lon[-1] - turn], lon, [lon[0] + turn]])
    return closed, np.concatenate([column[-1:], column, column[:1]])
