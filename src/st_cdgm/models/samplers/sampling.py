"""Draw samples with any sampler: names, numbers of draws, checks around the walk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from st_cdgm.models.samplers.base import Denoiser, Noise, Sampler
from st_cdgm.models.stacked import check_shape
from st_cdgm.registry import entries, get


def sampler_names() -> tuple[str, ...]:
    """Return the names of all samplers, those of plugins included, without aliases."""
    names = [entry.name for entry in entries("sampler")]
    return tuple(name for name in names if resolve_sampler(name) == name)


def get_sampler(name: str) -> Sampler:
    """Return a sampler by its name or an alias.

    Raises
    ------
    ConfigError
        (a ``ValueError``) The name is unknown; the message lists the names.
    """
    sampler: Sampler = get("sampler", name)()
    return sampler


def resolve_sampler(name: str) -> str:
    """Return the proper name of a sampler; see `get_sampler`."""
    return str(getattr(get("sampler", name), "name", name))


def noise_levels(
    sampler: str,
    steps: int,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Return the noise levels a sampler visits, largest first, without the final zero.

    ``ddpm`` and ``ddim`` walk the VP grid, which has its own range; the three
    keywords concern the other samplers.

    Returns
    -------
    Tensor
        Shape ``(steps,)``, float64.

    Raises
    ------
    ValueError
        The sampler cannot take so many steps, or a bad noise range.
    """
    chosen = _sampler_of(sampler, steps)
    return chosen.sigmas(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)


def draws_needed(sampler: str, steps: int) -> int:
    """Return how many standard normal tensors one call of `sample` uses.

    The first is the starting point; ``ddpm`` and ``dpm_solver_sde`` need one more for
    every step but the last.
    """
    return steps if _sampler_of(sampler, steps).fresh_noise else 1


def _sampler_of(name: str, steps: int) -> Sampler:
    """Return a sampler that can take so many steps, or raise ValueError."""
    sampler = get_sampler(name)
    most = sampler.most_steps
    if steps < 1 or (most is not None and steps > most):
        bound = "at least 1" if most is None else f"1 to {most}"
        msg = f"sampler {name!r} takes {bound} steps, found {steps}"
        raise ValueError(msg)
    return sampler


def sample(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    sampler: str = "dpm_solver++",
    steps: int | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | Noise | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    dtype: torch.dtype = torch.float64,
    denoiser_dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    final_denoise: bool = True,
) -> Tensor:
    """Draw samples with a denoiser; no gradient is kept.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x, sigma)`` estimates x0 from ``x = x0 + sigma * eps``. ``x`` has
        the shape of the sample (B first), ``sigma`` has shape ``(B,)``.
    shape : sequence of int
        Shape of the sample, ``(B, ...)``.
    sampler : str
        A registered name or alias; see `sampler_names`.
    steps : int, optional
        Number of noise levels; default the sampler's. Each costs one call of
        the denoiser, for ``heun`` two but for the last.
    generator : torch.Generator, optional
        Source of all random numbers, the starting point and those of every step.
    noise : Tensor or callable, optional
        Standard normal numbers to use instead of a generator. A tensor of shape
        ``(draws, *shape)`` with at least ``draws_needed(sampler, steps)`` draws, or
        ``noise(i)``, the i-th of them, asked for in order (a thousand steps need not
        be held in memory).
    sigma_min, sigma_max, rho : float
        Karras grid (`karras_sigmas`). ``ddpm`` and ``ddim`` have a fixed range.
    dtype : torch.dtype
        Solver state and result.
    denoiser_dtype : torch.dtype, optional
        What ``x`` and ``sigma`` are cast to for the denoiser. By default the dtype of
        its parameters when it is a module, else ``dtype``.
    device : torch.device or str, optional
        By default that of ``noise`` (a tensor), of ``generator``, or the CPU.
    final_denoise : bool
        True: the last step goes from the smallest noise level to zero. False: return
        the state at the smallest noise level.

    Returns
    -------
    Tensor
        Shape ``shape``, dtype ``dtype``.

    Raises
    ------
    ConfigError
        Unknown sampler.
    ValueError
        Bad ``steps``, noise range or noise; a denoiser that changes the shape.
    FloatingPointError
        The result is not finite.
    """
    chosen = get_sampler(sampler)
    steps = chosen.default_steps if steps is None else steps
    sigmas = noise_levels(
        sampler, steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho
    ).tolist()
    if final_denoise:
        sigmas.append(0.0)

    size, draws = tuple(shape), draws_needed(sampler, steps)
    draw = _noise_source(noise, generator, size, draws, dtype=dtype, device=device)
    with torch.no_grad():
        start = draw(0)
        estimate = _checked_denoiser(denoiser, size, dtype, denoiser_dtype)
        x = start * chosen.start(sigmas[0])
        x = chosen.walk(estimate, x, sigmas, draw)
    if not bool(torch.isfinite(x).all()):
        msg = f"sampler {sampler!r} gave values that are not finite after {steps} steps"
        raise FloatingPointError(msg)

    return x


# --- around the walk ------------------------------------------------------------------


def _checked_denoiser(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    denoiser_dtype: torch.dtype | None,
) -> Denoiser:
    """Wrap the denoiser: scalar sigma -> (B,), casts both ways, shape checked."""
    inner = denoiser_dtype or dtype
    if denoiser_dtype is None and isinstance(denoiser, nn.Module):
        own = (p.dtype for p in denoiser.parameters() if p.is_floating_point())
        inner = next(own, dtype)

    def estimate(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoiser(x.to(inner), sigma.to(inner).expand(shape[0]))
        check_shape("denoiser's estimate", x0, shape)
        return x0.to(dtype)

    return estimate


def _noise_source(
    noise: Tensor | Noise | None,
    generator: torch.Generator | None,
    shape: tuple[int, ...],
    draws: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Noise:
    """Return ``draw(i)`` from whichever source of random numbers was given."""
    if noise is not None and generator is not None:
        msg = "give either noise or a generator, not both"
        raise ValueError(msg)
    if isinstance(noise, Tensor) and (
        noise.shape[1:] != shape or noise.shape[0] < draws
    ):
        found, need = tuple(noise.shape), (draws, *shape)
        msg = f"noise has shape {found}, expected {need} (more draws are ignored)"
        raise ValueError(msg)

    origin = torch.device("cpu") if generator is None else generator.device
    place = origin if noise is None and device is None else device

    def draw(i: int) -> Tensor:
        if noise is None:
            made = torch.randn(shape, generator=generator, dtype=dtype, device=origin)
        else:
            made = noise[i] if isinstance(noise, Tensor) else noise(i)
        check_shape(f"noise({i})", made, shape)
        return made.to(device=place, dtype=dtype)

    return draw
