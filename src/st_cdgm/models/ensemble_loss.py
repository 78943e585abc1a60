"""Proper scores of the one-step ensemble, averaged over valid cells only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_mean(values: Tensor, weight: Tensor, *, per_day: bool = False) -> Tensor:
    """Average ``(B, C, ...)`` per channel, over the batch as well or day by day.

    A channel without any weight gives 0 with a gradient of 0.

    Returns
    -------
    Tensor
        Shape ``(C,)``, or ``(B, C)`` with ``per_day``.
    """
    axes = [axis for axis in range(values.ndim) if axis != 1]
    axes = axes[1:] if per_day else axes
    return (values * weight).sum(dim=axes) / weight.sum(dim=axes).clamp(min=1e-12)


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    """Fair CRPS of an ensemble, per element.

    mean_i |x_i - y| - sum_{i<j} |x_i - x_j| / (M (M - 1)).

    Parameters
    ----------
    members : Tensor
        Shape ``(B, M, ...)``.
    truth : Tensor
        Shape ``(B, ...)``.

    Returns
    -------
    Tensor
        Shape ``(B, ...)``, in the units of the values.

    Raises
    ------
    ValueError
        Fewer than two members.

    References
    ----------
    Ferro 2014, doi:10.1002/qj.2270.
    """
    m = members.shape[1]
    if m < 2:
        msg = f"the fair CRPS needs at least 2 members, found {m}"
        raise ValueError(msg)
    skill = (members - truth[:, None]).abs().mean(dim=1)
    # sum_{i<j} |x_i - x_j| = sum_k (2k - M - 1) x_(k) over the sorted members.
    rank = (
        2 * torch.arange(1, m + 1, device=members.device, dtype=members.dtype) - m - 1
    )
    ordered = members.sort(dim=1).values
    shape = (1, m) + (1,) * (truth.ndim - 1)
    spread = (ordered * rank.view(shape)).sum(dim=1) / (m * (m - 1))
    return skill - spread


def pool_valid(values: Tensor, valid: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Average the valid cells of blocks of ``scale`` cells.

    Parameters
    ----------
    values, valid : Tensor
        Shapes ``(..., Y, X)``, broadcastable against each other.

    Returns
    -------
    tuple of Tensor
        Block means (0 where a block has no valid cell) and the share of valid cells,
        each ``(..., ceil(Y/scale), ceil(X/scale))``. For ``scale`` 1 both as they are.
    """
    if scale == 1:
        return values, valid

    def pool(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[-2:])
        pooled = F.avg_pool2d(flat, scale, ceil_mode=True, count_include_pad=False)
        return pooled.reshape(*x.shape[:-2], *pooled.shape[-2:])

    share = pool(valid)
    return pool(values * valid) / share.clamp(min=1e-6), share


def multiscale_crps(
    members: Tensor,
    truth: Tensor,
    valid: Tensor,
    scales: Sequence[int],
    *,
    importance: Tensor | None = None,
    per_day: bool = False,
) -> Tensor:
    """Fair CRPS averaged over block sizes: a proper score of fields, not only of cells.

    Scoring cells alone leaves the dependence between cells free; block means score it.

    Parameters
    ----------
    members : Tensor
        Shape ``(B, M, C, Y, X)``.
    truth, valid : Tensor
        Shape ``(B, C, Y, X)``; the truth is finite also where not valid.
    importance : Tensor, optional
        Weights of the cells, shape ``(B, C, Y, X)``; a block has its cells' mean. Those
        that depend on the truth make the score improper (Lerch et al. 2017,
        doi:10.1214/16-STS588).

    Returns
    -------
    Tensor
        Per variable. Shape ``(C,)``, or ``(B, C)`` with ``per_day``.
    """
    weight = valid.to(members.dtype)
    terms = []
    for scale in scales:
        pooled, _ = pool_valid(members, weight[:, None], scale)
        target, share = pool_valid(truth, weight, scale)
        if importance is not None:
            share = share * pool_valid(importance, weight, scale)[0]
        terms.append(masked_mean(fair_crps(pooled, target), share, per_day=per_day))
    return torch.stack(terms).mean(dim=0)
