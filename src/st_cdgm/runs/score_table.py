"""The scorecard as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from st_cdgm.runs.console import console, table_lines

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from st_cdgm.evaluation.scorecard import Scorecard

_VERDICTS = {
    "wins": "better",
    "loses": "worse",
    "unclear": "no clear difference",
    "unknown": "not comparable",
}


def show_scorecard(scorecard: Scorecard, metrics: Sequence[str] = ()) -> None:
    """Print the table of the CRPS and of other metrics that some variable has.

    Without lines and folding where it goes into a pipe.
    """
    known = set(scorecard.rows["metric"])
    for metric in dict.fromkeys(["crps", *metrics]):
        if metric in known:
            console(wide=True).print(scorecard_table(scorecard, metric))


def scorecard_table(scorecard: Scorecard, metric: str = "crps") -> Group:
    """Return sources by variables; the best source of a variable is marked.

    Below that of the CRPS stands a second table: how much better the first source is
    than the best other one, with its interval.
    """
    from rich.console import Group
    from rich.table import Table

    from st_cdgm.evaluation.metrics.base import metric_of

    scores, best = scorecard.wide(metric), scorecard.best(metric)
    chosen = scorecard.rows[scorecard.rows["metric"] == metric]
    units = dict(zip(chosen["variable"], chosen["units"], strict=True))

    # One column a variable, one row a source, the best one marked.
    title = f"{metric_of(metric).title} (* best)"
    table = Table(title=title, box=table_lines(), title_justify="left")
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

    if metric != "crps" or not scorecard.gains:
        return Group(table)
    return Group(table, _gain_table(scorecard))


def _gain_table(scorecard: Scorecard) -> Table:
    """Return the gain over the best reference with its interval, a line a variable."""
    from rich.table import Column, Table

    model = scorecard.rows["source"].iloc[0]
    table = Table(
        *("variable", "reference"),
        *(Column(name, justify="right") for name in ("gain", "95 % interval")),
        "verdict",
        title=f"{model} against the best reference",
        box=table_lines(),
        title_justify="left",
    )
    for gain in scorecard.gains:
        bounds = f"{_signed(gain.low)} to {_signed(gain.high)}"
        table.add_row(
            gain.variable,
            gain.reference,
            _signed(gain.gain),
            bounds if gain.has_interval else "too few days",
            _VERDICTS[gain.outcome],
        )
    return table


def _signed(gain: float) -> str:
    from st_cdgm.evaluation.gains import percent

    if math.isnan(gain):
        return "-"
    return ("+" if gain > 0 else "-" if gain < 0 else "") + percent(gain)
