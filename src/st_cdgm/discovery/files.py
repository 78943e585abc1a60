"""Verdicts about lagged links on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from st_cdgm.outputs import to_json, write_bytes

VERDICT_NOTE = (
    "An edge means: on years that the network was not trained on, the target's next "
    "day is predicted worse without the source, steadily over the years, and the same "
    "days of other years cannot take the source's place. It is a predictive relation "
    "between groups of predictors. A fast common driver that is not among them, or a "
    "link faster than a day, can still make one; 'doubtful' marks pairs whose "
    "unexplained parts share slow variations."
)
COLUMNS = ["source", "target", "gain", "t", "shadow", "slow_z", "verdict"]


def export_edges(
    run_dir: str | Path, verdicts: Mapping[str, Any], *, protocol: Mapping[str, Any]
) -> dict[str, Path]:
    """Write ``edges.json`` and ``edges.csv`` into a run directory.

    The files written are returned by suffix: ``json``, ``csv``.

    Parameters
    ----------
    run_dir : str or Path
        Run directory.
    verdicts, protocol : mapping
        ``variables``, ``error`` and ``pairs``, as `EdgeVerdicts.to_dict` returns them;
        period, years and settings of the test.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    content = {**verdicts, "protocol": dict(protocol), "note": VERDICT_NOTE}
    pairs = pd.DataFrame(verdicts["pairs"], columns=COLUMNS)
    table = pairs.to_csv(index=False, lineterminator="\n")
    folder = Path(run_dir)
    return {
        "json": write_bytes(folder / "edges.json", f"{to_json(content)}\n".encode()),
        "csv": write_bytes(folder / "edges.csv", table.encode()),
    }
