"""The scorecard as a table on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from st_cdgm.evaluation.scorecard import Scorecard

__all__ = ["scorecard_table"]


def scorecard_table(scorecard: Scorecard, metric: str = "crps") -> Table:
    """Return sources by variables; the best source of a variable is marked."""
    from rich import box
    from rich.table import Table

    from st_cdgm.evaluation.scorecard import METRICS

    scores, best = scorecard.wide(metric), scorecard.best(metric)
    chosen = scorecard.rows[scorecard.rows["metric"] == metric]
    units = dict(zip(chosen["variable"], chosen["units"], strict=True))
    title = f"{METRICS[metric].title} (* best)"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("source")
    for variable in scores.columns:
        table.add_column(
            f"{variable} [{units[variable]}]".replace("[", r"\["), justify="right"
        )
    for source in scores.index:
        cells = []
        for variable in scores.columns:
            value = float(scores.loc[source, variable])
            text = "-" if math.isnan(value) else f"{value:.3f}"
            is_best = best.get(str(variable)) == source
            cells.append(f"[bold]{text} *[/bold]" if is_best else f"{text}  ")
        table.add_row(str(source), *cells)
    return table
