"""What a reference method is, and where to find one by name.

A reference is fitted on the training days alone and answers with an ensemble in target
units. A model that does not beat the best of them has shown nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import ClassVar, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import ConfigError


class Reference(Protocol):
    """A method that predicts ensembles and was fitted on training days only.

    Attributes
    ----------
    name : str
        Key in the registry and source name in a scorecard.
    """

    name: ClassVar[str]

    def fit(self, train: FieldArrays, preprocessor: Preprocessor) -> Self:
        """Learn from the training days and return the fitted reference.

        Raises
        ------
        InputError
            The training days have no truth or are too few.
        """

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return an ensemble for each day; ``days.hr`` is never looked at.

        The draw for a day depends on the seed and the date alone, so neither the other
        days nor their order change it.

        Parameters
        ----------
        days : FieldArrays
            The days to predict.
        members : int
            Ensemble size M, at least 1. A deterministic method answers with 1.
        seed : int
            Non-negative.

        Returns
        -------
        ndarray
            Target units, NaN on cells that never had training truth. Shape
            ``(T, M, C, Y, X)``, float32.
        """


class _Registry(Mapping[str, type[Reference]]):
    """Reference classes by name, imported when they are asked for."""

    _places: ClassVar[dict[str, tuple[str, str]]] = {
        "lr_interp": ("interpolation", "InterpolationReference"),
        "climatology": ("climatology", "ClimatologyReference"),
        "analogs": ("analogs", "AnalogReference"),
        "ridge": ("linear", "RidgeReference"),
    }

    def __getitem__(self, name: str) -> type[Reference]:
        module, attribute = self._places[name]
        found = getattr(import_module(f"st_cdgm.references.{module}"), attribute)
        return cast("type[Reference]", found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


REFERENCES: Mapping[str, type[Reference]] = _Registry()


def build_reference(name: str) -> Reference:
    """Return an unfitted reference by its name.

    Raises
    ------
    ConfigError
        Unknown name; the message lists the known ones.
    """
    if name not in REFERENCES:
        raise ConfigError(
            "There is no such reference method.",
            found=name,
            expected=" | ".join(REFERENCES),
        )
    return REFERENCES[name]()
