"""Values that cannot be true are kept out of an ensemble."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.limits import limits_of
from st_cdgm.errors import InputError
from st_cdgm.inference.config import check_on_invalid

logger = logging.getLogger(__name__)
_LARGEST = float(np.finfo(np.float32).max)
_DAYS_SHOWN = 10


class OutputCheck:
    """Look for values that are not finite, or beyond what is physically possible.

    On cells with training truth a model makes numbers of numbers: NaN, infinity and
    -283.7 degC come from damaged predictors or weights. Of variables that the table of
    variables does not know it is asked only that they are finite.

    Parameters
    ----------
    preprocessor : Preprocessor
        Of the model: its targets, fine grid and cells with truth.
    on_invalid : {"error", "mask"}
        Raise InputError, or put NaN there and report it in the end.

    Attributes
    ----------
    masked : dict
        Number of masked values by (target, day).
    """

    def __init__(self, preprocessor: Preprocessor, on_invalid: str = "error") -> None:
        check_on_invalid(on_invalid)
        self.on_invalid = on_invalid
        self.targets, self.grid = preprocessor.targets, preprocessor.hr_grid
        self.valid = np.asarray(preprocessor.valid)
        self.limits = np.array([target_limits(t) for t in self.targets], np.float32)
        self.masked: Counter[tuple[str, int]] = Counter()

    def __call__(
        self, days: NDArray[np.integer], fields: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return fields of days, ``(T, M, C, Y, X)``, without such values.

        Raises
        ------
        InputError
            There is one, and ``on_invalid`` is ``error``.
        """
        low, high = self.limits.T[:, :, None, None]
        bad = ~((fields >= low) & (fields <= high)) & self.valid
        if not bad.any():
            return fields
        if self.on_invalid == "error":
            raise self._error(days, fields, bad)

        counts = bad.sum(axis=(1, 3, 4))  # (T, C)
        for t, c in np.argwhere(counts):
            self.masked[self.targets[c].name, int(days[t])] += int(counts[t, c])
        return np.where(bad, np.float32(np.nan), fields)

    @property
    def report(self) -> str | None:
        """What was masked: variables, days, numbers of values; None if nothing was."""
        if not self.masked:
            return None
        found = [
            f"{count} of {name} on {day}" for (name, day), count in self.masked.items()
        ]
        more = len(found) - _DAYS_SHOWN
        tail = f", and on {more} more" if more > 0 else ""
        return f"values masked: {', '.join(found[:_DAYS_SHOWN])}{tail}"

    def tell(self) -> None:
        """Log the report."""
        if self.report:
            logger.warning("impossible %s", self.report)

    def _error(
        self,
        days: NDArray[np.integer],
        fields: NDArray[np.float32],
        bad: NDArray[np.bool_],
    ) -> InputError:
        """Name the first such value, and how many days and cells have some."""
        t, m, c, y, x = np.argwhere(bad)[0]
        lat, lon = self.grid.lat2d[y, x], self.grid.lon2d[y, x]
        target, value = self.targets[c], fields[t, m, c, y, x]
        low, high = self.limits[c]
        expected = "a finite number"
        if high < _LARGEST:
            expected = f"between {low:.6g} and {high:.6g} {target.units}"

        named = ", ".join(str(day) for day in days[bad.any(axis=(1, 2, 3, 4))])
        cells = int(bad.any(axis=(0, 1, 2)).sum())
        return InputError(
            "the model made values that cannot be true of these predictors",
            variable=target.name,
            found=f"{value:.6g} {target.units} on {days[t]}, member {m}, at "
            f"{lat:.2f} N {lon:.2f} E; such values in {cells} cells on {named}",
            expected=expected,
            remedy="look at the predictors of those days (st-cdgm inspect FILE); to "
            "leave such cells empty: --on-invalid mask (inference.on_invalid=mask)",
        )


def target_limits(target: TargetVariable) -> tuple[float, float]:
    """Return the lowest and highest value that a daily target can have."""
    known = limits_of(target.row, target.units, 24.0, on_level=False)
    low, high = known or (-_LARGEST, _LARGEST)
    return max(low, -_LARGEST), min(high, _LARGEST)
