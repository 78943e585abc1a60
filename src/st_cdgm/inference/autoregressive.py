"""Step by step from parts built by hand: roll the causal network, draw fields.

What ``train_epoch`` trains can be drawn from here, conditioned as it was trained. From
a checkpoint and files it is :func:`st_cdgm.inference.downscale.downscale` that draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from st_cdgm.errors import ConfigError, InputError, check_least
from st_cdgm.models.diffusion_output import DiffusionOutput

Conditioner = Callable[[Tensor, Tensor | None], Any]


@dataclass(frozen=True)
class InferenceResult:
    """What a rollout gives, step by step.

    Attributes
    ----------
    generations : list of list of DiffusionOutput
        ``[time][sample]``, fields of shape ``(B, C, Y, X)``.
    states : list of Tensor
        Causal states after every step. Shape ``(Q, N, H)`` each.
    dag_matrices : list of Tensor
        The effective matrix at every step, ``A[i, j]``: i -> j. Shape ``(Q, Q)`` each.
    """

    generations: list[list[DiffusionOutput]]
    states: list[Tensor]
    dag_matrices: list[Tensor]


@torch.no_grad()
def autoregressive_inference(
    *,
    rcn_runner: Any,
    diffusion_decoder: Any,
    initial_state: Tensor,
    drivers: Sequence[Tensor] | Tensor,
    num_samples: int = 1,
    generator: torch.Generator | None = None,
    encoder: Any | None = None,
    conditioning_fn: Conditioner | None = None,
    batch_index: Tensor | None = None,
    baseline: Sequence[Tensor] | Tensor | None = None,
    scheduler_type: str | None = None,
    num_steps: int | None = None,
    guidance_scale: float = 1.0,
    apply_constraints: bool = True,
    codec: Any | None = None,
) -> InferenceResult:
    """Carry the causal state over the drivers and draw an ensemble at every step.

    The state of a step conditions its fields and is handed to the next step; fields are
    not fed back, for the predictors come from the coarse model. Modules are in
    evaluation mode meanwhile, and as they were afterwards.

    Parameters
    ----------
    rcn_runner, diffusion_decoder : RCNSequenceRunner, CausalDiffusionDecoder
        As trained.
    initial_state : Tensor
        H(0), the encoder's state of day 1; then the drivers are those of days 2..T.
        Shape ``(Q, N, H)``.
    drivers : sequence of Tensor
        T drivers, ``(N, d)`` or ``(Q, N, d)``.
    num_samples : int
        Members drawn at every step.
    generator : torch.Generator, optional
        Source of all random numbers.
    encoder : IntelligibleVariableEncoder, optional
        Its ``project_state_tensor`` makes the tokens, as in training.
    conditioning_fn : callable, optional
        ``(H, batch_index) -> Conditioning or tokens``, if the training had one. With
        neither, tokens are the means of the states over nodes: what an encoder without
        projection gives.
    batch_index : Tensor, optional
        Graph of each node, for B graphs at once. Shape ``(N,)``.
    baseline : sequence of Tensor, optional
        Added to the residual of every step. T of shape ``(C, Y, X)`` or
        ``(B, C, Y, X)``.
    scheduler_type, num_steps, guidance_scale, apply_constraints, codec
        See ``CausalDiffusionDecoder.sample``.

    Raises
    ------
    ConfigError
        No sample asked for; states of another width than the decoder's tokens, without
        an encoder that projects them.
    InputError
        No driver, or not one baseline per driver.
    """
    check_least("num_samples", num_samples, 1, section="")
    if baseline is not None and len(baseline) != len(drivers):
        raise InputError(
            "there must be one baseline per driver",
            variable="baseline",
            found=len(baseline),
            expected=len(drivers),
        )
    condition = _conditioner(rcn_runner.cell, diffusion_decoder, encoder)
    condition = conditioning_fn or condition

    # States of all steps first, then the fields of each.
    with _evaluating(rcn_runner.cell, diffusion_decoder, encoder):
        rollout = rcn_runner.run(initial_state, drivers)
        generations = []
        for t, state in enumerate(rollout.states):
            fields = None if baseline is None else baseline[t]
            if fields is not None and fields.ndim == 3:
                fields = fields[None]

            drawn = diffusion_decoder.sample(
                condition(state, batch_index),
                num_steps=num_steps,
                generator=generator,
                baseline=fields,
                apply_constraints=apply_constraints,
                scheduler_type=scheduler_type,
                members=num_samples,
                guidance_scale=guidance_scale,
                codec=codec,
            )
            generations.append([_member(drawn, m) for m in range(num_samples)])
    return InferenceResult(generations, rollout.states, rollout.dag_matrices)


def _conditioner(cell: Any, decoder: Any, encoder: Any | None) -> Conditioner:
    """Return what makes tokens of states, as the training does."""
    if encoder is not None:
        return lambda H, index: encoder.project_state_tensor(H, batch_index=index)

    def pooled(H: Tensor, index: Tensor | None) -> Tensor:
        if cell.hidden_dim != decoder.conditioning_dim:
            raise ConfigError(
                "the decoder was not trained on the states as they are",
                variable="encoder",
                found=f"states of width {cell.hidden_dim}",
                expected=f"tokens of width {decoder.conditioning_dim}",
                remedy="pass encoder=, or conditioning_fn= of the training",
            )
        tokens: Tensor = cell.pool_state(H, batch=index)
        return tokens

    return pooled


def _member(drawn: DiffusionOutput, m: int) -> DiffusionOutput:
    """Return one member, without the axis of members."""
    parts = {name: getattr(drawn, name) for name in ("t_min", "t_mean", "t_max")}
    return replace(
        drawn,
        residual=drawn.residual[:, m],
        fields={name: values[:, m] for name, values in drawn.fields.items()},
        **{name: v if v is None else v[:, m] for name, v in parts.items()},
    )


@contextmanager
def _evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Put modules into evaluation mode, and back."""
    given = [module for module in modules if module is not None]
    parts = {part: part.training for module in given for part in module.modules()}
    for module in given:
        module.eval()
    try:
        yield
    finally:
        for part, training in parts.items():
            part.training = training
