"""A forecast beside its reference, read in blocks of days so that memory stays small.

All metrics share one call shape, ``metric(forecast, reference, *, weights, mask)``:

forecast
    ``(T, M, Y, X)``, or ``(T, Y, X)`` for a deterministic one (M = 1).
reference
    ``(T, Y, X)``; NaN marks cells that are not counted. A single field ``(Y, X)`` goes
    with a forecast ``(M, Y, X)`` or ``(Y, X)``.
weights, mask
    See `Cells`.

A forecast that is not finite where the reference counts is an error, never a gap.
Axes, days, grids, weights or a mask that do not fit raise GridMismatchError; a hole in
the forecast, no member or a weight that is negative or not finite, InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.errors import GridMismatchError, InputError
from st_cdgm.typing import Floats, Indices

# A block's forecast in float64; the scores need about four temporaries of that size.
BLOCK_BYTES = 6 * 2**20

Reader = Callable[[slice], NDArray[np.floating]]


class Cells(TypedDict, total=False):
    """Which cells are counted, and how much.

    Attributes
    ----------
    weights : array_like
        Non-negative cell weights ``(Y, X)``, for example ``Grid.area_weights()``.
        Uniform when None.
    mask : array_like
        Bool, broadcastable to ``(T, Y, X)``; only True cells are counted.
    """

    weights: ArrayLike | None
    mask: ArrayLike | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Some days of a forecast and its reference, 0 on cells that are not counted."""

    forecast: Floats  # (t, M, Y, X)
    reference: Floats  # (t, Y, X)
    weight: Floats  # (t, Y, X)
    ordinal: Indices  # days counted from any origin, (t,)
    year: Indices  # (t,)
    normal: Floats  # what is usual on these days, 0 where nobody said; (t, Y, X)
    size: float  # of the usual departures from it, 1 where nobody said
    network: Indices | None = None  # which one made each member, (M,)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Where there is weight. Shape ``(t, Y, X)``."""
        return self.weight > 0

    @cached_property
    def root(self) -> Floats:
        """Square root of the weights: products of two scaled fields are weighted."""
        return np.asarray(np.sqrt(self.weight))

    @cached_property
    def deviation(self) -> Floats:
        """Members minus their mean, times `root`. Shape ``(t, M, Y, X)``."""
        apart = self.forecast - self.forecast.mean(axis=1, keepdims=True)
        apart *= self.root[:, None]
        return np.asarray(apart)

    @cached_property
    def error(self) -> Floats:
        """Reference minus ensemble mean, times `root`. Shape ``(t, Y, X)``."""
        return np.asarray((self.reference - self.forecast.mean(axis=1)) * self.root)


class Score(Protocol):
    """A sum over days that ends in one or more numbers."""

    def update(self, block: Block) -> None:
        """Take in a block of days."""


class JointScore(Protocol):
    """A sum over days of all variables of a source together."""

    def update(self, blocks: Mapping[str, Block]) -> None:
        """Take in the same days of every variable."""


@runtime_checkable
class PairScore(Protocol):
    """What needs all days together, or the data twice."""

    def read(self, pair: Pair) -> None:
        """Read forecast and reference, in pieces that fit into memory."""


def day_slices(
    shape: tuple[int, int, int, int], *, variables: int = 1
) -> Iterator[slice]:
    """Yield slices of the days of arrays (T, M, Y, X), of bounded size in float64."""
    days, members, ny, nx = shape
    step = max(1, BLOCK_BYTES // max(1, 8 * members * ny * nx * variables))
    for start in range(0, days, step):
        yield slice(start, min(start + step, days))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A forecast and its reference behind two readers of day slices."""

    forecast: Reader  # a slice of days -> (t, M, Y, X)
    reference: Reader  # a slice of days -> (t, Y, X)
    shape: tuple[int, int, int, int]  # T, M, Y, X
    weights: Floats  # (Y, X)
    mask: NDArray[np.bool_] | None = None  # (T, Y, X)
    name: str | None = None  # variable (and source) named in errors
    network: Indices | None = None  # which one made each member of a pool, (M,)
    # Days counted from any origin, and their years; one after the other by default.
    ordinal: Indices | None = None  # (T,)
    year: Indices | None = None  # (T,)
    # What is usual, and the size of the usual departures from it.
    normal: Reader | None = None  # a slice of days -> (t, Y, X)
    size: float = 1.0

    def slices(self, *, variables: int = 1) -> Iterator[slice]:
        """Yield day slices of bounded size."""
        return day_slices(self.shape, variables=variables)

    def counted(
        self, days: slice, reference: NDArray[np.floating]
    ) -> NDArray[np.bool_]:
        """Return where the reference counts. Shape ``(t, Y, X)``."""
        counted: NDArray[np.bool_] = np.isfinite(reference)
        return counted if self.mask is None else counted & self.mask[days]

    def blocks(self, *, variables: int = 1) -> Iterator[Block]:
        """Yield the blocks; refuse a forecast with holes where the reference counts.

        ``variables`` is how many are read side by side and share the memory.
        """
        first = np.arange(self.shape[0]) if self.ordinal is None else self.ordinal
        years = np.zeros_like(first) if self.year is None else self.year

        for days in self.slices(variables=variables):
            reference, forecast = self.reference(days), self.forecast(days)
            counted = self.counted(days, reference)
            finite = np.isfinite(forecast)
            if not finite.all() and (counted[:, None] & ~finite).any():
                self._refuse_holes()

            normal = 0.0 if self.normal is None else self.normal(days)
            yield Block(
                forecast=np.where(counted[:, None], forecast, 0).astype(np.float64),
                reference=np.where(counted, reference, 0).astype(np.float64),
                weight=np.where(counted, self.weights, 0.0),
                network=self.network,
                ordinal=first[days],
                year=years[days],
                normal=np.where(counted, normal, 0).astype(np.float64),
                size=self.size,
            )

    def _refuse_holes(self) -> None:
        missing = 0
        for days in self.slices():
            counted = self.counted(days, self.reference(days))
            missing += int((counted[:, None] & ~np.isfinite(self.forecast(days))).sum())
        raise InputError(
            "The forecast is not finite where the reference has values.",
            variable=self.name,
            found=f"{missing} values missing (all members and days)",
            expected="a finite forecast on every counted cell",
            remedy="check the validity mask of the model or leave these cells out",
        )


def pair_of(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Pair:
    """Check two arrays (see the module docstring) and put them side by side."""
    reference, forecast = np.asarray(reference), np.asarray(forecast)
    if reference.ndim == 2:
        reference, forecast = reference[None], forecast[None]
    if forecast.ndim == reference.ndim:
        forecast = forecast[:, None]
    if reference.ndim != 3 or forecast.ndim != 4:
        raise GridMismatchError(
            "Forecast and reference do not have the right number of axes.",
            found=f"forecast {forecast.shape}, reference {reference.shape}",
            expected="(T, M, Y, X) and (T, Y, X)",
        )

    # Of the same days and cells, with some member.
    if (forecast.shape[0], *forecast.shape[2:]) != reference.shape:
        raise GridMismatchError(
            "Forecast and reference differ in days or grid.",
            found=f"forecast (T, M, Y, X) = {forecast.shape}",
            expected=f"(T, Y, X) = {reference.shape}",
        )
    if forecast.shape[1] == 0:
        raise InputError("The forecast has no member.")
    return Pair(
        forecast=forecast.__getitem__,
        reference=reference.__getitem__,
        shape=forecast.shape,
        weights=_check_weights(weights, reference.shape[1:]),
        mask=_check_mask(mask, reference.shape),
    )


def _check_weights(weights: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """Return cell weights ``(Y, X)`` as float64; ones when None."""
    if weights is None:
        return np.ones(shape)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != shape:
        raise GridMismatchError(
            "The weights do not fit the grid.", found=weights.shape, expected=shape
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("Weights must be finite and not negative.")
    return weights


def _check_mask(
    mask: ArrayLike | None, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    try:
        return np.broadcast_to(np.asarray(mask, dtype=bool), shape)
    except ValueError as error:
        raise GridMismatchError(
            "The mask does not fit the reference.",
            found=np.shape(mask),
            expected=f"broadcastable to {shape}",
        ) from error


S = TypeVar("S", bound=Score | PairScore)


def scored(
    score: S, forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> S:
    """Show two arrays to a score; return it."""
    accumulate(pair_of(forecast, reference, **cells), score)
    return score


def accumulate(pair: Pair, *scores: Score | PairScore) -> None:
    """Feed every block of ``pair`` to every score, reading the data once.

    Scores that need all days together then read for themselves.
    """
    accumulate_all({"": pair}, {"": scores}, ())


def accumulate_all(
    pairs: Mapping[str, Pair],
    scores: Mapping[str, Sequence[Score | PairScore]],
    joint: Sequence[JointScore],
    failed: dict[int, Exception] | None = None,
) -> None:
    """Do the same for all variables of a source, by name, side by side.

    ``joint`` are given all variables of the same days at once. With ``failed``, a score
    that raises is left alone from then on, and what it raised is kept there by its
    ``id``: the others go on.
    """
    sums = {
        name: [score for score in found if not isinstance(score, PairScore)]
        for name, found in scores.items()
    }
    readers = [pair.blocks(variables=len(pairs)) for pair in pairs.values()]
    for found in zip(*readers, strict=True):
        blocks = dict(zip(pairs, found, strict=True))
        for name, block in blocks.items():
            for score in sums[name]:
                _give(score, score.update, block, failed)
        for together in joint:
            _give(together, together.update, blocks, failed)

    for name, pair in pairs.items():
        for whole in scores[name]:
            if isinstance(whole, PairScore):
                _give(whole, whole.read, pair, failed)


def _give(
    score: object,
    take: Callable[[Any], None],
    fields: object,
    failed: dict[int, Exception] | None,
) -> None:
    """Show fields to a score, unless it failed before."""
    if failed is None:
        take(fields)
    elif id(score) not in failed:
        try:
            take(fields)
        except Exception as error:  # noqa: BLE001 - a plugin's score may raise anything
            failed[id(score)] = error


def ratio(numerator: float, denominator: float) -> float:
    """Return the quotient, NaN where nothing was counted."""
    return float(numerator / denominator) if denominator > 0 else float("nan")
