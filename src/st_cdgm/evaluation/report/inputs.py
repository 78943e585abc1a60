"""The files of a run directory as a report needs them; absent ones become notes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml

from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.evaluation.graph.matrix import Edge, check_matrix, check_names
from st_cdgm.evaluation.report.diagnostics import Diagnostics, read_diagnostics
from st_cdgm.evaluation.scorecard import Scorecard
from st_cdgm.typing import Floats

_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedGraph:
    """The content of ``dag.json``; ``matrix[i, j]`` is the weight of i -> j.

    ``possible`` is the number of edges the model allows, None where it is not stated.
    ``tested`` edges hold on parts of the record that no fit has seen, and their weight
    is the held-out gain.
    """

    variables: list[str]
    matrix: Floats
    threshold: float
    edges: list[Edge]
    cut: list[Edge]
    constraint: str
    note: str
    possible: int | None = None
    tested: bool = False

    def kept(self) -> Floats:
        """Return the weights of the kept edges, 0 elsewhere. Shape ``(Q, Q)``."""
        kept = np.zeros_like(self.matrix)
        for edge in self.edges:
            i, j = self.variables.index(edge.source), self.variables.index(edge.target)
            kept[i, j] = edge.weight
        return kept


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingLog:
    """``logs/metrics.csv`` with one value per epoch, the mean over its steps."""

    epoch: Floats
    curves: dict[str, Floats]


@dataclass(kw_only=True)
class RunFiles:
    """Everything found in a run directory.

    Attributes
    ----------
    failures : dict
        What could not be computed, and why.
    missing : dict
        File name to one sentence for the reader, for each part that is None.
    """

    scorecard: Scorecard | None = None
    diagnostics: Diagnostics | None = None
    graph: LearnedGraph | None = None
    training: TrainingLog | None = None
    config_text: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] | None = None
    conditioning: dict[str, Any] | None = None
    edges: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None
    missing: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)

    def setting(self, section: str, key: str) -> Any:
        """Return a value of ``config.yaml``, None where it is not stated."""
        found = self.config.get(section)
        return found.get(key) if isinstance(found, dict) else None


def read_run(run_dir: Path) -> RunFiles:
    """Read what a run directory holds.

    Raises
    ------
    MissingFileError
        There is no such directory.
    InputError
        It holds none of the files a report is made from.
    """
    if not run_dir.is_dir():
        raise MissingFileError(
            "There is no such run directory",
            file=run_dir,
            found="a file" if run_dir.exists() else "nothing of that name",
            expected="a directory",
            remedy="give the directory that st-cdgm train or run wrote",
        )

    run = RunFiles()
    run.scorecard = _try(run, run_dir, "scorecard.json", Scorecard.from_json)
    run.diagnostics = _try(run, run_dir, "diagnostics.nc", read_diagnostics)
    run.graph = _try(run, run_dir, "dag.json", _read_graph)
    run.training = _try(run, run_dir, "logs/metrics.csv", _read_training)
    run.provenance = _try(run, run_dir, "provenance.json", _read_json)
    run.config_text = _try(run, run_dir, "config.yaml", lambda p: p.read_text("utf-8"))
    if run.config_text is not None:
        run.config = _parse_yaml(run.config_text)

    # Not every run has these; their absence is no gap of the report.
    if (run_dir / "failures.json").is_file():
        run.failures = _try(run, run_dir, "failures.json", _read_json) or {}
    if (run_dir / "conditioning.json").is_file():
        run.conditioning = _try(run, run_dir, "conditioning.json", _read_json)
    if (run_dir / "edges.json").is_file():
        run.edges = _try(run, run_dir, "edges.json", _read_json)
    if (run_dir / "certificate.json").is_file():
        run.certificate = _try(run, run_dir, "certificate.json", _read_json)

    if len(run.missing) == 6:
        raise InputError(
            "The run directory holds nothing to report on",
            file=run_dir,
            found="; ".join(reason.rstrip(".") for reason in run.missing.values())
            if any(run_dir.iterdir())
            else "an empty directory",
            expected="at least one of " + ", ".join(run.missing),
            remedy="give the directory that st-cdgm run or st-cdgm evaluate wrote",
        )
    return run


def _try(
    run: RunFiles, run_dir: Path, name: str, read: Callable[[Path], T]
) -> T | None:
    """Read one file; an absent or damaged one becomes a note and a warning."""
    path = run_dir / name
    if not path.is_file():
        run.missing[name] = f"The run directory has no {name}."
        return None
    try:
        return read(path)
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        _LOGGER.warning("%s cannot be read: %s", path, reason)
        run.missing[name] = f"{name} cannot be read: {reason}"
        return None


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise InputError("The file is not a JSON object", file=path)
    return content


def _parse_yaml(text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_graph(path: Path) -> LearnedGraph:
    content = _read_json(path)
    names = check_names(content["matrix"], content["variables"])
    graph = LearnedGraph(
        variables=names,
        matrix=check_matrix(content["matrix"]),
        threshold=float(content.get("threshold", 0.0)),
        edges=[_edge(entry) for entry in content.get("edges", [])],
        cut=[_edge(entry) for entry in content.get("cut", [])],
        constraint=str(content.get("constraint", "")),
        note=str(content.get("note", "")),
        possible=None if content.get("possible") is None else int(content["possible"]),
        tested=bool(content.get("tested", False)),
    )

    for edge in [*graph.edges, *graph.cut]:
        if not {edge.source, edge.target} <= set(names):
            raise InputError(
                "An edge names an unknown variable",
                file=path,
                found=f"{edge.source} -> {edge.target}",
                expected=", ".join(names),
            )
    return graph


def _edge(entry: Mapping[str, Any]) -> Edge:
    weight = float(entry["weight"])
    if not isfinite(weight):
        raise InputError("An edge has no finite weight", found=dict(entry))
    return Edge(str(entry["source"]), str(entry["target"]), weight)


def _read_training(path: Path) -> TrainingLog:
    """Read the log; each value is averaged over the rows of an epoch that have it."""
    rows = pd.read_csv(path)
    if rows.get("epoch", pd.Series()).isna().all():
        raise InputError("The training log has no epoch", file=path)

    known = rows.replace([np.inf, -np.inf], np.nan).astype(float)
    means = (
        known.groupby("epoch").mean().drop(columns=["step", "seconds"], errors="ignore")
    )
    return TrainingLog(
        epoch=means.index.to_numpy(float),
        curves={str(n): c.to_numpy() for n, c in means.items() if c.notna().any()},
    )
