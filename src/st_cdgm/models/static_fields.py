"""Static fine fields of a dataset as features of the static nodes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from st_cdgm.errors import MissingVariableError

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger(__name__)


def read_static(
    dataset: xr.Dataset | None,
    variables: Sequence[str] | None,
    shape: tuple[int, int],
) -> Tensor:
    """Stack static fields, one feature per variable and level.

    Each is standardised over the grid, and NaN becomes its mean, 0.

    Parameters
    ----------
    dataset : xarray.Dataset or None
        Fields whose last two dimensions are the fine grid; others are skipped.
    variables : sequence of str or None
        Which variables; all but cell bounds when None, none when empty.
    shape : tuple of int
        The fine grid ``(Y, X)``.

    Returns
    -------
    Tensor
        Shape ``(C_s, Y, X)``, float32.

    Raises
    ------
    MissingVariableError
        A listed variable is absent.
    """
    layers = [torch.zeros(0, *shape)]
    if dataset is not None:
        names = [str(name) for name in dataset.data_vars]
        if variables is None:
            variables = [n for n in names if "bnds" not in n and "bounds" not in n]
        unknown = sorted(set(variables) - set(names))
        if unknown:
            raise MissingVariableError(
                "a static variable is absent",
                variable=", ".join(unknown),
                expected="one of " + ", ".join(names),
            )
        layers += [_layers(name, dataset[name], shape) for name in variables]
    return torch.cat(layers)


def _layers(name: str, array: Any, shape: tuple[int, int]) -> Tensor:
    """Return one variable as ``(levels, Y, X)``, standardised, without NaN."""
    values = np.asarray(array.values)
    # Only leading axes of length 1 may go: a grid may itself have a single row.
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.shape[-2:] != shape or values.dtype.kind not in "fiub":
        logger.warning(
            "static variable %s %s is not on the fine grid %s: skipped",
            name,
            values.shape,
            shape,
        )
        return torch.zeros(0, *shape)

    layers = values.reshape(-1, *shape).astype(np.float64)
    finite = np.isfinite(layers)
    count = finite.sum(axis=(1, 2), keepdims=True).clip(min=1)
    mean = np.where(finite, layers, 0.0).sum(axis=(1, 2), keepdims=True) / count
    anomaly = np.where(finite, layers - mean, 0.0)
    spread = np.sqrt((anomaly**2).sum(axis=(1, 2), keepdims=True) / count)
    return torch.from_numpy(anomaly / np.where(spread > 0, spread, 1.0)).float()
