"""Layers of Q variables held as one stack and evaluated in batched products.

References
----------
Salimans & Kingma, Weight normalization, arXiv:1602.07868.
Cho et al., Learning phrase representations using RNN encoder-decoder, arXiv:1406.1078.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from st_cdgm.errors import ConfigError, InputError

__all__ = [
    "StackedGRUCell",
    "StackedLinear",
    "check_shape",
    "pool_nodes",
    "rms_normalise",
]

RMS_EPS = 1e-6


def rms_normalise(state: Tensor) -> Tensor:
    """Divide each node's state vector by its root mean square over H.

    No learnable gain, and no statistics over nodes: one window's result does not depend
    on the other windows of its batch.
    """
    return state * torch.rsqrt(state.square().mean(-1, keepdim=True) + RMS_EPS)


def pool_nodes(
    state: Tensor, batch: Tensor | None = None, *, pool: str = "mean"
) -> Tensor:
    """Pool node states into one vector per graph.

    Parameters
    ----------
    state : Tensor
        Shape ``(..., N, H)``.
    batch : Tensor, optional
        Graph of each node, int64, shape ``(N,)``; one graph when absent.
    pool : str
        ``mean`` (alias ``avg``) or ``max``.

    Returns
    -------
    Tensor
        Shape ``(..., G, H)``; zeros for a graph without nodes.

    Raises
    ------
    ConfigError
        Unknown ``pool``.
    InputError
        ``batch`` does not name one graph per node.
    """
    if pool not in ("mean", "avg", "max"):
        raise ConfigError(
            "unknown pooling", variable="pool", found=pool, expected="mean | avg | max"
        )
    if batch is None:
        pooled = state.amax(-2) if pool == "max" else state.mean(-2)
        return pooled.unsqueeze(-2)  # (..., 1, H)
    if batch.shape != state.shape[-2:-1]:
        raise InputError(
            "the batch vector must name one graph per node",
            found=tuple(batch.shape),
            expected=tuple(state.shape[-2:-1]),
        )
    graphs = int(batch.max()) + 1 if batch.numel() else 0
    shape = (*state.shape[:-2], graphs, state.shape[-1])
    index = batch[:, None].expand_as(state)
    reduce = "amax" if pool == "max" else "mean"
    return state.new_zeros(shape).scatter_reduce(
        -2, index, state, reduce, include_self=False
    )


class StackedLinear(nn.Module):
    """Q independent linear maps in one batched product.

    Parameters
    ----------
    num, in_features, out_features : int
        Q and the width of each map.
    norm : float, optional
        Frobenius norm every map is held at: only the direction of ``weight`` counts.
    per_row : bool
        Hold each output row at ``norm`` instead of the whole map.
    bias : bool
        Add a bias per map.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        num: int,
        in_features: int,
        out_features: int,
        *,
        norm: float | None = None,
        per_row: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.dims = (2,) if per_row else (1, 2)
        self.weight = nn.Parameter(torch.empty(num, out_features, in_features))
        if bias:
            self.bias = nn.Parameter(torch.empty(num, out_features))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as ``torch.nn.Linear`` does; zero biases."""
        bound = 1.0 / math.sqrt(self.weight.shape[2])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def effective_weight(self) -> Tensor:
        """Return the maps as applied. Shape ``(Q, out, in)``."""
        if self.norm is None:
            return self.weight
        length = torch.linalg.vector_norm(self.weight, dim=self.dims, keepdim=True)
        scale: Tensor = self.norm / length.clamp(min=1e-12)
        return self.weight * scale

    def forward(self, x: Tensor) -> Tensor:
        """Apply map k to ``x[k]``, or every map to a shared ``(N, in)``."""
        weight = self.effective_weight().transpose(1, 2)  # (Q, in, out)
        x = x.expand(len(weight), *x.shape[-2:])  # (Q, N, in)
        if self.bias is None:
            return torch.bmm(x, weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x, weight)  # (Q, N, out)


class StackedGRUCell(nn.Module):
    """Q independent GRU cells in two batched products; gate order r, z, n.

    Equal to one ``torch.nn.GRUCell`` per variable whose ``weight_ih``, ``weight_hh``,
    ``bias_ih`` and ``bias_hh`` are the slices ``[k]`` of the parameters here.

    Parameters
    ----------
    num, input_size, hidden_size : int
        Q, width of the input, H.
    """

    def __init__(self, num: int, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(num, 3 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(num, 3 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(num, 3 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(num, 3 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters as ``torch.nn.GRUCell`` does."""
        bound = 1.0 / math.sqrt(self.weight_hh.shape[2])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Update ``hidden`` ``(Q, N, H)`` with the input ``x`` ``(Q, N, I)``."""
        from_x = torch.baddbmm(
            self.bias_ih.unsqueeze(1), x, self.weight_ih.transpose(1, 2)
        )
        from_h = torch.baddbmm(
            self.bias_hh.unsqueeze(1), hidden, self.weight_hh.transpose(1, 2)
        )
        r_x, z_x, n_x = from_x.chunk(3, dim=-1)  # (Q, N, H) each
        r_h, z_h, n_h = from_h.chunk(3, dim=-1)
        r = torch.sigmoid(r_x + r_h)
        z = torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return (1.0 - z) * n + z * hidden


def check_shape(name: str, tensor: Tensor, expected: tuple[int | None, ...]) -> None:
    """Raise InputError unless ``tensor`` has the shape; None matches any size."""
    fits = tensor.dim() == len(expected) and all(
        want is None or have == want
        for have, want in zip(tensor.shape, expected, strict=True)
    )
    if not fits:
        raise InputError(
            f"the {name} has the wrong shape",
            found=tuple(tensor.shape),
            expected=tuple("any" if size is None else size for size in expected),
        )
