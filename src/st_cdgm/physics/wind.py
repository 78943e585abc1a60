"""Divergence and vorticity of wind, on the sphere or a plane, and their loss.

They mean something for a pair of wind components only and are applied to nothing else.
Every function is differentiable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from st_cdgm.data.space.gradients import EARTH_RADIUS
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.table import variable_of
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.physics.derivatives import WindDerivatives

_LOGGER = logging.getLogger(__name__)


def _derivatives(
    field: Tensor,
    dx: float,
    dy: float,
    lat: ArrayLike | None,
    lon: ArrayLike | None,
    radius: float,
) -> WindDerivatives:
    if (lat is None) != (lon is None):
        raise ConfigError(
            "half of the coordinates are missing",
            variable="lat, lon",
            found=f"lat {'given' if lat is not None else 'absent'}",
            expected="both, or neither for a plane",
        )

    if lat is None or lon is None:
        return WindDerivatives.planar(field.shape[-2:], dx, dy)
    operator = WindDerivatives.spherical(lat, lon, radius=radius)
    if operator.shape != tuple(field.shape[-2:]):
        raise InputError(
            "the coordinates do not fit the field",
            variable="lat, lon",
            found=operator.shape,
            expected=tuple(field.shape[-2:]),
        )
    return operator


def _derived(
    operation: Callable[[WindDerivatives, Tensor, Tensor], Tensor],
    field: Tensor,
    *grid: Any,
) -> Tensor:
    """Apply an operation to channels 0 and 1; zeros where there is no second."""
    if field.ndim < 3:
        raise InputError(
            "a wind field has channels",
            found=tuple(field.shape),
            expected="(B, 2, Y, X)",
        )

    if field.shape[-3] < 2:
        _LOGGER.warning(
            "divergence and vorticity need two wind components; found %d channel, "
            "so they are 0",
            field.shape[-3],
        )
        return torch.zeros_like(field.select(-3, 0))
    u, v = field.select(-3, 0), field.select(-3, 1)
    return operation(_derivatives(field, *grid), u, v)


def compute_divergence(
    field: Tensor,
    dx: float = 1.0,
    dy: float = 1.0,
    *,
    lat: ArrayLike | None = None,
    lon: ArrayLike | None = None,
    radius: float = EARTH_RADIUS,
) -> Tensor:
    """Return the divergence of a wind field, of second order up to the border.

    Parameters
    ----------
    field : Tensor
        Eastward and northward wind in channels 0 and 1. Shape ``(B, >=2, Y, X)``. A
        NaN makes the cells NaN whose differences need it, and no others.
    dx, dy : float
        Spacing on a plane; ``dy`` is negative where rows run from north to south.
    lat, lon : array-like, optional
        Degrees, ``(Y,)`` and ``(X,)``: then on the sphere, without ``dx`` and ``dy``.
    radius : float
        Of the sphere, m.

    Returns
    -------
    Tensor
        Shape ``(B, Y, X)``, s-1 for m s-1 and m. Zeros, with a warning, for fewer than
        two channels. NaN at a pole.

    Raises
    ------
    InputError
        A field without channels, or coordinates that do not fit it.
    """
    return _derived(WindDerivatives.divergence, field, dx, dy, lat, lon, radius)


def compute_vorticity(
    field: Tensor,
    dx: float = 1.0,
    dy: float = 1.0,
    *,
    lat: ArrayLike | None = None,
    lon: ArrayLike | None = None,
    radius: float = EARTH_RADIUS,
) -> Tensor:
    """Return the vorticity of a wind field; see :func:`compute_divergence`."""
    return _derived(WindDerivatives.vorticity, field, dx, dy, lat, lon, radius)


def loss_physical(
    output: Tensor,
    target: Tensor,
    dx: float = 1.0,
    dy: float = 1.0,
    *,
    lat: ArrayLike | None = None,
    lon: ArrayLike | None = None,
    radius: float = EARTH_RADIUS,
    valid: Tensor | None = None,
    derivatives: WindDerivatives | None = None,
) -> Tensor:
    """MSE of divergence plus MSE of vorticity, over the cells where both are known.

    Weighted by area on the sphere. The gradient is that of the prediction.

    Parameters
    ----------
    output, target : Tensor
        Predicted and true wind; shape ``(B, >=2, Y, X)``. NaN in the target, or a cell
        that is not ``valid``, leaves out the derivatives that need it.
    dx, dy, lat, lon, radius
        See :func:`compute_divergence`.
    valid : Tensor, optional
        Bool, ``(B, Y, X)`` or ``(B, >=2, Y, X)``.
    derivatives : WindDerivatives, optional
        Ready made, instead of spacing or coordinates.

    Returns
    -------
    Tensor
        Scalar, s-2 for m s-1 and m.

    Raises
    ------
    ConfigError
        Fewer than two channels: the loss means nothing for other variables.
    """
    if min(output.shape[-3], target.shape[-3]) < 2:
        raise ConfigError(
            "the physical loss needs two wind components",
            variable="lambda_phy",
            found=f"{target.shape[-3]} channel",
            expected="eastward and northward wind in channels 0 and 1",
            remedy="set lambda_phy to 0 for other variables",
        )
    operator = derivatives or _derivatives(target, dx, dy, lat, lon, radius)
    difference, known = _known_difference(output, target, valid)
    covered = operator.covered(known)
    # A pole has no derivative; NaN there would reach the gradient in spite of the mask.
    operator = replace(operator, scale=operator.scale.nan_to_num())
    weight = covered * operator.cosine.to(difference)
    u, v = difference.unbind(-3)
    # Both derivatives are linear: those of the difference are all that is needed.
    square = torch.where(
        covered,
        operator.divergence(u, v) ** 2 + operator.vorticity(u, v) ** 2,
        0.0,
    )
    return (square * weight).sum() / weight.sum().clamp(min=1e-12)


def _known_difference(
    output: Tensor, target: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the difference, 0 where the truth is unknown, and where it is known."""
    output, target = output.narrow(-3, 0, 2), target.narrow(-3, 0, 2)
    known = torch.isfinite(target)
    if valid is not None:
        known = known & (
            valid[..., :2, :, :] if valid.ndim == target.ndim else valid.unsqueeze(-3)
        )
    known = known.all(dim=-3, keepdim=True)
    return torch.where(known, output - target, 0.0), known.squeeze(-3)


def wind_pairs(
    variables: Sequence[TargetVariable | Channel | str],
) -> list[tuple[int, int]]:
    """Find pairs of eastward and northward wind.

    By name (``u`` and ``v``, ``uas`` and ``vas``, ``ua_850`` and ``va_850`` ...), else
    by the CF standard names of a single pair.

    Returns
    -------
    list of tuple of int
        Indices ``(eastward, northward)``; empty where there is no wind.
    """
    names = [v if isinstance(v, str) else v.name for v in variables]
    standard = [None if isinstance(v, str) else v.standard_name for v in variables]
    lower = [name.lower() for name in names]

    out = []
    for i, name in enumerate(lower):
        known = standard[i]
        if known is not None and not _is_eastward("", known):
            continue

        partner = name.replace("u", "v", 1) if _is_eastward(name, None) else None
        if partner in lower:
            out.append((i, lower.index(partner)))
        elif known is not None and standard.count(known) == 1:
            north = known.replace("eastward", "northward").replace("x_", "y_")
            if standard.count(north) == 1:
                out.append((i, standard.index(north)))
    return out


def _is_eastward(name: str, standard_name: str | None) -> bool:
    row = variable_of(name, {"standard_name": standard_name})
    return row is not None and row.component == "u"
