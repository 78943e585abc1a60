"""Members of days in memory: the network's fields, day after day."""

from __future__ import annotations

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
from st_cdgm.models.sampling import AS_CONFIGURED, Sampling
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.physics.coarse_means import CoarseMeans
from st_cdgm.randomness import member_day_noise, moving_average
from st_cdgm.typing import Indices


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
        noise = member_noise(model, preprocessor, days, members=members, seed=seed)
        return model.decoder.draw_residual(condition, noise, sampling).float()

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
