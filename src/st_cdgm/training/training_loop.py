"""A plain training loop for dict batches, without Lightning, and its losses.

``train_epoch`` trains an encoder, a recurrent network and a decoder that were built by
hand. It follows the same rules as ``st_cdgm.training.train``: one graph penalty per
step, drivers predicted from the past alone, averages over valid cells, and an error
that names the days where a number is not finite.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.physics.wind import (
    compute_divergence,
    compute_vorticity,
    loss_physical,
)
from st_cdgm.training.config import LossConfig, PhysicalLossConfig
from st_cdgm.training.loop_epoch import Epoch, TrainingStepResult, mixed_dtype
from st_cdgm.training.loop_step import LoopStep
from st_cdgm.training.losses import (
    loss_dagma,
    loss_diffusion,
    loss_no_tears,
    loss_reconstruction,
)

__all__ = [
    "TrainingStepResult",
    "compute_divergence",
    "compute_vorticity",
    "convert_sample_to_batch",
    "iterate_batches",
    "loss_dagma",
    "loss_diffusion",
    "loss_no_tears",
    "loss_physical",
    "loss_reconstruction",
    "train_epoch",
]

_LOGGER = logging.getLogger(__name__)
_WARNED: WeakSet[Any] = WeakSet()  # graph builders


def convert_sample_to_batch(
    sample: Mapping[str, Any],
    builder: Any,
    device: torch.device | str,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """Turn a window of ``ResDiffIterableDataset`` into a batch of ``train_epoch``.

    Parameters
    ----------
    sample : mapping
        ``lr (T, C_lr, y, x)``, ``residual``, ``baseline``, ``hr`` ``(T, C, Y, X)``,
        optionally ``static`` and ``time``. Tensors or arrays.
    builder : HeteroGraphBuilder
        Makes the graph of the first day.
    device : torch.device or str
        Of everything in the batch.
    groups : mapping of str to list of int, optional
        Node type -> predictor channels, from
        ``st_cdgm.checkpoint.build.channel_groups``.
        Without it every level gets every channel: right for a single level only.

    Returns
    -------
    dict
        ``lr (T, N_lr, C_lr)``, ``hetero``, and the other entries as they were.
    """
    batch = {
        key: _as_input(value).to(device)
        if isinstance(value, Tensor | np.ndarray)
        else value
        for key, value in sample.items()
    }
    nodes = batch["lr"].flatten(2).transpose(1, 2).contiguous()  # (T, N, C)
    levels = builder.dynamic_node_types
    if groups is None and len(levels) > 1 and builder not in _WARNED:
        _WARNED.add(builder)  # once, not for every window
        _LOGGER.warning(
            "every level of the graph gets all %d channels; pass groups", nodes.shape[2]
        )

    chosen = groups or {name: list(range(nodes.shape[2])) for name in levels}
    features = {name: nodes[0][:, list(index)] for name, index in chosen.items()}
    batch |= {"lr": nodes, "hetero": builder.prepare_step_data(features).to(device)}
    return batch


def _as_input(value: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor; real numbers in torch's default precision."""
    tensor = torch.as_tensor(value)
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_default_dtype())


def iterate_batches(
    samples: Iterable[Mapping[str, Any]],
    builder: Any,
    device: torch.device | str,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Convert samples one by one; see :func:`convert_sample_to_batch`."""
    for sample in samples:
        yield convert_sample_to_batch(sample, builder, device, groups=groups)


def train_epoch(
    *,
    encoder: nn.Module,
    rcn_runner: Any,
    diffusion_decoder: nn.Module,
    optimizer: torch.optim.Optimizer,
    data_loader: Iterable[Mapping[str, Any]],
    lambda_gen: float,
    beta_rec: float,
    gamma_dag: float,
    conditioning_fn: Callable[[Tensor, Tensor | None], Any] | None = None,
    device: torch.device | str,
    gradient_clipping: float | None = None,
    batch_index_key: str = "batch_index",
    residual_key: str = "residual",
    log_interval: int = 10,
    verbose: bool = True,
    dag_method: str = "dagma",
    dagma_s: float = 1.0,
    lambda_phy: float = 0.0,
    dx: float = 1.0,
    dy: float = 1.0,
    use_predicted_output: bool = False,
    physical_sample_interval: int = 10,
    physical_num_steps: int = 15,
    use_amp: bool = False,
    scheduler: Any = None,
    use_focal_loss: bool = False,
    focal_alpha: float = 1.0,
    focal_gamma: float = 2.0,
    extreme_weight_factor: float = 0.0,
    extreme_percentiles: Sequence[float] | None = None,
    reconstruction_loss_type: str = "mse",
    dag_l1_regularization: bool = False,
    dag_l1_weight: float = 0.01,
    min_snr_gamma: float | None = None,
    extreme_key: str | None = None,
    energy_weight: float = 0.0,
    energy_patch: int | None = None,
    members: int | None = None,
    decoder_steps: str = "last",
    context_keys: Sequence[str] = (),
    lat: ArrayLike | None = None,
    lon: ArrayLike | None = None,
    target_names: Sequence[TargetVariable | Channel | str] | None = None,
    target_scale: Tensor | None = None,
    on_invalid: str = "raise",
    amp_dtype: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    scheduler_interval: str = "epoch",
    validation_loader: Iterable[Mapping[str, Any]] | None = None,
) -> dict[str, float]:
    r"""Train for one pass over the batches.

    .. math:: L = \lambda_{gen} L_{gen} + \beta_{rec} L_{rec} + \gamma_{dag} L_{dag}
              + \lambda_{phy} L_{phy}

    Per batch: the encoder reads day 1, the recurrent network is driven by days 2..T
    (by day 1 where T = 1), the decoder learns the residual of the last day given the
    last state. L_rec is averaged over the days. L_dag is counted once per step, and
    the causal matrix is kept in DAGMA's domain by shortening steps that leave it.

    Parameters
    ----------
    encoder, rcn_runner, diffusion_decoder, optimizer
        ``IntelligibleVariableEncoder``, ``RCNSequenceRunner``,
        ``CausalDiffusionDecoder``, on ``device``; set to training mode. The optimiser
        of all their parameters.
    data_loader : iterable of dict
        Batches of :func:`convert_sample_to_batch`: ``lr (T, N, C_lr)``, ``residual``
        (or, without it, ``hr``) ``(T, C, Y, X)`` with NaN where there is no truth,
        ``hetero``. B windows at once: ``lr (T, B*N, C_lr)``, ``residual
        (B, T, C, Y, X)`` and the graph of each node under ``batch_index_key``. They
        are moved to ``device``.
    lambda_gen, beta_rec, gamma_dag, lambda_phy : float
        Weights of the terms.
    conditioning_fn : callable, optional
        ``(H, batch_index) -> Conditioning or tokens`` instead of the encoder's
        ``project_state_tensor``.
    gradient_clipping : float, optional
        Largest gradient norm of recurrent network, decoder and encoder, each by itself.
    log_interval, verbose : int, bool
        Log every so many batches; at INFO, or at DEBUG unless ``verbose``.
    dag_method : {"dagma", "no_tears", "none"}
        Acyclicity; ``dagma_s`` is DAGMA's s.
    dag_l1_regularization, dag_l1_weight : bool, float
        Whether to add ``dag_l1_weight * sum |A|`` to L_dag.
    dx, dy, lat, lon
        Spacing of the target grid on a plane, or its coordinates on the sphere.
    target_names : sequence, optional
        Names of the target's channels, among which L_phy looks for wind. Without them
        channels 0 and 1 are taken for eastward and northward wind, with a warning.
    target_scale : Tensor, optional
        Standard deviation by which each channel of the target was divided, ``(C,)``.
    use_predicted_output, physical_sample_interval, physical_num_steps
        What L_phy compares with the target, see `PhysicalLossConfig`.
    use_focal_loss, focal_alpha, focal_gamma, min_snr_gamma, extreme_weight_factor,
    extreme_percentiles, energy_weight, energy_patch, reconstruction_loss_type
        Weights of errors, cells and noise levels, and forms of terms, see `LossConfig`.
    use_amp, amp_dtype : bool, torch.dtype
        Mixed precision; dropped with a warning without CUDA, unless ``amp_dtype`` is
        bfloat16. Without a type: bfloat16 where the device knows it, else float16.
    scaler : torch.amp.GradScaler, optional
        For float16; without one, the optimiser's own is kept from epoch to epoch.
    scheduler, scheduler_interval : optional, {"epoch", "step"}
        Stepped after every epoch or after every batch. ReduceLROnPlateau is stepped
        after the epoch with ``val_loss``; without ``validation_loader`` with the
        training loss (a warning).
    extreme_key : str, optional
        Entry of the batch whose extremes count instead of the target's, such as ``hr``.
    members : int, optional
        Of a ``one_step`` decoder, per window.
    decoder_steps : {"last", "all"}
        Days the decoder learns from: the last one of each window (windows that overlap
        by all but a day make every day the last one once), or all that have a state.
    context_keys : sequence of str
        Entries of the batch handed to the decoder as conditioning maps, such as
        ``baseline`` and ``static``; their channels are its ``spatial_channels``.
    on_invalid : {"raise", "skip"}
        What to do with a batch whose conditioning, prediction or loss is not finite:
        stop and name its days, or leave it out and count it.
    validation_loader : iterable of dict, optional
        Adds ``val_loss``: the generator's unweighted loss, with the same noise at every
        epoch.

    Returns
    -------
    dict
        Means over the processed batches: ``loss``, ``loss_gen``, ``loss_rec``,
        ``loss_dag``, ``loss_phy`` (if ``lambda_phy`` > 0), ``val_loss`` (with a
        validation loader); NaN where nothing was processed. ``skipped``: number of
        batches left out.

    Raises
    ------
    FloatingPointError
        A number is not finite; the message names the days of the batch.
    ConfigError
        (a ValueError) An option out of range.
    InputError
        (a ValueError) A target of wrong rank or channel count.
    """
    # An option goes where a field has its name.
    given = locals() | {"extreme_percentiles": extreme_percentiles or None}
    loss, look = (_taken(kind, given) for kind in (LossConfig, PhysicalLossConfig))
    step = _taken(LoopStep, given, loss=loss, look=look)

    where = torch.device(device)
    given |= {"device": where, "amp_dtype": mixed_dtype(use_amp, amp_dtype, where)}
    level = logging.INFO if verbose else logging.DEBUG
    epoch: Epoch = _taken(Epoch, given, step=step, level=level)
    return epoch.run(data_loader, validation_loader)


def _taken(kind: Any, given: Mapping[str, Any], **more: Any) -> Any:
    """Make a dataclass of the values that are given under its fields' names."""
    names = {field.name for field in fields(kind) if given.get(field.name) is not None}
    return kind(**{name: given[name] for name in names}, **more)
