"""Members of days in memory: the network's fields, day after day."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from st_cdgm.checkpoint.directory import Checkpoint
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.batch import Batch
from st_cdgm.data.task.datasets import PreparedDays, WindowDataset
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.time.calendar import with_earlier_keys
from st_cdgm.inference.calibration import (
    EXPECTED_MEMBERS,
    EXPECTED_SEED,
    Calibration,
)
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.sampling import AS_CONFIGURED, Sampling
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.physics.coarse_means import CoarseMeans
from st_cdgm.randomness import member_day_noise, moving_average
from st_cdgm.typing import Indices

logger = logging.getLogger(__name__)
# Fine cells of all fields that pass through the network together: about 1 GB.
CELLS_AT_ONCE = 1 << 18
# Memory of the finished fields of a batch of days.
BATCH_BYTES = 64 << 20


@torch.no_grad()
def generate_batch(
    model: STCDGM,
    preprocessor: Preprocessor,
    batch: Batch,
    *,
    members: range,
    seed: int,
    sampling: Sampling = AS_CONFIGURED,
    coarse_means: CoarseMeans | None = None,
    calibration: Calibration | None = None,
) -> NDArray[np.float32]:
    """Generate the last day of each window.

    ``coarse_means`` holds the block means to those of the predictors; it is that of
    ``sampling.block_means``. ``calibration`` puts bias and spread right.

    Returns
    -------
    ndarray
        Target units; NaN on cells without training truth. Shape ``(B, M, C, Y, X)``.
    """
    baseline = batch.baseline[:, -1]

    # Block means are held to while sampling where that is possible, and afterwards.
    if coarse_means is not None:
        coarse = coarse_means.values(batch.lr[:, -1])
        projection = coarse_means.projection(coarse, baseline)
        sampling = replace(sampling, projection=projection)
    residual = draw_residuals(
        model,
        preprocessor,
        batch,
        members=members,
        seed=seed,
        sampling=sampling,
        calibration=calibration,
    )
    made = preprocessor.decode(residual, baseline[:, None])
    if coarse_means is not None:
        made = coarse_means.match(made, coarse)

    fields = np.asarray(made.cpu().numpy(), dtype=np.float32)
    fields[..., ~np.asarray(preprocessor.valid)] = np.nan
    return fields


@torch.no_grad()
def draw_residuals(
    model: STCDGM,
    preprocessor: Preprocessor,
    batch: Batch,
    *,
    members: range,
    seed: int,
    sampling: Sampling = AS_CONFIGURED,
    calibration: Calibration | None = None,
) -> torch.Tensor:
    """Draw standardised residuals of each window's last day. ``(B, M, C, Y, X)``."""
    rollout = model.rollout(batch.lr)
    condition = model.condition(
        rollout.state,
        baseline=batch.baseline[:, -1],
        season=batch.season[:, -1],
        valid=batch.valid[:, -1],
        lr=rollout.lr,
    )
    days = batch.time[:, -1].cpu().numpy()

    def draw(members: range, seed: int) -> torch.Tensor:
        return draw_members(
            model,
            preprocessor,
            condition,
            days,
            members=members,
            seed=seed,
            sampling=sampling,
        )

    # Of the expected field the random numbers are always the same.
    residual = draw(members, seed)
    if calibration is None:
        return residual
    return calibration.applied(
        residual,
        days,
        preprocessor,
        lambda: draw(EXPECTED_MEMBERS, EXPECTED_SEED).mean(dim=1),
    )


def draw_members(
    model: STCDGM,
    preprocessor: Preprocessor,
    condition: Conditioning,
    days: NDArray[np.int64],
    *,
    members: range,
    seed: int,
    sampling: Sampling,
) -> torch.Tensor:
    """Draw standardised residuals, ``(B, M, C, Y, X)``, some members at a time.

    A network's intermediate fields take far more memory than what it makes; so many
    rows as `CELLS_AT_ONCE` allows pass through it together, however many are wanted.
    """
    cells = int(np.prod(preprocessor.valid.shape[1:]))
    size = max(CELLS_AT_ONCE // (cells * len(days)), 1)
    parts = []
    for start in range(0, len(members), size):
        some = members[start : start + size]
        drawn = _drawn(model, preprocessor, condition, days, some, seed, sampling)
        parts.append(drawn.float())
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _drawn(
    model: STCDGM,
    preprocessor: Preprocessor,
    condition: Conditioning,
    days: NDArray[np.int64],
    members: range,
    seed: int,
    sampling: Sampling,
) -> torch.Tensor:
    """Draw residuals; NaN on the days for which a sampler finds no finite ones."""
    noise = member_noise(model, preprocessor, days, members=members, seed=seed)
    try:
        return model.decoder.draw_residual(condition, noise, sampling)
    except FloatingPointError as error:
        if len(days) == 1 or sampling.projection is not None:
            logger.warning("days %s to %s: %s", days[0], days[-1], error)
            shape = (len(days), len(members), *preprocessor.valid.shape)
            return condition.tokens.new_full(shape, torch.nan)

    # Day by day, to keep those that can be drawn.
    singly = [
        _drawn(
            model,
            preprocessor,
            condition.take(torch.tensor([i], device=condition.tokens.device)),
            days[i : i + 1],
            members,
            seed,
            sampling,
        )
        for i in range(len(days))
    ]
    return torch.cat(singly)


def days_at_once(preprocessor: Preprocessor, members: int, most: int) -> int:
    """Return how many days are generated together, ``most`` of them at most."""
    one_day = 4 * members * int(np.prod(preprocessor.valid.shape))
    return max(min(most, BATCH_BYTES // one_day), 1)


def member_noise(
    model: STCDGM,
    preprocessor: Preprocessor,
    days: NDArray[np.int64],
    *,
    members: range,
    seed: int,
) -> Callable[[], torch.Tensor]:
    """Return the source of the noise of members on days; see `member_day_noise`.

    Where the generator remembers, the noise of a day holds the numbers of days before
    it, whether those are asked for or not.
    """
    shape, memory = model.decoder.noise_shape, model.decoder.noise_memory
    if not memory:
        return member_day_noise(seed, members, days, shape)

    weights = moving_average(memory)
    days = with_earlier_keys(
        days,
        weights.shape[1] - 1,
        calendar=preprocessor.calendar,
        step_seconds=preprocessor.step_seconds,
    )
    return member_day_noise(seed, members, days, shape, weights=weights)


def generate(
    checkpoint: Checkpoint,
    arrays: FieldArrays,
    *,
    first: int = 0,
    members: range,
    seed: int,
    batch_days: int = 16,
    sampling: Sampling = AS_CONFIGURED,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (days, fields) in time order, ``batch_days`` days at a time.

    Parameters
    ----------
    checkpoint : Checkpoint
        Model and preprocessor.
    arrays : FieldArrays
        Predictors; days before ``first`` serve as history only. Where a day has less
        history than the model's window, its first day is repeated backwards.
    members : range
        Member numbers; the random numbers depend on (seed, member, day) alone.
    sampling : Sampling
        How to draw.
    on_progress : callable
        Called with the number of days done.
    """
    preprocessor, names = checkpoint.preprocessor, sampling.block_means
    means = CoarseMeans.of(preprocessor, names) if names else None
    calibration = Calibration.of(checkpoint.meta) if sampling.calibrate else None

    for index, batch in batches(checkpoint, arrays, first=first, size=batch_days):
        fields = generate_batch(
            checkpoint.model,
            preprocessor,
            batch,
            members=members,
            seed=seed,
            sampling=sampling,
            coarse_means=means,
            calibration=calibration,
        )
        yield arrays.day[index], fields
        if on_progress is not None:
            on_progress(len(index))


def batches(
    checkpoint: Checkpoint, arrays: FieldArrays, *, first: int = 0, size: int = 16
) -> Iterator[tuple[Indices, Batch]]:
    """Yield the positions of days and their windows, ``size`` days at a time.

    Of days from ``first`` on; where a day has less history than the model's window, its
    first day is repeated backwards.
    """
    preprocessor = checkpoint.preprocessor
    record = PreparedDays.of_arrays(arrays, preprocessor)
    windows = WindowDataset(record, seq_len=preprocessor.seq_len, pad_start=True)
    device = checkpoint.model.baseline_mean.device

    ends = np.asarray(windows.ends)
    wanted = np.flatnonzero(ends >= first)
    for start in range(0, len(wanted), size):
        index = wanted[start : start + size]
        yield ends[index], windows.batch(index.tolist()).to(device)
