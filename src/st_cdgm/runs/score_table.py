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
    "ties": "tie",
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

    Below that of the CRPS stand how much better the first source is than the best other
    one, with its interval, and how well its spread fits its errors.
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

    if metric != "crps":
        return Group(table)
    parts = [_gain_table(scorecard)] if scorecard.gains else []
    return Group(table, *parts, *_calibration(scorecard))


def _gain_table(scorecard: Scorecard) -> Table:
    """Return the gain over the best reference with its interval, a line a variable."""
    from rich.table import Column, Table

    from st_cdgm.evaluation.metrics.base import metric_of

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
        joint = gain.metric != "crps"
        bounds = f"{_signed(gain.low)} to {_signed(gain.high)}"
        table.add_row(
            metric_of(gain.metric).head if joint else gain.variable,
            gain.reference,
            _signed(gain.gain),
            bounds if gain.has_interval else "too few days",
            _VERDICTS[gain.outcome],
        )
    return table


def _calibration(scorecard: Scorecard) -> list[Table | str]:
    """Return spread over error by scale, and the weakest calibration in words."""
    from rich.table import Column, Table

    from st_cdgm.evaluation.metrics.calibration.windows import BLOCKS, WINDOWS, Scale
    from st_cdgm.evaluation.report.text import weakest

    judged = scorecard.calibration()
    keys = zip(judged["variable"], judged["metric"], strict=True)
    known = dict(zip(keys, judged["value"], strict=True))
    heads = ["cells" if block == 1 else Scale(block, 1).where for block in BLOCKS]
    table = Table(
        "variable",
        *(Column(head, justify="right") for head in heads),
        title=f"spread over error of means of {' / '.join(map(str, WINDOWS))} days",
        box=table_lines(),
        title_justify="left",
    )

    # A cell has the numbers of all windows of days.
    for variable in dict.fromkeys(scorecard.rows["variable"]):
        names = [[f"spread_skill{Scale(b, d).suffix}" for d in WINDOWS] for b in BLOCKS]
        cells = [
            " ".join(f"{known.get((variable, name), math.nan):4.2f}" for name in line)
            for line in names
        ]
        if any(character.isdigit() for character in "".join(cells)):
            table.add_row(str(variable), *(cell.replace("nan", "-") for cell in cells))
    return [table, weakest(judged)] if table.row_count else []


def _signed(gain: float) -> str:
    from st_cdgm.evaluation.gains import percent

    if math.isnan(gain):
        return "-"
    return ("+" if gain > 0 else "-" if gain < 0 else "") + percent(gain)
