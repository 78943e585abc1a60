"""A causal network with one node type per variable, and its training.

The encoder gives H(0), the recurrent causal network goes through a short window and
predicts every variable's next day from its own and its parents' past, under a sparsity
penalty on the effective matrix. There is no acyclicity term: at useful strengths it
deletes true edges.

References
----------
Parikh & Boyd, Proximal algorithms, doi:10.1561/2400000003.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from st_cdgm.discovery.series import CausalSeries
from st_cdgm.errors import InputError, check_least
from st_cdgm.models.causal_rcn import RCNCell, RCNSequenceRunner
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.models.graph_builder import HeteroGraphBuilder
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder

_LOGGER = logging.getLogger(__name__)
WARM_UP = 20
BETAS = (0.9, 0.99)


@dataclass(kw_only=True)
class DiscoveryConfig:
    """Search and test of lagged links.

    Attributes
    ----------
    hidden_dim : int
        Width H of a variable's state.
    state_scope : str
        ``own``: a state remembers its own variable alone, which makes "without i" mean
        without anything about i; ``mixed`` as in the downscaling model.
    window : int
        Days per window T: one for the encoder, T - 1 for the recurrent network.
    steps, windows_per_step : int
        Optimiser steps and windows in each.
    lr : float
        Learning rate, falling to 2 % along a cosine.
    sparsity : float
        Weight of the sum of absolute effective weights against the mean squared error
        of the standardised targets, summed over variables; an edge whose pull is below
        it becomes exactly 0 and is not tested.
    head_steps, head_days : int
        Optimiser steps, and days in each, of the nets with and without a parent.
    head_lr : float
        Their learning rate.
    harmonics : int
        Annual harmonics removed beforehand; 0 leaves the season in.
    folds : int
        Years y with ``y % folds == f`` are held out in fold f; each fold trains anew.
    min_gain : float
        Smallest relative held-out gain of an edge.
    min_t : float
        Its smallest t-value over held-out years.
    shadow_ratio : float
        How many times it must exceed the best shadow of its target.
    max_cells : int
        More inner cells than this are thinned out evenly.
    """

    hidden_dim: int = 16
    state_scope: str = "own"
    window: int = 4
    steps: int = 500
    windows_per_step: int = 32
    lr: float = 0.01
    sparsity: float = 0.01
    head_steps: int = 300
    head_days: int = 32
    head_lr: float = 0.005
    harmonics: int = 3
    folds: int = 2
    min_gain: float = 0.002
    min_t: float = 3.0
    shadow_ratio: float = 2.0
    max_cells: int = 12

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        rule = ("min_gain", "min_t", "shadow_ratio")
        sizes = ("hidden_dim", "steps", "windows_per_step", "head_steps", "head_days")
        for least, names in (
            (0, ("harmonics", "sparsity", *rule)),
            (1, (*sizes, "max_cells")),
            (2, ("window", "folds")),
        ):
            for name in names:
                check_least(name, getattr(self, name), least, section="discovery.")


class CausalNetwork(nn.Module):
    """Encoder and recurrent causal network with one node type per variable.

    Names, grid and widths are those of the series; H and the scope of the states those
    of the settings.
    """

    cells: Tensor

    def __init__(self, series: CausalSeries, config: DiscoveryConfig) -> None:
        super().__init__()
        names = list(series.names)
        self.widths = dict(zip(names, series.widths, strict=True))

        self.builder = HeteroGraphBuilder(series.shape, series.shape, levels=names)
        self.encoder = IntelligibleVariableEncoder(
            [IntelligibleVariableConfig(n, (n, "spat_adj", n)) for n in names],
            config.hidden_dim,
            in_channels=self.widths,
            activation=nn.SiLU(),
        )

        self.cell = RCNCell(
            len(names),
            config.hidden_dim,
            series.drivers.shape[-1],
            reconstruction_dim=series.targets.shape[-1],
            activation=nn.SiLU(),
            state_scope=config.state_scope,
        )
        self.register_buffer("cells", series.cells)

    def forward(self, drivers: Tensor) -> tuple[Tensor, Tensor]:
        """Go through windows of drivers ``(B, T, Q, N, D)``.

        Returns the state after the last day, ``(Q, B * n, H)``, and days 2..T as
        predicted from the past alone, ``(T - 1, Q, B * n, R)``.
        """
        first = drivers[:, 0]  # (B, Q, N, D)
        features = {
            name: first[:, k, :, :width]
            for k, (name, width) in enumerate(self.widths.items())
        }
        data = self.builder.prepare_batch(features)

        start = self.encoder.init_state(data)  # (Q, B*N, H)
        start = torch.unflatten(start, 1, (len(drivers), -1))
        start = start[:, :, self.cells].flatten(1, 2)
        inner = drivers[:, 1:, :, self.cells].permute(1, 2, 0, 3, 4).flatten(2, 3)
        out = RCNSequenceRunner(self.cell).run(start, inner)
        predicted = [p for p in out.reconstructions if p is not None]
        return out.states[-1], torch.stack(predicted)


def cosine(step: int, steps: int, *, floor: float = 0.02) -> float:
    """Return the factor of the learning rate, from 1 down to ``floor``."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))


def proximal_step(
    parameter: Tensor, optimizer: torch.optim.Adam, lr: float, weight: float
) -> None:
    """Shrink towards 0 after an Adam step: the proximal map of ``weight * |A|_1``.

    In Adam's own metric an entry is shrunk by ``lr * weight / sqrt(v)``, v its second
    moment, so that it stays at 0 where its pull on the loss is below ``weight``.
    """
    state = optimizer.state[parameter]
    moment = state["exp_avg_sq"] / (1 - BETAS[1] ** float(state["step"]))
    shrink = lr * weight / (moment.sqrt() + 1e-8)
    with torch.no_grad():
        parameter.copy_(parameter.sign() * (parameter.abs() - shrink).clamp(min=0))


def train_network(
    series: CausalSeries, config: DiscoveryConfig, *, seed: int = 0
) -> CausalNetwork:
    """Train a network on the training days of ``series``.

    Raises
    ------
    InputError
        No window of consecutive training days.
    """
    config.check()
    series = thinned(series, config.max_cells)
    ends = torch.from_numpy(series.training_ends(config.window))
    if not len(ends):
        raise InputError(
            "no window of consecutive training days",
            found=f"{int(series.train.sum())} training days",
            expected=f"{config.window} in a row",
        )

    # The weights depend on this seed alone; the global stream stays where it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CausalNetwork(series, config)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, betas=BETAS)
    generator = torch.Generator().manual_seed(seed)
    days = torch.arange(1 - config.window, 1)

    for step in range(config.steps):
        lr = config.lr * min(1.0, (step + 1) / WARM_UP) * cosine(step, config.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        count = (config.windows_per_step,)
        chosen = torch.randint(len(ends), count, generator=generator)
        loss = _loss(network, series, ends[chosen][:, None] + days)

        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        proximal_step(network.cell.A_dag, optimizer, lr, config.sparsity)
    _LOGGER.debug("last training loss %.4f", float(loss.detach()))
    return network.eval()


def _loss(network: CausalNetwork, series: CausalSeries, days: Tensor) -> Tensor:
    """Mean squared error of each variable's channels, summed over the variables."""
    _, predicted = network(series.drivers[days])  # (T-1, Q, B*n, R)
    truth = series.targets[days[:, 1:]].permute(1, 2, 0, 3, 4).flatten(2, 3)
    weight = series.mask / series.mask.sum(1, keepdim=True).clamp(min=1.0)
    error: Tensor = (predicted - truth).square().mean(dim=(0, 2))  # (Q, R)
    return (error * weight).sum()


def thinned(series: CausalSeries, most: int) -> CausalSeries:
    """Keep at most so many inner cells, evenly spread over the list."""
    count = len(series.cells)
    if count <= most:
        return series
    kept = torch.linspace(0, count - 1, most).round().long()
    targets = series.targets[:, :, kept]
    return replace(series, cells=series.cells[kept], targets=targets)
