"""Random numbers: one seed per run, and one stream per (seed, member, day)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch

LEAST_WEIGHT = 0.01


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and torch with the same number."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party code may still draw from it
    torch.manual_seed(seed)


def member_day_rng(seed: int, member: int, day: int) -> np.random.Generator:
    """Return the generator of one ensemble member on one day.

    The stream depends on nothing but the three numbers, so members 1-4 of 20 equal
    members 1-4 of 4 whatever the batching, the period asked for or the number of
    processes.

    Parameters
    ----------
    seed : int
        Seed of the run (non-negative).
    member : int
        Member index, from 0.
    day : int
        Calendar day as the integer YYYYMMDD.
    """
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, member, day]))
    )


def member_day_noise(
    seed: int,
    members: range,
    days: np.ndarray,
    shape: tuple[int, ...],
    *,
    weights: np.ndarray | None = None,
) -> Callable[[], torch.Tensor]:
    """Return the source of standard normal noise of every (day, member).

    Each call draws the next numbers of every stream, so a sampler of a thousand steps
    holds one draw at a time, and draw i does not depend on how many follow.

    Parameters
    ----------
    seed, members
        See `member_day_rng`.
    days : ndarray
        Days YYYYMMDD, shape ``(T,)``; with ``weights`` each day followed by the K days
        before it, shape ``(T, K + 1)``.
    shape : tuple of int
        Of one member's noise on one day, ``(C, ...)``.
    weights : ndarray, optional
        How a channel's noise is made of those days' numbers, see `moving_average`: the
        noise of a day is then like that of the day before, and is the same in every
        period that holds the day. Shape ``(C, K + 1)``.

    Returns
    -------
    callable
        Each call returns shape ``(len(days), len(members), *shape)``, float32.
    """
    table = days[:, None] if days.ndim == 1 else days
    keys, place = np.unique(table, return_inverse=True)
    streams = [[member_day_rng(seed, m, int(key)) for m in members] for key in keys]

    def draw() -> torch.Tensor:
        white = np.empty((len(keys), len(members), *shape), dtype=np.float32)
        for d, row in enumerate(streams):
            for m, rng in enumerate(row):
                white[d, m] = rng.standard_normal(shape, dtype=np.float32)
        if weights is None:
            return torch.from_numpy(white[place.reshape(-1)])

        # One lag after the other: a day's sum does not depend on the days around it.
        out = np.zeros((len(table), len(members), *shape), dtype=np.float32)
        for lag, column in enumerate(place.reshape(table.shape).T):
            share = weights[:, lag].astype(np.float32)
            out += white[column] * share.reshape(-1, *[1] * (len(shape) - 1))
        return torch.from_numpy(out)

    return draw


def moving_average(memory: Sequence[float]) -> np.ndarray:
    """Return weights that give white noise a correlation from day to day.

    Noise with weights proportional to ``r^k`` on the numbers of k days ago is a
    stationary sequence of unit variance whose correlation at lag 1 is r, up to 1e-4:
    weights below .01 are left out.

    Parameters
    ----------
    memory : sequence of float
        Correlation r of each channel, 0 or more and below 1.

    Returns
    -------
    ndarray
        Shape ``(C, K + 1)``, squares of a row sum to 1.
    """
    rate = np.asarray(memory, dtype=np.float64)[:, None]
    lags = 0
    if rate.max() > 0:
        lags = math.ceil(math.log(LEAST_WEIGHT) / math.log(rate.max()))
    weights = rate ** np.arange(lags + 1)
    weights[weights < LEAST_WEIGHT] = 0
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True))
