"""What a variable's prediction loses without one parent, learned anew.

A trained network that loses an input shows how much it relied on it, not how much it
needed it. So, with the states held fixed, the structural net of each target is trained
once with all its parents, once without each of them, and once with that parent's state
of another year in its place; all of them side by side, from the same start, on the same
days. Everything is nested: a variant differs from the full net by one edge.

What is lost without learning anew bounds what is lost after it (on the same days), so
parents whose plain removal costs almost nothing on training days need no net of their
own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from st_cdgm.discovery.network import DiscoveryConfig, cosine
from st_cdgm.discovery.verdicts import shadow_days
from st_cdgm.models.causal_rcn import RCNCell
from st_cdgm.models.stacked import StackedLinear, rms_normalise
from st_cdgm.typing import Floats

EVALUATION_DAYS = 64
RELIANCE_DAYS = 365
TINY = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeErrors:
    """Held-out mean squared errors per year.

    Attributes
    ----------
    full : ndarray
        With all parents. Shape ``(Y, Q)``.
    without, shadow : ndarray
        ``[year, i, k]``: target k without i, and with i of another year. Equal to the
        full error for pairs not tested. Shape ``(Y, Q, Q)``.
    tested : ndarray of bool
        Shape ``(Q, Q)``.
    residual : ndarray
        Truth minus prediction with all parents on the held-out days, mean over cells
        and channels. Shape ``(D, Q)``.
    days : ndarray
        Index of those days in the record, int64. Shape ``(D,)``.
    """

    full: Floats
    without: Floats
    shadow: Floats
    tested: NDArray[np.bool_]
    residual: Floats
    days: NDArray[np.int64]


class EdgeHeads(nn.Module):
    """Copies of a cell's structural nets, each with its own set of parents.

    Parameters
    ----------
    cell : RCNCell
        With a decoder; it is copied, not changed.
    parents : Tensor
        Parents in use, bool, ``[i, k]``. Shape ``(Q, Q)``.
    tested : Tensor, optional
        Those to do without, one at a time; all of them when absent. Shape ``(Q, Q)``.

    Attributes
    ----------
    pairs : Tensor
        Tested edges (i, k), P of them. Shape ``(P, 2)``.
    target : Tensor
        Variable that each of the ``V = Q + 2 P`` nets predicts: all parents, without
        each, with each one's shadow. Shape ``(V,)``.
    """

    target: Tensor
    pairs: Tensor
    real: Tensor
    shadow: Tensor

    def __init__(
        self, cell: RCNCell, parents: Tensor, tested: Tensor | None = None
    ) -> None:
        super().__init__()
        q = cell.num_vars
        pairs = (parents if tested is None else parents & tested).nonzero()
        count = len(pairs)

        # All parents first, then one net less each, then the same with the shadow.
        target = torch.cat([torch.arange(q), pairs[:, 1], pairs[:, 1]])
        real = parents[:, target].float()  # (Q, V)
        shadow = torch.zeros_like(real)
        changed = torch.arange(count) + q
        real[pairs[:, 0], changed] = real[pairs[:, 0], changed + count] = 0.0
        shadow[pairs[:, 0], changed + count] = 1.0
        self.register_buffer("pairs", pairs)
        self.register_buffer("target", target)
        self.register_buffer("real", real)
        self.register_buffer("shadow", shadow)

        assert cell.reconstruction_decoder is not None
        self.activation = cell.activation
        self.parent_block = _slice(cell.parent_block, target)
        self.memory_block = _slice(cell.memory_block, target)
        self.structural_out = _slice(cell.structural_out, target)
        self.decoder = _slice(cell.reconstruction_decoder, target)
        self.A = nn.Parameter(cell.effective_dag().detach()[:, target].clone())
        self.own_lag = nn.Parameter(cell.own_lag.detach()[target].clone())

    def parents_tested(self) -> Tensor:
        """Return the tested edges as a mask. Shape ``(Q, Q)``, bool."""
        mask = torch.zeros(len(self.real), len(self.real), dtype=torch.bool)
        mask[self.pairs[:, 0], self.pairs[:, 1]] = True
        return mask

    def forward(self, state: Tensor, other: Tensor) -> Tensor:
        """Predict each net's target ``(V, N, R)`` from states and their shadows.

        ``state`` and ``other``, that of another year: ``(Q, N, H)``.
        """
        weight = torch.cat([self.A * self.real, self.A * self.shadow])  # (2Q, V)
        past = rms_normalise(torch.cat([state, other])).flatten(1)  # (2Q, N*H)
        parents = (weight.T @ past).view(-1, *state.shape[1:])  # (V, N, H)
        memory = self.own_lag[:, None, None] * state[self.target]
        mixed = self.parent_block(parents) + self.memory_block(memory)
        out: Tensor = self.decoder(self.structural_out(self.activation(mixed)))
        return out


def _slice(layer: StackedLinear, index: Tensor) -> StackedLinear:
    """Return the maps ``index`` of a stack, as applied, as a stack of their own."""
    _, out_features, in_features = layer.weight.shape
    copy = StackedLinear(
        len(index),
        in_features,
        out_features,
        norm=layer.norm,
        per_row=layer.dims == (2,),
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        # As applied: the length of a weight that only points must not change training.
        copy.weight.copy_(layer.effective_weight()[index])
        if layer.bias is not None and copy.bias is not None:
            copy.bias.copy_(layer.bias[index])
    return copy


def edge_errors(
    cell: RCNCell,
    states: Tensor,
    targets: Tensor,
    mask: Tensor,
    usable: NDArray[np.bool_],
    train: NDArray[np.bool_],
    year: NDArray[np.int64],
    season: NDArray[np.floating],
    *,
    config: DiscoveryConfig,
    seed: int,
) -> EdgeErrors:
    """Train the nets with and without each parent, and compare them on other years.

    Parameters
    ----------
    cell : RCNCell
        Trained. An entry of its matrix that is exactly 0 is an edge it did not want,
        and is not tested.
    states, targets, mask : Tensor
        H(t) on n cells, of usable days, ``(T, Q, n, H)``; targets ``(T, Q, n, R)``; 1
        for channels that count, ``(Q, R)``.
    usable, train : ndarray of bool
        Days that have a state and whose next day is the following one; days to learn
        from, while the others judge. Shape ``(T,)``.
    year, season : ndarray
        Calendar. Shape ``(T,)``.
    config, seed : DiscoveryConfig, int
        Settings of the nets, and seed of the batches. Parents whose plain removal
        raises the target's training error by less than a quarter of ``min_gain`` are
        not tested.
    """
    # A day counts where the day it predicts is on the same side of the split.
    fit = usable & train & np.append(train[1:], False)
    test = usable & ~train & np.append(~train[1:], False)
    other = torch.from_numpy(
        np.maximum(shadow_days(year, season, fit), shadow_days(year, season, test))
    )

    # Parents that are hardly relied on need no net of their own.
    used = cell.effective_dag().detach() != 0
    days = np.flatnonzero(fit)
    sample = days[:: max(len(days) // RELIANCE_DAYS, 1)]
    problem = _Problem(EdgeHeads(cell, used), states, targets, mask, other)
    tested = used & (problem.reliance(sample) >= config.min_gain / 4)
    problem = replace(problem, heads=EdgeHeads(cell, used, tested))
    _train_heads(problem, days, config, seed)

    held = [np.flatnonzero(test & (year == y)) for y in np.unique(year[test])]
    errors = np.stack([problem.mean_error(days) for days in held])
    full, without, shadow = _errors_by_edge(problem.heads, errors)
    held_days = np.concatenate(held)
    return EdgeErrors(
        full=full,
        without=without,
        shadow=shadow,
        tested=problem.heads.parents_tested().numpy(),
        residual=problem.residual(held_days),
        days=held_days + 1,
    )


@dataclass(frozen=True)
class _Problem:
    """Nets, and the states and targets they are to connect."""

    heads: EdgeHeads
    states: Tensor
    targets: Tensor
    mask: Tensor
    other: Tensor

    def difference(self, days: Tensor) -> tuple[Tensor, Tensor]:
        """Return residuals ``(V, days * n, R)`` and channel weights ``(V, R)``."""
        state = self.states[days].transpose(0, 1).flatten(1, 2)  # (Q, N, H)
        shadow = self.states[self.other[days]].transpose(0, 1).flatten(1, 2)
        truth = self.targets[days + 1].transpose(0, 1).flatten(1, 2)  # (Q, N, R)
        which = self.heads.target
        weight = self.mask / self.mask.sum(1, keepdim=True).clamp(min=1.0)
        return truth[which] - self.heads(state, shadow), weight[which]

    def error(self, days: Tensor) -> Tensor:
        """Mean squared error of each net on these days. Shape ``(V,)``."""
        difference, weight = self.difference(days)
        square = difference.square()
        return torch.einsum("vnr,vr->v", square, weight) / square.shape[1]

    @torch.no_grad()
    def residual(self, days: NDArray[np.int64]) -> Floats:
        """Residuals with all parents, mean over cells and channels. ``(D, Q)``."""
        q, parts = len(self.mask), []
        for part in torch.split(torch.from_numpy(days), EVALUATION_DAYS):
            difference, weight = self.difference(part)
            daily = torch.unflatten(difference[:q], 1, (len(part), -1)).mean(dim=2)
            parts.append(torch.einsum("vtr,vr->tv", daily, weight[:q]))
        return torch.cat(parts).double().numpy()

    @torch.no_grad()
    def reliance(self, days: NDArray[np.int64]) -> Tensor:
        """Relative rise of the error without each parent, untrained. ``(Q, Q)``."""
        full, without, _ = _errors_by_edge(self.heads, self.mean_error(days)[None])
        rise = (without - full[:, None]) / np.maximum(full, TINY)[:, None]
        return torch.from_numpy(rise[0])

    @torch.no_grad()
    def mean_error(self, days: NDArray[np.int64]) -> Floats:
        parts = torch.split(torch.from_numpy(days), EVALUATION_DAYS)
        total = sum(self.error(part) * len(part) for part in parts)
        assert isinstance(total, Tensor)
        return np.asarray(total.double() / len(days))


def _train_heads(
    problem: _Problem, days: NDArray[np.int64], config: DiscoveryConfig, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.from_numpy(days)
    lr, steps = config.head_lr, config.head_steps
    optimizer = torch.optim.Adam(problem.heads.parameters(), lr=lr, betas=(0.9, 0.99))

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(step, steps)
        chosen = torch.randint(len(pool), (config.head_days,), generator=generator)
        loss = problem.error(pool[chosen]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _errors_by_edge(heads: EdgeHeads, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Sort the nets' errors ``(Y, V)`` into full, without and shadow."""
    q, count = len(heads.real), len(heads.pairs)
    full = errors[:, :q]
    without = np.repeat(full[:, None, :], q, axis=1)
    shadow = without.copy()
    i, k = heads.pairs.numpy().T
    without[:, i, k] = errors[:, q : q + count]
    shadow[:, i, k] = errors[:, q + count :]
    return full, without, shadow
