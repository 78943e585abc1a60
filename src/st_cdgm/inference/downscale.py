"""Stream an ensemble of fine fields from a checkpoint and new coarse predictors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from st_cdgm._version import __version__
from st_cdgm.checkpoint.directory import Checkpoint, load_checkpoint
from st_cdgm.data.files.open import Paths, resolve_paths
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.batch import Batch
from st_cdgm.data.task.datasets import PreparedDays, WindowDataset
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.task.predictor_check import open_predictors
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.calendar import DAY, duration, with_earlier_keys
from st_cdgm.data.time.periods import check_period
from st_cdgm.errors import ConfigError, InputError, OutputError
from st_cdgm.inference.writer import (
    EnsembleWriter,
    check_netcdf_name,
    ensemble_dataset,
)
from st_cdgm.models.sampling import AS_CONFIGURED, Sampling
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.outputs import check_output_path
from st_cdgm.physics.coarse_means import CoarseMeans
from st_cdgm.randomness import member_day_noise, moving_average

logger = logging.getLogger(__name__)


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
) -> NDArray[np.float32]:
    """Generate the last day of each window.

    ``coarse_means`` holds the block means to those of the predictors; it is that of
    ``sampling.block_means``.

    Returns
    -------
    ndarray
        Target units; NaN on cells without training truth. Shape ``(B, M, C, Y, X)``.
    """
    baseline = batch.baseline[:, -1]
    rollout = model.rollout(batch.lr)
    condition = model.condition(
        rollout.state,
        baseline=baseline,
        season=batch.season[:, -1],
        valid=batch.valid[:, -1],
    )
    days = batch.time[:, -1].cpu().numpy()
    noise = member_noise(model, preprocessor, days, members=members, seed=seed)

    # Block means are held to while sampling where that is possible, and afterwards.
    if coarse_means is not None:
        coarse = coarse_means.values(batch.lr[:, -1])
        projection = coarse_means.projection(coarse, baseline)
        sampling = replace(sampling, projection=projection)
    residual = model.decoder.draw_residual(condition, noise, sampling)
    made = preprocessor.decode(residual.float(), baseline[:, None])
    if coarse_means is not None:
        made = coarse_means.match(made, coarse)

    fields = np.asarray(made.cpu().numpy(), dtype=np.float32)
    fields[..., ~np.asarray(preprocessor.valid)] = np.nan
    return fields


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
    model, preprocessor = checkpoint.model, checkpoint.preprocessor
    device = model.baseline_mean.device
    record = PreparedDays.of_arrays(arrays, preprocessor)
    windows = WindowDataset(record, seq_len=preprocessor.seq_len, pad_start=True)
    names = sampling.block_means
    means = CoarseMeans.of(preprocessor, names) if names else None

    wanted = np.flatnonzero(np.asarray(windows.ends) >= first)
    for start in range(0, len(wanted), batch_days):
        index = wanted[start : start + batch_days]
        batch = windows.batch(index.tolist()).to(device)
        fields = generate_batch(
            model,
            preprocessor,
            batch,
            members=members,
            seed=seed,
            sampling=sampling,
            coarse_means=means,
        )
        yield arrays.day[np.asarray(windows.ends)[index]], fields
        if on_progress is not None:
            on_progress(len(index))


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsemblePlan:
    """An ensemble before it is drawn: predictors read, options checked.

    The attributes are the arguments of :func:`generate`, and ``attrs``: the global
    attributes that say what it is.
    """

    checkpoint: Checkpoint
    arrays: FieldArrays
    first: int
    members: range
    seed: int
    batch_days: int
    sampling: Sampling
    attrs: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Days, members, targets, rows and columns: ``(T, M, C, Y, X)``."""
        c, y, x = np.shape(self.checkpoint.preprocessor.valid)
        return len(self.arrays) - self.first, len(self.members), c, y, x

    def batches(
        self, on_progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (days, fields) in time order; see :func:`generate`."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        del given["attrs"]
        return generate(**given, on_progress=on_progress)

    def part(self, start: int, stop: int) -> EnsemblePlan:
        """Return the plan of the days ``start:stop`` of those asked for.

        Drawn alone they are the same to the bit where ``start`` begins a batch.
        """
        history = self.checkpoint.preprocessor.seq_len - 1
        begin = max(self.first + start - history, 0)
        return replace(
            self,
            arrays=self.arrays.select(slice(begin, self.first + stop)),
            first=self.first + start - begin,
        )

    @property
    def contents(self) -> dict[str, Any]:
        """What dataset and file of the ensemble are made of, but for the values."""
        return {
            "calendar": self.arrays.calendar,
            "targets": self.checkpoint.preprocessor.targets,
            "grid": self.checkpoint.preprocessor.hr_grid,
            "members": self.members,
            "attrs": self.attrs,
        }

    def dataset(self, fields: Any) -> xr.Dataset:
        """Return fields ``(T, M, C, Y, X)``, numpy or dask, as the file holds them."""
        day = self.arrays.day[self.first :]
        return ensemble_dataset(fields, day=day, **self.contents)


def plan_ensemble(
    checkpoint: Checkpoint,
    lr: Paths,
    *,
    members: int,
    seed: int,
    start: str | None = None,
    end: str | None = None,
    regrid: str = "auto",
    sampling: Sampling = AS_CONFIGURED,
    batch_days: int = 16,
) -> EnsemblePlan:
    """Read predictors and check all that an ensemble needs; see :func:`downscale`."""
    _check_request(members, start, end)
    generator, preprocessor = checkpoint.model.config.diffusion, checkpoint.preprocessor
    sampling.check(generator)
    if sampling.block_means:
        # Refused before anything is read.
        CoarseMeans.of(preprocessor, sampling.block_means)
    check_daily(preprocessor)

    predictors = open_predictors(preprocessor, lr, regrid=regrid)
    arrays, first = load_predictors(preprocessor, predictors, start=start, end=end)
    return EnsemblePlan(
        checkpoint=checkpoint,
        arrays=arrays,
        first=first,
        members=range(members),
        seed=seed,
        batch_days=batch_days,
        sampling=sampling,
        attrs={
            "title": "Downscaled ensemble",
            "source": f"st-cdgm {__version__}, generator "
            f"{sampling.sampler or generator.scheduler_type}",
            "seed": seed,
            **_steering(sampling),
            **({"regridding": predictors.regridding} if predictors.regridding else {}),
        },
    )


def _check_request(members: int, start: str | None, end: str | None) -> None:
    if members < 1:
        raise ConfigError("no members asked for", found=members, expected=">= 1")
    check_period(start, end)


def downscale(
    checkpoint: Checkpoint | str | Path,
    lr: str | Path | list[str | Path],
    output: str | Path,
    *,
    members: int = 20,
    seed: int = 0,
    start: str | None = None,
    end: str | None = None,
    regrid: str = "auto",
    sampling: Sampling = AS_CONFIGURED,
    batch_days: int = 16,
    device: str = "auto",
    attrs: dict[str, Any] | None = None,
    on_total: Callable[[int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Path:
    """Write an ensemble of fine-grid fields for new coarse predictors.

    Needs the checkpoint and the predictors, nothing else; never reads a truth.

    Parameters
    ----------
    checkpoint : Checkpoint or path
        A checkpoint directory, or one already loaded.
    lr : path or list of paths
        Predictor file(s) with the training channels, on the training coarse grid or
        on one that covers it.
    output : path
        NetCDF file to write; appears only when complete.
    members, seed : int
        Ensemble size and seed.
    start, end : str, optional
        First and last day, ISO dates; default all days.
    regrid : {"auto", "bilinear", "conservative", "none"}
        What to do with predictors on another grid; ``auto`` interpolates them. The
        output's attribute ``regridding`` says what was done.
    sampling : Sampling
        Another way to draw than the checkpoint's, guidance, block means.
    batch_days : int
        Days generated together.
    device : str
        Where to load the checkpoint: ``auto`` (CUDA where there is one, else the CPU),
        ``cpu``, ``cuda`` ...

    Raises
    ------
    InputError
        Missing file; predictors that do not fit the model, with all that does not (see
        `st_cdgm.data.task.predictor_check`); no day in the period; a model of steps
        shorter than a day.
    ConfigError
        No member, dates that are none or in the wrong order, an unknown sampler,
        guidance of a model not trained for it, block means of unknown variables.
    OutputError
        The output cannot be written, or would replace an input.
    """
    _check_request(members, start, end)
    check_netcdf_name(output)
    check_output_path(output)
    _check_inputs(lr, Path(output))
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(checkpoint, device=chosen_device(device))
    plan = plan_ensemble(
        checkpoint,
        lr,
        members=members,
        seed=seed,
        start=start,
        end=end,
        regrid=regrid,
        sampling=sampling,
        batch_days=batch_days,
    )
    total = plan.shape[0]
    if on_total is not None:
        on_total(total)

    # Now: a caller may add attributes once it knows that the inputs can be used.
    plan = replace(plan, attrs=plan.attrs | (attrs or {}))
    with EnsembleWriter(output, total_days=total, **plan.contents) as writer:
        for days, fields in plan.batches(on_progress):
            writer.append(days, fields)
    logger.info("wrote %s: %d days, %d members", output, total, members)
    return Path(output)


def chosen_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    ConfigError
        No such device, or none of this kind here.
    """
    cuda = torch.cuda.is_available()
    with suppress(RuntimeError):
        device = torch.device(("cuda" if cuda else "cpu") if name == "auto" else name)
        if cuda or device.type != "cuda":
            return device
    raise ConfigError(
        "this device cannot be used",
        variable="device",
        found=name,
        expected="auto | cpu" + (" | cuda" if cuda else ", for there is no CUDA"),
    )


def _steering(sampling: Sampling) -> dict[str, Any]:
    """Return the attributes that tell of guidance and block means, where used."""
    pairs = (f"{a} of {b}" for a, b in sampling.block_means.items())
    scale = sampling.guidance_scale if sampling.guidance_scale != 1 else None
    found = {"guidance_scale": scale, "block_means": ", ".join(pairs) or None}
    return {key: value for key, value in found.items() if value is not None}


def check_daily(preprocessor: Preprocessor) -> None:
    """Raise InputError for a model of shorter steps: ensemble files hold days."""
    if preprocessor.step_seconds != DAY:
        raise InputError(
            "a model of steps shorter than a day cannot write an ensemble file",
            variable="data.time_step",
            found=f"{preprocessor.time_step}, steps of "
            f"{duration(preprocessor.step_seconds)}",
            expected="daily steps",
            remedy="train with data.time_step=daily, which makes days of the steps; or "
            "take the fields from st_cdgm.inference.downscale.generate and write them "
            "yourself",
        )


def _check_inputs(lr: str | Path | list[str | Path], output: Path) -> None:
    """Raise unless all predictor files exist and none of them is the output."""
    for file in resolve_paths(lr, role="lr"):
        if output.exists() and file.samefile(output):
            raise OutputError(
                "The output would replace the predictor file.",
                file=output,
                remedy="choose another output path",
            )
