"""Figures of an evaluation, readable without colour vision and without a display.

All functions return a Matplotlib figure made without the global pyplot state, so that
they work in a batch job; `figure_png` and `figure_svg` turn one into bytes that are the
same for the same figure.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from st_cdgm.typing import Floats

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


def plot_spectra(
    wavelength: Floats,
    spectra: Mapping[str, Floats],
    truth: Floats,
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
        doubled = 2.0 ** np.arange(1, 12)
        low, high = waves.min(initial=np.inf), waves.max(initial=-np.inf)
        ticks = doubled[(low <= doubled) & (doubled <= high)].tolist()
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


def _positive(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(values > 0, values, np.nan)


def plot_rank_histograms(histograms: Mapping[str, Floats], *, title: str) -> Figure:
    """Draw rank histograms as shares, each with the flat line of a reliable ensemble.

    Parameters
    ----------
    histograms : mapping of str to ndarray
        Counts or shares per panel name. Shape ``(M + 1,)`` each.
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


def plot_training_curves(epoch: Floats, curves: Mapping[str, Floats]) -> Figure:
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


def _log_scale_if_wide(axes: Axes, curves: Sequence[Floats]) -> None:
    """Use a logarithmic axis where positive losses span more than a factor of 20."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
