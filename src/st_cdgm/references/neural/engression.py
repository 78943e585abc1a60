"""Engression: a network with noise at every layer, trained by the energy score."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.fit.components import PrincipalComponents
from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.randomness import member_day_noise
from st_cdgm.references.neural.pool import Pool
from st_cdgm.references.neural.task import Task
from st_cdgm.registry import register


@register("reference", "engression")
@dataclass(kw_only=True, eq=False)
class EngressionReference(Pool):
    """Networks of the authors' package on principal components of two days.

    Predictors are the leading components of the day and of the day before, and
    harmonics of the year. Targets are all cells at once, in encoded space; temperatures
    and precipitation are trained apart, since one energy score of both together cares
    little for the spread of either.

    Attributes
    ----------
    components : int
        Number of principal components of a day.
    harmonics : int
        Number of annual harmonics, each a sine and a cosine.
    layers, width, noise : int
        Layers of a network, their neurons, and the noise added to each.
    epochs, batch_size, learning_rate : int, int and float
        Training by Adam; the weights of the best energy score of the days held out are
        kept.

    References
    ----------
    Shen and Meinshausen (2025), doi:10.1093/jrsssb/qkae108, arXiv:2307.00835; package
    ``engression``, BSD-3.
    """

    components: int = 40
    harmonics: int = 2
    layers: int = 2
    width: int = 200
    noise: int = 100
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 1e-3

    def prepare(self, task: Task) -> None:
        """Find the components; refuse at once where the package is missing."""
        package()
        days = task.train.days
        area = task.targets.preprocessor.lr_grid.area_weights()
        self._space = PrincipalComponents.fit(days.lr, area=area, limit=self.components)
        self._width = self._space.transform(days.lr).std(axis=0)

    def features(self, days: FieldArrays) -> NDArray[np.float32]:
        """Return what a network sees. Shape ``(T, F)``."""
        waves = annual_harmonics(days.season, self.harmonics)[:, 1:]
        today, before = (self._space.transform(x) for x in (days.lr, days.lagged(1)))
        scores = np.column_stack([today / self._width, before / self._width])
        return np.column_stack([waves, scores]).astype(np.float32)

    def train(self, task: Task) -> list[Any]:
        """Return one network for each group of targets."""
        both = task.train, task.held_out
        x = [torch.from_numpy(self.features(part.days)) for part in both]

        networks = []
        for group in task.targets.groups:
            cells = task.targets.cells[group]
            y = [part.target[:, group][:, cells] for part in both]
            made = package().Engressor(
                in_dim=x[0].shape[1],
                out_dim=y[0].shape[1],
                num_layer=self.layers,
                hidden_dim=self.width,
                noise_dim=self.noise,
                lr=self.learning_rate,
                num_epochs=self.epochs,
                batch_size=self.batch_size,
                verbose=False,
                check_device=False,
            )
            made.train(x[0], y[0], x_val=x[1], y_val=y[1])
            networks.append(made)
        return networks

    def draw_from(
        self, network: list[Any], days: FieldArrays, members: range, seed: int
    ) -> Tensor:
        """Give each layer of each network its own numbers of the (member, day)."""
        x = torch.from_numpy(self.features(days)).repeat_interleave(len(members), dim=0)
        shape = (len(network), self.layers - 1, self.noise)
        noise = member_day_noise(seed, members, days.day, shape)().flatten(0, 1)

        cells = self._targets.cells
        out = torch.zeros(len(x), *cells.shape)
        groups = zip(self._targets.groups, network, strict=True)
        for g, (group, made) in enumerate(groups):
            own = torch.zeros(len(x), *cells[group].shape)
            own[:, cells[group]] = made.unstandardize_data(
                _forward(made.model, made.standardize_data(x), noise[:, g])
            )
            out[:, group] = own
        return out.reshape(len(days), len(members), *cells.shape)


@torch.no_grad()
def _forward(network: Any, x: Tensor, noise: Tensor) -> Tensor:
    """Run a network on noise of ours: a layer draws only what its input lacks.

    Shapes ``(B, F)`` and ``(B, layers, noise)``.
    """
    network.eval()
    for i, layer in enumerate([network.input_layer, *network.inter_layer]):
        x = layer(torch.cat([x, noise[:, i]], dim=1))
    made: Tensor = network.out_layer(x)
    return made


def package() -> ModuleType:
    """Return the package ``engression``.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return importlib.import_module("engression")
    except ImportError as error:
        raise InputError(
            "the reference engression needs a package that is not installed",
            found=str(error),
            expected="the package engression, 1.1 or later",
            remedy='pip install "st-cdgm[rivals]", or leave this reference out',
        ) from error
