"""How much a member's noise remembers from day to day, chosen on validation days.

Errors of a day last: what the generator does not know of a blocked high it does not
know on the next day either. Independent noise makes an ensemble too narrow over a week
even where it is right on each day. The correlation of the noise is therefore set, for
each of its length scales, so that member deviations are as alike from day to day as
errors are, in cells and in blocks. The spread of single days does not change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import Tensor

from st_cdgm.checkpoint.directory import Checkpoint
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.inference.members import generate
from st_cdgm.models.config import MOST_MEMORY
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.physics.blocks import pool_valid
from st_cdgm.typing import Floats

logger = logging.getLogger(__name__)

BLOCKS = (1, 4, 16)  # sides in cells, in which deviations and errors are compared
SPELL_DAYS = 30
TRIAL = 0.6  # of one scale at a time; what it does is close to proportional to it


class Persistence:
    """Lag-1 correlation of a sequence of fields around their mean, per channel."""

    def __init__(self) -> None:
        self._previous: Tensor | None = None
        self._sum = self._square = self._product = torch.zeros(())
        self._count = self._pairs = 0

    def add(self, field: Tensor, *, follows: bool) -> None:
        """Take in the field ``(..., C, y, x)`` of a day, finite.

        ``follows``: whether it is the day after the one before.
        """
        if follows and self._previous is not None:
            self._product = self._product + field * self._previous
            self._pairs += 1
        self._sum, self._square = self._sum + field, self._square + field**2
        self._count += 1
        self._previous = field

    def covariances(self) -> tuple[Floats, Floats]:
        """Covariance of neighbouring days, and variance. Each ``(C,)``."""
        mean = self._sum / self._count
        lagged = self._product / max(self._pairs, 1) - mean**2
        variance = self._square / self._count - mean**2
        pooled = [x.mean(dim=(0, -2, -1)).numpy() for x in (lagged, variance)]
        return pooled[0], pooled[1]


def fit_noise_memory(
    checkpoint: Checkpoint,
    validation: FieldArrays,
    *,
    members: int = 4,
    days: int = 160,
    batch_days: int = 16,
    seed: int = 0,
) -> list[float]:
    """Choose the correlation of the noise of each length scale.

    Each scale alone is given the memory ``TRIAL``, and bounded least squares finds the
    mixture whose lag-1 correlation of member deviations (member minus ensemble mean) is
    nearest to that of the errors (truth minus ensemble mean), over all targets and
    blocks of 1, 4 and 16 cells.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its ``noise_memory`` is left as it is.
    validation : FieldArrays
        Days with truth; training days would show errors that are too small.
    members, days, batch_days, seed : int
        Ensemble size; how many days, in spells spread over the record; how they are
        drawn.

    Returns
    -------
    list of float
        One per noise scale (one in all for a diffusion model), 0 to 0.95.

    Raises
    ------
    InputError
        No truth, or no two neighbouring days with truth.
    """
    arrays = spells(validation, days)
    if arrays.hr is None:
        raise InputError("the memory of the noise is chosen on days with truth")
    config = checkpoint.model.decoder.config
    count = len(config.noise_scales) if config.one_step else 1

    def persistence(memory: Sequence[float]) -> tuple[Floats, Floats]:
        with _remembering(checkpoint.model, memory):
            made = generate(
                checkpoint,
                replace(arrays, hr=None),
                members=range(members),
                seed=seed,
                batch_days=batch_days,
            )
            return _lag_correlations(made, arrays)

    # What each scale does by itself, and what mixture does what is wanted.
    without, wanted = persistence([0.0] * count)
    effect = np.stack(
        [
            (persistence((TRIAL * one).tolist())[0] - without) / TRIAL
            for one in np.eye(count)
        ],
        axis=1,
    )  # (C * blocks, scales)

    known = np.isfinite(wanted) & np.isfinite(effect).all(axis=1)
    if not known.any():
        raise InputError("no two neighbouring validation days have truth")

    solution = lsq_linear(
        effect[known], (wanted - without)[known], bounds=(0, MOST_MEMORY)
    )
    memory = [round(float(value), 3) for value in solution.x]
    logger.info(
        "noise memory %s: lag-1 correlation of errors %s, of deviations about %s",
        memory,
        np.round(wanted, 2).tolist(),
        np.round(without + effect @ solution.x, 2).tolist(),
    )
    return memory


def spells(validation: FieldArrays, days: int) -> FieldArrays:
    """Return spells of consecutive days, evenly spread, of so many days in all."""
    total = len(validation)
    if total <= days:
        return validation
    number = max(days // SPELL_DAYS, 1)
    first = np.linspace(0, total - SPELL_DAYS, number).astype(int)
    index = np.unique(first[:, None] + np.arange(SPELL_DAYS))
    return validation.select(index)


@contextmanager
def _remembering(model: STCDGM, memory: Sequence[float]) -> Iterator[None]:
    """Give the generator another memory for a while."""
    config = model.decoder.config
    before = config.noise_memory
    config.noise_memory = list(memory)
    try:
        yield
    finally:
        config.noise_memory = before


def _lag_correlations(
    made: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]], arrays: FieldArrays
) -> tuple[Floats, Floats]:
    """Lag-1 correlation of deviations and of errors, each ``(C * blocks,)``.

    The mean of M members is itself uncertain by the M-th part of their variance, which
    the variance of the errors is freed of.
    """
    assert arrays.hr is not None
    ordinal, truth = arrays.days.ordinal, arrays.hr
    known = np.isfinite(truth).all(axis=0)
    follows = np.concatenate([[False], np.diff(ordinal) == 1])
    deviations = [Persistence() for _ in BLOCKS]
    errors = [Persistence() for _ in BLOCKS]

    # Day by day: cells and blocks of both are summed, nothing is kept.
    at, members = 0, 0
    for _, fields in made:
        for ensemble in fields:  # (M, C, Y, X)
            members = len(ensemble)
            mean = ensemble.mean(axis=0)
            valid = torch.from_numpy(known & np.isfinite(mean))

            parts = (
                (deviations, ensemble - mean),
                (errors, (truth[at] - mean)[None]),
            )
            for sums, field in parts:
                values = torch.from_numpy(field).double().nan_to_num()
                for one, block in zip(sums, BLOCKS, strict=True):
                    pooled, _ = pool_valid(values, valid.double(), block)
                    one.add(pooled, follows=bool(follows[at]))

            at += 1

    # Correlations of all targets, block size after block size.
    inside, outside = [], []
    for deviation, error in zip(deviations, errors, strict=True):
        lagged, variance = deviation.covariances()
        spread = variance * members / (members - 1)
        inside.append(lagged / variance)
        product, square = error.covariances()
        outside.append(product / (square - spread / members))
    return np.concatenate(inside), np.concatenate(outside)
