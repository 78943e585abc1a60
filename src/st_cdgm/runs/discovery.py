"""The step that tests the graph, and the model that is trained inside it."""

from __future__ import annotations

import json
import logging
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.errors import ConfigError, InputError, MissingFileError
from st_cdgm.runs.console import Session, console, progress, table_lines
from st_cdgm.runs.steps import open_data

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rich.table import Table

    from st_cdgm.config.schema import Config
    from st_cdgm.data.task.prepared import PipelineViews
    from st_cdgm.discovery.verdicts import LinkGraph

logger = logging.getLogger(__name__)
Pairs = list[tuple[str, str]]
EDGE_CHOICES = ("tested", "learned", "all")


def inside_graph(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> tuple[Config, PipelineViews]:
    """Test the graph on the training period and restrict the model to it.

    Returns a configuration whose network may use the edges that hold, and whose
    generator sees the variables that act on a target, with the data: a baseline that is
    learned is fitted anew to the sources that act on each target. Where the record is
    too short for a test, this is said and all edges stay.

    Raises
    ------
    ConfigError
        ``rcn.edges``, ``rcn.required`` or ``rcn.forbidden`` cannot be used.
    """
    choice = config.rcn.edges
    sources, targets = _node_names(pipeline)
    known = (*sources, *targets)
    chosen = None
    if choice not in EDGE_CHOICES:
        chosen = check_pairs(read_edges(Path(choice)), known, "rcn.edges")
    _links(config.rcn.required, known, "rcn.required")
    forbidden = _links(config.rcn.forbidden, known, "rcn.forbidden")

    graph = _tested_if_possible(config, pipeline, run_dir, session)
    if choice == "tested" and graph is not None:
        chosen = [(link.source, link.target) for link in graph.edges]

    inside = config
    if chosen is not None or forbidden:
        every = [(i, k) for i in sources for k in known if i != k]
        chosen = every if chosen is None else chosen
        inside = restricted(config, chosen, sources, targets)
    if inside.data == before_graph(config).data:
        return inside, pipeline
    return inside, open_data(inside, session)


def before_graph(config: Config) -> Config:
    """Return the configuration that the data are opened with to test the graph.

    A learned baseline is fitted once the graph says what it may see: the test itself
    needs none, and the interpolated field stands in.
    """
    if config.rcn.edges in ("learned", "all") or not _learns_sources(config):
        return config
    changed = deepcopy(config)
    changed.data.baseline_strategy = "auto"
    return changed


def restricted(
    config: Config, edges: Pairs, sources: Collection[str], targets: Collection[str]
) -> Config:
    """Return a configuration whose model uses these edges alone, and what is required.

    A target no edge leads to would leave the generator without any weather: all
    variables stay open to it then.
    """
    known = (*sources, *targets)
    forbidden = _links(config.rcn.forbidden, known, "rcn.forbidden")
    required = _links(config.rcn.required, known, "rcn.required")
    kept = {*edges, *required} - set(forbidden)

    changed = deepcopy(config)
    changed.rcn.parents = {
        name: [i for i in sources if (i, name) in kept] for name in sources
    }

    # What drives a target reaches the generator, and a baseline that is learned.
    driving = {name: [i for i in sources if (i, name) in kept] for name in targets}
    if targets and all(driving.values()):
        if _learns_sources(config):
            changed.data.baseline_sources = dict(driving)
        opened = {i for drivers in driving.values() for i in drivers}
        changed.rcn.conditioning = [i for i in sources if i in opened]
    elif targets:
        alone = ", ".join(name for name, drivers in driving.items() if not drivers)
        logger.warning("no edge leads to %s: the generator sees all variables", alone)
    return changed


def _learns_sources(config: Config) -> bool:
    """Whether a baseline is learned here, from sources that the graph may choose.

    That of a store was fitted when the store was made.
    """
    from st_cdgm import registry

    data = config.data
    if data.store or data.baseline_sources or data.baseline_strategy == "auto":
        return False
    return bool(registry.get("baseline", data.baseline_strategy).restricts)


def discover_links(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> LinkGraph:
    """Test the links of the training period; write the graph.

    Raises
    ------
    InputError
        Too few days, or one group of predictors alone.
    """
    from st_cdgm.discovery.files import export_graph
    from st_cdgm.discovery.record import training_records
    from st_cdgm.discovery.search import discover_edges

    settings = config.discovery
    record, target = training_records(pipeline, target_cells=settings.target_cells)
    folds = settings.folds * (1 if target is None else 2)
    with progress(session, "Graph", folds) as advance:
        graph = discover_edges(
            record, settings, target=target, on_fold=lambda: advance(1, None)
        )

    logger.info("%d of %d links hold", len(graph.edges), len(graph.links))
    protocol = {
        "period": pipeline.preprocessor.periods["train"],
        "years": sorted({int(year) for year in record.year}),
        **asdict(settings),
    }
    export_graph(run_dir, graph, protocol=protocol)
    _draw(run_dir, graph)
    return graph


def _draw(run_dir: Path, graph: LinkGraph) -> None:
    from st_cdgm.evaluation.graph.matrix import Edge
    from st_cdgm.evaluation.graph.plots import plot_dag_graph
    from st_cdgm.evaluation.report.plots import figure_png
    from st_cdgm.outputs import write_bytes

    edges = [Edge(link.source, link.target, link.gain) for link in graph.edges]
    picture = figure_png(plot_dag_graph(graph.variables, edges))
    write_bytes(run_dir / "dag.png", picture)


def read_edges(path: Path) -> Pairs:
    """Return the edges of a JSON (``edges``) or CSV file with source and target.

    Raises
    ------
    MissingFileError
        There is no such file.
    InputError
        It cannot be read so.
    """
    import pandas as pd

    if not path.is_file():
        raise MissingFileError(
            "the edges of the model name neither a choice nor a file",
            file=path,
            expected=" | ".join((*EDGE_CHOICES, "a JSON or CSV file")),
            remedy="set rcn.edges",
        )
    try:
        if path.suffix == ".json":
            rows = json.loads(path.read_text("utf-8"))["edges"]
        else:
            rows = pd.read_csv(path).to_dict("records")
        accepted = [r for r in rows if r.get("verdict") in (None, *_accepted())]
        return [(str(row["source"]), str(row["target"])) for row in accepted]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "the edges of the model cannot be read",
            file=path,
            found=str(error),
            expected="a list `edges`, or a table, with source and target",
        ) from error


def check_pairs(
    pairs: Iterable[tuple[str, str]], known: Collection[str], key: str
) -> Pairs:
    """Return the pairs; raise ConfigError for a node that is none."""
    out = list(pairs)
    wrong = sorted({name for pair in out for name in pair} - set(known))
    if wrong:
        raise ConfigError(
            "an edge names a variable that the graph does not have",
            variable=key,
            found=", ".join(wrong),
            expected=", ".join(known),
        )
    return out


def links_table(graph: LinkGraph) -> Table:
    """Return the tested pairs, accepted ones first, the largest gain first."""
    from rich.table import Column, Table

    numbers = (Column(n, justify="right") for n in ("gain %", "95 %", "q", "shadow %"))
    title = "Links, tested on parts of the record that no fit has seen"
    table = Table(
        "source", "target", "lag", *numbers, "verdict", title=title, box=table_lines()
    )
    for link in sorted(graph.links, key=lambda link: (not link.accepted, -link.gain)):
        table.add_row(
            link.source,
            link.target,
            link.lag if link.accepted else "",
            f"{100 * link.gain:.2f}",
            f"{100 * link.low:.2f} .. {100 * link.high:.2f}",
            f"{link.q:.1e}",
            f"{100 * link.shadow:.2f}",
            link.verdict,
        )
    return table


def _accepted() -> tuple[str, ...]:
    from st_cdgm.discovery.verdicts import ACCEPTED

    return ACCEPTED


def _links(texts: Iterable[str], known: Collection[str], key: str) -> Pairs:
    """Read ``A->B`` texts."""
    pairs = []
    for text in texts:
        source, arrow, target = (part.strip() for part in text.partition("->"))
        if not (source and arrow and target):
            raise ConfigError(
                "an edge cannot be read",
                variable=key,
                found=text,
                expected="GP500->SURF",
            )
        pairs.append((source, target))
    return check_pairs(pairs, known, key)


def _node_names(pipeline: PipelineViews) -> tuple[list[str], list[str]]:
    from st_cdgm.checkpoint.build import channel_groups

    preprocessor = pipeline.preprocessor
    sources = list(channel_groups(preprocessor.channels))
    return sources, [target.name for target in preprocessor.targets]


def _tested_if_possible(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> LinkGraph | None:
    """Test the links; say why not where the record is too short or has one variable."""
    try:
        return discover_links(config, pipeline, run_dir, session)
    except InputError as error:
        found = error.facts.get("found", "")
        logger.warning(
            "the graph cannot be tested, all edges stay: %s (%s)", error.problem, found
        )
        return None


def discover_file(
    path: Path,
    overrides: list[str],
    *,
    known: Path | None = None,
    methods: list[str] | None = None,
    output: Path | None = None,
) -> Path | None:
    """Test the links between the series of a file; show them, and write where asked.

    Parameters
    ----------
    path : Path
        CSV table, or what xarray opens.
    overrides : list of str
        ``KEY=VALUE`` of the section ``discovery``.
    known : Path, optional
        CSV table of drivers from outside.
    methods : list of str, optional
        Other methods to show beside.
    output : Path, optional
        Directory for the graph's files.

    Raises
    ------
    ConfigError
        A setting or a method is unknown.
    InputError
        The file cannot be used.
    """
    import xarray as xr

    from st_cdgm.config.load import load_config
    from st_cdgm.discovery.compare import compare
    from st_cdgm.discovery.files import export_graph
    from st_cdgm.discovery.plain import series_record
    from st_cdgm.discovery.search import discover_edges

    keys = [
        text if text.startswith("discovery.") else f"discovery.{text}"
        for text in overrides
    ]
    settings = load_config("demo", keys).discovery
    if not path.exists():
        raise MissingFileError("there is no such file of series", file=path)
    table = path.suffix.lower() in (".csv", ".txt")
    record = series_record(path if table else xr.open_dataset(path), known=known)
    graph = discover_edges(record, settings)

    # Ours, and what others make of the same record.
    screen = console(wide=True)
    screen.print(links_table(graph))
    ours = {(link.source, link.target) for link in graph.edges}
    for name, found in compare(record, methods or [], settings).items():
        both = len(ours & set(found))
        more = ", ".join(f"{i}->{k}" for i, k in found if (i, k) not in ours) or "none"
        screen.print(f"{name}: {both} of our {len(ours)} edges, and {more} more")

    if output is None:
        return None
    protocol = {"file": str(path), "steps": len(record.year), **asdict(settings)}
    export_graph(output, graph, protocol=protocol)
    _draw(output, graph)
    return output / "dag.json"


def certify_run(
    run_dir: Path, session: Session, *, seeds: int, resamples: int, surrogates: int
) -> Path:
    """Certify the graph of a run, write certificate.json, and renew its report.

    Raises
    ------
    MissingFileError
        It is no run directory.
    InputError
        The record is too short.
    """
    from st_cdgm.config.load import load_config
    from st_cdgm.discovery.record import training_records
    from st_cdgm.explanation.certificate import certify
    from st_cdgm.outputs import write_json

    path = run_dir / "config.yaml"
    if not path.is_file():
        raise MissingFileError(
            "this is no run directory", file=run_dir, expected="a config.yaml in it"
        )
    config = load_config(str(path))
    pipeline = open_data(config, session)
    settings = config.discovery
    record, target = training_records(pipeline, target_cells=settings.target_cells)

    # Minutes; every fit is a step.
    steps = 4 + seeds + 2 * surrogates
    with progress(session, "Certificate", steps) as advance:
        found = certify(
            record,
            settings,
            target=target,
            seeds=seeds,
            resamples=resamples,
            surrogates=surrogates,
            on_step=lambda: advance(1, None),
        )
    content = found.to_dict()
    content["protocol"]["period"] = pipeline.preprocessor.periods["train"]
    write_json(run_dir / "certificate.json", content)
    console(wide=True).print(certificate_table(content))

    if (run_dir / "report.html").is_file():
        from st_cdgm.evaluation.report.build import build_report

        build_report(run_dir, title=config.run.name)
    return run_dir / "certificate.json"


def certificate_table(content: dict[str, Any]) -> Table:
    """Return the judged edges, and what surrogates without links gave."""
    from rich.table import Column, Table

    numbers = (Column(n, justify="right") for n in ("gain %", "refits %", "signs"))
    made = ", ".join(
        f"{kind} {counts}" for kind, counts in content["surrogates"].items() if counts
    )
    table = Table(
        "source",
        "target",
        "lag",
        *numbers,
        "verdict",
        title="Certificate",
        caption=f"Edges found where there are none: {made or 'not looked for'}",
        box=table_lines(),
    )

    # One sign for each half of the record.
    for edge in content["edges"]:
        table.add_row(
            edge["source"],
            edge["target"],
            edge["lag"],
            f"{100 * edge['gain']:.2f}",
            f"{100 * edge['share']:.0f}",
            " ".join("+" if s > 0 else "-" if s < 0 else "0" for s in edge["signs"]),
            edge["verdict"],
        )
    return table
