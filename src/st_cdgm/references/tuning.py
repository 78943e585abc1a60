"""Settings compared on validation days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays

T = TypeVar("T")
# Of the days whose ensembles are to be compared: what each candidate makes of them.
Trial = Callable[[FieldArrays], Callable[[T], NDArray[np.float32]]]
DAYS = 200
CELLS = 1024
MEMBERS = 20


def fair_crps(
    members: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    r"""Return the fair CRPS of every day and cell.

    .. math:: \frac{1}{M}\sum_m |x_m - y| - \frac{1}{2M(M-1)}\sum_{m,k} |x_m - x_k|

    which is the absolute error where there is one member; see Ferro (2014),
    doi:10.1002/qj.2270. Shapes ``(T, M, ...)`` and ``(T, ...)``.
    """
    M = members.shape[1]
    error = np.abs(members - truth[:, None]).mean(axis=1, dtype=np.float64)
    rank = (2.0 * np.arange(M) - M + 1) / max(M * (M - 1), 1)
    spread = np.einsum("tm...,m->t...", np.sort(members, axis=1), rank)
    return np.asarray(error - spread)


def choose(
    candidates: Sequence[T],
    trial: Trial[T],
    validation: FieldArrays,
    preprocessor: Preprocessor,
) -> T:
    """Return the candidate with the smallest fair CRPS on validation days.

    Targets count alike: each in units of its deviation over the days. Of a long period
    every so many-th day is looked at, of a large grid every so many-th row and column:
    about ``DAYS`` and ``CELLS``.

    Parameters
    ----------
    candidates : sequence
        What to compare, one at least.
    trial : callable
        Gets the days, without truth, and returns what makes their ensemble from a
        candidate. Shape ``(T, M, C, Y, X)``.
    validation : FieldArrays
        Days with truth.
    preprocessor : Preprocessor
        Says which cells count.
    """
    days = validation.select(slice(None, None, max(1, len(validation) // DAYS)))
    assert days.hr is not None
    every = max(1, int(np.sqrt(days.hr[0, 0].size / CELLS)))
    some = (..., slice(None, None, every), slice(None, None, every))
    truth = np.where(preprocessor.valid, days.hr, np.nan)[some]
    scale = np.nanstd(truth, axis=(0, 2, 3))

    scores = []
    made = trial(replace(days, hr=None))
    for candidate in candidates:
        score = fair_crps(made(candidate)[some], truth)
        each = np.nanmean(score, axis=(0, 2, 3)) / np.where(scale > 0, scale, 1.0)
        scores.append(float(np.nanmean(each)))
    return candidates[int(np.argmin(scores))]
