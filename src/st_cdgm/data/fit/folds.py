"""Which training days are left out together: whole years."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST_YEARS = 3
FOLDS = 5
SPELL_DAYS = 10


def year_folds(
    day: NDArray[np.int64], most: int | None = None
) -> list[NDArray[np.int64]]:
    """Positions of each year; where years are under three, of five folds dealt out.

    A fold of a short record is every fifth spell of ten days: to leave out a whole
    season would ask the regression for a season it has never seen.

    Parameters
    ----------
    day : ndarray
        YYYYMMDD, or YYYYMMDDhhmmss of shorter steps, increasing. Shape ``(T,)``.
    most : int, optional
        Of more years than this, as many folds are made: years are dealt out in turn,
        so that each fold holds early and late ones.
    """
    year = day // (10**4 if day.max(initial=0) < 10**8 else 10**10)
    years, number = np.unique(year, return_inverse=True)
    if years.size >= FEWEST_YEARS:
        fold = number % min(most or years.size, years.size)
    else:
        spell = max(1, min(SPELL_DAYS, day.size // (2 * FOLDS)))
        fold = np.arange(day.size) // spell % FOLDS
    return [np.flatnonzero(fold == k) for k in range(fold.max(initial=-1) + 1)]
