"""Recurrent causal network: lagged causal mixing, then one GRU per variable.

With ``A[i, k]`` the influence of variable i on variable k (i -> k), n(.) the RMS
normalisation of a state and i, k in 1..Q::

    S_k    = sum_{i != k} A[i, k] n(H_i(t-1))         parents' past
    Hhat_k = f_k(S_k, a_k H_k(t-1))                   a_k: own lag, not an edge
    H_k(t) = GRU_k(driver_k(t), Hhat_k)
    x_k(t) ~ W_k Hhat_k + b_k                         from the past alone

With ``state_scope="own"`` the GRU carries on ``f_k(0, a_k H_k(t-1))`` instead: a state
then remembers nothing but its own variable's drivers, the parents act on the prediction
alone, and taking A[i, k] away takes away all that k's prediction knows of i.

Gauge
-----
If the layers around A could take over its strength, multiplying A by 0.01 and the next
layer by 100 would satisfy any penalty on A for free. Every linear map on the way from
``n(H_i)`` to the reconstruction is therefore a direction of fixed Frobenius norm
(weight normalisation without its gain): the parent and own-lag blocks of f_k's input
layer, f_k's output layer (root of H each, so that a typical direction keeps the
root-mean-square) and the rows of the decoder (1 each). What they do not carry, A must:
``|d x_k / d n(H_i)| <= H |A[i, k]|`` whatever the weights. The GRU cannot undo a
rescaled Hhat either, for it passes ``z * Hhat`` on unchanged.

References
----------
Salimans & Kingma, Weight normalization, arXiv:1602.07868.
Cho et al., Learning phrase representations using RNN encoder-decoder, arXiv:1406.1078.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from st_cdgm.errors import ConfigError, InputError, check_choice, check_least
from st_cdgm.models.stacked import (
    StackedGRUCell,
    StackedLinear,
    check_shape,
    parent_sums,
    pool_nodes,
)

STATE_SCOPES = ("mixed", "own")


class MaskDiagonal(torch.autograd.Function):
    """Zero the diagonal of a square matrix, in both passes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        """Return a copy of ``matrix`` with zeros on the diagonal."""
        eye = torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
        return matrix.masked_fill(eye, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: the mask follows from the shape."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradient with zeros on the diagonal."""
        return MaskDiagonal.forward(*grad_outputs)


class RCNWeights(NamedTuple):
    """What does not change during a rollout: the matrix and the maps as applied."""

    A: Tensor  # (Q, Q), A[i, k]: i -> k
    parent: Tensor  # (Q, H, H)
    memory: Tensor  # (Q, H, H), with the own-lag weight
    out: Tensor  # (Q, H, H)
    decoder: Tensor | None  # (Q, R, H)


class RCNCell(nn.Module):
    """One time step of the recurrent causal network.

    Parameters
    ----------
    num_vars, hidden_dim, driver_dim : int
        Q, H and the number of driver channels per variable.
    reconstruction_dim : int, optional
        Number R of reconstructed channels; no decoder when absent.
    activation : nn.Module, optional
        Of the structural nets and driver encoders; ReLU when absent.
    dropout : float
        On the new state.
    state_scope : str
        ``mixed``: parents enter the carried state; ``own``: only its prediction.

    Attributes
    ----------
    A_dag : Parameter
        Raw matrix, ``A[i, k]``: i -> k. Shape ``(Q, Q)``. Use `effective_dag`.
    own_lag : Parameter
        Weight a_k of a variable's own past. Shape ``(Q,)``. It carries the memory that
        an acyclic, hence nilpotent, A cannot.
    edge_mask : Tensor
        Edges in use, bool, shape ``(Q, Q)``; see `restrict_edges`.

    Raises
    ------
    ConfigError
        A size is not positive, ``dropout`` is not in [0, 1) or ``state_scope`` is
        unknown.
    """

    edge_mask: Tensor

    def __init__(
        self,
        num_vars: int,
        hidden_dim: int,
        driver_dim: int,
        *,
        reconstruction_dim: int | None = None,
        activation: nn.Module | None = None,
        dropout: float = 0.0,
        state_scope: str = "mixed",
    ) -> None:
        super().__init__()
        check_least("num_vars", num_vars, 1)
        check_least("hidden_dim", hidden_dim, 1)
        check_least("driver_dim", driver_dim, 1)
        if reconstruction_dim is not None:
            check_least("reconstruction_dim", reconstruction_dim, 1)
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(
                "dropout is a probability",
                variable="dropout",
                found=dropout,
                expected="0 <= dropout < 1",
            )
        check_choice("state_scope", state_scope, STATE_SCOPES, section="")

        self.state_scope = state_scope
        self.num_vars, self.hidden_dim = num_vars, hidden_dim
        self.driver_dim, self.reconstruction_dim = driver_dim, reconstruction_dim
        self.activation = activation if activation is not None else nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.A_dag = nn.Parameter(torch.empty(num_vars, num_vars))
        self.own_lag = nn.Parameter(torch.empty(num_vars))
        every = torch.ones(num_vars, num_vars, dtype=torch.bool)
        self.register_buffer("edge_mask", every)

        # Directions of fixed norm, so that A alone carries the strength: the gauge.
        square, unit = (num_vars, hidden_dim, hidden_dim), math.sqrt(hidden_dim)
        self.parent_block = StackedLinear(*square, norm=unit)
        self.memory_block = StackedLinear(*square, norm=unit, bias=False)
        self.structural_out = StackedLinear(*square, norm=unit)
        self.driver_encoder = StackedLinear(num_vars, driver_dim, hidden_dim)
        self.gru = StackedGRUCell(num_vars, hidden_dim, hidden_dim)
        self.reconstruction_decoder = (
            None
            if reconstruction_dim is None
            else StackedLinear(
                num_vars, hidden_dim, reconstruction_dim, norm=1.0, per_row=True
            )
        )
        self._reset_scalars()

    def _reset_scalars(self) -> None:
        # Small: with entries below 0.7 / sqrt(Q) the spectral radius of A * A is below
        # 1/2, inside DAGMA's domain. Not zero: at A = 0 the acyclicity gradient and
        # the gradient of the layer behind A both vanish.
        bound = min(0.1, 0.7 / math.sqrt(self.num_vars))
        nn.init.uniform_(self.A_dag, -bound, bound)
        with torch.no_grad():
            self.A_dag.fill_diagonal_(0.0)
        nn.init.ones_(self.own_lag)

    def reset_parameters(self) -> None:
        """Draw all parameters anew; restricted edges stay restricted."""
        self._reset_scalars()
        for module in self.children():
            if isinstance(module, StackedLinear | StackedGRUCell):
                module.reset_parameters()

    def effective_dag(self) -> Tensor:
        """Return the matrix in use, ``A[i, k]``: i -> k, zero diagonal.

        The one to penalise, threshold, export and plot: see the gauge above.
        Shape ``(Q, Q)``.
        """
        masked: Tensor = MaskDiagonal.apply(self.A_dag)  # type: ignore[no-untyped-call]
        return masked * self.edge_mask

    def dag_matrix(self, *, masked: bool = True) -> Tensor:
        """Return `effective_dag`, or the raw parameter when not ``masked``."""
        return self.effective_dag() if masked else self.A_dag

    def restrict_edges(self, keep: Tensor | None = None) -> None:
        """Use only the edges ``keep[i, k]`` (bool); all of them when absent."""
        keep = torch.ones_like(self.edge_mask) if keep is None else keep
        check_shape("edges to keep", keep, (self.num_vars, self.num_vars))
        self.edge_mask.copy_(keep.to(torch.bool))

    def structural(self, H_prev: Tensor, A: Tensor | None = None) -> Tensor:
        """Predict the states from the past alone: Hhat.

        Parameters
        ----------
        H_prev : Tensor
            States H(t-1). Shape ``(Q, N, H)``.
        A : Tensor, optional
            Matrix to use instead of `effective_dag`. Shape ``(Q, Q)``.
        """
        weights = self.weights()
        weights = weights if A is None else weights._replace(A=A)
        return self._structural_pair(H_prev, weights)[0]

    def weights(self) -> RCNWeights:
        """Return all that a rollout uses at every step, computed once."""
        decoder = self.reconstruction_decoder
        return RCNWeights(
            A=self.effective_dag(),
            parent=self.parent_block.effective_weight(),
            memory=self.own_lag[:, None, None] * self.memory_block.effective_weight(),
            out=self.structural_out.effective_weight(),
            decoder=None if decoder is None else decoder.effective_weight(),
        )

    def _structural_pair(
        self, H_prev: Tensor, weights: RCNWeights
    ) -> tuple[Tensor, Tensor]:
        """Return Hhat and what the GRU carries on, the same when states are mixed."""
        parents = parent_sums(H_prev, weights.A)  # S_k, (Q, N, H)
        bias = cast("Tensor", self.parent_block.bias).unsqueeze(1)
        # Sums inside the products, the second in place: no further pass over states.
        mixed = torch.baddbmm(bias, H_prev, weights.memory.transpose(1, 2))
        carried = None
        if self.state_scope == "own":
            alone = self.activation(mixed.clone())
            carried = self.structural_out(alone, weights.out)
        dtype = mixed.dtype  # in-place products are not cast by autocast
        mixed.baddbmm_(parents.to(dtype), weights.parent.transpose(1, 2).to(dtype))
        predicted: Tensor = self.structural_out(self.activation(mixed), weights.out)
        return predicted, predicted if carried is None else carried

    def reconstruct(
        self, source: Tensor, weight: Tensor | None = None
    ) -> Tensor | None:
        """Decode drivers from states ``(Q, N, H)`` to ``(Q, N, R)``."""
        if self.reconstruction_decoder is None:
            return None
        decoded: Tensor = self.reconstruction_decoder(source, weight)
        return decoded

    def forward(
        self,
        H_prev: Tensor,
        driver: Tensor,
        reconstruction_source: Tensor | None = None,
        *,
        weights: RCNWeights | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Advance the states by one time step.

        Parameters
        ----------
        H_prev : Tensor
            States H(t-1); a batch is folded into N. Shape ``(Q, N, H)``.
        driver : Tensor
            Forcing at t: shared ``(N, d)`` or per variable ``(Q, N, d)``.
        reconstruction_source : Tensor, optional
            States to decode; Hhat when absent: H(t) has already seen the driver.
            Shape ``(Q, N, H)``.
        weights : RCNWeights, optional
            From :meth:`weights`, once for all steps of a rollout.

        Returns
        -------
        H_next : Tensor
            Shape ``(Q, N, H)``.
        reconstruction : Tensor or None
            Shape ``(Q, N, R)`` for per-variable drivers; for a shared driver the mean
            over the variables, ``(N, R)``.
        A : Tensor
            `effective_dag`, shape ``(Q, Q)``.

        Raises
        ------
        InputError
            A tensor has the wrong rank or size.
        """
        check_shape("state H(t-1)", H_prev, (self.num_vars, None, self.hidden_dim))
        lead = (self.num_vars,) if driver.dim() == 3 else ()
        check_shape("driver", driver, (*lead, H_prev.shape[1], self.driver_dim))
        if reconstruction_source is not None:
            check_shape("reconstruction source", reconstruction_source, H_prev.shape)

        weights = self.weights() if weights is None else weights
        predicted, carried = self._structural_pair(H_prev, weights)
        forcing = self.activation(self.driver_encoder(driver))
        H_next = self.dropout(self.gru(forcing, carried))
        source = predicted if reconstruction_source is None else reconstruction_source
        reconstruction = self.reconstruct(source, weights.decoder)
        if reconstruction is not None and driver.dim() == 2:
            reconstruction = reconstruction.mean(0)  # (N, R)
        return H_next, reconstruction, weights.A

    def pool_state(
        self, H: Tensor, *, batch: Tensor | None = None, pool: str = "mean"
    ) -> Tensor:
        """Pool states ``(Q, N, H)`` to ``(graphs, Q, H)``; an empty graph gives 0."""
        check_shape("state", H, (self.num_vars, None, self.hidden_dim))
        return pool_nodes(H, batch, pool=pool).transpose(0, 1)


@dataclass(frozen=True)
class RCNSequenceOutput:
    """Result of a rollout over T steps.

    Attributes
    ----------
    states : list of Tensor
        H(1) ... H(T). Shape ``(Q, N, H)`` each.
    reconstructions : list of Tensor or None
        Per step, as `RCNCell.forward` returns them.
    dag_matrices : list of Tensor
        The effective matrix in use at each step, the same at all of them. Shape
        ``(Q, Q)`` each. Penalise `dag`, once, not every entry of this list.
    """

    states: list[Tensor]
    reconstructions: list[Tensor | None]
    dag_matrices: list[Tensor]

    @property
    def dag(self) -> Tensor:
        """The one effective matrix of the rollout. Shape ``(Q, Q)``."""
        return self.dag_matrices[0]


class RCNSequenceRunner:
    """Roll a cell out over a sequence of drivers.

    Parameters
    ----------
    cell : RCNCell
        The time step.
    detach_interval : int, optional
        Truncate back-propagation: cut the carried state every so many steps.

    Raises
    ------
    ConfigError
        ``detach_interval`` is not positive.
    """

    def __init__(self, cell: RCNCell, *, detach_interval: int | None = None) -> None:
        if detach_interval is not None:
            check_least("detach_interval", detach_interval, 1)
        self.cell = cell
        self.detach_interval = detach_interval

    def run(
        self,
        H_init: Tensor,
        drivers: Sequence[Tensor] | Tensor,
        reconstruction_sources: Sequence[Tensor | None] | Tensor | None = None,
    ) -> RCNSequenceOutput:
        """Advance from ``H_init`` through all ``drivers``.

        Parameters
        ----------
        H_init : Tensor
            H(0). Shape ``(Q, N, H)``.
        drivers : sequence of Tensor
            T drivers, shared ``(N, d)`` or per variable ``(Q, N, d)``.
        reconstruction_sources : sequence of Tensor, optional
            T states to decode instead of Hhat. Shape ``(Q, N, H)`` each.

        Raises
        ------
        InputError
            No driver, or not one source per driver.
        """
        sources = reconstruction_sources
        if len(drivers) == 0:
            raise InputError("a rollout needs at least one driver", found=0)
        if sources is not None and len(sources) != len(drivers):
            raise InputError(
                "there must be one reconstruction source per driver",
                found=len(sources),
                expected=len(drivers),
            )

        out = RCNSequenceOutput([], [], [])
        H, weights = H_init, self.cell.weights()
        for t, driver in enumerate(drivers):
            if self.detach_interval and t and t % self.detach_interval == 0:
                H = H.detach()
            source = None if sources is None else sources[t]
            H, reconstruction, A = self.cell(H, driver, source, weights=weights)
            out.states.append(H)
            out.reconstructions.append(reconstruction)
            out.dag_matrices.append(A)

        return out
