"""Figures of the calibration: spread over error, ranks and quantiles by scale."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from st_cdgm.evaluation.metrics.calibration.windows import BLOCKS, WINDOWS, Scale
from st_cdgm.evaluation.report.plots import FIGURE_STYLE, SOURCE_STYLES, new_figure
from st_cdgm.typing import Floats

_GOOD = (0.9, 1.1)
_TICKS = (0.25, 0.35, 0.5, 0.7, 0.9, 1.1, 1.5, 2.0, 3.0, 4.0)


def plot_scales(ratios: Mapping[str, Mapping[Scale, Floats]]) -> Figure:
    """Draw spread over error by the length of the mean, a panel per variable.

    Parameters
    ----------
    ratios : mapping of str to mapping
        Variable to scale to (value, low, high); bounds may be NaN.
    """
    columns = min(2, max(len(ratios), 1))
    rows = -(-len(ratios) // columns) or 1

    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(4.2 * columns, 0.5 + 2.8 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (variable, found) in zip(panels, ratios.items(), strict=False):
            _draw_scales(axes, found)
            axes.set_title(variable, fontsize=10)

        panels[0].legend(frameon=False, fontsize=8)
        for axes in panels[::columns]:
            axes.set_ylabel("spread over error")
        for axes in panels[len(ratios) :]:
            axes.axis("off")
    return figure


def _draw_scales(axes: Axes, found: Mapping[Scale, Floats]) -> None:
    """Draw a line per block size with the intervals, and what is good."""
    axes.axhspan(*_GOOD, color="#56B4E9", alpha=0.25, linewidth=0)
    axes.axhline(1.0, color="black", linewidth=1)

    for number, block in enumerate(BLOCKS):
        known = [
            (w, found[Scale(block, d)])
            for w, d in enumerate(WINDOWS)
            if Scale(block, d) in found
        ]
        if not known:
            continue
        place = np.array([w for w, _ in known]) + 0.08 * (number - 1.5)
        value, low, high = np.array([numbers for _, numbers in known]).T

        style = SOURCE_STYLES[number]
        label = "cells" if block == 1 else Scale(block, 1).where
        axes.plot(place, value, **style, markersize=5, label=label)
        axes.vlines(place, low, high, color=style["color"], linewidth=1.2)

    # At least what is good is seen.
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), max(high, 1.25))
    ticks = [
        t
        for t in (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 4)
        if low <= t <= high
    ]
    axes.set_yticks(ticks, labels=[f"{t:g}" for t in ticks])
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    days = [f"{d} day{'s' if d > 1 else ''}" for d in WINDOWS]
    axes.set_xticks(range(len(WINDOWS)), labels=days)


def plot_scale_ranks(ranks: Mapping[Scale, Floats], *, title: str) -> Figure:
    """Draw the rank histograms of one variable, blocks by windows.

    Parameters
    ----------
    ranks : mapping of Scale to ndarray
        Shares and the bounds of their intervals. Shape ``(3, M + 1)``.
    """
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(2.7 * len(WINDOWS), 7.2, constrained=False)
        figure.subplots_adjust(0.08, 0.08, 0.98, 0.91, wspace=0.2, hspace=0.45)
        grid = figure.subplots(len(BLOCKS), len(WINDOWS), squeeze=False, sharex=True)
        for axes, scale in zip(
            grid.ravel(), (Scale(b, d) for b in BLOCKS for d in WINDOWS), strict=True
        ):
            if scale not in ranks:
                axes.axis("off")
                continue

            # Shares of the flat histogram, with their intervals.
            share, low, high = np.asarray(ranks[scale]) * ranks[scale].shape[1]
            place, edges = np.arange(share.size), np.arange(share.size + 1) - 0.5

            axes.stairs(share, edges, fill=True, color="#56B4E9")
            axes.stairs(share, edges, color="#00446B")
            axes.vlines(place, low, high, color="black", linewidth=0.9)
            axes.axhline(1.0, color="#D55E00", linestyle="--", linewidth=1.6)
            axes.set_title(scale.words, fontsize=9)

        for axes in grid[:, 0]:
            axes.set_ylabel("over flat", fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("rank of the truth", fontsize=9)
        figure.suptitle(title, fontsize=11)
    return figure


def plot_quantiles(
    levels: Floats,
    truth: Floats,
    sources: Mapping[str, Floats],
    *,
    title: str,
    units: str,
) -> Figure:
    """Draw how far the sources' quantiles are from those of the truth.

    Parameters
    ----------
    levels, truth : ndarray
        Shape ``(L,)``.
    sources : mapping of str to ndarray
        Shape ``(L,)`` each.
    """
    place = np.arange(levels.size)
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(6.4, 3.4)
        axes = figure.subplots()
        axes.axhline(0.0, color="black", linewidth=2.2)
        for number, (name, values) in enumerate(sources.items()):
            style = SOURCE_STYLES[number % len(SOURCE_STYLES)]
            axes.plot(place, values - truth, **style, markersize=4, label=name)

        labels = [
            f"{100 * q:g} %\n{value:.3g}"
            for q, value in zip(levels, truth, strict=True)
        ]
        axes.set_xticks(place, labels=labels, fontsize=8)
        axes.set_xlabel(f"quantile level; the truth's quantile ({units})")
        axes.set_ylabel(f"source minus truth ({units})")
        axes.set_title(title)
        axes.grid(color="0.92")
        axes.legend(frameon=False, fontsize=9)
    return figure


def plot_variograms(
    lags: Floats,
    truth: Floats,
    sources: Mapping[str, Floats],
    *,
    title: str,
    units: str,
) -> Figure:
    """Draw semivariances by distance, truth and sources.

    Parameters
    ----------
    lags, truth : ndarray
        Cells, and squared units. Shape ``(4,)``.
    sources : mapping of str to ndarray
        Shape ``(4,)`` each.
    """
    with mpl.rc_context(FIGURE_STYLE):
        figure = new_figure(6.4, 3.6)
        axes = figure.subplots()
        axes.plot(lags, truth, color="black", linewidth=2.2, label="truth")
        for number, (name, values) in enumerate(sources.items()):
            style = SOURCE_STYLES[number % len(SOURCE_STYLES)]
            axes.plot(lags, values, **style, markersize=4, label=name)

        axes.set_yscale("log")
        axes.set_xticks(lags, labels=[f"{lag:g}" for lag in lags])
        axes.set_xlabel("distance (grid cells)")
        axes.set_ylabel(f"semivariance ({units})")
        axes.set_title(title)
        axes.grid(color="0.92")
        axes.legend(frameon=False, fontsize=9)
    return figure
