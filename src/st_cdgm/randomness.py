"""Random numbers: one seed per run, and one stream per (seed, member, day)."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch


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
    seed: int, members: range, days: np.ndarray, shape: tuple[int, ...]
) -> Callable[[], torch.Tensor]:
    """Return the source of standard normal noise of every (day, member).

    Each call draws the next numbers of every stream, so a sampler of a thousand steps
    holds one draw at a time, and draw i does not depend on how many follow.

    Returns
    -------
    callable
        Each call returns shape ``(len(days), len(members), *shape)``, float32.
    """
    streams = [[member_day_rng(seed, m, int(day)) for m in members] for day in days]

    def draw() -> torch.Tensor:
        out = np.empty((len(days), len(members), *shape), dtype=np.float32)
        for d, row in enumerate(streams):
            for m, rng in enumerate(row):
                out[d, m] = rng.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(out)

    return draw
