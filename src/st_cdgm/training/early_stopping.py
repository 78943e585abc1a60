"""Stop a training loop when its score no longer improves."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from st_cdgm.errors import check_choice, check_least

_LOGGER = logging.getLogger(__name__)

Modules = nn.Module | Mapping[str, nn.Module]


@dataclass
class EarlyStopping:
    """Watch a validation score, keep the best weights, say when to stop.

    Call it after every validation. When the loop ends for whatever reason, call
    :meth:`restore`: the last weights need not be the best ones.

    Attributes
    ----------
    patience, min_delta : int, float
        Calls without improvement after which to stop; least change that counts as one,
        in units of the score.
    mode : {"min", "max"}
        Whether a lower or a higher score is better.
    restore_best, verbose : bool
        Whether weights are kept and put back; whether to log.
    best_score : float or None
        Best score so far; None before the first one that is a number.
    counter, early_stop : int, bool
        Calls since the last improvement; whether the patience is used up.
    best_weights : dict or None
        ``state_dict`` (copies; for several modules one per name) and ``score``.

    Raises
    ------
    ConfigError
        An unknown ``mode`` (a ValueError) or a ``patience`` below 1.
    """

    patience: int = 7
    min_delta: float = 0.0
    mode: str = "min"
    restore_best: bool = True
    verbose: bool = True
    best_score: float | None = field(default=None, init=False)
    counter: int = field(default=0, init=False)
    best_weights: dict[str, Any] | None = field(default=None, init=False)
    early_stop: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("min", "max"), section="")
        check_least("patience", self.patience, 1)

    def __call__(self, score: float | Tensor, model: Modules) -> bool:
        """Take note of a score.

        Parameters
        ----------
        score : float
            NaN is never an improvement.
        model : nn.Module or mapping of str to nn.Module
            Whose weights the score belongs to.

        Returns
        -------
        bool
            True: stop. The best weights are back in the modules then.
        """
        value = float(score)
        if self._improves(value):
            self.best_score, self.counter = value, 0
            if self.restore_best:
                self.best_weights = {"state_dict": _copied(model), "score": value}
            return self.early_stop

        self.counter += 1
        if self.verbose:
            _LOGGER.info(
                "no improvement (%g, best %s) for %d of %d validations",
                value,
                "none yet" if self.best_score is None else f"{self.best_score:g}",
                self.counter,
                self.patience,
            )
        if self.counter >= self.patience:
            self.early_stop = True
            self.restore(model)
        return self.early_stop

    def restore(self, model: Modules) -> bool:
        """Put the best weights back; say whether there were any."""
        if not self.restore_best or self.best_weights is None:
            return False
        kept = self.best_weights["state_dict"]
        if isinstance(model, nn.Module):
            model.load_state_dict(kept)
        else:
            for name, module in model.items():
                module.load_state_dict(kept[name])
        if self.verbose:
            _LOGGER.info("restored the weights of score %g", self.best_weights["score"])
        return True

    def reset(self) -> None:
        """Forget everything seen."""
        self.best_score, self.best_weights = None, None
        self.counter, self.early_stop = 0, False

    def _improves(self, value: float) -> bool:
        if self.best_score is None:
            return not math.isnan(value)
        sign = 1 if self.mode == "min" else -1
        return sign * value < sign * self.best_score - self.min_delta


def _copied(model: Modules) -> dict[str, Any]:
    """Return copies of the weights: a state_dict holds the live tensors themselves."""
    if isinstance(model, nn.Module):
        return deepcopy(model.state_dict())
    return {name: _copied(module) for name, module in model.items()}
