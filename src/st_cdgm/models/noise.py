"""Noise inputs of the one-step generator: white noise given a length scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

WHOLE_DOMAIN = 0  # the scale of one number for all cells


def multiscale_noise(
    noise: Tensor, scales: Sequence[int], pattern: str = "gaussian"
) -> Tensor:
    """Give channel i of white noise the length scale ``scales[i % len]``, in cells.

    White noise averages out over the domain; errors of a day do not. Every cell keeps
    unit variance, and no cell is more alike to one across the domain than their
    distance says (but for ``smooth``).

    Parameters
    ----------
    noise : Tensor
        Standard normal. Shape ``(B, C, Y, X)``.
    scales : sequence of int
        Length scales s; 1 leaves a channel white, 0 gives all cells one number.
    pattern : {"gaussian", "smooth", "blocks"}
        ``gaussian``: a stationary field with correlation ``exp(-(d / s)^2)`` at
        distance d, exactly. ``smooth``: the same on a domain that is wrapped around, so
        that opposite edges are neighbours; of earlier checkpoints. ``blocks``: constant
        on blocks of that size, whose borders show in the spread.
    """
    make = PATTERNS[pattern]
    channels = []
    for c in range(noise.shape[1]):
        white, scale = noise[:, c : c + 1], scales[c % len(scales)]
        if scale == WHOLE_DOMAIN:
            channels.append(_constant(white))
        else:
            channels.append(white if scale == 1 else make(white, scale))

    return torch.cat(channels, dim=1)


def domain_numbers(white: Tensor) -> Tensor:
    """Return one standard normal number per channel: ``(B, C, Y, X) -> (B, C)``."""
    return white.mean(dim=(-2, -1)) * math.sqrt(white.shape[-2] * white.shape[-1])


def _constant(white: Tensor) -> Tensor:
    return domain_numbers(white)[..., None, None].expand_as(white)


def _gaussian(white: Tensor, scale: int) -> Tensor:
    """Correlate rows and columns: a separable covariance needs a root of each."""
    along_y, along_x = (
        _root(size, scale).to(white.device, white.dtype) for size in white.shape[-2:]
    )
    return along_y @ white @ along_x


@lru_cache(maxsize=64)
def _root(size: int, scale: int) -> Tensor:
    """Symmetric root of the correlation matrix along one axis. ``(size, size)``."""
    at = np.arange(size)
    correlation = np.exp(-(((at[:, None] - at) / scale) ** 2))
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # Rounding leaves the variance of a cell at 1 to 1e-15: the rows have length 1.
    return torch.from_numpy(root / np.linalg.norm(root, axis=1, keepdims=True))


def _blocks(white: Tensor, size: int) -> Tensor:
    y, x = white.shape[-2:]
    by, bx = min(size, y), min(size, x)
    coarse = white[..., ::by, ::bx]
    fine = coarse.repeat_interleave(by, dim=-2).repeat_interleave(bx, dim=-1)
    return fine[..., :y, :x]


def _smooth(white: Tensor, size: int) -> Tensor:
    y, x = white.shape[-2:]
    fy = torch.fft.fftfreq(y, device=white.device)[:, None]
    fx = torch.fft.fftfreq(x, device=white.device)[None, :]
    response = torch.exp(-2 * (math.pi * size / 2) ** 2 * (fy**2 + fx**2))
    # Parseval: the mean squared response is the variance of the filtered noise.
    response = response / response.square().mean().sqrt()
    spectrum = torch.fft.fft2(white.float()) * response
    filtered: Tensor = torch.fft.ifft2(spectrum).real
    return filtered.to(white.dtype)


PATTERNS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "gaussian": _gaussian,
    "smooth": _smooth,
    "blocks": _blocks,
}
