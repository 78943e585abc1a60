"""Harmonics of the year: fitted to every cell block by block, and evaluated."""

from __future__ import annotations

from typing import cast

import numpy as np

from st_cdgm.typing import FloatArray, Floats

HARMONICS = 3
# Share of the record's weight that holds harmonics near 0 where the record does not
# determine them, as in winter-only data.
_RIDGE = 1.0e-4
_CELLS_PER_BLOCK = 8192


class HarmonicSums:
    r"""Normal equations of harmonics in every cell, over its own valid days.

    Products of two harmonics are sums of harmonics of up to twice the order, so the
    :math:`7 \times 7` matrix of a cell follows from 13 sums over its days. The P
    cells are those of all variables; ``days`` counts what was added.
    """

    def __init__(self, cells: int) -> None:
        self.days = 0
        self._waves = np.zeros((4 * HARMONICS + 1, cells))
        self._right = np.zeros((2 * HARMONICS + 1, cells))
        self._square = np.zeros(cells)

    def add(self, season: FloatArray, values: FloatArray) -> None:
        """Add days. Shapes ``(T,)`` and ``(T, P)``, NaN where missing."""
        self.days += len(values)
        waves = annual_harmonics(season, 2 * HARMONICS).T  # (13, T)
        design = waves[: len(self._right)]

        for start in range(0, values.shape[1], _CELLS_PER_BLOCK):
            cells = slice(start, start + _CELLS_PER_BLOCK)
            some = values[:, cells]
            finite = np.isfinite(some)
            if finite.all():
                self._waves[:, cells] += waves.sum(axis=1, keepdims=True)
            else:
                some = np.where(finite, some, 0.0)
                self._waves[:, cells] += waves @ finite.astype(np.float64)

            wide = some.astype(np.float64)
            self._right[:, cells] += design @ wide
            self._square[cells] += np.einsum("tp,tp->p", wide, wide)

    def solve(self, enough: int) -> Floats:
        """Return the coefficients, NaN where fewer than ``enough`` days are valid.

        In the order of :func:`annual_harmonics`. Shape ``(7, P)``.
        """
        size, cells = self._right.shape
        out = np.full((size, cells), np.nan)
        penalty = np.diag([0.0] + [_RIDGE] * (size - 1))
        usable = np.flatnonzero(self._waves[0] >= max(enough, 1) - 0.5)

        for start in range(0, len(usable), _CELLS_PER_BLOCK):
            index = usable[start : start + _CELLS_PER_BLOCK]
            waves = self._waves[:, index]
            gram = _harmonic_products(waves, HARMONICS) + (
                waves[0][:, None, None] * penalty
            )
            right = self._right[:, index].T[:, :, None]
            out[:, index] = np.linalg.solve(gram, right)[:, :, 0].T
        return out

    def variance(self, coefficients: Floats) -> Floats:
        """Return the variance around the solution :meth:`solve` gave. Shape ``(P,)``.

        At a solution ``(G + n R) c = r`` the sum of squares is ``yy - c r - n c R c``.
        """
        count = np.maximum(self._waves[0], 1.0)
        explained = np.einsum("kp,kp->p", coefficients, self._right) / count
        penalty = _RIDGE * np.square(coefficients[1:]).sum(axis=0)
        return cast(
            "Floats", np.maximum(self._square / count - explained - penalty, 0.0)
        )


def annual_harmonics(season: Floats | FloatArray, order: int = HARMONICS) -> Floats:
    """Return 1, cos 1, sin 1, cos 2, ... of each day. Shape ``(T, 2 order + 1)``.

    ``season`` is the fraction of the year elapsed, [0, 1), of shape ``(T,)``; order 0
    gives the 1 alone.
    """
    angle = 2 * np.pi * np.asarray(season, dtype=np.float64)
    waves = [wave(k * angle) for k in range(1, order + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(angle), *waves], axis=1)


def _harmonic_products(sums: Floats, order: int) -> Floats:
    """Return sums over days of products of two harmonics, from sums of harmonics.

    Shape ``(4 order + 1, P)``, in the order of :func:`annual_harmonics`, to
    ``(P, 2 order + 1, 2 order + 1)``, symmetric.
    """
    cos = np.concatenate([sums[:1], sums[1::2]])  # (2 order + 1, P), k = 0, 1, ...
    sin = np.concatenate([np.zeros_like(sums[:1]), sums[2::2]])

    out = np.empty((2 * order + 1, 2 * order + 1, sums.shape[1]))
    kinds = [(0, False)] + [(k, s) for k in range(1, order + 1) for s in (False, True)]
    for i, (k, k_sine) in enumerate(kinds):
        for j, (m, m_sine) in enumerate(kinds):
            if k_sine and m_sine:
                out[i, j] = cos[abs(k - m)] - cos[k + m]
            elif not (k_sine or m_sine):
                out[i, j] = cos[abs(k - m)] + cos[k + m]
            else:
                s, c = (k, m) if k_sine else (m, k)
                out[i, j] = sin[s + c] + np.sign(s - c) * sin[abs(s - c)]

    return np.moveaxis(0.5 * out, -1, 0)


def from_harmonics(coefficients: FloatArray, season: FloatArray) -> FloatArray:
    """Return the value of each day. Shape ``(T, ...)``, float32.

    Coefficients in the order of :func:`annual_harmonics`, shape ``(7, ...)``; fractions
    of the year elapsed, shape ``(T,)``.
    """
    design = annual_harmonics(season).astype(np.float32)
    out = np.empty((len(design), *coefficients.shape[1:]), dtype=np.float32)
    # Day by day: a product of matrices rounds differently for one day and for many.
    for day, row in zip(out, design, strict=True):
        day[...] = np.tensordot(row, coefficients, axes=1)
    return out
