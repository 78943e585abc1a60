"""Figures of an evaluation, readable without colour vision and without a display.

All functions return a Matplotlib figure made without the global pyplot state, so that
they work in a batch job; `figure_png` and `figure_svg` turn one into bytes that are the
same for the same figure.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from st_cdgm.evaluation.graph.matrix import Edge, check_names, threshold_graph
from st_cdgm.outputs import write_bytes

# Okabe and Ito's colour-blind-safe palette, each with a line style and a marker of its
# own, so that no curve is told apart by colour alone.
SOURCE_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#E69F00", "linestyle": (0, (5, 1, 1, 1)), "marker": "v"},
    {"color": "#56B4E9", "linestyle": (0, (3, 1)), "marker": "X"},
)
_TRUTH_STYLE: dict[str, Any] = {"color": "black", "linestyle": "-", "linewidth": 2.2}
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
FIGURE_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "st-cdgm",
    "svg.fonttype": "path",
}


def figure_png(figure: Figure, *, dpi: int = 120) -> bytes:
    """Return the figure as PNG bytes, without date or software stamp."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def figure_svg(figure: Figure) -> bytes:
    """Return the figure as SVG bytes, without date stamp."""
    buffer = io.BytesIO()
    with mpl.rc_context(FIGURE_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """Return an empty figure of so many inches that no window will show."""
    figure = Figure(figsize=(width, height), facecolor="white")
    if constrained:
        figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    return figure


def pretty_units(units: str) -> str:
    """Return units as print sets them, with raised powers and the degree sign."""
    if units == "degC":
        return "°C"
    return re.sub(
        r"(?<=[A-Za-z])-(\d)",
        lambda power: "\N{SUPERSCRIPT MINUS}" + _SUPERSCRIPTS[int(power[1])],
        units,
    )


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
    elif show:
        _show()
    return figure


def _draw_heatmap(
    figure: Figure, weights: NDArray[np.float64], names: Sequence[str]
) -> None:
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


def _show() -> None:
    from matplotlib import pyplot

    if mpl.get_backend().lower() != "agg":
        pyplot.show()


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
    axes: Axes,
    places: Mapping[str, NDArray[np.float64]],
    edge: Edge,
    strongest: float,
    *,
    cut: bool,
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


def plot_spectra(
    wavelength: NDArray[np.float64],
    spectra: Mapping[str, NDArray[np.float64]],
    truth: NDArray[np.float64],
    *,
    title: str,
    x_label: str = "wavelength (km)",
    y_label: str = "power",
) -> Figure:
    """Draw power spectra of the sources against the truth, and below their ratio to it.

    All axes are logarithmic, long waves on the left.

    Parameters
    ----------
    wavelength : ndarray
        Shape ``(K,)``; entries that are not positive are left out.
    spectra : mapping of str to ndarray
        Shape ``(K,)`` per source; drawn with the styles of `SOURCE_STYLES` in order.
    truth : ndarray
        Shape ``(K,)``.
    title, x_label, y_label : str
        Texts.
    """
    use = np.isfinite(wavelength) & (wavelength > 0)
    waves, true = wavelength[use], _positive(truth[use])
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(6.4, 5.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[5, 3])

        upper.loglog(waves, true, **_TRUTH_STYLE, label="truth")
        lower.loglog(waves, np.ones_like(waves), **_TRUTH_STYLE)
        for number, (name, power) in enumerate(spectra.items()):
            style = SOURCE_STYLES[number % len(SOURCE_STYLES)]
            marks = {"markersize": 4, "markevery": 0.15, "linewidth": 1.6}
            own = _positive(power[use])
            upper.loglog(waves, own, **style, **marks, label=name)
            lower.loglog(waves, own / true, **style, **marks)

        # Waves at powers of two; the ratio at least from half to double.
        lower.invert_xaxis()
        ticks = [2.0**n for n in range(1, 12) if _inside(2.0**n, waves)]
        lower.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        lower.xaxis.set_minor_locator(NullLocator())
        low, high = lower.get_ylim()
        lower.set_ylim(min(low, 0.5), max(high, 2.0))
        lower.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        lower.yaxis.set_minor_formatter(NullFormatter())

        for axes in (upper, lower):
            axes.grid(which="major", color="0.9")
        lower.set_xlabel(x_label)
        upper.set_ylabel(y_label)
        lower.set_ylabel("over truth")
        upper.set_title(title)
        upper.legend(frameon=False, fontsize=9, loc="lower left")
    return figure


def _inside(value: float, range_of: NDArray[np.float64]) -> bool:
    return bool(range_of.size and range_of.min() <= value <= range_of.max())


def _positive(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(values > 0, values, np.nan)


def plot_rank_histograms(
    histograms: Mapping[str, NDArray[np.float64]], *, title: str
) -> Figure:
    """Draw rank histograms as shares, each with the flat line of a reliable ensemble.

    Parameters
    ----------
    histograms : mapping of str to ndarray
        Counts or shares per panel name. Shape ``(M + 1,)`` each.
    title : str
        Title of the figure.
    """
    columns = min(3, max(len(histograms), 1))
    rows = -(-len(histograms) // columns) or 1
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(3.2 * columns, 0.5 + 2.3 * rows)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()

        for number, (name, counts) in enumerate(histograms.items()):
            axes = panels[number]
            shares = np.asarray(counts, dtype=float) / (float(np.nansum(counts)) or 1.0)
            ranks, flat = np.arange(len(shares)), 1.0 / len(shares)
            axes.bar(ranks, shares, width=0.9, color="#56B4E9", edgecolor="#00446B")
            axes.axhline(flat, color="#D55E00", linestyle="--", linewidth=1.8)

            axes.set_title(name, fontsize=10)
            axes.set_xlabel("rank of the truth")
            if number % columns == 0:
                axes.set_ylabel("share of cases")

        for axes in panels[len(histograms) :]:
            axes.axis("off")
        figure.suptitle(title, fontsize=11)
    return figure


def plot_training_curves(
    epoch: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]]
) -> Figure:
    """Draw losses per epoch: training and validation together, the terms beside them.

    Parameters
    ----------
    epoch : ndarray
        Shape ``(E,)``.
    curves : mapping of str to ndarray
        Shape ``(E,)`` each, NaN where not logged. ``train_loss`` and ``val_loss`` share
        the first panel, every other name has a panel of its own.
    """
    main = {name: curves[name] for name in ("train_loss", "val_loss") if name in curves}
    panels = [main] if main else []
    panels += [{name: values} for name, values in curves.items() if name not in main]

    columns = min(3, max(len(panels), 1))
    rows = -(-len(panels) // columns) or 1
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(3.4 * columns, 2.7 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()

        for axes, lines in zip(grid, panels, strict=False):
            for look, (name, values) in zip(SOURCE_STYLES, lines.items(), strict=False):
                known = np.isfinite(values)
                axes.plot(epoch[known], values[known], **look, markersize=3, label=name)

            axes.set_title(" and ".join(lines), fontsize=10)
            axes.set_xlabel("epoch")
            axes.grid(color="0.92")
            if len(lines) > 1:
                axes.legend(frameon=False, fontsize=9)
            _log_scale_if_wide(axes, list(lines.values()))

        for axes in grid[len(panels) :]:
            axes.axis("off")
    return figure


def _log_scale_if_wide(axes: Axes, curves: Sequence[NDArray[np.float64]]) -> None:
    """Use a logarithmic axis where positive losses span more than a factor of 20."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
