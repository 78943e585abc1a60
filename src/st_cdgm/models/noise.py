"""Noise inputs of the one-step generator: white noise given a length scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def multiscale_noise(
    noise: Tensor, scales: list[int], pattern: str = "smooth"
) -> Tensor:
    """Give channel i of white noise the length scale ``scales[i % len]``, in cells.

    White noise averages out over the domain; errors of a day do not. Every cell keeps
    unit variance.

    Parameters
    ----------
    noise : Tensor
        Standard normal. Shape ``(B, C, Y, X)``.
    scales : list of int
        Length scales; 1 leaves a channel white.
    pattern : str
        ``smooth``: Gaussian filter with a standard deviation of half the scale, alike
        everywhere (opposite edges are neighbours). ``blocks``: constant on blocks of
        that size, whose borders show in the spread.
    """
    make = _smooth if pattern == "smooth" else _blocks
    channels = [
        make(noise[:, c : c + 1], scales[c % len(scales)])
        for c in range(noise.shape[1])
    ]
    return torch.cat(channels, dim=1)


def _blocks(white: Tensor, size: int) -> Tensor:
    y, x = white.shape[-2:]
    by, bx = min(size, y), min(size, x)
    coarse = white[..., ::by, ::bx]
    fine = coarse.repeat_interleave(by, dim=-2).repeat_interleave(bx, dim=-1)
    return fine[..., :y, :x]


def _smooth(white: Tensor, size: int) -> Tensor:
    if size == 1:
        return white
    y, x = white.shape[-2:]
    fy = torch.fft.fftfreq(y, device=white.device)[:, None]
    fx = torch.fft.fftfreq(x, device=white.device)[None, :]
    response = torch.exp(-2 * (math.pi * size / 2) ** 2 * (fy**2 + fx**2))
    # Parseval: the mean squared response is the variance of the filtered noise.
    response = response / response.square().mean().sqrt()
    spectrum = torch.fft.fft2(white.float()) * response
    filtered: Tensor = torch.fft.ifft2(spectrum).real
    return filtered.to(white.dtype)
