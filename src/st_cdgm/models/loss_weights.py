"""Weights of cells in the generator's loss.

The min-SNR weight of a noise level is part of `preconditioning`; the weights here
depend on the error or on the truth. They shift what is learned: the minimiser of a
weighted squared error is a weighted mean, E[w x0] / E[w]. Focal weights leave it alone
where the error is symmetric; extreme weights pull it towards the extremes on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from st_cdgm.errors import ConfigError, check_between, check_least

_TINY = 1e-12


def focal_weight(
    squared_error: Tensor, valid: Tensor, *, alpha: float = 1.0, gamma: float = 2.0
) -> Tensor:
    r"""Return focal weights of a regression: large errors count more.

    .. math:: w = \alpha \left(\frac{|e|}{e_{ref}}\right)^\gamma

    with the root mean square of a channel's valid errors in the same sample as
    :math:`e_{ref}`, so that no sample's weights depend on the others of the batch, and
    their mean is alpha for gamma = 2. The weights carry no gradient.

    Parameters
    ----------
    squared_error : Tensor
        Shape ``(B, C, Y, X)``.
    valid : Tensor
        1 or True where the error counts. Shape ``(B, C, Y, X)``.
    alpha, gamma : float
        Scale and exponent; gamma 0 weights every cell alike.

    Returns
    -------
    Tensor
        Shape ``(B, C, Y, X)``.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002 (classification); Yang et al. 2021,
    arXiv:2102.09554 (regression, with the absolute error).
    """
    if gamma < 0 or alpha <= 0:
        raise ConfigError(
            "the focal weight needs alpha > 0 and gamma >= 0",
            variable="focal_alpha, focal_gamma",
            found=f"{alpha}, {gamma}",
        )
    error = squared_error.detach()
    mask = valid.to(error.dtype)
    count = mask.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    mean = (error * mask).sum(dim=(-2, -1), keepdim=True) / count
    return alpha * (error / mean.clamp(min=_TINY)) ** (gamma / 2)


def extreme_thresholds(
    values: Tensor, valid: Tensor, percentiles: Sequence[float]
) -> Tensor:
    """Return the percentiles of the absolute valid values of each channel.

    Parameters
    ----------
    values, valid : Tensor
        Shape ``(B, C, Y, X)``.
    percentiles : sequence of float
        Between 0 and 100.

    Returns
    -------
    Tensor
        Infinite for a channel without a valid value. Shape ``(P, C)``.
    """
    for percentile in percentiles:
        check_between("extreme_percentiles", percentile, 0, 100)
    found = np.full((len(percentiles), values.shape[1]), np.inf)
    for c in range(values.shape[1]):
        chosen = values[:, c].detach()[valid[:, c].bool()].abs().double().cpu().numpy()
        if chosen.size > 0:  # torch.quantile refuses more than 16 million values
            found[:, c] = np.percentile(chosen, list(percentiles))
    return torch.from_numpy(found).to(values.device, values.dtype)


def extreme_weight(
    values: Tensor,
    valid: Tensor,
    *,
    factor: float,
    percentiles: Sequence[float] | None = None,
    thresholds: Tensor | None = None,
) -> Tensor:
    """Return weights ``1 + factor * (percentiles exceeded by |value|)``, of mean 1.

    Parameters
    ----------
    values : Tensor
        What is extreme or not: the target, or the fine field itself. Shape
        ``(B, C, Y, X)``.
    valid : Tensor
        Where the target exists. Shape ``(B, C, Y, X)``.
    factor : float
        0 gives weights of 1.
    percentiles : sequence of float, optional
        Default 95 and 99, of the batch's valid values, per channel.
    thresholds : Tensor, optional
        Fixed thresholds instead of percentiles of the batch, in the units of
        ``values``. Shape ``(P, C)``.

    Returns
    -------
    Tensor
        Mean 1 over the valid cells of each channel. Shape ``(B, C, Y, X)``.
    """
    check_least("extreme_weight_factor", factor, 0)
    chosen = (95.0, 99.0) if percentiles is None else tuple(percentiles)
    if thresholds is None:
        thresholds = extreme_thresholds(values, valid, chosen)
    exceeded = values.detach().abs() > thresholds[:, None, :, None, None]
    weight = 1 + factor * exceeded.sum(dim=0).to(values.dtype)  # (B, C, Y, X)
    mask = valid.to(weight.dtype)
    total = (weight * mask).sum(dim=(0, 2, 3), keepdim=True)
    count = mask.sum(dim=(0, 2, 3), keepdim=True)
    return torch.where(count > 0, weight * count / total.clamp(min=_TINY), 1.0)
