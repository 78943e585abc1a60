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


class GRUStep(torch.autograd.Function):
    """One step of Q GRU cells, products and gates, with its own backward pass.

    ``r, z = sigmoid(x U_rz + h V_rz + b_rz)``, ``n = tanh(x U_n + b_n + r (h V_n +
    c_n))``, ``h' = (1 - z) n + z h``. Left to autograd it makes some twenty temporaries
    of the size of the state; they cost as much as the products once they leave the
    cache.
    """

    @staticmethod
    def forward(
        x: Tensor,
        hidden: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the new state ``(Q, N, H)`` and what the backward pass needs."""
        two = 2 * hidden.shape[-1]
        w_ih, w_hh = weight_ih.transpose(1, 2), weight_hh.transpose(1, 2)
        b_ih, b_hh = bias_ih.unsqueeze(1), bias_hh.unsqueeze(1)
        gates = torch.baddbmm((b_ih + b_hh)[..., :two], x, w_ih[..., :two])
        gates.baddbmm_(hidden, w_hh[..., :two]).sigmoid_()
        r, z = gates.chunk(2, dim=-1)
        from_h = torch.baddbmm(b_hh[..., two:], hidden, w_hh[..., two:])
        n = torch.baddbmm(b_ih[..., two:], x, w_ih[..., two:])
        n.addcmul_(r, from_h).tanh_()
        return torch.lerp(n, hidden, z), gates, from_h, n

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the inputs and the gates."""
        x, hidden, weight_ih, weight_hh, _, _ = inputs
        _, gates, from_h, n = output
        ctx.mark_non_differentiable(gates, from_h, n)
        ctx.set_materialize_grads(False)  # no zeros for the outputs just named
        ctx.save_for_backward(x, hidden, weight_ih, weight_hh, gates, from_h, n)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of all inputs."""
        if grads[0] is None:
            return (None,) * 6
        x, hidden, weight_ih, weight_hh, gates, from_h, n = ctx.saved_tensors
        two = gates.shape[-1]
        r, z = gates.chunk(2, dim=-1)
        d_gates = torch.empty_like(gates)
        d_r, d_z = d_gates.chunk(2, dim=-1)
        d_hidden = grads[0] * z
        torch.sub(hidden, n, out=d_z).mul_(d_hidden)
        d_z.addcmul_(d_z, z, value=-1)  # g (h - n) z (1 - z)
        d_n = grads[0] - d_hidden
        torch.ops.aten.tanh_backward.grad_input(d_n, n, grad_input=d_n)
        d_from_h = d_n * r
        torch.mul(d_from_h, from_h, out=d_r)
        d_r.addcmul_(d_r, r, value=-1)  # d_n (h V_n + c_n) r (1 - r)
        d_hidden.baddbmm_(d_gates, weight_hh[:, :two])
        d_hidden.baddbmm_(d_from_h, weight_hh[:, two:])
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = torch.bmm(d_gates, weight_ih[:, :two])
            d_x.baddbmm_(d_n, weight_ih[:, two:])
        d_ih, d_hh = torch.empty_like(weight_ih), torch.empty_like(weight_hh)
        torch.bmm(d_gates.transpose(1, 2), x, out=d_ih[:, :two])
        torch.bmm(d_n.transpose(1, 2), x, out=d_ih[:, two:])
        torch.bmm(d_gates.transpose(1, 2), hidden, out=d_hh[:, :two])
        torch.bmm(d_from_h.transpose(1, 2), hidden, out=d_hh[:, two:])
        shared = d_gates.sum(1)
        d_b_ih = torch.cat([shared, d_n.sum(1)], dim=-1)
        d_b_hh = torch.cat([shared, d_from_h.sum(1)], dim=-1)
        return d_x, d_hidden, d_ih, d_hh, d_b_ih, d_b_hh


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
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if torch.compiler.is_compiling():  # the compiler fuses these by itself
            return _gru_step(x, hidden, *weights)
        inputs: tuple[Tensor, ...] = (x, hidden, *weights)
        device = hidden.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            inputs = tuple(tensor.to(dtype) for tensor in inputs)
        with torch.autocast(device, enabled=False):
            new: Tensor = GRUStep.apply(*inputs)[0]  # type: ignore[no-untyped-call]
        return new


def _gru_step(
    x: Tensor, hidden: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> Tensor:
    """Return what `GRUStep` does, in operations that the compiler can trace."""
    from_x = torch.baddbmm(b_ih.unsqueeze(1), x, w_ih.transpose(1, 2))
    from_h = torch.baddbmm(b_hh.unsqueeze(1), hidden, w_hh.transpose(1, 2))
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
