"""One self-contained HTML page about a run, made from the files of its directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from st_cdgm._version import __version__
from st_cdgm.evaluation.graph.matrix import AcyclicityReport, acyclicity_report
from st_cdgm.evaluation.report.calibration import calibration_tables, outside
from st_cdgm.evaluation.report.figures import (
    Picture,
    day_pictures,
    graph_pictures,
    quantile_pictures,
    rank_pictures,
    scale_picture,
    scale_rank_pictures,
    spectrum_pictures,
    training_picture,
    variogram_pictures,
)
from st_cdgm.evaluation.report.inputs import LearnedGraph, RunFiles, read_run
from st_cdgm.evaluation.report.plots import pretty_units
from st_cdgm.evaluation.report.scores import (
    Scores,
    compare,
    interval_note,
    score_tables,
    verdict,
)
from st_cdgm.outputs import check_output_path, flat, write_bytes
from st_cdgm.registry import get, names, naming

_LOGGER = logging.getLogger(__name__)
SECTIONS = (
    ("headline", "Headline"),
    ("scorecard", "Scorecard"),
    ("calibration", "Calibration"),
    ("maps", "Maps"),
    ("spectra", "Spectra"),
    ("ranks", "Rank histograms"),
    ("graph", "Graph"),
    ("training", "Training"),
    ("protocol", "Protocol"),
    ("configuration", "Configuration"),
)
# The page stays below 6 MB: what the maps may take of it, in characters.
MAP_BUDGET = 4_500_000


def build_report(run_dir: str | Path, *, title: str | None = None) -> Path:
    """Write ``report.html`` into a run directory.

    The page holds its images and styles itself and loads nothing. Sections, in the
    order of reading: headline, scorecard, calibration, maps, spectra, rank histograms,
    learned graph, training, protocol, configuration. A section whose file is absent or
    damaged says so. The same files give the same bytes.

    Parameters
    ----------
    run_dir : str or Path
        Directory with any of ``scorecard.json``, ``diagnostics.nc``, ``dag.json``,
        ``logs/metrics.csv``, ``config.yaml``, ``provenance.json``.
    title : str, optional
        Title of the page; by default the name of the run.

    Returns
    -------
    Path
        ``run_dir/report.html``.

    Raises
    ------
    MissingFileError
        There is no such directory.
    InputError
        It holds none of the files above.
    OutputError
        The page cannot be written.
    """
    folder = Path(run_dir)
    run = read_run(folder)
    check_output_path(folder / "report.html")
    name = str(run.setting("run", "name") or folder.resolve().name)

    context: dict[str, Any] = {
        "title": title or f"Evaluation of {name}",
        "run_name": folder.resolve().name,
        "version": __version__,
        "sections": SECTIONS,
        "config": run.config_text,
        "records": list(_records(run)),
        **_score_context(run),
        **_diagnostic_context(run),
        **_model_context(run),
    }
    # What the maps leave out is known only after they are drawn.
    note = context.pop("map_note")
    context["notes"] = _notes(run) | ({"maps": note} if note else {})

    template = resources.files("st_cdgm.evaluation") / "report_template.html.j2"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    page = environment.from_string(template.read_text("utf-8")).render(context)
    return write_bytes(folder / "report.html", page.encode())


def _notes(run: RunFiles) -> dict[str, str]:
    """Return, per section, why it is empty; an empty text where it is not."""
    diagnostics = run.missing.get("diagnostics.nc")
    return {
        "scorecard": run.missing.get("scorecard.json", "The scorecard has no scores."),
        "calibration": run.missing.get(
            "scorecard.json",
            "The scorecard has no calibration scores: an earlier version wrote it.",
        ),
        "maps": diagnostics or "",
        "spectra": diagnostics or "No spectrum was stored.",
        "ranks": diagnostics or "No source is an ensemble, so there are no ranks.",
        "graph": run.missing.get("dag.json", ""),
        "training": run.missing.get("logs/metrics.csv", ""),
        "config": run.missing.get("config.yaml", ""),
    }


def _score_context(run: RunFiles) -> dict[str, Any]:
    """Return headline and tables."""
    empty = ["comparisons", "interval_note", "facts", "tables", "full_tables"]
    empty += ["calibration", "outside", "scales"]
    context: dict[str, Any] = {**dict.fromkeys(empty), "warnings": list(_warnings(run))}
    if run.scorecard is None:
        return context | {
            "verdict": "No verdict: " + run.missing["scorecard.json"],
            "subtitle": "Climate downscaling ensemble",
        }

    # The full tables are shown where they have more columns than the short ones.
    scores = Scores(run.scorecard)
    tables = score_tables(scores)
    full = score_tables(scores, full=True)
    longer = sum(len(t.columns) for t in full) > sum(len(t.columns) for t in tables)
    facts = list(_facts(scores, run.scorecard.protocol))
    period = dict(facts).get("Scored period", "")

    return context | {
        "verdict": verdict(scores),
        "subtitle": ", ".join(scores.variables) + (f"; {period}" if period else ""),
        "comparisons": compare(scores),
        "interval_note": interval_note(scores),
        "facts": facts,
        "tables": tables,
        "full_tables": full if longer else [],
        "calibration": calibration_tables(scores),
        "outside": outside(scores.judged),
        "scales": scale_picture(scores),
    }


def _facts(scores: Scores, protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what was scored, for the list under the verdict."""
    scored = _mapping(protocol.get("scored"))
    sizes = _mapping(scored.get("members"))

    def sized(name: str) -> str:
        size = sizes.get(name)
        if size is None:
            return name
        return f"{name} ({size} member{'s' if size != 1 else ''})"

    if not scores.sources:
        return
    yield "Model", sized(scores.sources[0])
    references = ", ".join(sized(name) for name in scores.sources[1:])
    yield "References", references or "none"
    yield "Variables", ", ".join(scores.variables)

    if "period" in scored:
        text = str(scored["period"]).replace("..", " to ")
        days = f", {scored['days']} days scored" if "days" in scored else ""
        calendar = f" ({scored['calendar']} calendar)" if "calendar" in scored else ""
        yield "Scored period", text + days + calendar
    if "grid" in scored:
        yield "Grid", str(scored["grid"])


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _warnings(run: RunFiles) -> Iterator[str]:
    """Yield what a reader must know before trusting the numbers."""
    protocol = run.scorecard.protocol if run.scorecard is not None else {}
    strategies = (run.setting("data", "baseline_strategy"), protocol.get("baseline"))
    known = [name for name in names("baseline") if name in strategies]
    if any(get("baseline", name).oracle for name in known):
        yield (
            "The baseline of this run is made from the truth (an oracle). It does not "
            "exist when downscaling new data, so these scores say nothing about "
            "downscaling skill."
        )
    if str((run.provenance or {}).get("git_commit", "")).endswith("-dirty"):
        yield "The code had uncommitted changes when this run was made."

    for name, why in run.failures.items():
        yield f"Missing here: {name}, which could not be computed ({why})."

    card = run.scorecard
    written = [] if card is None else card.rows["metric"].unique().tolist()
    if unknown := [metric for metric in written if metric not in names("metric")]:
        missing = [str(name) for name in run.config.get("plugins") or []]
        yield (
            f"Nothing but the name is known here of the metrics {', '.join(unknown)}: "
            "a plugin that is not loaded, or another version, made them. "
            + (f"To load it, {naming(missing)}." if missing else "")
        )


def _diagnostic_context(run: RunFiles) -> dict[str, Any]:
    """Return maps, spectra and rank histograms."""
    found = run.diagnostics
    if found is None:
        nothing = ("days", "spectra", "ranks", "scale_ranks", "quantiles")
        return {**{name: [] for name in nothing}, "map_note": ""}

    # Pictures are shown as long as the page has room for them.
    days, used, left_out = [], 0, 0
    wet_threshold = _wet_threshold(run)
    for case in found.cases:
        shown: list[Picture] = []
        for picture in day_pictures(case, found.grid, wet_threshold=wet_threshold):
            if used + len(picture.uri) > MAP_BUDGET:
                left_out += 1
                continue
            used += len(picture.uri)
            shown.append(picture)

        if shown:
            why = case.why
            for units in set(found.units.values()):
                why = why.replace(f" {units}", f" {pretty_units(units)}")
            days.append((f"{case.day}: {case.label}", why, shown))

    note = "" if days else "No day was stored in diagnostics.nc."
    if left_out:
        note = f"Left out to keep the page small: {left_out} of the figures."

    return {
        "days": days,
        "spectra": spectrum_pictures(found) + variogram_pictures(found),
        "ranks": rank_pictures(found),
        "scale_ranks": scale_rank_pictures(found),
        "quantiles": quantile_pictures(found),
        "map_note": note,
    }


def _wet_threshold(run: RunFiles) -> float:
    value = run.setting("data", "wet_threshold")
    return float(value) if isinstance(value, int | float) and value > 0 else 0.1


def _model_context(run: RunFiles) -> dict[str, Any]:
    """Return the learned graph and the training curves."""
    graph = None
    if run.graph is not None:
        graph = {
            "note": run.graph.note,
            "summary": _graph_summary(run.graph),
            "figures": graph_pictures(run.graph),
            "edges": [(edge, "kept") for edge in run.graph.edges]
            + [(edge, "cut") for edge in run.graph.cut],
        }

    return {
        "graph": graph,
        "conditioning": _conditioning(run.conditioning),
        "tested": _tested_edges(run.edges, run.certificate),
        "training": training_picture(run.training) if run.training else None,
    }


_ABLATIONS = {
    "shuffled": "states of another day",
    "without_edges": "all edges removed",
}


def _conditioning(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return how much the losses rise without the causal states or edges."""
    if not found:
        return None
    rows = [
        (
            text,
            str(row["variable"]),
            f"{100 * row['increase']:+.1f} %",
            f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f} %",
        )
        for name, text in _ABLATIONS.items()
        for row in found.get(name, [])
    ]
    return {"rows": rows, "period": " to ".join(found.get("period", []))}


def _certified(certificate: Mapping[str, Any] | None) -> str:
    """Say what is certified, and what chance makes on the record."""
    if not certificate:
        return "The graph is tested, not certified (st-cdgm certify RUN)."
    edges = certificate.get("edges", [])
    count = sum(edge["verdict"] == "certified" for edge in edges)
    chance = "; ".join(
        f"{kind}: {sum(counts)} in {len(counts)}"
        for kind, counts in certificate.get("surrogates", {}).items()
    )
    return (
        f"{count} of {len(edges)} links are certified: found in at least 90 % of the "
        "refits, with one sign in both halves of the record, without the mark of a "
        f"hidden driver. Links in surrogates without any: {chance or 'none made'}."
    )


def _tested_edges(
    found: Mapping[str, Any] | None, certificate: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the verdicts about lagged links, the largest gain first."""
    if not found:
        return None
    protocol = found.get("protocol", {})
    judged = {
        (edge["source"], edge["target"]): edge["verdict"]
        for edge in (certificate or {}).get("edges", [])
    }
    years = [str(year) for year in protocol.get("years", [])]
    pairs = sorted(found.get("pairs", []), key=lambda pair: -pair["gain"])
    names = found.get("variables", [])
    # A doubtful link is a link with a warning.
    accepted = sum(pair["verdict"] in ("predictive link", "doubtful") for pair in pairs)

    return {
        "note": found.get("note", ""),
        "certificate": _certified(certificate),
        "summary": (
            f"{accepted} of {len(pairs)} tested links between {len(names)} variables "
            "hold."
        ),
        "years": f"{years[0]} to {years[-1]}" if years else "not stated",
        "folds": protocol.get("folds", "not stated"),
        "rows": [
            (
                pair["source"],
                pair["target"],
                pair["lag"],
                f"{100 * pair['gain']:.2f} %",
                f"{100 * pair['low']:.2f} to {100 * pair['high']:.2f} %",
                f"{pair['q']:.1e}",
                f"{100 * pair['shadow']:.2f} %",
                judged.get((pair["source"], pair["target"]), pair["verdict"]),
            )
            for pair in pairs
        ],
    }


def _graph_summary(graph: LearnedGraph) -> str:
    """Say how many edges there are, under which rule, and whether they form a DAG."""
    report = acyclicity_report(graph.kept(), graph.variables)
    count = len(graph.variables)
    pairs = count * (count - 1) if graph.possible is None else graph.possible
    above = len(graph.edges) + len(graph.cut)

    if graph.tested:
        text = f"{above} of {pairs} tested links between {count} variables hold"
        return f"{text}. {_acyclic_text(report)}"
    text = (
        f"{above} of {pairs} possible edges between {count} variables "
        f"have a weight above {graph.threshold:g}"
    )
    if graph.cut:
        text += f"; {len(graph.cut)} of them were cut, {len(graph.edges)} are kept"
    constraint = graph.constraint or "not stated"
    text += f". Acyclicity constraint in training: {constraint}. "

    return text + _acyclic_text(report)


def _acyclic_text(report: AcyclicityReport) -> str:
    if report.acyclic:
        return "The graph shown is acyclic."
    loop = " \N{RIGHTWARDS ARROW} ".join(report.cycle)
    return f"The graph shown is not acyclic; one cycle is {loop}."


def _records(run: RunFiles) -> Iterator[tuple[str, list[tuple[str, str]], str]]:
    """Yield protocol and provenance as name, value lists, with a note if absent."""
    protocol = run.scorecard.protocol if run.scorecard is not None else {}
    reason = run.missing.get("scorecard.json", "The scorecard states no protocol.")
    yield "Protocol of the evaluation", _stated(protocol), reason
    absent = run.missing.get("provenance.json", "provenance.json is empty.")
    yield "Provenance", _stated(run.provenance or {}), absent


def _stated(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return dotted names and values as text."""
    found = []
    for name, value in flat(content):
        text = "not stated" if value is None else str(value)
        if isinstance(value, list):
            text = ", ".join(map(str, value))
        if value != {}:
            found.append((name, text))
    return found
