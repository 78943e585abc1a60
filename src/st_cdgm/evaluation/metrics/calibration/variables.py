"""Whether members depart from their mean in two variables as the truth does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import combinations

import numpy as np

from st_cdgm.evaluation.metrics.base import JointMetric
from st_cdgm.evaluation.metrics.blocks import Block
from st_cdgm.evaluation.metrics.calibration.dependence import Correlations, Dependence
from st_cdgm.evaluation.resampling import Measured
from st_cdgm.registry import register


class VariablesScore:
    """Departures in every two variables, in the same cell on the same day.

    Summed over cells that count in both, days and members; see
    :mod:`st_cdgm.evaluation.metrics.calibration.dependence`.
    """

    def __init__(self) -> None:
        self._pairs: dict[str, Dependence] = {}

    def update(self, blocks: Mapping[str, Block]) -> None:
        """Take in the same days of every variable."""
        root = np.min([block.root for block in blocks.values()], axis=0)
        t, M = next(iter(blocks.values())).deviation.shape[:2]

        members, errors = [], []
        for block in blocks.values():
            kept = root == block.root
            same = bool(kept.all())
            deviation = block.deviation if same else block.deviation * kept[:, None]
            members.append(deviation.reshape(t, M, -1))
            errors.append((block.error if same else block.error * kept).reshape(t, -1))

        # Every product once: of a variable with itself and with the others.
        names = list(blocks)
        count = range(len(names))
        products = {
            (i, j): (
                np.einsum("tmp,tmp->t", members[i], members[j]) / max(M - 1, 1),
                np.einsum("tp,tp->t", errors[i], errors[j]),
            )
            for i in count
            for j in count[i:]
        }
        for i, j in combinations(count, 2):
            pair = self._pairs.setdefault(f"{names[i]} & {names[j]}", Dependence())
            pair.members = M
            both = np.stack([*products[i, j], *products[i, i], *products[j, j]])
            ordinal = blocks[names[0]].ordinal
            pair.add_sums(ordinal, both, errors[i], errors[j], root.reshape(t, -1))

    @cached_property
    def value(self) -> dict[str, Correlations]:
        """The correlations of every two variables."""
        return {name: pair.correlations() for name, pair in self._pairs.items()}


class _VariablesMetric(JointMetric):
    score = VariablesScore
    units = "1"
    calibration = True

    def rows(self, score: VariablesScore) -> dict[str, Measured]:
        """Return one number for every two variables."""
        return {name: self.of(found) for name, found in score.value.items()}

    def of(self, found: Correlations) -> Measured:
        """Return the number."""
        raise NotImplementedError


@register("metric", "variables_members")
class VariablesMembersMetric(_VariablesMetric):
    """Correlation of members' departures from their mean in two variables."""

    title = "correlation of members' deviations"
    ideal, place = float("nan"), 300

    def of(self, found: Correlations) -> Measured:
        """Return the members' correlation."""
        return Measured(found.members)


@register("metric", "variables_errors")
class VariablesErrorsMetric(_VariablesMetric):
    """Correlation of the errors of the ensemble mean in two variables."""

    title = "correlation of errors"
    ideal, place = float("nan"), 301

    def of(self, found: Correlations) -> Measured:
        """Return that of the errors."""
        return Measured(found.errors)


@register("metric", "variables_difference")
class VariablesDifferenceMetric(_VariablesMetric):
    """The first minus the second."""

    title = "correlation, members minus errors"
    ideal, place, tolerance, signed = 0.0, 302, 0.1, True

    def of(self, found: Correlations) -> Measured:
        """Return the difference with its interval."""
        return found.difference
