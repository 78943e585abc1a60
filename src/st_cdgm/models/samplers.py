r"""Samplers: from a denoiser and noise to a draw of the learned distribution.

All of them work in the variance-exploding frame ``x(sigma) = x0 + sigma * eps`` and
need nothing from the network but its estimate ``D(x; sigma)`` of ``x0``, so one trained
denoiser serves every sampler. A variance-preserving (VP) state is
``x / sqrt(1 + sigma^2)``, with ``sigma = sqrt((1 - abar) / abar)``.

=================  ==============================================  =====  ===========
name (alias)       algorithm                                       order  noise grid
=================  ==============================================  =====  ===========
``ddpm``           ancestral sampling, variance beta_t [1]_        --     VP, linear
``ddim``           deterministic DDIM (eta = 0) [2]_               1      VP, linear
``euler``          Euler on the probability-flow ODE [3]_          1      Karras
``heun`` (edm)     Heun, algorithm 1 without churn [3]_            2      Karras
``dpm_solver++``   DPM-Solver++(2M) [4]_ (``dpm_solver``)          2      Karras
``dpm_solver_sde`` SDE-DPM-Solver++(2M) [4]_                       --     Karras
=================  ==============================================  =====  ===========

The steps are written out here, and checked against diffusers in the tests: diffusers'
schedulers draw their own noise and keep tables in float32, while an ensemble needs
random numbers that depend on (seed, member, day) alone and a solver state in float64.

References
----------
.. [1] Ho et al. 2020, arXiv:2006.11239, algorithm 2 (with sigma_t^2 = beta_t).
.. [2] Song et al. 2021, arXiv:2010.02502, eq. 12.
.. [3] Karras et al. 2022, arXiv:2206.00364, eq. 5 and algorithm 1.
.. [4] Lu et al. 2022, arXiv:2211.01095, algorithm 2 and section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from st_cdgm.models.noise_levels import (
    DEFAULT_STEPS,
    check_steps,
    noise_levels,
    resolve_sampler,
)

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Noise: TypeAlias = Callable[[int], Tensor]


def draws_needed(sampler: str, steps: int) -> int:
    """Return how many standard normal tensors one call of `sample` uses.

    The first is the starting point; ``ddpm`` and ``dpm_solver_sde`` need one more for
    every step but the last.
    """
    name = resolve_sampler(sampler)
    return check_steps(name, steps) if name in ("ddpm", "dpm_solver_sde") else 1


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
        One of `SAMPLERS` or an alias.
    steps : int, optional
        Number of noise levels; `DEFAULT_STEPS` has the defaults. Each costs one call of
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
    name = resolve_sampler(sampler)
    steps = DEFAULT_STEPS[name] if steps is None else steps
    sigmas = noise_levels(
        name, steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho
    ).tolist()
    if final_denoise:
        sigmas.append(0.0)

    size = tuple(shape)
    draw = _noise_source(
        noise, generator, size, draws_needed(name, steps), dtype=dtype, device=device
    )
    with torch.no_grad():
        start = draw(0)
        estimate = _checked_denoiser(denoiser, size, dtype, denoiser_dtype)
        x = start * _initial_scale(name, sigmas[0])
        x = _WALKS[name](estimate, x, sigmas, draw)
    if not bool(torch.isfinite(x).all()):
        msg = f"sampler {name!r} gave values that are not finite after {steps} steps"
        raise FloatingPointError(msg)
    return x


# --- the algorithms: (D, x at sigmas[0], sigmas, draw) -> x at sigmas[-1] -------------
# lerp(x0, x, w) is x0 + w (x - x0).


def _walk_euler(D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
    """Euler on dx/dsigma = (x - D) / sigma; on the VP grid that is DDIM, eta = 0."""
    del draw
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x0 = D(x, x.new_tensor(sigma))
        x = torch.lerp(x0, x, following / sigma)
    return x


def _walk_heun(D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
    """Heun's method; the step to zero is Euler's, since the slope at 0 is 0 / 0."""
    del draw
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - D(x, x.new_tensor(sigma))) / sigma
        ahead = x + (following - sigma) * slope
        if following > 0:
            slope_ahead = (ahead - D(ahead, x.new_tensor(following))) / following
            ahead = x + (following - sigma) * 0.5 * (slope + slope_ahead)
        x = ahead
    return x


def _walk_ddpm(D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
    """Ancestral sampling: posterior mean plus noise of variance beta_t.

    In the frame used here, with p the following level, the posterior mean is
    ``x0 + (sigma_p / sigma)^2 (x - x0)`` and beta_t becomes
    ``beta_t / abar_p = (sigma^2 - sigma_p^2) (1 + sigma_p^2) / (1 + sigma^2)``.
    """
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x0 = D(x, x.new_tensor(sigma))
        x = torch.lerp(x0, x, (following / sigma) ** 2)
        if following > 0:
            spread = (sigma**2 - following**2) * (1 + following**2) / (1 + sigma**2)
            x = torch.add(x, draw(i + 1), alpha=math.sqrt(spread))
    return x


def _walk_dpm(D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
    """DPM-Solver++(2M): exponential integrator in lambda = -log sigma, x0 linear in it.

    The first step has no history and the step to zero has infinite length; both take
    x0 as constant.
    """
    del draw
    estimates = _extrapolated(D, sigmas)
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x0 = estimates(i, x)
        x = torch.lerp(x0, x, following / sigma)
    return x


def _walk_dpm_sde(D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
    """SDE-DPM-Solver++(2M): as 2M, with the reverse SDE's noise, integrated exactly."""
    estimates = _extrapolated(D, sigmas)
    for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x0 = estimates(i, x)
        ratio = (following / sigma) ** 2  # exp(-2 h)
        x = torch.lerp(x0, x, ratio)
        if following > 0:
            x = torch.add(x, draw(i + 1), alpha=following * math.sqrt(1 - ratio))
    return x


def _extrapolated(D: Denoiser, sigmas: list[float]) -> Callable[[int, Tensor], Tensor]:
    """Return the 2M estimate ``D_i + (D_i - D_{i-1}) / (2 r)``, r = h_{i-1} / h_i."""
    previous: Tensor | None = None

    def estimate(i: int, x: Tensor) -> Tensor:
        nonlocal previous
        now = D(x, x.new_tensor(sigmas[i]))
        before, previous = previous, now
        if before is None or sigmas[i + 1] == 0:
            return now
        step = math.log(sigmas[i] / sigmas[i + 1])
        last_step = math.log(sigmas[i - 1] / sigmas[i])
        return now + (now - before) * (0.5 * step / last_step)

    return estimate


_WALKS: dict[str, Callable[[Denoiser, Tensor, list[float], Noise], Tensor]] = {
    "ddpm": _walk_ddpm,
    "ddim": _walk_euler,
    "euler": _walk_euler,
    "heun": _walk_heun,
    "dpm_solver++": _walk_dpm,
    "dpm_solver_sde": _walk_dpm_sde,
}


# --- around them ----------------------------------------------------------------------


def _initial_scale(name: str, sigma: float) -> float:
    """Return the standard deviation of the starting point.

    A VP chain starts from N(0, 1), i.e. N(0, 1 + sigma^2) here.
    """
    return math.sqrt(1 + sigma**2) if name in ("ddpm", "ddim") else sigma


def _checked_denoiser(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    denoiser_dtype: torch.dtype | None,
) -> Denoiser:
    """Wrap the denoiser: scalar sigma -> (B,), casts both ways, shape checked."""
    inner = denoiser_dtype or _own_dtype(denoiser) or dtype

    def estimate(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoiser(x.to(inner), sigma.to(inner).expand(shape[0]))
        if tuple(x0.shape) != shape:
            msg = f"the denoiser returned shape {tuple(x0.shape)}, expected {shape}"
            raise ValueError(msg)
        return x0.to(dtype)

    return estimate


def _own_dtype(denoiser: Denoiser) -> torch.dtype | None:
    """Return the dtype of a module's floating-point parameters."""
    if not isinstance(denoiser, nn.Module):
        return None
    dtypes = (p.dtype for p in denoiser.parameters() if p.is_floating_point())
    return next(dtypes, None)


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
    if noise is None:
        origin = torch.device("cpu") if generator is None else generator.device
        place = origin if device is None else device
        return lambda _: torch.randn(
            shape, generator=generator, dtype=dtype, device=origin
        ).to(place)
    if generator is not None:
        msg = "give either noise or a generator, not both"
        raise ValueError(msg)
    if isinstance(noise, Tensor):
        if noise.shape[1:] != shape or noise.shape[0] < draws:
            found, need = tuple(noise.shape), (draws, *shape)
            msg = f"noise has shape {found}, expected {need} (more draws are ignored)"
            raise ValueError(msg)
        tensor = noise
        return lambda i: tensor[i].to(device=device, dtype=dtype)
    source = noise

    def draw(i: int) -> Tensor:
        made = source(i)
        if tuple(made.shape) != shape:
            msg = f"noise({i}) has shape {tuple(made.shape)}, expected {shape}"
            raise ValueError(msg)
        return made.to(device=device, dtype=dtype)

    return draw
