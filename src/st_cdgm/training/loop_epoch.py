"""One pass of the plain training loop: precision, updates, schedule, bookkeeping."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from st_cdgm.errors import check_choice
from st_cdgm.models.objective import NotFiniteError
from st_cdgm.training.loop_step import LoopStep
from st_cdgm.training.losses import keep_graph_in_domain

_LOGGER = logging.getLogger(__name__)

# A loss scaler belongs to an optimiser and outlives an epoch.
_SCALERS: WeakKeyDictionary[torch.optim.Optimizer, torch.amp.GradScaler]
_SCALERS = WeakKeyDictionary()


@dataclass(frozen=True)
class TrainingStepResult:
    """Losses of one optimiser step, unweighted but for the total.

    ``loss_gen`` is NaN where no cell of the target is valid, ``loss_phy`` where there
    is no physical loss.
    """

    loss_total: float
    loss_gen: float
    loss_rec: float
    loss_dag: float
    loss_phy: float = math.nan


def mixed_dtype(
    use_amp: bool, dtype: torch.dtype | None, device: torch.device
) -> torch.dtype | None:
    """Return the type of mixed precision that the device can do; None: no mixing."""
    if not use_amp:
        return None
    if device.type != "cuda" and dtype is not torch.bfloat16:
        _LOGGER.warning(
            "mixed precision is left out on %s; amp_dtype=torch.bfloat16 asks for it "
            "there",
            device.type,
        )
        return None

    if dtype is not None:
        return dtype
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def loss_scaler(
    optimizer: torch.optim.Optimizer, dtype: torch.dtype | None, device: torch.device
) -> torch.amp.GradScaler:
    """Return the optimiser's loss scaler: disabled but for float16."""
    if dtype is not torch.float16:
        return torch.amp.GradScaler(device.type, enabled=False)
    return _SCALERS.setdefault(optimizer, torch.amp.GradScaler(device.type))


@dataclass(kw_only=True)
class Epoch:
    """One pass over the batches; see ``train_epoch`` for the attributes."""

    step: LoopStep
    optimizer: torch.optim.Optimizer
    device: torch.device
    amp_dtype: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    gradient_clipping: float | None = None
    on_invalid: str = "raise"
    scheduler: Any = None
    scheduler_interval: str = "epoch"
    log_interval: int = 10
    level: int = logging.INFO
    skipped: int = field(default=0, init=False)
    results: list[TrainingStepResult] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_choice("on_invalid", self.on_invalid, ("raise", "skip"), section="")
        choices = ("epoch", "step")
        check_choice("scheduler_interval", self.scheduler_interval, choices, section="")
        if self.scaler is None:
            self.scaler = loss_scaler(self.optimizer, self.amp_dtype, self.device)

    def run(
        self,
        batches: Iterable[Mapping[str, Any]],
        validation: Iterable[Mapping[str, Any]] | None = None,
    ) -> dict[str, float]:
        """Train on all batches, validate, step the schedule; return the means."""
        started = time.monotonic()
        for number, batch in enumerate(batches):
            moved = to_device(batch, self.device)
            try:
                result = self._update(moved, number)
            except NotFiniteError as error:
                self._invalid(_with_days(error, moved, number))
                continue
            self.results.append(result)
            if number % max(self.log_interval, 1) == 0:
                self._log(moved, number, result)

        means = self._means()
        if validation is not None:
            means["val_loss"] = self._validate(validation)
        self._end_schedule(means)
        _LOGGER.log(
            self.level,
            "epoch: %d batches, %d left out, %.1f s, %s",
            len(self.results),
            self.skipped,
            time.monotonic() - started,
            ", ".join(f"{key} {value:.4g}" for key, value in means.items()),
        )
        return means

    def _losses(
        self, step: LoopStep, batch: Mapping[str, Any], number: int
    ) -> dict[str, torch.Tensor]:
        """Return the losses of a batch, in mixed precision where it is in use."""
        if self.amp_dtype is None:
            return step.losses(batch, number)
        with torch.autocast(self.device.type, self.amp_dtype):
            return step.losses(batch, number)

    def _update(self, batch: Mapping[str, Any], number: int) -> TrainingStepResult:
        """Make one update.

        Raises
        ------
        NotFiniteError
            Something is not finite; nothing was updated.
        """
        assert self.scaler is not None
        for module in self.step.modules.values():
            module.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(self.step, batch, number)

        self.scaler.scale(losses["loss_total"]).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        self._clip()

        cell = self.step.rcn_runner.cell
        before = cell.effective_dag().detach().clone()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        keep_graph_in_domain(cell, before, self.step.loss.graph())
        if self.scheduler_interval == "step" and self.scheduler and not self._plateau:
            self.scheduler.step()

        numbers = {key: float(loss.detach()) for key, loss in losses.items()}
        return TrainingStepResult(**({"loss_gen": math.nan} | numbers))

    def _clip(self) -> None:
        """Bound the gradient norm of each module by itself."""
        if self.gradient_clipping is None:
            return
        for name, module in self.step.modules.items():
            parameters, most = module.parameters(), self.gradient_clipping
            norm = torch.nn.utils.clip_grad_norm_(parameters, most)
            # A float16 scaler skips such a step itself and lowers its scale.
            if not bool(torch.isfinite(norm)) and self.amp_dtype != torch.float16:
                raise NotFiniteError(f"the gradient norm of the {name} is {norm}")

    def _validate(self, batches: Iterable[Mapping[str, Any]]) -> float:
        """Return the generator's unweighted loss, with the same noise every time."""
        loss = replace(self.step.loss, use_focal_loss=False)
        loss.lambda_phy = loss.extreme_weight_factor = 0.0
        step = replace(self.step, loss=loss)
        for module in step.modules.values():
            module.eval()

        losses = []
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            torch.manual_seed(0)
            for number, batch in enumerate(batches):
                moved = to_device(batch, self.device)
                try:
                    found = self._losses(step, moved, number)
                except NotFiniteError as error:
                    raise _with_days(error, moved, number) from error
                # A batch without truth says nothing.
                losses.append(float(found.get("loss_gen", math.nan)))
        return _mean(losses)

    def _invalid(self, error: FloatingPointError) -> None:
        """Leave a batch out, or raise the error that says why."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.on_invalid == "raise":
            raise error
        self.skipped += 1
        _LOGGER.warning("left out: %s", error)

    def _means(self) -> dict[str, float]:
        """Average every loss over the batches that have it."""
        every = {
            item.name: _mean(getattr(result, item.name) for result in self.results)
            for item in fields(TrainingStepResult)
        }
        if not self.step.loss.lambda_phy > 0:
            del every["loss_phy"]
        loss = every.pop("loss_total")
        return {"loss": loss, **every, "skipped": float(self.skipped)}

    @property
    def _plateau(self) -> bool:
        """Whether the schedule needs a score; it then counts epochs."""
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        return isinstance(self.scheduler, plateau)

    def _end_schedule(self, means: Mapping[str, float]) -> None:
        if self.scheduler is None or not self.results:
            return
        if self._plateau:
            if "val_loss" not in means:
                _LOGGER.warning(
                    "the learning rate follows the training loss; pass "
                    "validation_loader to let it follow the validation loss"
                )
            self.scheduler.step(means.get("val_loss", means["loss"]))
        elif self.scheduler_interval == "epoch":
            self.scheduler.step()

    def _log(
        self, batch: Mapping[str, Any], number: int, result: TrainingStepResult
    ) -> None:
        target = self.step.target(batch)
        known = target[torch.isfinite(target)]
        _LOGGER.log(
            self.level,
            "batch %d: loss %.4g (generator %.4g, reconstruction %.4g, graph %.4g, "
            "physics %.4g); drivers %s, target %s, %.1f %% valid, mean %.3g, std %.3g",
            number,
            *astuple(result),
            tuple(batch["lr"].shape),
            tuple(target.shape),
            100 * known.numel() / max(target.numel(), 1),
            float(known.mean()),
            float(known.std()) if known.numel() > 1 else math.nan,
        )


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch with tensors and graph on ``device``."""
    return {
        key: value.to(device) if hasattr(value, "to") else value
        for key, value in batch.items()
    }


def _mean(values: Iterable[float]) -> float:
    """Average the values that are numbers; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _with_days(
    error: NotFiniteError, batch: Mapping[str, Any], number: int
) -> FloatingPointError:
    """Return the error that also names the batch and its days."""
    days = np.ravel(np.asarray(batch.get("time", []), dtype=object))
    named = f"days {days[0]} to {days[-1]}" if len(days) else "unknown days"
    return FloatingPointError(
        f"{error} in batch {number} with {named}; lower the learning rate or look at "
        "those days"
    )
