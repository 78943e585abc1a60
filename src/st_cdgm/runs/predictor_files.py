"""New files beside a trained model: whether it can downscale them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from st_cdgm.data.task.predictor_check import PredictorReport


def predictor_report(checkpoint: Path, files: Sequence[str]) -> PredictorReport:
    """Return what `st-cdgm downscale` would say of files, taken together.

    Raises
    ------
    InputError
        The checkpoint or a file cannot be read.
    """
    from st_cdgm.checkpoint.directory import load_checkpoint
    from st_cdgm.data.task.predictor_check import check_predictors

    return check_predictors(load_checkpoint(checkpoint).preprocessor, list(files))
