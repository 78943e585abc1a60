"""Held-out losses of every target with all pasts, without one, with a shadow of it.

One fit per fold; the segments of the fold were never seen by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from st_cdgm.discovery.held_out.features import Design, columns_of
from st_cdgm.discovery.held_out.nested import (
    ROWS,
    Bordered,
    More,
    NestedRidge,
    Sums,
    choose_penalties,
    penalty,
)
from st_cdgm.discovery.held_out.segments import Segments
from st_cdgm.typing import FloatArray, Floats, Indices

TINY = 1e-12
HALF_STEPS = 30


@dataclass(kw_only=True, eq=False)
class Losses:
    """Losses of D held-out steps, ``[step, i, k]``: what target k loses without i.

    In units of k's loss with all pasts, all its channels alike.

    Attributes
    ----------
    step : ndarray
        Index in the record. Shape ``(D,)``.
    full : ndarray
        Loss with all pasts, in the targets' own unit. Shape ``(D, Q)``.
    without : ndarray
        What is lost without i's past. Shape ``(D, S, Q)``.
    shadow : ndarray
        What i's past of another segment spares, against none. Shape ``(D, S, Q)``.
    evidence : ndarray
        The same as ``without``, free of what i's features cost by being estimated:
        see :func:`nested_evidence`. Shape ``(D, S, Q)``.
    lag : ndarray
        Evidence for one lag of i. Shape ``(D, L, S, Q)``.
    given : ndarray
        Evidence for i's past where everything else's same step is known.
        Shape ``(D, S, Q)``.
    same_step : ndarray
        What i's same step spares. Shape ``(D, S, Q)``.
    residual : ndarray
        Truth minus prediction with all pasts, mean over cells. Shape ``(D, K)``.
    effect : ndarray
        Response of a target channel to a standard deviation of a source's channel,
        fold by fold, lag by lag. Shape ``(folds, L, C, K)``, C counting the channels of
        all sources.
    """

    step: Indices
    full: Floats
    without: Floats
    shadow: Floats
    evidence: Floats
    lag: Floats
    given: Floats
    same_step: Floats
    residual: Floats
    effect: Floats

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the folds in the order of the steps; effects stay apart."""
        order = np.argsort(np.concatenate([part.step for part in parts]))
        made = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(cls)
        }
        effect = made.pop("effect")
        return cls(effect=effect, **{name: v[order] for name, v in made.items()})


def fold_losses(
    design: Design,
    segments: Segments,
    train: NDArray[np.bool_],
    *,
    crps: bool = False,
) -> Losses:
    """Fit on the training steps; measure the losses of all others.

    Parameters
    ----------
    design : Design
        Features and targets, made for these training steps.
    segments : Segments
        For shadows.
    train : ndarray of bool
        Shape ``(T,)``.
    crps : bool
        Measure by the CRPS of a normal distribution instead of the squared error.
    """
    return _Fold(design, segments, train, crps=crps).losses()


class _Side:
    """Rows of one side, training or held out: a cell after the other, step by step."""

    def __init__(self, design: Design, steps: Indices, other: Indices) -> None:
        def rows(values: FloatArray, at: Indices) -> FloatArray:
            return values[at].reshape(-1, values.shape[-1])

        self.X, self.Y = rows(design.X, steps), rows(design.Y, steps)
        self.shadow = rows(design.X, other[steps])
        self.shape = (len(steps), design.X.shape[1], -1)


class _Fold:
    def __init__(
        self,
        design: Design,
        segments: Segments,
        train: NDArray[np.bool_],
        *,
        crps: bool,
    ) -> None:
        other = segments.shadows(train)
        self.design, self.crps = design, crps
        self.held = np.flatnonzero(design.usable & ~train)
        learned = np.flatnonzero(design.usable & train)
        self.fit = _Side(design, learned, other)
        self.test = _Side(design, self.held, other)

        # Halves of the training side choose the penalties, in turn through the record.
        half = np.repeat(learned // HALF_STEPS % 2 == 0, design.X.shape[1])
        X, Y = self.fit.X, self.fit.Y
        self.halves = Sums.of(X[half], Y[half]), Sums.of(X[~half], Y[~half])
        self.whole = self.halves[0] + self.halves[1]
        self.base = design.base()
        self.test_base = np.ascontiguousarray(self.test.X[:, self.base])
        self.shadows = _ShadowSums(design, self.fit, self.base, self.test.shadow)

    def losses(self) -> Losses:
        design = self.design
        shape = (len(self.held), design.sources, design.Y.shape[-1])
        lags = np.zeros((shape[0], len(design.lags), *shape[1:]))
        names = ("without", "shadow", "evidence", "given", "same_step")
        out = {"lag": lags, **{name: np.zeros(shape) for name in names}}
        full, residual, square = np.zeros((3, shape[0], shape[2]))
        channels = sum(len(u) for u in design.uniform)
        effect = np.zeros((1, lags.shape[1], channels, shape[2]))

        # Targets that took the same penalty are solved together.
        for candidate, targets in self._penalties():
            weight = penalty(design.kind, design.stiff, candidate)
            model = _Model(self, weight, targets)
            full[:, targets], residual[:, targets] = model.full, model.residual
            square[:, targets] = model.square
            effect[0][:, :, targets] = model.effects()

            for i in range(design.sources):
                for name, values in model.losses_of(i).items():
                    out[name][..., i, targets] = values

        # In units of the loss, or of the squared error where that is the measure.
        units = dict.fromkeys(("evidence", "lag", "given"), square)
        relative = {
            name: self._relative(values, units.get(name, full))
            for name, values in out.items()
        }
        return Losses(
            step=self.held,
            full=self._by_variable(full),
            residual=residual,
            effect=effect,
            **relative,
        )

    def _penalties(self) -> list[tuple[tuple[float, float], Indices]]:
        """Return the penalties that targets took, each with its targets."""
        every = np.arange(self.design.Y.shape[-1])
        first, second = (half.of_columns(self.base, every) for half in self.halves)
        kind, stiff = self.design.kind[self.base], self.design.stiff[self.base]
        return choose_penalties((first, second), kind, stiff)

    def _by_variable(self, values: Floats) -> Floats:
        """Mean over the channels of a variable, along the last axis."""
        owner = self.design.owner
        parts = [
            values[..., owner == k].mean(axis=-1) for k in range(self.design.targets)
        ]
        return np.stack(parts, axis=-1)

    def _relative(self, values: Floats, full: Floats) -> Floats:
        """In units of each channel's mean loss, then mean over channels."""
        return self._by_variable(values / np.maximum(full.mean(axis=0), TINY))


class _ShadowSums:
    """Products of the shadows of every source with features and targets."""

    def __init__(
        self, design: Design, side: _Side, base: Indices, held: FloatArray
    ) -> None:
        self.rows, self.held = len(side.X), held
        groups = [design.group(i) for i in range(design.sources)]
        some = np.sort(np.concatenate(groups))
        self.place = [np.searchsorted(some, group) for group in groups]
        self.cross = np.zeros((len(base), len(some)))
        self.target = np.zeros((len(some), side.Y.shape[1]))
        self.own = [np.zeros((len(group), len(group))) for group in groups]

        for start in range(0, self.rows, ROWS):
            part = slice(start, start + ROWS)
            shadow = side.shadow[part][:, some]
            self.cross += side.X[part][:, base].T @ shadow
            self.target += shadow.T @ side.Y[part]
            for own, at in zip(self.own, self.place, strict=True):
                own += shadow[:, at].T @ shadow[:, at]

    def of(
        self, source: int, columns: Indices, weight: Floats, targets: Indices
    ) -> More:
        """Return the shadow of a source, whose group has these columns, penalties."""
        at = self.place[source]
        return More(
            cross=self.cross[:, at],
            own=self.own[source] + np.diag(self.rows * weight),
            target=self.target[np.ix_(at, targets)],
            values=self.held[:, columns],
        )


class _Model:
    """The regressions of some targets under one penalty, and their held-out losses."""

    def __init__(self, fold: _Fold, weight: Floats, targets: Indices) -> None:
        self.fold, self.weight, self.targets = fold, weight, targets
        self.sums = fold.whole.of_columns(fold.base, targets)
        self.spread = self._spreads()
        self.ridge = NestedRidge(self.sums, weight[fold.base], fold.test_base)
        self.truth = fold.test.Y[:, targets]

        wrong = self.truth - self.ridge.guess
        self.full = self._loss(self.ridge.guess)
        self.residual = self._mean(wrong)
        self.square = self._mean(np.square(wrong, dtype=np.float64))
        self._others: dict[int, Bordered] = {}

    def losses_of(self, i: int) -> dict[str, Floats]:
        """Return the losses of all targets about source i, ``(D, k)`` each."""
        design, ridge = self.fold.design, self.ridge
        columns = design.group(i)
        group = self._inside(columns)
        left = ridge.without(group)
        lost = self._loss(left) - self.full
        out = {"without": lost, "evidence": self._evidence(left, ridge.guess)}

        # With the past of another segment in its place.
        shadow = self.fold.shadows.of(i, columns, self.weight[columns], self.targets)
        out["shadow"] = lost - (self._loss(ridge.replaced(group, shadow)) - self.full)

        parts = [design.past[i, lag] for lag in design.lags]
        out["lag"] = np.stack([self._for(part) for part in parts], axis=1)
        if design.same_step:
            out |= self._same_step(i, group)
        return out

    def effects(self) -> Floats:
        """Return the responses to uniform changes. Shape ``(L, C, k)``."""
        design = self.fold.design

        def response(i: int, lag: int) -> Floats:
            uniform = design.uniform[i]
            linear = self._inside(columns_of([design.past[i, lag]]))
            weights = self.ridge.weights[linear[: uniform.shape[1]]]
            return np.asarray(uniform @ weights)

        return np.stack(
            [
                np.concatenate([response(i, lag) for i in range(design.sources)])
                for lag in design.lags
            ]
        )

    def _same_step(self, i: int, group: Indices) -> dict[str, Floats]:
        """Losses where the same step of i, or of all other variables, is known."""
        design = self.fold.design
        own = columns_of([design.same_step[i]])
        more = self.ridge.bordered(self._more(own, np.arange(len(self.targets))))
        spared = self.full - self._loss(more.guess)

        # A target's own same step is no help: other columns for every variable.
        given = np.zeros_like(spared)
        owner = design.owner[self.targets]
        for k in np.unique(owner[owner != i]):
            mine = np.flatnonzero(owner == k)
            known = self._knowing_others(int(k))
            left, full = known.without(group)[:, mine], known.guess[:, mine]
            given[:, mine] = self._evidence(left, full, mine)
        return {"same_step": spared, "given": given}

    def _knowing_others(self, k: int) -> Bordered:
        """Return the regressions with the same step of all variables but k."""
        if k not in self._others:
            groups = self.fold.design.same_step
            columns = columns_of([part for i, part in groups.items() if i != k])
            more = self._more(columns, np.arange(len(self.targets)))
            self._others[k] = self.ridge.bordered(more)
        return self._others[k]

    def _more(self, columns: Indices, mine: Indices) -> More:
        """Return what adds columns of the design that are not in use."""
        whole = self.fold.whole
        own = whole.gram[np.ix_(columns, columns)]
        return More(
            cross=whole.gram[np.ix_(self.fold.base, columns)],
            own=own + np.diag(whole.rows * self.weight[columns]),
            target=whole.cross[np.ix_(columns, self.targets[mine])],
            values=self.fold.test.X[:, columns],
        )

    def _inside(self, columns: Indices) -> Indices:
        """Return where columns of the design are among those in use."""
        return np.searchsorted(self.fold.base, columns)

    def _for(self, part: slice) -> Floats:
        """Return the evidence for some columns. ``(D, k)``."""
        left = self.ridge.without(self._inside(columns_of([part])))
        return self._evidence(left, self.ridge.guess)

    def _evidence(
        self, left: FloatArray, full: FloatArray, mine: Indices | None = None
    ) -> Floats:
        truth = self.truth if mine is None else self.truth[:, mine]
        return self._mean(nested_evidence(truth, left, full))

    def _loss(self, guess: FloatArray) -> Floats:
        """Return the loss per held-out step, mean over cells. ``(D, k)``."""
        wrong = (self.truth - guess).astype(np.float64)
        crps = self.fold.crps
        return self._mean(normal_crps(wrong, self.spread) if crps else np.square(wrong))

    def _mean(self, values: Any) -> Floats:
        return np.asarray(values.reshape(self.fold.test.shape).mean(axis=1))

    def _spreads(self) -> Floats:
        """Return the deviation of training errors, each half by the other. ``(k,)``."""
        base, weight = self.fold.base, self.weight[self.fold.base]
        first, second = (h.of_columns(base, self.targets) for h in self.fold.halves)
        error = second.error(first.solve(weight)) + first.error(second.solve(weight))
        return np.sqrt(np.maximum(error / self.fold.whole.rows, TINY))


def normal_crps(wrong: Floats, spread: Floats) -> Floats:
    """Return the CRPS of a normal forecast from its error and deviation.

    References
    ----------
    Gneiting & Raftery, doi:10.1198/016214506000001437, eq. (21).
    """
    z = wrong / spread
    density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
    crps = spread * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return np.asarray(crps)


def nested_evidence(truth: FloatArray, left: FloatArray, full: FloatArray) -> Floats:
    """Return ``e0^2 - e1^2 + (p0 - p1)^2 = 2 e0 (p1 - p0)``, of two nested predictions.

    The larger model pays for features that do nothing by estimating them, so that its
    held-out error is larger on average. The third term takes this back: the mean is 0
    where the features do nothing.

    References
    ----------
    Clark & West, Approximately normal tests for equal predictive accuracy in nested
    models, doi:10.1016/j.jeconom.2006.05.023.
    """
    return np.asarray(2.0 * (truth - left).astype(np.float64) * (full - left))
