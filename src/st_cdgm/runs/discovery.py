"""The step that tests the lagged links between predictors."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.errors import InputError
from st_cdgm.runs.console import Session, console, progress, table_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from st_cdgm.config.schema import Config
    from st_cdgm.data.task.prepared import PipelineViews

logger = logging.getLogger(__name__)


def discover_if_possible(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> None:
    """Test the links; say why not where the record is too short or the grid small."""
    try:
        discover_links(config, pipeline, run_dir, session)
    except InputError as error:
        found = error.facts.get("found", "")
        logger.info(
            "links between predictors not tested: %s (%s)", error.problem, found
        )


def discover_links(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> Path:
    """Test the lagged links between the predictors; write edges.json and edges.csv.

    Raises
    ------
    InputError
        Too few years, one group of predictors alone or a grid below 3 x 3.
    """
    from st_cdgm.discovery.files import export_edges
    from st_cdgm.discovery.record import predictor_record
    from st_cdgm.discovery.search import discover_edges

    record = predictor_record(pipeline)
    with progress(session, "Edges", config.discovery.folds) as advance:
        verdicts = discover_edges(
            record,
            config.discovery,
            seed=config.run.seed,
            on_fold=lambda: advance(1, None),
        )
    console(wide=True).print(_table(verdicts.to_dict()["pairs"]))
    protocol = {
        "periods": {
            name: period
            for name, period in pipeline.preprocessor.periods.items()
            if name != "test"
        },
        "years": sorted({int(year) for year in record.year}),
        "seed": config.run.seed,
        **asdict(config.discovery),
    }
    written = export_edges(run_dir, verdicts.to_dict(), protocol=protocol)
    return written["json"]


def _table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    """Return the tested pairs, the largest gain first."""
    from rich.table import Column, Table

    numbers = (
        Column(n, justify="right") for n in ("gain %", "t over years", "shadow %")
    )
    title = "Links, tested on held-out years"
    table = Table(
        "source", "target", *numbers, "verdict", title=title, box=table_lines()
    )
    for pair in sorted(pairs, key=lambda pair: -float(pair["gain"])):
        table.add_row(
            str(pair["source"]),
            str(pair["target"]),
            f"{100 * pair['gain']:.2f}",
            f"{pair['t']:.1f}",
            f"{100 * pair['shadow']:.2f}",
            str(pair["verdict"]),
        )
    return table
