"""A reference made of networks, and a pool of them that shares the members."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.references.base import Reference
from st_cdgm.references.neural.task import Task
from st_cdgm.references.neural.training import seeded

_LOGGER = logging.getLogger(__name__)

# Days predicted at once.
DAYS = 32


@dataclass(kw_only=True, eq=False)
class NeuralReference(Reference):
    """A reference that learns a `Task`.

    Attributes
    ----------
    seed : int
        Training seed, of the first network where there are more.
    networks : int
        Networks between which members are dealt: member m comes from network m modulo
        their number.
    """

    seed: int = 0
    history = 2

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Train until the days held out say stop.

        Without ``validation`` the last training year is held out.
        """
        task = Task.of(train, preprocessor, validation)
        self._inputs, self._targets = task.inputs, task.targets
        with seeded(self.seed):
            self.learn(task)
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Draw M members for each day.

        The draw of a member on a day depends on the seed, the member and the date
        alone (and, in the last digits, on how many are computed at once).
        """
        if members < 1:
            raise InputError("An ensemble needs a member.", found=members)
        shape = (len(days), members, *self._targets.cells.shape)
        out = np.empty(shape, dtype=np.float32)

        for start in range(0, len(days), DAYS):
            part = slice(start, start + DAYS)
            with torch.no_grad():
                drawn = self.draw(days.select(part), members, seed)
            out[part] = self._targets.decode(drawn)
        return out

    @abstractmethod
    def learn(self, task: Task) -> None:
        """Train and keep what `draw` needs; torch is seeded."""

    @abstractmethod
    def draw(self, days: FieldArrays, members: int, seed: int) -> Tensor:
        """Return standardised members of some days. Shape ``(T, M, C, Y, X)``."""


@dataclass(kw_only=True, eq=False)
class Pool(NeuralReference):
    """Networks that differ in their training seed alone; members are dealt over them.

    Attributes
    ----------
    seeds : int
        Number K of networks (4), with the training seeds ``seed``, ``seed + 1`` ...
    """

    seeds: int = 4

    def __post_init__(self) -> None:
        self.networks = self.seeds

    def learn(self, task: Task) -> None:
        """Learn what all share, then train network by network."""
        self.prepare(task)
        self._networks = []
        for k in range(self.seeds):
            with seeded(self.seed + k):
                self._networks.append(self.train(task))
            _LOGGER.info("network %d of %d is trained", k + 1, self.seeds)

    def draw(self, days: FieldArrays, members: int, seed: int) -> Tensor:
        """Deal the members."""
        out = torch.empty(len(days), members, *self._targets.cells.shape)
        for k, network in enumerate(self._networks[:members]):
            own = range(k, members, self.seeds)
            out[:, k :: self.seeds] = self.draw_from(network, days, own, seed)
        return out

    def prepare(self, task: Task) -> None:
        """Learn what all networks share; nothing by default."""

    @abstractmethod
    def train(self, task: Task) -> Any:
        """Return a trained network; torch is seeded."""

    @abstractmethod
    def draw_from(
        self, network: Any, days: FieldArrays, members: range, seed: int
    ) -> Tensor:
        """Return members of one network, standardised. Shape ``(T, M, C, Y, X)``."""
