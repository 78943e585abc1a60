"""Single first guesses: interpolation, climatology, and the smoothing oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from st_cdgm.data.fit.harmonics import HarmonicSums, from_harmonics
from st_cdgm.data.fit.moments import fill_nearest
from st_cdgm.data.space.grid import Interpolation
from st_cdgm.errors import InputError
from st_cdgm.typing import FloatArray, State

# A cell with fewer training days than this takes its nearest neighbour's climatology.
MIN_DAYS = 30


class Baseline(ABC):
    """A first guess of every target variable.

    Attributes
    ----------
    strategy : str
        Name under which it is configured.
    oracle : bool
        True if it needs the truth, so that it cannot serve a real prediction.
    """

    strategy: str
    oracle: bool = False

    @abstractmethod
    def predict(
        self,
        lr: FloatArray,
        season: FloatArray,
        truth: FloatArray | None = None,
    ) -> FloatArray:
        """Return the first guess.

        Parameters
        ----------
        lr : ndarray
            Predictors in canonical units, without NaN. Shape ``(T, C_lr, y, x)``.
        season : ndarray
            Fraction of the year elapsed, in [0, 1). Shape ``(T,)``.
        truth : ndarray, optional
            Target fields, for an oracle only. Shape ``(T, C, Y, X)``.

        Returns
        -------
        ndarray
            Target units, without NaN. Shape ``(T, C, Y, X)``.
        """

    @abstractmethod
    def to_state(self) -> State:
        """Return JSON-able facts and arrays, from which :meth:`from_state` rebuilds."""

    @staticmethod
    def from_state(meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Baseline:
        """Rebuild the baseline written by ``to_state``."""
        kind = meta["kind"]
        if kind not in _KINDS:
            raise InputError(
                "unknown baseline in a saved state",
                found=kind,
                expected=", ".join(_KINDS),
                remedy="use the version of the package that wrote it",
            )
        return _KINDS[kind]._restore(meta, arrays)

    @classmethod
    @abstractmethod
    def _restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Baseline:
        """Rebuild one kind of baseline."""

    def __init_subclass__(cls, *, kind: str) -> None:
        _KINDS[kind] = cls


_KINDS: dict[str, type[Baseline]] = {}


class LrInterpBaseline(Baseline, kind="lr_interp"):
    """Interpolate a coarse counterpart of each target by coordinates.

    Parameters
    ----------
    source : sequence of int
        Predictor channel of each target.
    convert : sequence of (float, float)
        Factor and offset from the channel's units: (1, -273.15) from K to degC.
    to_fine : Interpolation
        From the coarse to the fine grid.
    """

    strategy = "lr_interp"

    def __init__(
        self,
        source: Sequence[int],
        convert: Sequence[Sequence[float]],
        to_fine: Interpolation,
    ) -> None:
        self.source = tuple(int(i) for i in source)
        self.convert = tuple(
            (float(factor), float(offset)) for factor, offset in convert
        )
        self.to_fine = to_fine

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the interpolated counterparts; see :meth:`Baseline.predict`."""
        del season, truth
        used = sorted(set(self.source))
        fine = self.to_fine.apply(lr[:, used])
        order = [used.index(i) for i in self.source]
        factor, offset = np.asarray(self.convert, dtype=np.float32).T[..., None, None]
        return np.asarray(fine[:, order] * factor + offset, dtype=np.float32)

    def to_state(self) -> State:
        """Return facts and arrays."""
        meta = {
            "kind": self.strategy,
            "source": list(self.source),
            "convert": [list(pair) for pair in self.convert],
            "target_shape": list(self.to_fine.target_shape),
        }
        return meta, {"index": self.to_fine.index, "weight": self.to_fine.weight}

    @classmethod
    def _restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Baseline:
        rows, columns = meta["target_shape"]
        to_fine = Interpolation(
            index=arrays["index"],
            weight=arrays["weight"],
            target_shape=(int(rows), int(columns)),
        )
        return cls(meta["source"], meta["convert"], to_fine)


class ClimatologyBaseline(Baseline, kind="climatology"):
    r"""Mean of the day of the year, from three harmonics per cell.

    .. math:: x(s) = c_0 + \sum_{k=1}^{3} a_k \cos 2\pi k s + b_k \sin 2\pi k s

    Parameters
    ----------
    coefficients : ndarray
        Order 1, cos 1, sin 1, cos 2, ... Shape ``(7, C, Y, X)``, target units.
    """

    strategy = "climatology"

    def __init__(self, coefficients: FloatArray) -> None:
        self.coefficients = coefficients

    @classmethod
    def fit(
        cls, truth: FloatArray, season: FloatArray, names: Sequence[str]
    ) -> ClimatologyBaseline:
        """Fit to training days in memory.

        Parameters
        ----------
        truth : ndarray
            Target units, NaN where missing. Shape ``(T, C, Y, X)``.
        season : ndarray
            Fraction of the year elapsed. Shape ``(T,)``.
        names : sequence of str
            Target names, for errors.

        Raises
        ------
        InputError
            If a variable has no cell with a value on 30 days (or on half the days of
            a shorter record).
        """
        return cls.fit_blocks([(season, truth)], truth.shape[1:], names)

    @classmethod
    def fit_blocks(
        cls,
        blocks: Iterable[tuple[FloatArray, FloatArray]],
        shape: Sequence[int],
        names: Sequence[str],
    ) -> ClimatologyBaseline:
        """Fit to training days that come block by block; memory does not grow.

        Parameters
        ----------
        blocks : iterable of (season, truth)
            Shapes ``(T,)`` and ``(T, C, Y, X)``, T of any size.
        shape : sequence of int
            ``(C, Y, X)``.
        names : sequence of str
            Target names, for errors.

        Raises
        ------
        InputError
            As for :meth:`fit`.
        """
        sums = HarmonicSums(int(np.prod(shape)))
        for season, truth in blocks:
            sums.add(season, truth.reshape(len(truth), -1))
        enough = min(MIN_DAYS, (sums.days + 1) // 2)
        coefficients = sums.solve(enough).astype(np.float32).reshape(-1, *shape)
        return cls(fill_cells(coefficients, names, enough))

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the climatology of each day; see :meth:`Baseline.predict`."""
        del lr, truth
        return from_harmonics(self.coefficients, season)

    def to_state(self) -> State:
        """Return facts and arrays."""
        return {"kind": self.strategy}, {"coefficients": self.coefficients}

    @classmethod
    def _restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Baseline:
        del meta
        return cls(np.asarray(arrays["coefficients"], dtype=np.float32))


class SmoothingBaseline(Baseline, kind="hr_smoothing"):
    """Coarsen the truth by block means and interpolate it back: an oracle.

    Blocks that reach over the border hold fewer cells, and positions beyond the
    outermost block centres take the nearest block, so no NaN frame arises (D3).

    Parameters
    ----------
    factor : int
        Cells per block side, at least 1.
    """

    strategy = "hr_smoothing"
    oracle = True

    def __init__(self, factor: int) -> None:
        self.factor = int(factor)

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the smoothed truth; a day without any truth gives 0."""
        del lr, season
        if truth is None:
            raise InputError(
                "the baseline hr_smoothing needs the fine truth",
                expected="target fields of the same days",
                remedy="train with lr_interp or climatology to predict without truth",
            )
        blocks = _block_means(truth, self.factor)
        rows = _linear_weights(truth.shape[-2], blocks.shape[-2], self.factor)
        columns = _linear_weights(truth.shape[-1], blocks.shape[-1], self.factor)
        return np.asarray(rows @ blocks @ columns.T, dtype=np.float32)

    def to_state(self) -> State:
        """Return facts and arrays."""
        return {"kind": self.strategy, "factor": self.factor}, {}

    @classmethod
    def _restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Baseline:
        del arrays
        return cls(meta["factor"])


def fill_cells(
    coefficients: FloatArray, names: Sequence[str], enough: int
) -> FloatArray:
    """Give cells without coefficients those of the nearest cell that has some.

    Parameters
    ----------
    coefficients : ndarray
        NaN in cells with too few days. Shape ``(K, C, Y, X)``; filled in place.
    names : sequence of str
        Target names, for errors.
    enough : int
        Days that were asked for, for errors.

    Raises
    ------
    InputError
        If a variable has coefficients in no cell.
    """
    for channel, name in enumerate(names):
        filled = fill_nearest(coefficients[:, channel])
        if not np.isfinite(filled).all():
            raise InputError(
                "no climatology: too few training days with a value",
                variable=name,
                expected=f"at least {enough} days in some cell",
                remedy="lengthen the training period or leave the variable out",
            )
        coefficients[:, channel] = filled
    return coefficients


def _block_means(field: FloatArray, factor: int) -> FloatArray:
    """Return NaN-aware block means, filled from the nearest block.

    Shape ``(T, C, Y, X)`` to ``(T, C, ceil(Y / f), ceil(X / f))``.
    """
    rows, columns = (-field.shape[-2]) % factor, (-field.shape[-1]) % factor
    pad = ((0, 0), (0, 0), (0, rows), (0, columns))
    padded = np.pad(field, pad, constant_values=np.nan)
    blocks = padded.reshape(
        *field.shape[:2],
        padded.shape[-2] // factor,
        factor,
        padded.shape[-1] // factor,
        factor,
    )
    finite = np.isfinite(blocks)
    count = finite.sum(axis=(3, 5))
    total = np.where(finite, blocks, 0.0).sum(axis=(3, 5))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    for t, c in np.argwhere((count == 0).any(axis=(2, 3))):
        mean[t, c] = np.nan_to_num(fill_nearest(mean[t, c]))
    return mean.astype(np.float32)


def _linear_weights(size: int, blocks: int, factor: int) -> FloatArray:
    """Return weights from block centres to cells. Shape ``(size, blocks)``."""
    edges = np.minimum(np.arange(blocks + 1) * factor, size)
    centre = (edges[:-1] + edges[1:] - 1) / 2
    return np.stack(
        [np.interp(np.arange(size), centre, row) for row in np.eye(blocks)], axis=1
    ).astype(np.float32)
