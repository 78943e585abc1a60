"""Terms of the training objective. All are averages over valid cells only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.acyclicity import dagma, notears, sparsity
from st_cdgm.models.ensemble_loss import (
    masked_mean,
    pool_valid,
)
from st_cdgm.training.config import DAG_METHODS, RECONSTRUCTION_TYPES

# -- Causal network --------------------------------------------------------------------


def loss_reconstruction(
    pred: Tensor | None,
    target: Tensor | None,
    loss_type: str = "mse",
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Error of reconstructed drivers.

    Parameters
    ----------
    pred, target : Tensor or None
        Shape ``(..., D)``; 0 if either is None.
    loss_type : {"mse", "cosine", "mse+cosine"}
        Mean squared error; ``1 - a.b / (|a| |b| + 1e-8)`` averaged over the rows; or
        half of each. The cosine ignores the size of a row and knows of a single
        channel its sign only.
    mask : Tensor, optional
        1 for channels in use, 0 for padding, broadcastable from ``pred`` without its
        leading axes or with axes of length 1. Rows without channels do not count.

    Raises
    ------
    ConfigError
        Unknown ``loss_type``.
    InputError
        Shapes differ.
    """
    if loss_type not in RECONSTRUCTION_TYPES:
        raise ConfigError(
            "unknown reconstruction loss",
            variable="reconstruction_loss_type",
            found=loss_type,
            expected=" | ".join(RECONSTRUCTION_TYPES),
        )
    if pred is None or target is None:
        given = pred if target is None else target
        return torch.zeros(()) if given is None else given.new_zeros(())
    if pred.shape != target.shape:
        raise InputError(
            "reconstructed and true drivers differ in shape",
            variable="drivers",
            found=tuple(pred.shape),
            expected=tuple(target.shape),
            remedy="set reconstruction_dim to the number of driver channels",
        )
    pred, target = pred.to(_wide(pred)), target.to(_wide(target))
    if loss_type == "mse":
        return _mse(pred, target, mask)
    if loss_type == "cosine":
        return _cosine(pred, target, mask)
    return 0.5 * _mse(pred, target, mask) + 0.5 * _cosine(pred, target, mask)


def _wide(x: Tensor) -> torch.dtype:
    """Losses are not taken in half precision."""
    return torch.promote_types(x.dtype, torch.float32)


def _mse(pred: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    error = (pred - target) ** 2
    if mask is None:
        return error.mean()
    count = mask.sum() * (error.numel() // mask.numel())
    return (error * mask).sum() / count.clamp(min=1)


def _cosine(pred: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        pred, target = pred * mask, target * mask
    # Below 1e-8 in the product of the norms nothing but a row of zeros can be; the
    # squares are summed first and bounded, because the root has no gradient at 0.
    square = pred.square().sum(-1) * target.square().sum(-1)
    distance = 1 - (pred * target).sum(-1) / (square.clamp(min=1e-24).sqrt() + 1e-8)
    if mask is None:
        return distance.mean()
    used = (mask > 0).any(-1).expand(distance.shape)
    return (distance * used).sum() / used.sum().clamp(min=1)


def loss_no_tears(A_masked: Tensor) -> Tensor:
    """NOTEARS penalty ``tr exp(A * A) - q`` of one matrix ``(q, q)``; scalar."""
    return notears(A_masked)


def loss_dagma(
    A_masked: Tensor,
    s: float = 1.0,
    add_l1_regularization: bool = False,
    l1_weight: float = 0.01,
) -> Tensor:
    """DAGMA penalty ``-logdet(s I - A * A) + q log s`` of one matrix ``(q, q)``.

    0 for an acyclic graph and positive for any other.

    Parameters
    ----------
    A_masked : Tensor
        ``A[i, k]``: i -> k, zero diagonal. Shape ``(q, q)``.
    s : float
        Size of the domain: above the spectral radius of ``A * A``.
    add_l1_regularization, l1_weight : bool, float
        Whether to add ``l1_weight * sum |A|``.

    Raises
    ------
    InputError
        The matrix is outside the domain, where the formula is another function.
    """
    penalty = dagma(A_masked, s)
    if add_l1_regularization:
        penalty = penalty + l1_weight * sparsity(A_masked)
    return penalty


def loss_dag(
    A_masked: Tensor, method: str = "dagma", *, s: float = 1.0, l1_weight: float = 0.0
) -> Tensor:
    """Acyclicity penalty by name, plus ``l1_weight * sum |A|``, of one matrix.

    Raises
    ------
    ConfigError
        Unknown ``method``.
    """
    if method not in DAG_METHODS:
        raise ConfigError(
            "unknown acyclicity method",
            variable="dag_method",
            found=method,
            expected=" | ".join(DAG_METHODS),
        )
    kind = DAG_METHODS[method]
    if kind == "dagma":
        penalty = dagma(A_masked, s)
    elif kind == "notears":
        penalty = notears(A_masked)
    else:
        penalty = A_masked.new_zeros(())
    return penalty + l1_weight * sparsity(A_masked) if l1_weight else penalty


# -- Ensembles -------------------------------------------------------------------------


def fair_energy_score(members: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Fair energy score of an ensemble of fields.

    mean_i |x_i - y| - sum_{i<j} |x_i - x_j| / (M (M - 1)), with the norm
    ``|d| = sqrt(sum w d^2 / sum w)`` over the last two axes: that of the paper but for
    a factor, so that the score does not grow with the number of cells. Its mean over
    ensembles is the same for every M >= 2.

    Parameters
    ----------
    members : Tensor
        Shape ``(B, M, ..., Y, X)``.
    truth : Tensor
        Shape ``(B, ..., Y, X)``.
    weight : Tensor
        0 or more, of each cell. Shape ``(B, ..., Y, X)``.

    Returns
    -------
    Tensor
        Shape ``(B, ...)``, in the units of the values; 0 where nothing has weight.

    Raises
    ------
    ValueError
        Fewer than two members.

    References
    ----------
    Gneiting & Raftery 2007, doi:10.1198/016214506000001437, equation 22.
    """
    m = members.shape[1]
    if m < 2:
        msg = f"the fair energy score needs at least 2 members, found {m}"
        raise ValueError(msg)
    share = weight / weight.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-12)

    def norm(difference: Tensor) -> Tensor:
        square = (difference.square() * share[:, None]).sum(dim=(-2, -1))
        # The root has no gradient at 0, where members agree: it counts as 0 there.
        safe = torch.where(square > 0, square, 1.0)
        return torch.where(square > 0, safe.sqrt(), 0.0)

    skill = norm(members - truth[:, None]).mean(dim=1)
    # All pairs i < j, grouped by their distance j - i: no M x M copies of the fields.
    spread = torch.zeros_like(skill)
    for lag in range(1, m):
        spread = spread + norm(members[:, lag:] - members[:, :-lag]).sum(dim=1)
    return skill - spread / (m * (m - 1))


def multiscale_energy(
    members: Tensor,
    truth: Tensor,
    valid: Tensor,
    scales: Sequence[int],
    *,
    patch: int | None = None,
    per_day: bool = False,
) -> Tensor:
    """Fair energy score averaged over block sizes.

    A block mean's CRPS sees how the cells of one block go together; the energy score
    sees whole fields, or patches of them.

    Parameters
    ----------
    members : Tensor
        Shape ``(B, M, C, Y, X)``.
    truth, valid : Tensor
        Shape ``(B, C, Y, X)``; the truth is finite also where not valid.
    scales : sequence of int
        Block sizes, in cells.
    patch : int, optional
        Side of the square patches scored one by one, in blocks; the whole field when
        absent. The score of a whole field hardly tells dependence structures apart when
        it has many cells; that of a patch does better.
    per_day : bool
        Whether to keep the days apart.

    Returns
    -------
    Tensor
        Per variable. Shape ``(C,)``, or ``(B, C)`` with ``per_day``.
    """
    known = valid.to(members.dtype)
    terms = []
    for scale in scales:
        pooled, _ = pool_valid(members, known[:, None], scale)
        target, share = pool_valid(truth, known, scale)
        if patch is not None:
            pooled, target, share = (
                _patches(x, patch) for x in (pooled, target, share)
            )
        score = fair_energy_score(pooled, target, share)  # (B, C) or (B, C, P)
        if score.ndim == 2:
            score, share = score[:, :, None], share[:, :, None]
        terms.append(masked_mean(score, share.sum(dim=(-2, -1)), per_day=per_day))
    return torch.stack(terms).mean(dim=0)


def _patches(x: Tensor, side: int) -> Tensor:
    """Cut ``(..., Y, X)`` into ``(..., P, side, side)``, filled up with zeros."""
    pad_y, pad_x = (-x.shape[-2]) % side, (-x.shape[-1]) % side
    x = F.pad(x, (0, pad_x, 0, pad_y))
    rows, columns = x.shape[-2] // side, x.shape[-1] // side
    cut = x.reshape(*x.shape[:-2], rows, side, columns, side)
    return cut.transpose(-3, -2).flatten(-4, -3)
