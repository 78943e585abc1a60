"""Layers of Q variables held as one stack and evaluated in batched products.

References
----------
Salimans & Kingma, Weight normalization, arXiv:1602.07868.
Cho et al., Learning phrase representations using RNN encoder-decoder, arXiv:1406.1078.
"""

from __future__ import annotations

import math
from typing import Any

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

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Apply map k to ``x[k]``, or every map to a shared ``(N, in)``.

        ``weight`` saves computing `effective_weight` again.
        """
        weight = self.effective_weight() if weight is None else weight
        weight = weight.transpose(1, 2)  # (Q, in, out)
        x = x.expand(len(weight), *x.shape[-2:])  # (Q, N, in)
        if self.bias is None:
            return torch.bmm(x, weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x, weight)  # (Q, N, out)


class GRUGates(torch.autograd.Function):
    """The element-wise part of a GRU, with its own backward pass.

    ``r, z = sigmoid(x + h)``, ``n = tanh(x_n + r h_n)``, ``(1 - z) n + z hidden``. Left
    to autograd it makes some fifteen temporaries of the size of the state, which take
    longer than the matrix products as soon as they do not fit the cache.
    """

    @staticmethod
    def forward(from_x: Tensor, from_h: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return the new state ``(Q, N, H)`` of the products ``(Q, N, 3H)``."""
        size = hidden.shape[-1]
        gates = from_x[..., : 2 * size] + from_h[..., : 2 * size]
        gates = gates.sigmoid_()
        r, z = gates.chunk(2, dim=-1)
        n = torch.addcmul(from_x[..., 2 * size :], r, from_h[..., 2 * size :]).tanh_()
        return torch.lerp(n, hidden.to(n.dtype), z), gates, n

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the gates."""
        _, from_h, hidden = inputs
        _, gates, n = output
        ctx.mark_non_differentiable(gates, n)
        ctx.save_for_backward(from_h, hidden, gates, n)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of the two products and of the old state."""
        grad = grads[0]
        from_h, hidden, gates, n = ctx.saved_tensors
        size = hidden.shape[-1]
        r, z = gates.chunk(2, dim=-1)
        d_x, d_h = torch.empty_like(from_h), torch.empty_like(from_h)
        d_r, d_z, d_n = d_x.chunk(3, dim=-1)
        d_hidden = grad * z
        torch.mul(grad - d_hidden, 1.0 - n * n, out=d_n)
        torch.mul(grad * (hidden - n), z - z * z, out=d_z)
        torch.mul(d_n * from_h[..., 2 * size :], r - r * r, out=d_r)
        d_h[..., : 2 * size] = d_x[..., : 2 * size]
        torch.mul(d_n, r, out=d_h[..., 2 * size :])
        return d_x, d_h, d_hidden


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
        if torch.compiler.is_compiling():  # the compiler fuses these by itself
            return _gru_gates(from_x, from_h, hidden)
        new: Tensor = GRUGates.apply(from_x, from_h, hidden)[0]  # type: ignore[no-untyped-call]
        return new


def _gru_gates(from_x: Tensor, from_h: Tensor, hidden: Tensor) -> Tensor:
    """Return what `GRUGates` does, in operations that the compiler can trace."""
    x_r, x_z, x_n = from_x.chunk(3, dim=-1)
    h_r, h_z, h_n = from_h.chunk(3, dim=-1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return torch.lerp(n, hidden.to(n.dtype), z)


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
