"""The tested graph on disk: one graph, in the forms that people open."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

from st_cdgm.discovery.verdicts import Link, LinkGraph
from st_cdgm.outputs import to_json, write_bytes

NOTE = (
    "An edge means: on parts of the record that no fit has seen, the target is "
    "predicted worse when everything is learned anew without the source's past, and "
    "the same days of other years cannot take its place. It is a predictive link "
    "between groups of variables, tested, not certified: a cause that is not among the "
    "variables can still make one. 'doubtful' marks pairs whose unexplained parts "
    "share slow variations, 'within a step' pairs that act on each other faster than "
    "a step, "
    "'not identifiable' pairs that other years predict as well."
)


def export_graph(
    run_dir: str | Path, graph: LinkGraph, *, protocol: Mapping[str, Any]
) -> dict[str, Path]:
    """Write the graph into a run directory; return the files by name.

    ``edges.json`` and ``edges.csv`` hold every pair that was tested, ``dag.json``,
    ``dag.csv`` and ``dag.graphml`` the accepted edges, cycles kept, and
    ``dag_acyclic.json`` what is left when the weakest edges of every cycle are cut.

    Parameters
    ----------
    run_dir : str or Path
        Run directory.
    graph : LinkGraph
        What was found.
    protocol : mapping
        Period, years and settings of the test.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    found = graph.to_dict()
    matrix = graph.matrix()

    # As a matrix, as a list, and what is left without cycles.
    table = pd.DataFrame(matrix, graph.variables, graph.variables)
    pairs = pd.DataFrame([asdict(link) for link in graph.links])
    kept, cut = acyclic_cut(graph)
    common = {"variables": list(graph.variables), "targets": list(graph.targets)}
    main = {
        **common,
        "matrix": matrix.tolist(),
        "possible": len(graph.links),
        "edges": [_edge(link) for link in graph.edges],
        "cycles": cycles(graph),
        "same_step": found["same_step"],
        "tested": True,
        "note": NOTE,
        "protocol": dict(protocol),
    }

    # One graph in the forms that people open.
    contents = {
        "edges.json": _text({**found, "protocol": dict(protocol), "note": NOTE}),
        "edges.csv": pairs.to_csv(index=False, lineterminator="\n").encode(),
        "dag.json": _text(main),
        "dag.csv": table.to_csv(lineterminator="\n").encode(),
        "dag.graphml": _graphml(graph),
        "dag_acyclic.json": _text({**common, "edges": kept, "cut": cut}),
    }
    folder = Path(run_dir)
    return {name: write_bytes(folder / name, data) for name, data in contents.items()}


def cycles(graph: LinkGraph) -> list[list[str]]:
    """Return the directed cycles of the accepted edges, each once."""
    return [list(loop) for loop in nx.simple_cycles(_network(graph.edges))]


def acyclic_cut(
    graph: LinkGraph,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the edges of an acyclic graph and those cut: the weakest of each cycle."""
    network: nx.DiGraph = _network(graph.edges)
    cut: list[dict[str, Any]] = []
    by_pair = {(link.source, link.target): link for link in graph.edges}
    while True:
        try:
            loop = [(i, k) for i, k, *_ in nx.find_cycle(network)]
        except nx.NetworkXNoCycle:
            break
        weakest = min(loop, key=lambda pair: by_pair[pair].gain)
        network.remove_edge(*weakest)
        cut.append(_edge(by_pair[weakest]))

    kept = [_edge(by_pair[pair]) for pair in by_pair if network.has_edge(*pair)]
    return kept, cut


def _network(edges: list[Link]) -> nx.DiGraph:
    network = nx.DiGraph()
    for link in edges:
        network.add_edge(link.source, link.target, **_edge(link))
    return network


def _edge(link: Link) -> dict[str, Any]:
    """Return an edge, its weight the held-out gain."""
    values = asdict(link)
    ratio = values.pop("shadow_ratio")
    finite = ratio if np.isfinite(ratio) else None
    return {**values, "weight": link.gain, "shadow_ratio": finite}


def _graphml(graph: LinkGraph) -> bytes:
    network = _network(graph.edges)
    for name in graph.variables:
        network.add_node(name, kind="target" if name in graph.targets else "source")
    for _, _, values in network.edges(data=True):
        values.pop("source"), values.pop("target")
        if values["shadow_ratio"] is None:
            del values["shadow_ratio"]
    buffer = io.BytesIO()
    nx.write_graphml(network, buffer)
    return buffer.getvalue()


def _text(content: Mapping[str, Any]) -> bytes:
    return f"{to_json(_plain(content))}\n".encode()


def _plain(value: Any) -> Any:
    """Replace what JSON has no number for: an infinite ratio is null."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
