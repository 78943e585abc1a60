"""What a reference method is: the contract that each keeps.

A reference is fitted on the training days alone and answers with an ensemble in target
units. A model that does not beat the best of them has shown nothing. A class becomes
one by ``@register("reference", name)`` in its own file, here or in a plugin; it is then
valid in ``evaluation.references``, and its name stands in scorecard and report.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.registry import get


class Reference(ABC):
    """A method that predicts ensembles and was fitted on training days only.

    It can be made without arguments: what it can be told has default values. The
    protocol of a scorecard states both attributes.

    Attributes
    ----------
    history : int
        Days of predictors that a prediction sees, the day itself included (1).
    candidates : int
        Settings that :meth:`fit` compared, the budget of its tuning; 1 where it
        chooses nothing.
    networks : int
        Networks K of a pool, which is scored as a mixture; member m is made by network
        m modulo K (1).
    """

    history: int = 1
    candidates: int = 1
    networks: int = 1

    @abstractmethod
    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Learn from the training days and return the fitted reference.

        Parameters
        ----------
        train : FieldArrays
            T training days: standardised predictors ``lr`` (T, C_lr, y, x);
            ``baseline`` and truth ``hr`` (T, C, Y, X), target units, NaN where the
            truth is missing.
        preprocessor : Preprocessor
            Targets, grids, codec and the cells ``valid`` (C, Y, X) with training truth.
        validation : FieldArrays, optional
            Days with truth on which settings, the spread and the end of a training may
            be chosen; never to fit a mean to.
            Without them a setting keeps its default value. A method that has nothing
            to choose may leave this parameter out.

        Raises
        ------
        InputError
            The training days have no truth or are too few.
        """

    @abstractmethod
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


def build_reference(name: str) -> Reference:
    """Return an unfitted reference by its name.

    Raises
    ------
    ConfigError
        Unknown name; the message lists the known ones.
    """
    return cast("Reference", get("reference", name)())


def fit_reference(
    name: str,
    train: FieldArrays,
    preprocessor: Preprocessor,
    validation: FieldArrays | None = None,
) -> Reference:
    """Return a fitted reference; it gets the validation days if its ``fit`` asks.

    Raises
    ------
    ConfigError
        Unknown name.
    InputError
        The days do not suffice; see :meth:`Reference.fit`.
    """
    reference = build_reference(name)
    asks = "validation" in inspect.signature(reference.fit).parameters
    options: dict[str, Any] = {"validation": validation} if asks else {}
    return reference.fit(train, preprocessor, **options)
