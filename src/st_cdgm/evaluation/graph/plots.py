"""The learned graph as a picture: a heat map of its matrix, or nodes and arrows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from st_cdgm.evaluation.graph.matrix import Edge, check_names, threshold_graph
from st_cdgm.evaluation.report.plots import FIGURE_STYLE, new_figure
from st_cdgm.outputs import write_bytes
from st_cdgm.typing import Floats


def plot_dag_heatmap(
    A_matrix: Any,
    var_names: Sequence[str],
    *,
    output_path: str | Path | None = None,
    threshold: float = 0.0,
    show: bool = True,
) -> Figure:
    """Draw the matrix of a graph with its weights, rows acting on columns.

    Parameters
    ----------
    A_matrix : array_like
        Weights, ``A[i, j]``: i -> j. Shape ``(Q, Q)``.
    var_names : sequence of str
        Q distinct names.
    output_path : str or Path, optional
        Image to write. None: the figure is shown where there is an interactive display.
    threshold : float
        Weights with ``|w| <= threshold`` are left blank, they are no edges.
    show : bool
        False: never open a window.

    Returns
    -------
    Figure
        8 x 6 in, diverging colours centred on 0.

    Raises
    ------
    InputError
        If the matrix or the names cannot be used.
    OutputError
        If the image cannot be written.
    """
    names = check_names(A_matrix, var_names)
    weights = threshold_graph(A_matrix, threshold)
    with mpl.rc_context(FIGURE_STYLE):
        figure = _shown_figure() if output_path is None and show else new_figure(8, 6)
        _draw_heatmap(figure, weights, names)

    if output_path is not None:
        suffix = Path(output_path).suffix.lower().lstrip(".") or "png"
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=150)
        write_bytes(output_path, buffer.getvalue())
    elif show and mpl.get_backend().lower() != "agg":
        from matplotlib import pyplot

        pyplot.show()
    return figure


def _draw_heatmap(figure: Figure, weights: Floats, names: Sequence[str]) -> None:
    axes = figure.add_subplot()
    limit = float(np.abs(weights).max()) or 1.0

    image = axes.imshow(
        np.where(weights != 0, weights, np.nan),
        cmap="RdBu_r",
        norm=CenteredNorm(halfrange=limit),
    )
    for (i, j), weight in np.ndenumerate(weights):
        if i == j:
            axes.text(j, i, "\N{EN DASH}", ha="center", va="center", color="0.6")
        elif weight:
            # Dark cells at both ends of the map need light text.
            color = "white" if abs(weight) > 0.6 * limit else "black"
            axes.text(
                j, i, f"{weight:.2g}", ha="center", va="center", color=color, size=12
            )

    ticks = range(len(names))
    axes.set_xticks(ticks, labels=names, rotation=30, ha="right", fontsize=12)
    axes.set_yticks(ticks, labels=names, fontsize=12)
    axes.set_xticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.8)
    axes.tick_params(which="both", length=0)

    axes.set_xlabel("target j", fontsize=12)
    axes.set_ylabel("source i", fontsize=12)
    axes.set_title("Edge weights $A_{ij}$ (row i acts on column j; blank: no edge)")
    bar = figure.colorbar(image, ax=axes, label="weight", shrink=0.85)
    if (weights >= 0).all():
        bar.ax.set_ylim(0.0, limit)


def _shown_figure() -> Figure:
    """Return a figure that pyplot knows, for notebooks and windows."""
    from matplotlib import pyplot

    return pyplot.figure(figsize=(8, 6), layout="constrained", facecolor="white")


def plot_dag_graph(
    var_names: Sequence[str], edges: Sequence[Edge], cut: Sequence[Edge] = ()
) -> Figure:
    """Draw the graph as nodes on a circle and arrows from source to target.

    Parameters
    ----------
    var_names : sequence of str
        All variables, also those without edge.
    edges, cut : sequence of Edge
        Kept edges: full arrows, width by ``|weight|``, negative ones marked with a
        minus sign. Edges removed to make the graph acyclic: dashed grey arrows.

    Returns
    -------
    Figure
        7 x 4.9 in.
    """
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(var_names)) / max(len(var_names), 1)
    places = {
        name: np.array([1.5 * np.cos(angle), np.sin(angle)])
        for name, angle in zip(var_names, angles, strict=True)
    }
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(7, 4.9)
        axes = figure.add_subplot()

        strongest = max((abs(edge.weight) for edge in [*edges, *cut]), default=1.0)
        for edge in cut:
            _draw_arrow(axes, places, edge, strongest, cut=True)
        for edge in edges:
            _draw_arrow(axes, places, edge, strongest, cut=False)
        box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": "black"}
        for name, (x, y) in places.items():
            axes.text(x, y, name, ha="center", va="center", bbox=box, zorder=5, size=12)

        axes.set_xlim(-1.95, 1.95)
        axes.set_ylim(-1.5, 1.2)
        axes.set_aspect("equal")
        axes.axis("off")

        # Empty lines, for the legend alone.
        axes.plot([], [], color="#0072B2", linewidth=2.5, label="edge i \u2192 j")
        if cut:
            axes.plot(
                [], [], color="0.45", linestyle="--", label="cut to make it acyclic"
            )
        axes.legend(loc="lower center", ncols=2, frameon=False, fontsize=10.5)
    return figure


def _draw_arrow(
    axes: Axes, places: Mapping[str, Floats], edge: Edge, strongest: float, *, cut: bool
) -> None:
    start, end = places[edge.source], places[edge.target]
    strength = abs(edge.weight) / (strongest or 1.0)
    color = "0.45" if cut else "#0072B2"
    arrow = FancyArrowPatch(
        (start[0], start[1]),
        (end[0], end[1]),
        # A bow, so that i -> j and j -> i do not lie on each other.
        connectionstyle="arc3,rad=0.14",
        arrowstyle="-|>",
        mutation_scale=16,
        shrinkA=28,
        shrinkB=30,
        linewidth=1.0 + 3.5 * strength,
        linestyle=(0, (4, 2)) if cut else "-",
        color=color,
        zorder=2 if cut else 3,
    )
    axes.add_patch(arrow)

    direction = end - start
    # The bow passes to the right of the straight line, by half its rad.
    normal = np.array([direction[1], -direction[0]])
    place = start + 0.42 * direction + 0.07 * normal
    axes.text(
        place[0],
        place[1],
        f"{edge.weight:.2g}",
        fontsize=10.5,
        color="0.3" if cut else "#00446B",
        ha="center",
        va="center",
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.9},
    )
