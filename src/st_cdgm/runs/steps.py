"""The steps of a run up to its ensemble: data, training, downscaling."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.errors import InputError
from st_cdgm.runs.console import (
    DownscalingWatch,
    Session,
    TrainingWatch,
    byte_size,
    follow_log,
    progress,
)

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config
    from st_cdgm.data.synthetic import SyntheticPaths
    from st_cdgm.data.task.prepared import PipelineViews
    from st_cdgm.training.fit import TrainingResult

logger = logging.getLogger(__name__)


def open_data(config: Config, session: Session) -> PipelineViews:
    """Read, align, split and prepare the data, or open the store that holds them."""
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
    from st_cdgm.runs.checks import check_same_settings

    data = config.data
    logger.info("reading %s", data.resolve(data.store or data.lr_path))
    with progress(session, "Reading"):
        if not data.store:
            return NetCDFDataPipeline.from_config(data)
        stored = ZarrDataPipeline(data.resolve(data.store), memory=data.memory)
        check_same_settings(data, stored.config)
        return stored


def make_climate(
    config: Config, directory: Path, session: Session, *, overwrite: bool = False
) -> SyntheticPaths:
    """Simulate the synthetic climate and write its files."""
    from st_cdgm.data.synthetic import write_synthetic

    with progress(session, "Simulating"):
        return write_synthetic(config.synthetic, directory, overwrite=overwrite)


def train_model(
    config: Config,
    pipeline: PipelineViews,
    run_dir: Path,
    session: Session,
    *,
    resume: bool = False,
) -> TrainingResult:
    """Train, or go on with it; return where the best checkpoint is."""
    from pytorch_lightning.callbacks import LambdaCallback

    from st_cdgm.training.fit import train

    # Lightning's own handlers would write across the bar.
    for name in ("pytorch_lightning", "lightning_fabric"):
        follow_log(name)

    with progress(session, "Training") as advance:
        watch = TrainingWatch(session, advance)
        told = LambdaCallback(
            on_train_start=lambda trainer, _: watch.started(trainer),
            on_train_batch_end=lambda *_: watch.updated(),
            on_train_epoch_end=lambda *_: watch.epoch_ended(),
        )
        result = train(
            pipeline,
            model=config.model(),
            loss=config.loss,
            training=config.training,
            run_dir=run_dir,
            seed=config.run.seed,
            callbacks=[told],
            resume=resume,
            checkpoint=config.checkpoint,
        )
    if config.training.fit_noise_memory and not config.diffusion.noise_memory:
        _fit_noise_memory(config, pipeline, result.checkpoint, session)
    logger.info(
        "best validation loss %.4f in epoch %d, %d updates in %.0f s",
        result.best_loss,
        result.best_epoch,
        result.steps,
        result.seconds,
    )
    return result


def network_configs(config: Config) -> list[Config]:
    """Return the configuration of every network of the pool; the first may be as it is.

    Each has a seed of its own, and the changes of `training.variants` in turn.

    Raises
    ------
    ConfigError
        A variant changes what all networks share, or a key that does not exist.
    """
    from st_cdgm.config.load import changed
    from st_cdgm.errors import ConfigError

    variants = config.training.variants or [{}]
    configs = []
    for k in range(config.training.ensemble):
        changes = dict(variants[k % len(variants)])
        shared = [key for key in changes if key.split(".")[0] in ("run", "plugins")]
        if shared:
            raise ConfigError(
                "the networks of a pool belong to one run",
                variable="training.variants",
                found=", ".join(shared),
                expected="keys of data, encoder, rcn, diffusion, loss or training",
            )
        configs.append(changed(config, {**changes, "run.seed": config.run.seed + k}))
    return configs


def train_pool(
    config: Config,
    pipeline: PipelineViews,
    run_dir: Path,
    session: Session,
    *,
    resume: bool = False,
) -> TrainingResult:
    """Train every network and pool them; return the result of the first.

    The first lies where that of a single training does, the others in ``networks/1``,
    ``networks/2`` ... of the run, and all of them in ``checkpoints/best``.
    """
    from st_cdgm.checkpoint.directory import pool_checkpoints
    from st_cdgm.training.fit import has_state

    first, *others = network_configs(config)
    seen = [_data_of(first, config, pipeline, session)]
    result = train_model(first, seen[0], run_dir, session, resume=resume)

    checkpoints = []
    for number, other in enumerate(others, start=1):
        logger.info("network %d of %d", number + 1, len(others) + 1)
        folder = run_dir / "networks" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        seen.append(_data_of(other, config, pipeline, session))
        begun = resume and has_state(folder)
        found = train_model(other, seen[-1], folder, session, resume=begun)
        checkpoints.append(found.checkpoint)

    if checkpoints:
        pool_checkpoints(result.checkpoint, checkpoints)
    if config.training.fit_bias or config.training.fit_spread:
        calibrate(config, seen, result.checkpoint, session)
    return result


def _data_of(
    network: Config, config: Config, pipeline: PipelineViews, session: Session
) -> PipelineViews:
    """Return the data as a network sees them: prepared anew only if it differs."""
    return pipeline if network.data == config.data else open_data(network, session)


def _fit_noise_memory(
    config: Config, pipeline: PipelineViews, best: Path, session: Session
) -> None:
    """Let members of both checkpoints remember as errors on validation days last."""
    from st_cdgm.checkpoint.directory import change_settings, load_checkpoint
    from st_cdgm.inference.memory import fit_noise_memory

    loaded = load_checkpoint(best)
    try:
        with progress(session, "Noise memory"):
            memory = fit_noise_memory(
                loaded,
                pipeline.arrays("validation"),
                batch_days=config.inference.batch_days,
                # A diffusion model draws some ten times slower.
                days=160 if loaded.model.decoder.config.one_step else 40,
                seed=config.run.seed,
            )
    except InputError as error:
        # A trained model is worth more than this refinement of it.
        logger.warning("the noise keeps no memory from day to day: %s", error)
        return
    for directory in (best, best.with_name("last")):
        change_settings(directory, "diffusion", noise_memory=memory)


def calibrate(
    config: Config, seen: Sequence[PipelineViews], best: Path, session: Session
) -> None:
    """Put right what the mean and the spread of a network, or of a pool, are off by.

    ``seen`` are the data as each network sees them.
    """
    from st_cdgm.checkpoint.directory import (
        NETWORKS,
        add_to_description,
        load_checkpoint,
    )
    from st_cdgm.inference.calibration import KEY
    from st_cdgm.inference.fit_calibration import find_trend, fit_calibration

    settings, networks = config.training, load_checkpoint(best).networks
    codecs = [network.preprocessor.codec.to_dict() for network in networks]
    together = all(codec == codecs[0] for codec in codecs)
    every = list(zip(networks, seen, strict=True))
    options: dict[str, Any] = {
        "bias": settings.fit_bias,
        "spread": settings.fit_spread,
        # A diffusion model draws some ten times slower.
        "days": 120 if networks[0].model.decoder.config.one_step else 30,
        "batch_days": config.inference.batch_days,
        "seed": config.run.seed,
    }

    # A pool as a whole, unless its networks encode differently.
    try:
        with progress(session, "Calibration"):
            found = [
                fit_calibration(
                    [network for network, _ in group],
                    [data.arrays("validation") for _, data in group],
                    trend=find_trend(group[0][1]) if settings.fit_bias else None,
                    **options,
                )
                for group in ([every] if together else [[one] for one in every])
            ]
    except InputError as error:
        logger.warning("bias and spread stay as they are: %s", error)
        return

    for number in range(len(networks)):
        directory = best / NETWORKS / str(number) if number else best
        one = found[0 if together else number]
        add_to_description(directory, **{KEY: one.to_meta()})


def downscale_test(
    config: Config, checkpoint: Path, run_dir: Path, session: Session
) -> Path:
    """Downscale the test period from the checkpoint and the coarse file alone."""
    from st_cdgm.checkpoint.directory import load_checkpoint

    # Pieces of a test period are joined: only their own days are scored.
    test = load_checkpoint(checkpoint).preprocessor.periods["test"]
    start, end = test[0], test[-1]
    return downscale_files(
        checkpoint,
        [config.data.resolve(config.data.lr_path)],
        run_dir / "downscaled.nc",
        session=session,
        members=config.inference.members,
        seed=config.run.seed,
        start=start,
        end=end,
        sampling=config.inference.sampling,
        device=config.inference.device,
        batch_days=config.inference.batch_days,
        on_invalid=config.inference.on_invalid,
    )


def downscale_files(
    checkpoint: Path,
    lr: Sequence[str],
    output: Path,
    *,
    session: Session,
    members: int,
    **options: Any,
) -> Path:
    """Downscale coarse files; ``options`` are those of ``inference.downscale``.

    The output's attributes name the command, the inputs and the checkpoint.
    """
    from st_cdgm.inference.downscale import downscale
    from st_cdgm.runs.provenance import output_attributes

    attrs: dict[str, Any] = {}
    with progress(session, "Downscaling") as advance:
        watch = DownscalingWatch(session, advance)

        def begin(days: int) -> None:
            # Only now is it sure that the inputs can be used: hash them.
            attrs.update(output_attributes(checkpoint, lr, command=session.command))
            watch.started(days, members, field_shape(checkpoint))

        return downscale(
            checkpoint,
            list(lr),
            output,
            members=members,
            attrs=attrs,
            on_total=begin,
            on_progress=watch.made,
            **options,
        )


def field_shape(checkpoint: Path) -> tuple[int, int, int]:
    """Return (C, Y, X) of what a checkpoint makes, without loading the model."""
    from safetensors import safe_open

    from st_cdgm.checkpoint.directory import WEIGHTS

    with safe_open(checkpoint / WEIGHTS, framework="numpy") as tensors:
        c, y, x = tensors.get_slice("data.valid").get_shape()
    return c, y, x


def ensemble_results(path: Path) -> dict[str, str]:
    """Return what an ensemble file holds, as lines to print."""
    import netCDF4

    with netCDF4.Dataset(path) as file:
        size = {name: len(dimension) for name, dimension in file.dimensions.items()}
        fields = ", ".join(n for n, v in file.variables.items() if v.ndim == 4)
    content = f"{size['time']} days, {size['realization']} members of {fields}"
    return {
        "Ensemble": str(path),
        "Content": content,
        "Size": byte_size(path.stat().st_size),
    }
