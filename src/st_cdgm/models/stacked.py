"""Layers of Q variables held as one stack and evaluated in batched products.

References
----------
Salimans & Kingma, Weight normalization, arXiv:1602.07868.
Cho et al., Learning phrase representations using RNN encoder-decoder, arXiv:1406.1078.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from st_cdgm.errors import InputError, check_choice

RMS_EPS = 1e-6
NODES_AT_ONCE = 1024  # of a backward pass: 10 MiB of temporaries at Q = 5, H = 128


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
    check_choice("pool", pool, ("mean", "avg", "max"), section="")
    if batch is None:
        pooled = state.amax(-2) if pool == "max" else state.mean(-2)
        return pooled.unsqueeze(-2)  # (..., 1, H)
    check_shape("batch vector: one graph per node", batch, state.shape[-2:-1])
    graphs = int(batch.max()) + 1 if batch.numel() else 0
    shape = (*state.shape[:-2], graphs, state.shape[-1])
    index = batch[:, None].expand_as(state)
    reduce = "amax" if pool == "max" else "mean"
    return state.new_zeros(shape).scatter_reduce(
        -2, index, state, reduce, include_self=False
    )


class ParentSums(torch.autograd.Function):
    """``S_k = sum_i A[i, k] n(H_i)`` with n as in `rms_normalise`.

    With its own backward pass, since the gradient of the normalisation, left to
    autograd, makes some ten passes over the states.
    """

    @staticmethod
    def forward(state: Tensor, A: Tensor) -> tuple[Tensor, ...]:
        """Return S ``(Q, N, H)`` of the states and ``A[i, k]``: i -> k."""
        length = torch.linalg.vector_norm(state, dim=-1, keepdim=True)
        scale = torch.rsqrt(length.square().div_(state.shape[-1]).add_(RMS_EPS))
        past = state * scale
        return (A.T @ past.flatten(1)).view_as(state), past, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the normalised states."""
        _, past, scale = output
        ctx.mark_non_differentiable(past, scale)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(past, scale, inputs[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of states and matrix."""
        if grads[0] is None:
            return None, None
        past, scale, A = ctx.saved_tensors
        flat = grads[0].flatten(1)
        d_A = past.flatten(1) @ flat.T if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, d_A
        d_past = (A @ flat).view_as(past)
        along = (d_past * past).mean(-1, keepdim=True)
        return d_past.addcmul_(past, along, value=-1).mul_(scale), d_A


def parent_sums(state: Tensor, A: Tensor) -> Tensor:
    """Sum the parents' normalised states: see `ParentSums`. Shape ``(Q, N, H)``."""
    if torch.compiler.is_compiling():  # the compiler fuses these by itself
        return (A.T @ rms_normalise(state).flatten(1)).view_as(state)
    A = A.to(state.dtype)
    with torch.autocast(state.device.type, enabled=False):
        sums: Tensor = ParentSums.apply(state, A)[0]  # type: ignore[no-untyped-call]
    return sums


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
    cache. Here all lie in one buffer with the columns n, r, z, h V_n + c_n, so that
    x acts on the first three, and h on the last three, in one product each.
    """

    @staticmethod
    def forward(
        x: Tensor,
        hidden: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the new state ``(Q, N, H)`` and the buffer ``(Q, N, 4 H)``."""
        q, nodes, size = hidden.shape
        first = torch.nn.functional.pad(bias_ih.roll(size, 1), (0, size))
        bias = first + torch.nn.functional.pad(bias_hh, (size, 0))
        buffer = bias.unsqueeze(1).repeat(1, nodes, 1)
        n, r, z, from_h = buffer.chunk(4, dim=-1)
        buffer[..., : 3 * size].baddbmm_(x, _n_first(weight_ih).transpose(1, 2))
        buffer[..., size:].baddbmm_(hidden, weight_hh.transpose(1, 2))
        buffer[..., size : 3 * size].sigmoid_()
        # tanh(x) = 2 sigmoid(2 x) - 1: torch's tanh takes five times as long.
        n.addcmul_(r, from_h).mul_(2).sigmoid_().mul_(2).sub_(1)
        return torch.lerp(n, hidden, z), buffer

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the inputs and the gates."""
        x, hidden, weight_ih, weight_hh, _, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # no zeros for the output just named
        ctx.save_for_backward(x, hidden, weight_ih, weight_hh, output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of all inputs, block by block of the nodes."""
        if grads[0] is None:
            return (None,) * 6

        x, hidden, weight_ih, weight_hh, buffer = ctx.saved_tensors
        size = hidden.shape[-1]
        three, weight_ih = 3 * size, _n_first(weight_ih)
        d_hidden = grads[0] * buffer[..., 2 * size : three]
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        d_ih, d_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
        d_bias = buffer.new_zeros(len(buffer), 4 * size)

        # The sums run over the blocks; states and inputs get their own rows.
        for part in _node_blocks(x.shape[1]):
            h, passed = hidden[:, part], d_hidden[:, part]
            d = _gate_gradients(grads[0][:, part], passed, h, buffer[:, part])
            by_x, by_h = d[..., :three], d[..., size:]
            passed.baddbmm_(by_h, weight_hh)
            if d_x is not None:
                torch.bmm(by_x, weight_ih, out=d_x[:, part])
            d_ih.baddbmm_(by_x.transpose(1, 2), x[:, part])
            d_hh.baddbmm_(by_h.transpose(1, 2), h)
            d_bias += d.sum(1)

        return (
            d_x,
            d_hidden,
            d_ih.roll(-size, 1),
            d_hh,
            d_bias[:, :three].roll(-size, 1),
            d_bias[:, size:],
        )


def _n_first(weight: Tensor) -> Tensor:
    """Return weights ``(Q, 3 H, I)`` of r, z, n in the order n, r, z."""
    return weight.roll(weight.shape[1] // 3, 1)


def _node_blocks(nodes: int) -> list[slice]:
    """Cut the nodes into parts whose temporaries stay in the cache."""
    count = max(nodes // NODES_AT_ONCE, 1)
    edges = [nodes * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _gate_gradients(
    grad: Tensor, passed: Tensor, hidden: Tensor, buffer: Tensor
) -> Tensor:
    """Return the gradients before the gates, in the columns of the buffer.

    ``passed`` is ``grad * z``.
    """
    n, r, z, from_h = buffer.chunk(4, dim=-1)
    out = torch.empty(buffer.shape, dtype=buffer.dtype, device=buffer.device)
    d_n, d_r, d_z, d_from_h = out.chunk(4, dim=-1)
    torch.sub(hidden, n, out=d_z).mul_(passed)
    d_z.addcmul_(d_z, z, value=-1)  # g (h - n) z (1 - z)
    torch.sub(grad, passed, out=d_n)
    torch.ops.aten.tanh_backward.grad_input(d_n, n, grad_input=d_n)
    torch.mul(d_n, r, out=d_from_h)
    torch.mul(d_from_h, from_h, out=d_r)
    d_r.addcmul_(d_r, r, value=-1)  # d_n (h V_n + c_n) r (1 - r)

    return out


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


def check_shape(
    name: str, array: Tensor | NDArray[Any], expected: Sequence[int | None]
) -> None:
    """Raise InputError unless ``array`` has the shape; None matches any size."""
    fits = len(array.shape) == len(expected) and all(
        want is None or have == want
        for have, want in zip(array.shape, expected, strict=True)
    )
    if not fits:
        raise InputError(
            f"wrong shape of the {name}",
            found=tuple(array.shape),
            expected=tuple("any" if size is None else size for size in expected),
        )
