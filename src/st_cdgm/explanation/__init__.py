"""What the tested graph supports: certificate, world model, counterfactuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.explanation.counterfactual import Question as Question
    from st_cdgm.explanation.counterfactual import ask as ask
    from st_cdgm.explanation.world import WorldModel as WorldModel

__getattr__, __dir__, __all__ = attach(__name__)
