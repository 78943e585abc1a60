"""Tables and figure from the lines that ``benchmarks/causal.py`` wrote.

python benchmarks/causal_report.py FILE [FILE ...] [--figure docs/images/causal_f1.png]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from st_cdgm.evaluation.graph.dag import compute_structural_hamming_distance
from st_cdgm.evaluation.graph.matrix import (
    acyclic_threshold,
    find_cycle,
    threshold_graph,
)

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  after the choice of backend

METHODS = (
    "model",
    "linear patches",
    "var lag 3",
    "pcmci lag 3",
    "pcmci+ lag 3",
    "DAGMA",
    "NOTEARS",
    "R2-sortability",
    "naive F-test",
    "empty graph",
)
ORDER = (
    "mild",
    "quadratic",
    "none",
    "weak",
    "season left in",
    "season removed",
    "slow hidden driver",
    "sub-daily means",
    "noisy measurement",
    "cyclic",
)
Graph = NDArray[np.bool_]


def f1(edge: Graph, truth: Graph) -> float:
    """F1 of the edges; NaN where there is nothing to find."""
    if not truth.any():
        return float("nan")
    return 2 * float((edge & truth).sum()) / float(edge.sum() + truth.sum())


def scores(edge: Graph, truth: Graph) -> tuple[float, int, int, int]:
    """F1, structural Hamming distance, false and missed edges."""
    distance = compute_structural_hamming_distance(
        edge.astype(float), truth.astype(float)
    )
    false, missed = int((edge & ~truth).sum()), int((truth & ~edge).sum())
    return f1(edge, truth), distance, false, missed


def read(paths: list[Path]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    found: dict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in paths:
        for text in path.read_text("utf-8").splitlines():
            line = json.loads(text)
            found[line["case"], line["q"]][line["seed"]] = line
    keys = sorted(found, key=lambda key: (ORDER.index(key[0]), key[1]))
    return {key: [found[key][seed] for seed in sorted(found[key])] for key in keys}


def truth_of(line: dict[str, Any]) -> Graph:
    return np.array(line["truth"]) != 0


def edges_of(line: dict[str, Any], method: str) -> Graph:
    return np.array(line["edges"][method]).astype(bool)


def summary(lines: list[dict[str, Any]], method: str) -> NDArray[np.float64] | None:
    """Scores per graph ``(G, 4)``; None where the method did not run."""
    if any(method not in line["edges"] for line in lines):
        return None
    return np.array([scores(edges_of(x, method), truth_of(x)) for x in lines])


def score_table(data: dict[tuple[str, int], list[dict[str, Any]]]) -> list[str]:
    """One row per case; mean F1 / mean SHD / false edges per data set."""
    rows = ["| case | Q | graphs | " + " | ".join(METHODS) + " |"]
    rows.append("|---" * (3 + len(METHODS)) + "|")
    for (case, q), lines in data.items():
        cells = []
        for method in METHODS:
            found = summary(lines, method)
            if found is None:
                cells.append("")
                continue
            mean = found.mean(axis=0)
            first = "-" if np.isnan(mean[0]) else f"{mean[0]:.2f}"
            cells.append(f"{first} / {mean[1]:.1f} / {mean[2]:.1f}")
        rows.append(f"| {case} | {q} | {len(lines)} | " + " | ".join(cells) + " |")
    return rows


def model_table(data: dict[tuple[str, int], list[dict[str, Any]]]) -> list[str]:
    """Details of the model: the spread, what was flagged, and the cost."""
    rows = [
        "| case | Q | F1 mean (worst) | false edges | of these doubtful | true edges | "
        "found | of these doubtful | not identifiable | CPU s per data set |",
        "|---" * 10 + "|",
    ]
    for (case, q), lines in data.items():
        found = summary(lines, "model")
        counts = np.array([flags(line) for line in lines]).sum(axis=0)
        seconds = np.median([line["seconds"]["model"] for line in lines])
        f = found[:, 0]
        shown = "-" if np.isnan(f).all() else f"{f.mean():.3f} ({f.min():.2f})"
        rows.append(
            f"| {case} | {q} | {shown} | {counts[0]} | {counts[1]} | {counts[2]} | "
            f"{counts[3]} | {counts[4]} | {counts[5]} | {seconds:.0f} |"
        )
    return rows


def flags(line: dict[str, Any]) -> tuple[int, ...]:
    edge, truth = edges_of(line, "model"), truth_of(line)
    doubtful = with_verdict(line, "doubtful")
    masks = (
        edge & ~truth,
        doubtful & ~truth,
        truth,
        edge & truth,
        doubtful & truth,
        with_verdict(line, "not identifiable"),
    )
    return tuple(int(mask.sum()) for mask in masks)


def with_verdict(line: dict[str, Any], verdict: str) -> Graph:
    """Return the pairs that the model gives this verdict."""
    names = line["verdicts"]["variables"]
    out = np.zeros((len(names), len(names)), bool)
    for pair in line["verdicts"]["pairs"]:
        if pair["verdict"] == verdict:
            out[names.index(pair["source"]), names.index(pair["target"])] = True
    return out


def gains(line: dict[str, Any]) -> NDArray[np.float64]:
    """Return the held-out gain of every pair."""
    names = line["verdicts"]["variables"]
    out = np.zeros((len(names), len(names)))
    for pair in line["verdicts"]["pairs"]:
        out[names.index(pair["source"]), names.index(pair["target"])] = pair["gain"]
    return out


def projection(lines: list[dict[str, Any]]) -> list[str]:
    """Cyclic truths: the verdicts as they are, and cut to a DAG by a threshold."""
    before, after, cyclic = [], [], 0
    for line in lines:
        truth, edge = truth_of(line), edges_of(line, "model")
        cyclic += bool(find_cycle(truth.astype(float)))
        weights = np.where(edge, gains(line), 0.0)
        cut = threshold_graph(weights, acyclic_threshold(weights)) != 0
        before.append(scores(edge, truth))
        after.append(scores(cut, truth))
    rows = [f"{cyclic} of {len(lines)} true graphs have a cycle.", ""]
    rows += ["| | F1 | SHD | false | missed |", "|---|---|---|---|---|"]
    for name, values in (("verdicts", before), ("cut to a DAG", after)):
        f, distance, false, missed = np.mean(values, axis=0)
        rows.append(
            f"| {name} | {f:.2f} | {distance:.1f} | {false:.1f} | {missed:.1f} |"
        )
    return rows


def figure(data: dict[tuple[str, int], list[dict[str, Any]]], path: Path) -> None:
    """Draw mean F1 per case and method, with every graph as a dot."""
    keys = [key for key in data if key[0] != "none"]
    methods = [m for m in METHODS if m != "empty graph"]
    fig, axes = plt.subplots(
        1, len(methods), figsize=(13, 0.36 * len(keys) + 1.3), sharey=True
    )
    height = np.arange(len(keys))[::-1]
    for axis, method in zip(axes, methods, strict=True):
        colour = "#b5482a" if method == "model" else "#4a6a8a"
        for y, key in zip(height, keys, strict=True):
            found = summary(data[key], method)
            if found is None:
                continue
            axis.barh(y, found[:, 0].mean(), height=0.62, color=colour, alpha=0.35)
            spread = np.linspace(-0.22, 0.22, len(found)) if len(found) > 1 else [0.0]
            axis.plot(found[:, 0], y + spread, ".", ms=3, color=colour)
        axis.axvline(0.9, color="0.4", lw=0.8, ls=":")
        axis.set(xlim=(0, 1.04), title=method, xticks=(0, 0.5, 1))
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(height, [f"{case}, Q = {q}" for case, q in keys])
    fig.supxlabel("F1 of the lagged graph (bar: mean; dots: graphs)", fontsize=9)
    fig.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    data = read(args.files)
    lines = [*score_table(data), "", *model_table(data)]
    for (case, _), graphs in data.items():
        if case == "cyclic":
            lines += ["", *projection(graphs)]
    print("\n".join(lines))
    if args.figure:
        figure(data, args.figure)


if __name__ == "__main__":
    main()
