"""Training days as the references use them: complete fields and seasons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.randomness import member_day_rng

DAYS_PER_YEAR = 365.25


def training_days(
    train: FieldArrays, preprocessor: Preprocessor
) -> tuple[FieldArrays, NDArray[np.float32]]:
    """Return the training days with truth, and that truth without holes.

    On a cell that has truth on some training days a missing value is replaced by the
    baseline of that day, less its mean error on the cell; days on which more than
    half of these cells are missing are left out.

    The truth ``(T, C, Y, X)`` is finite on ``preprocessor.valid``, NaN elsewhere.

    Raises
    ------
    InputError
        No truth at all.
    """
    if train.hr is None:
        raise InputError("A reference needs training days with truth.", found="none")
    valid = preprocessor.valid
    missing = ~np.isfinite(train.hr) & valid
    keep = np.flatnonzero(2 * missing.sum(axis=(1, 2, 3)) <= valid.sum())
    if keep.size == 0 or not valid.any():
        raise InputError(
            "No training day has truth on half of the cells.",
            found=f"{len(train)} days",
        )

    days = train.select(keep)
    filling = days.baseline - _mean_error(train.baseline, train.hr)
    rain = list(preprocessor.codec.nonnegative)
    filling[:, rain] = np.maximum(filling[:, rain], 0.0)
    truth = np.where(missing[keep], filling, train.hr[keep])
    return days, np.where(valid, truth, np.nan).astype(np.float32)


def _mean_error(
    baseline: NDArray[np.float32], truth: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Mean of baseline minus truth over days with truth, else 0. Shape ``(C, Y, X)``.

    A baseline may be far off: a coarse daily mean stands in for a maximum.
    """
    known = np.isfinite(truth)
    error = np.where(known, baseline - truth, 0.0).sum(axis=0, dtype=np.float64)
    return np.asarray(error / np.maximum(known.sum(axis=0), 1))


def check_members(members: int, available: int) -> None:
    """Refuse an ensemble that cannot be drawn from the training days."""
    if members < 1:
        raise InputError("An ensemble needs a member.", found=members)
    if members > available:
        raise InputError(
            "The ensemble is larger than the training set.",
            found=f"{members} members, {available} training days",
            remedy="ask for fewer members",
        )


def season_distance(
    season: NDArray[np.floating], others: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Distance on the circle of the year, in days. Shape ``(T, T_others)``."""
    difference = np.abs(season[:, None].astype(np.float64) - others[None])
    return np.asarray(DAYS_PER_YEAR * np.minimum(difference, 1 - difference))


def season_pool(
    distance: NDArray[np.float64], window: float, members: int
) -> NDArray[np.int64]:
    """Positions of days at most ``window`` days away, by a row of `season_distance`.

    Where these are fewer than ``members``, the ``members`` days nearest in season.
    """
    pool = np.flatnonzero(distance <= window + 0.5)
    if pool.size < members:
        pool = np.sort(np.argsort(distance, kind="stable")[:members])
    return pool


def draw_days(
    pool: NDArray[np.int64], *, members: int, seed: int, day: int
) -> NDArray[np.int64]:
    """Draw days from a pool without replacement, the same first ones for any M."""
    return member_day_rng(seed, 0, day).permutation(pool)[:members]


def draw_in_season(
    days: FieldArrays,
    season: NDArray[np.floating],
    *,
    window: float,
    members: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw M training days of its season for each day. Shape ``(T, M)``."""
    check_members(members, len(season))
    distance = season_distance(days.season, season)
    rows = [
        draw_days(
            season_pool(row, window, members), members=members, seed=seed, day=int(day)
        )
        for row, day in zip(distance, days.day, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(len(days), members)


def mask_invalid(
    fields: NDArray[np.float32], preprocessor: Preprocessor
) -> NDArray[np.float32]:
    """Set cells that never had training truth to NaN, in place."""
    fields[..., ~preprocessor.valid] = np.nan
    return fields
