"""Whether a model can be sampled in the way that is asked for."""

from __future__ import annotations

import math
from pathlib import Path

from st_cdgm.errors import ConfigError, OutputError

ONE_STEP = "one_step"


def check_sampler(
    sampler: str | None,
    steps: int | None,
    *,
    scheduler: str,
    section: str = "",
    guidance_scale: float = 1.0,
    condition_dropout: float = 0.0,
) -> None:
    """Raise ConfigError unless a model can be sampled this way.

    Parameters
    ----------
    sampler, steps : str and int, optional
        What replaces the model's own choice.
    scheduler : str
        ``diffusion.scheduler_type`` of the model.
    section : str
        Put before the names in messages, ``inference.`` for instance.
    guidance_scale : float
        Strength of classifier-free guidance; 1: none.
    condition_dropout : float
        ``diffusion.condition_dropout`` of the model.
    """
    if guidance_scale != 1 and not (
        math.isfinite(guidance_scale) and condition_dropout > 0
    ):
        raise ConfigError(
            "this model cannot be guided",
            variable=f"{section}guidance_scale",
            found=f"{guidance_scale}, of a model with diffusion.condition_dropout "
            f"{condition_dropout:g}",
            expected="1",
            remedy="train a diffusion model with diffusion.condition_dropout above 0, "
            "such as 0.1",
        )
    if scheduler == ONE_STEP:
        if sampler in (None, ONE_STEP) and steps is None:
            return
        raise ConfigError(
            "this model makes a field in one step: there is no sampler to choose",
            variable=f"{section}sampler, {section}steps",
            found=f"sampler {sampler or 'not set'}, steps {steps or 'not set'}",
            expected="neither, since diffusion.scheduler_type is one_step",
            remedy="leave both out, or train with another diffusion.scheduler_type",
        )
    from st_cdgm.models.noise_levels import resolve_sampler

    resolve_sampler(sampler or scheduler)


def check_netcdf_name(path: str | Path) -> None:
    """Raise OutputError for the name of a Zarr store: what is written is NetCDF."""
    path = Path(path)
    if ".zarr" in (suffix.lower() for suffix in path.suffixes):
        raise OutputError(
            "Zarr output is not written yet.",
            file=path,
            found="the name of a Zarr store",
            expected="the name of a NetCDF file, such as "
            f"{path.name[: path.name.lower().rindex('.zarr')]}.nc",
            remedy="choose a name that ends in .nc; xarray turns the file into a "
            "store: xarray.open_dataset(FILE, chunks={}).to_zarr(STORE)",
        )
