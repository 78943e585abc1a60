"""What a derived predictor is: a field computed from others of the same day.

One of one's own is a class in one file; this one is made of surface fields::

    @register("derived", "stress")
    class Stress(Derived):
        inputs = ("uas", "vas")
        units = "m2 s-2"
        title = "Square of the wind speed near the surface"

        def function(self, grid, channels):
            return lambda u, v: (u * u + v * v).astype(np.float32)

and is chosen by ``data.lr_derived: [stress]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel

Plane = Callable[..., NDArray[np.float32]]


class Derived(ABC):
    """A predictor computed from others.

    Attributes
    ----------
    inputs : tuple of str
        Variables it is made from, under any of their names: all on its level, or all
        at the surface.
    levels : {0, 1, 2}
        How many pressure levels follow the registered name: none for surface fields;
        one (``ug_850``, or ``ug`` for every level that has the inputs); or two
        (``thickness_1000_500``).
    units : str
        Of the result.
    title : str
        What it is, for people; the levels are added.
    standard_name : str or None
        CF standard name.
    """

    inputs: ClassVar[tuple[str, ...]]
    levels: ClassVar[int] = 0
    units: ClassVar[str]
    title: ClassVar[str]
    standard_name: ClassVar[str | None] = None

    @abstractmethod
    def function(self, grid: Grid, channels: Sequence[Channel]) -> Plane:
        """Return what computes the predictor of some days.

        Parameters
        ----------
        grid : Grid
            Of the predictors.
        channels : sequence of Channel
            The inputs, with level and units: all `inputs` on the first level, then all
            on the second.

        Returns
        -------
        callable
            From one array per input to the result, each of shape ``(T, y, x)``; a
            value is missing where an input is.
        """

    @staticmethod
    def check(grid: Grid, names: Sequence[str], file: str) -> None:
        """Raise, or warn, where a grid does not allow it; called once for all names.

        Raises
        ------
        InputError
            If nothing could be computed.
        """
        del grid, names, file
