"""Proper scores of the one-step ensemble, averaged over valid cells only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.errors import check_least
from st_cdgm.physics.blocks import pool_valid


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
    ConfigError
        (a ``ValueError``) Fewer than two members.

    References
    ----------
    Ferro 2014, doi:10.1002/qj.2270.
    """
    m = members.shape[1]
    check_least("number of members", m, 2)
    skill = (members - truth[:, None]).abs().mean(dim=1)
    # sum_{i<j} |x_i - x_j| = sum_k (2k - M - 1) x_(k) over the sorted members.
    rank = (
        2 * torch.arange(1, m + 1, device=members.device, dtype=members.dtype) - m - 1
    )
    ordered = members.sort(dim=1).values
    shape = (1, m) + (1,) * (truth.ndim - 1)
    spread = (ordered * rank.view(shape)).sum(dim=1) / (m * (m - 1))
    return skill - spread


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
    scales : sequence of int
        Block sizes, in cells; 0: the whole domain.
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
    ConfigError
        (a ``ValueError``) Fewer than two members.

    References
    ----------
    Gneiting & Raftery 2007, doi:10.1198/016214506000001437, equation 22.
    """
    m = members.shape[1]
    check_least("number of members", m, 2)
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
    members, truth, valid, scales, per_day
        As for `multiscale_crps`.
    patch : int, optional
        Side of the square patches scored one by one, in blocks; the whole field when
        absent. The score of a whole field hardly tells dependence structures apart when
        it has many cells; that of a patch does better.

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


def joint_energy(
    members: Tensor,
    truth: Tensor,
    valid: Tensor,
    scales: Sequence[int],
    *,
    side: int = 1,
    per_day: bool = False,
) -> Tensor:
    """Fair energy score of all variables of a patch as one vector.

    A score per variable leaves the dependence between variables free; this one sees
    whether a wet member is the cold one. Averaged over block sizes and patches.

    Parameters
    ----------
    members, truth, valid, scales, per_day
        As for `multiscale_crps`, the variables in units of their spread.
    side : int
        Side of the patches, in blocks.

    Returns
    -------
    Tensor
        Scalar, or ``(B,)`` with ``per_day``.
    """
    known = valid.to(members.dtype)
    terms = []
    for scale in scales:
        pooled, _ = pool_valid(members, known[:, None], scale)
        target, share = pool_valid(truth, known, scale)
        # (..., C, P, side, side) -> (..., P, C, side * side): one vector per patch.
        pooled, target, share = (
            _patches(x, side).flatten(-2).transpose(-3, -2)
            for x in (pooled, target, share)
        )
        score = fair_energy_score(pooled, target, share)[:, None]  # (B, 1, P)
        weight = share.sum(dim=(-2, -1))[:, None]
        terms.append(masked_mean(score, weight, per_day=per_day)[..., 0])

    return torch.stack(terms).mean(dim=0)


def spectral_crps(
    members: Tensor, truth: Tensor, valid: Tensor, *, per_day: bool = False
) -> Tensor:
    """Fair CRPS of the logarithm of the power in each band of wavelengths.

    Of the cosine transform of the fields, which does not see a jump from one border to
    the other. Cells that are not valid count as 0 in all.

    Parameters
    ----------
    members, truth, valid, per_day
        As for `multiscale_crps`.

    Returns
    -------
    Tensor
        Per variable. Shape ``(C,)``, or ``(B, C)`` with ``per_day``.

    References
    ----------
    Denis et al. 2002, doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2.
    """
    known = valid.to(members.dtype)
    power = _log_power(members * known[:, None])  # (B, M, C, K)
    score = fair_crps(power, _log_power(truth * known))  # (B, C, K)
    weight = known.flatten(2).amax(dim=2, keepdim=True).expand_as(score)
    return masked_mean(score, weight, per_day=per_day)


def _log_power(fields: Tensor) -> Tensor:
    """Log of the mean power per band of normalised wavenumber. ``(..., K)``."""
    y, x = fields.shape[-2:]
    power = (_cosines(y, fields) @ fields @ _cosines(x, fields).T).square()
    row = torch.arange(y, device=fields.device)[:, None] / y
    column = torch.arange(x, device=fields.device)[None] / x
    bands = min(y, x)
    # Normalised wavenumber 1 is two cells; the corners beyond it join the last band.
    band = ((row**2 + column**2).sqrt() * bands).long().clamp(max=bands - 1).flatten()
    total = power.new_zeros(*power.shape[:-2], bands)
    total = total.index_add(-1, band, power.flatten(-2))
    count = torch.bincount(band, minlength=bands).to(power)
    return (total / count + 1e-6)[..., 1:].log()


def _cosines(size: int, like: Tensor) -> Tensor:
    """Orthonormal matrix of the cosine transform (DCT-II). ``(size, size)``."""
    at = torch.arange(size, device=like.device, dtype=like.dtype)
    matrix = torch.cos(math.pi * at[:, None] * (at + 0.5) / size)
    scale = torch.where(at == 0, 1.0, 2.0).to(like) / size
    return matrix * scale.sqrt()[:, None]
