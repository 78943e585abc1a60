"""One pass of the plain training loop: precision, updates, schedule, bookkeeping."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from st_cdgm.errors import check_choice
from st_cdgm.models.acyclicity import keep_in_domain
from st_cdgm.models.objective import NotFiniteError
from st_cdgm.training.config import DAG_METHODS
from st_cdgm.training.loop_step import Chain, StepOptions, step_losses

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


@dataclass(frozen=True)
class Precision:
    """Automatic mixed precision, or none."""

    device: torch.device
    dtype: torch.dtype | None = None  # bfloat16 or float16; None: no mixed precision

    @classmethod
    def choose(
        cls, use_amp: bool, dtype: torch.dtype | None, device: torch.device
    ) -> Precision:
        """Choose what the device can do."""
        if not use_amp:
            return cls(device)
        if device.type != "cuda" and dtype is not torch.bfloat16:
            _LOGGER.warning(
                "mixed precision is left out on %s; amp_dtype=torch.bfloat16 asks for "
                "it there",
                device.type,
            )
            return cls(device)
        if dtype is None:
            known = torch.cuda.is_bf16_supported()
            dtype = torch.bfloat16 if known else torch.float16
        return cls(device, dtype)

    def context(self) -> AbstractContextManager[Any]:
        """Return the context of the forward pass."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self, optimizer: torch.optim.Optimizer) -> torch.amp.GradScaler:
        """Return the optimiser's loss scaler: disabled but for float16."""
        if self.dtype is not torch.float16:
            return torch.amp.GradScaler(self.device.type, enabled=False)
        if optimizer not in _SCALERS:
            _SCALERS[optimizer] = torch.amp.GradScaler(self.device.type)
        return _SCALERS[optimizer]


@dataclass(kw_only=True)
class Epoch:
    """One pass over the batches; see ``train_epoch`` for the attributes."""

    chain: Chain
    optimizer: torch.optim.Optimizer
    options: StepOptions
    precision: Precision
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
        self.options.check()
        check_choice("on_invalid", self.on_invalid, ("raise", "skip"), section="")
        choices = ("epoch", "step")
        check_choice("scheduler_interval", self.scheduler_interval, choices, section="")

        if self.options.lambda_phy and self.options.target_names is None:
            _LOGGER.warning(
                "channels 0 and 1 are taken for eastward and northward wind; pass "
                "target_names"
            )
        if self.scaler is None:
            self.scaler = self.precision.scaler(self.optimizer)

    @property
    def _plateau(self) -> bool:
        """Whether the schedule needs a score; it then counts epochs."""
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        return isinstance(self.scheduler, plateau)

    def run(
        self,
        batches: Iterable[Mapping[str, Any]],
        validation: Iterable[Mapping[str, Any]] | None = None,
    ) -> dict[str, float]:
        """Train on all batches, validate, step the schedule; return the means."""
        started = time.monotonic()
        for number, batch in enumerate(batches):
            moved = to_device(batch, self.precision.device)
            try:
                result = self.step(moved, number)
            except NotFiniteError as error:
                self._invalid(moved, number, error)
                continue
            self.results.append(result)
            if number % max(self.log_interval, 1) == 0:
                self._log(moved, number, result)

        means = self._means()
        if validation is not None:
            means["val_loss"] = self.validate(validation)
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

    def step(self, batch: Mapping[str, Any], number: int) -> TrainingStepResult:
        """Make one update.

        Raises
        ------
        NotFiniteError
            Something is not finite; nothing was updated.
        """
        assert self.scaler is not None
        for module in self.chain.modules.values():
            module.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.context():
            losses = step_losses(self.chain, batch, self.options, number)

        self.scaler.scale(losses["loss_total"]).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        self._clip()

        before = self.chain.rcn_runner.cell.effective_dag().detach().clone()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._keep_in_domain(before)
        if self.scheduler_interval == "step" and self.scheduler and not self._plateau:
            self.scheduler.step()

        numbers = {key: float(loss.detach()) for key, loss in losses.items()}
        return TrainingStepResult(**({"loss_gen": math.nan} | numbers))

    def _clip(self) -> None:
        """Bound the gradient norm of each module by itself."""
        if self.gradient_clipping is None:
            return
        for name, module in self.chain.modules.items():
            parameters, most = module.parameters(), self.gradient_clipping
            norm = torch.nn.utils.clip_grad_norm_(parameters, most)
            # A float16 scaler skips such a step itself and lowers its scale.
            if not bool(torch.isfinite(norm)) and self.precision.dtype != torch.float16:
                raise NotFiniteError(f"the gradient norm of the {name} is {norm}")

    def _keep_in_domain(self, before: Tensor) -> None:
        """Take back as much of the step as leaves DAGMA's domain."""
        if DAG_METHODS[self.options.dag_method] != "dagma":
            return
        cell = self.chain.rcn_runner.cell
        after = cell.effective_dag().detach()
        kept = keep_in_domain(after, before, self.options.dagma_s)
        if not torch.equal(kept, after):
            in_use = cell.edge_mask.clone().fill_diagonal_(False)
            cell.A_dag.data = torch.where(in_use, kept, cell.A_dag.data)

    def validate(self, batches: Iterable[Mapping[str, Any]]) -> float:
        """Return the generator's unweighted loss, with the same noise every time."""
        evenly = self.options.objective.evenly()
        plain = replace(self.options, lambda_phy=0.0, objective=evenly)
        device = self.precision.device
        cuda = [device] if device.type == "cuda" else []
        for module in self.chain.modules.values():
            module.eval()

        losses = []
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            torch.manual_seed(0)
            for number, batch in enumerate(batches):
                moved = to_device(batch, device)
                try:
                    with self.precision.context():
                        found = step_losses(self.chain, moved, plain, number)
                except NotFiniteError as error:
                    raise FloatingPointError(_message(moved, number, error)) from error
                # A batch without truth says nothing.
                if "loss_gen" in found:
                    losses.append(float(found["loss_gen"]))

        return _mean(losses)

    def _invalid(
        self, batch: Mapping[str, Any], number: int, error: NotFiniteError
    ) -> None:
        message = _message(batch, number, error)
        self.optimizer.zero_grad(set_to_none=True)
        if self.on_invalid == "raise":
            raise FloatingPointError(message) from error
        self.skipped += 1
        _LOGGER.warning("left out: %s", message)

    def _means(self) -> dict[str, float]:
        """Average every loss over the batches that have it."""
        every = {
            item.name: _mean(getattr(result, item.name) for result in self.results)
            for item in fields(TrainingStepResult)
        }
        if not self.options.lambda_phy > 0:
            del every["loss_phy"]
        loss = every.pop("loss_total")
        return {"loss": loss, **every, "skipped": float(self.skipped)}

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
        key = self.options.residual_key
        target = batch[key] if key in batch else batch["hr"]
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
            float(known.mean()) if known.numel() else math.nan,
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


def _message(batch: Mapping[str, Any], number: int, error: NotFiniteError) -> str:
    days = [str(day) for day in _flat(batch.get("time", []))]
    named = f"days {days[0]} to {days[-1]}" if days else "unknown days"
    return (
        f"{error} in batch {number} with {named}; lower the learning rate or look at "
        "those days"
    )


def _flat(values: Any) -> list[Any]:
    """Return the days of a window, or of several, in one list."""
    out: list[Any] = []
    for value in values.flatten().tolist() if hasattr(values, "flatten") else values:
        out += _flat(value) if isinstance(value, list | tuple) else [value]
    return out
