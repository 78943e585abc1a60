"""Terms of the training objective. All are averages over valid cells only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from st_cdgm.errors import InputError, check_choice
from st_cdgm.models.acyclicity import (
    acyclicity,
    keep_in_domain,
    notears,
    sparsity,
)
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.objective import GeneratorLoss, Objective, clean_estimate
from st_cdgm.models.truth import Draws, Truth
from st_cdgm.training.config import (
    RECONSTRUCTION_TYPES,
    DagConfig,
    PhysicalLossConfig,
)

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
    name = "reconstruction_loss_type"
    check_choice(name, loss_type, RECONSTRUCTION_TYPES, section="")
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
    # Losses are not taken in half precision.
    pred, target = (
        x.to(torch.promote_types(x.dtype, torch.float32)) for x in (pred, target)
    )
    terms = {"mse": [_mse], "cosine": [_cosine], "mse+cosine": [_mse, _cosine]}
    found = [term(pred, target, mask) for term in terms[loss_type]]
    return torch.stack(found).mean()


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

    `st_cdgm.models.acyclicity.dagma`, and ``l1_weight * sum |A|`` if asked for.

    Raises
    ------
    InputError
        The matrix is outside the domain: ``s`` is not above the spectral radius of
        ``A * A``.
    """
    penalty = acyclicity(A_masked, constraint="dagma", s=s)
    return (
        penalty + l1_weight * sparsity(A_masked) if add_l1_regularization else penalty
    )


def loss_graph(
    A_masked: Tensor, dag: DagConfig, *, mu: float = 1.0, groups: Sequence[str] = ()
) -> Tensor:
    """Acyclicity and sparsity of one matrix ``(q, q)``, once per step.

    DAGMA minimises mu * (score + l1 * |A|) + h(A) along falling ``mu``; here everything
    is divided by mu, which leaves the learning rate's meaning alone and has the same
    minimiser. ``groups`` are those of `sparsity`.
    """
    penalty = acyclicity(A_masked, constraint=dag.constraint, s=dag.s)
    return penalty / mu + dag.l1_weight * sparsity(A_masked, groups or None)


def keep_graph_in_domain(cell: Any, before: Tensor, dag: DagConfig) -> None:
    """Take back as much of an update of a cell's matrix as leaves DAGMA's domain.

    ``before`` is the cell's ``effective_dag`` before the update.
    """
    if dag.constraint == "dagma":
        kept = keep_in_domain(cell.effective_dag(), before, dag.s)
        in_use = cell.edge_mask.clone().fill_diagonal_(False)
        cell.A_dag.data = torch.where(in_use, kept, cell.A_dag.data)


# -- Generator -------------------------------------------------------------------------


def loss_diffusion(
    decoder: Any,
    target: Tensor,
    conditioning: Any,
    *,
    use_focal_loss: bool = False,
    focal_alpha: float = 1.0,
    focal_gamma: float = 2.0,
    **options: Any,
) -> Tensor:
    """Return ``decoder.compute_loss``: the generator's loss, scalar.

    ``target`` is the standardised residual of B days, NaN where there is none, shape
    ``(B, C, Y, X)``; ``options`` are further keywords of ``compute_loss``.
    """
    loss: Tensor = decoder.compute_loss(
        target, conditioning, use_focal_loss, focal_alpha, focal_gamma, **options
    )
    return loss


def generator_terms(
    decoder: Any,
    truth: Truth,
    conditioning: Conditioning | Tensor,
    objective: Objective,
    *,
    members: int | None = None,
    physical: Callable[[Tensor], Tensor] | None = None,
    look: PhysicalLossConfig,
    number: int,
) -> tuple[GeneratorLoss, Tensor | None]:
    """Return the generator's loss and the physical loss of what it makes.

    The second is None without ``physical`` and where it is not due.

    Parameters
    ----------
    decoder, truth, conditioning, objective, members
        As for `Objective.loss` and `Draws.of`.
    physical : callable, optional
        Loss of residuals ``(B, M, C, Y, X)``.
    look, number : PhysicalLossConfig, int
        What it looks at, of a diffusion model, and the number of the batch: a sample is
        due in every so many of them.
    """
    draws = Draws.of(decoder, truth.residual, members=members, days=truth.days)
    found = objective.loss(decoder, truth, conditioning, draws)
    if physical is None:
        return found, None
    if found.members is not None:
        return found, physical(found.members)

    sampled = look.use_predicted_output
    if sampled and number % look.physical_sample_interval:
        return found, None
    steps = look.physical_num_steps if sampled else None
    estimate = clean_estimate(decoder, truth, conditioning, draws, steps=steps)
    if steps is None and decoder.config.parameterisation == "eps":
        estimate = _bounded(estimate, truth.residual, draws)
    return found, physical(estimate[:, None].float())


def _bounded(estimate: Tensor, residual: Tensor, draws: Draws) -> Tensor:
    """Bring a noise-predicting decoder's estimates nearer to the truth.

    Its clean estimate is off by sigma times the error of the noise, thousands of times
    the loss where sigma is large. Errors over ``(1 + sigma^2)^1/2`` are never larger
    than those of the noise, and a quadratic loss of them is weighted by
    ``1 / (1 + sigma^2)``, the share of the signal.
    """
    assert draws.sigma is not None
    weight = torch.rsqrt(1 + draws.sigma.square()).view(-1, 1, 1, 1)
    return residual + weight.to(estimate) * (estimate - residual)
