"""Stream an ensemble of fine fields from a checkpoint and new coarse predictors."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
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
from st_cdgm.data.task.predictor_check import open_predictors
from st_cdgm.data.task.predictors import PredictorDays, find_predictors
from st_cdgm.data.time.calendar import DAY, duration
from st_cdgm.data.time.periods import check_period
from st_cdgm.errors import ConfigError, InputError, OutputError
from st_cdgm.inference.calibration import Calibration
from st_cdgm.inference.checks import OutputCheck
from st_cdgm.inference.config import check_on_invalid
from st_cdgm.inference.members import days_at_once, generate
from st_cdgm.inference.writer import (
    EnsembleWriter,
    check_netcdf_name,
    ensemble_dataset,
)
from st_cdgm.models.sampling import AS_CONFIGURED, Sampling
from st_cdgm.outputs import check_output_path
from st_cdgm.physics.coarse_means import CoarseMeans

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsemblePlan:
    """An ensemble before it is drawn: predictors found, options checked.

    The attributes are the arguments of :func:`generate` for the first network, whose
    ``predictors`` are read block by block; ``others``, the plans of the further
    networks of a pool; ``attrs``, the global attributes that say what it is; and
    ``on_invalid`` as in `OutputCheck`.
    """

    checkpoint: Checkpoint
    predictors: PredictorDays
    members: range
    seed: int
    batch_days: int
    sampling: Sampling
    attrs: dict[str, Any]
    others: tuple[EnsemblePlan, ...] = ()
    on_invalid: str = "error"

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Days, members, targets, rows and columns: ``(T, M, C, Y, X)``."""
        c, y, x = np.shape(self.checkpoint.preprocessor.valid)
        members = sum(len(plan.members) for plan in (self, *self.others))
        return len(self.predictors), members, c, y, x

    def check(self) -> OutputCheck:
        """Return what looks at the fields that are made."""
        return OutputCheck(self.checkpoint.preprocessor, self.on_invalid)

    def batches(
        self,
        on_progress: Callable[[int], None] | None = None,
        *,
        check: OutputCheck | None = None,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield (days, fields) in time order, checked; see :func:`generate`."""
        plans, check = (self, *self.others), check or self.check()
        for parts in zip(*[plan._own_batches() for plan in plans], strict=True):
            days = parts[0][0]
            made = np.empty((len(days), *self.shape[1:]), dtype=np.float32)
            for k, (_, fields_of_one) in enumerate(parts):
                made[:, k :: len(plans)] = fields_of_one
            yield days, check(days, made)
            if on_progress is not None:
                on_progress(len(days))
        check.tell()

    def _own_batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        size = self.predictors.block_days(self.batch_days)
        for start in range(0, len(self.predictors), size):
            arrays, first = self.predictors.block(start, start + size)
            yield from generate(
                self.checkpoint,
                arrays,
                first=first,
                members=self.members,
                seed=self.seed,
                batch_days=self.batch_days,
                sampling=self.sampling,
            )

    def part(self, start: int, stop: int) -> EnsemblePlan:
        """Return the plan of the days ``start:stop`` of those asked for.

        Drawn alone they are the same to the bit where ``start`` begins a batch.
        """
        return replace(
            self,
            predictors=self.predictors.part(start, stop),
            others=tuple(plan.part(start, stop) for plan in self.others),
        )

    @property
    def contents(self) -> dict[str, Any]:
        """What dataset and file of the ensemble are made of, but for the values."""
        return {
            "calendar": self.predictors.days.calendar,
            "targets": self.checkpoint.preprocessor.targets,
            "grid": self.checkpoint.preprocessor.hr_grid,
            "members": range(self.shape[1]),
            "networks": 1 + len(self.others),
            "attrs": self.attrs,
        }

    def dataset(self, fields: Any) -> xr.Dataset:
        """Return fields ``(T, M, C, Y, X)``, numpy or dask, as the file holds them."""
        day = self.predictors.days.key
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
    on_invalid: str = "error",
) -> EnsemblePlan:
    """Find predictors and check all that an ensemble needs; see :func:`downscale`."""
    _check_request(members, start, end)
    check_on_invalid(on_invalid)
    networks = checkpoint.networks[:members]
    for network in networks:
        # Refused before anything is read.
        sampling.check(network.model.config.diffusion)
        if sampling.block_means:
            CoarseMeans.of(network.preprocessor, sampling.block_means)
        check_daily(network.preprocessor)

    size = days_at_once(checkpoint.preprocessor, members, batch_days)

    def plan(number: int, network: Checkpoint) -> EnsemblePlan:
        """Each network with what its own preprocessor makes of the predictors."""
        predictors = open_predictors(network.preprocessor, lr, regrid=regrid)
        found = find_predictors(network.preprocessor, predictors, start=start, end=end)
        # The first block tells whether the file can be read at all.
        found.block(0, found.block_days(size))

        generator = network.model.config.diffusion.scheduler_type
        attrs = {
            "title": "Downscaled ensemble",
            "source": f"st-cdgm {__version__}, generator "
            f"{sampling.sampler or generator}",
            "seed": seed,
            **_steering(sampling, predictors.regridding),
            **_calibration(network, sampling),
        }
        return EnsemblePlan(
            checkpoint=network,
            predictors=found,
            members=range(number, members, len(networks)),
            seed=seed,
            batch_days=size,
            sampling=sampling,
            attrs=attrs,
            on_invalid=on_invalid,
        )

    first, *others = itertools.starmap(plan, enumerate(networks))
    return replace(first, others=tuple(others))


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
    on_invalid: str = "error",
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
        Days generated together, at most; fewer of a large ensemble on a fine grid.
        Memory grows neither with days nor with members.
    on_invalid : {"error", "mask"}
        What to do with values that are not finite or physically impossible: refuse the
        whole, or leave those cells empty, with days and numbers in a warning and in the
        attribute ``invalid_values``.
    device : str
        Where to load the checkpoint: ``auto`` (CUDA where there is one, else the CPU),
        ``cpu``, ``cuda`` ...

    Raises
    ------
    InputError
        Missing file; predictors that do not fit the model, with all that does not (see
        `st_cdgm.data.task.predictor_check`); no day in the period; a model of steps
        shorter than a day; values that cannot be true.
    ConfigError
        No member, dates that are none or in the wrong order, an unknown sampler,
        guidance of a model not trained for it, block means of unknown variables.
    OutputError
        The output cannot be written, or would replace an input.
    """
    _check_request(members, start, end)
    check_netcdf_name(output)
    check_output_path(output)
    check_inputs(lr, Path(output))
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
        on_invalid=on_invalid,
    )
    total = plan.shape[0]
    if on_total is not None:
        on_total(total)

    # Now: a caller may add attributes once it knows that the inputs can be used.
    plan = replace(plan, attrs=plan.attrs | (attrs or {}))
    check = plan.check()
    with EnsembleWriter(output, total_days=total, **plan.contents) as writer:
        for days, fields in plan.batches(on_progress, check=check):
            writer.append(days, fields)
        if check.report:
            writer.note("invalid_values", check.report)
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


def _steering(sampling: Sampling, regridding: str | None) -> dict[str, Any]:
    """Return the attributes of guidance, block means and regridding, where used."""
    pairs = (f"{a} of {b}" for a, b in sampling.block_means.items())
    found = {
        "guidance_scale": None if (scale := sampling.guidance_scale) == 1 else scale,
        "block_means": ", ".join(pairs) or None,
        "regridding": regridding,
    }
    return {key: value for key, value in found.items() if value is not None}


def _calibration(network: Checkpoint, sampling: Sampling) -> dict[str, str]:
    """Return the attribute that says what of bias and spread is put right."""
    found = Calibration.of(network.meta) if sampling.calibrate else None
    return {} if found is None else {"calibration": str(found)}


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
            "take the fields from st_cdgm.inference.generate and write them "
            "yourself",
        )


def check_inputs(lr: Paths, output: Path) -> None:
    """Raise unless all predictor files exist and none of them is the output."""
    for file in resolve_paths(lr, role="lr"):
        if output.exists() and file.samefile(output):
            raise OutputError(
                "The output would replace the predictor file.",
                file=output,
                remedy="choose another output path",
            )
