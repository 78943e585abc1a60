"""The figures of a report, each with its text alternative, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.figure import Figure

from st_cdgm.evaluation.graph.matrix import Edge
from st_cdgm.evaluation.graph.plots import plot_dag_graph, plot_dag_heatmap
from st_cdgm.evaluation.metrics.calibration.windows import SCALES, Scale
from st_cdgm.evaluation.report.calibration_plots import (
    plot_quantiles,
    plot_scale_ranks,
    plot_scales,
    plot_variograms,
)
from st_cdgm.evaluation.report.diagnostics import Diagnostics, ShownDay
from st_cdgm.evaluation.report.inputs import LearnedGraph, TrainingLog
from st_cdgm.evaluation.report.maps import (
    SHOWN_MEMBERS,
    DayMaps,
    MapGrid,
    plot_day_maps,
)
from st_cdgm.evaluation.report.plots import (
    figure_png,
    figure_svg,
    plot_rank_histograms,
    plot_spectra,
    plot_training_curves,
    pretty_units,
)
from st_cdgm.evaluation.report.scores import Scores
from st_cdgm.typing import Floats


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure ready for the page."""

    uri: str  # the image itself, as a data: URI
    alt: str  # text alternative
    caption: str
    min_width: int  # CSS pixels; a narrower screen scrolls
    max_width: int

    def _repr_html_(self) -> str:
        return (
            f'<figure><img src="{self.uri}" alt="{escape(self.alt)}" '
            f'style="max-width:{self.max_width}px">'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def _picture(
    figure: Figure, *, alt: str, caption: str, min_width: int = 360, png: bool = False
) -> Picture:
    content = figure_png(figure) if png else figure_svg(figure)
    encoded = base64.b64encode(content).decode("ascii")
    return Picture(
        uri=f"data:image/{'png' if png else 'svg+xml'};base64,{encoded}",
        alt=alt,
        caption=caption,
        min_width=min_width,
        max_width=int(figure.get_figwidth() * 96),
    )


def day_pictures(
    case: ShownDay, grid: MapGrid, *, wet_threshold: float = 0.1
) -> list[Picture]:
    """Return the maps of one day, one picture per variable that has any field."""
    pictures = []
    for fields in case.fields:
        if fields.truth is None and fields.mean is None:
            continue

        caption = (
            f"{fields.variable} ({pretty_units(fields.units)}) on {fields.day}: truth, "
            "baseline, ensemble mean, spread; three members, error of the mean."
        )
        pictures.append(
            _picture(
                plot_day_maps(fields, grid, wet_threshold=wet_threshold),
                alt=_describe_maps(fields),
                caption=caption,
                min_width=760,
                png=True,
            )
        )
    return pictures


def _describe_maps(fields: DayMaps) -> str:
    """Say in numbers what the maps show."""
    shown = fields.members[:SHOWN_MEMBERS]
    parts = [f"Maps of {fields.variable} on {fields.day} in {fields.units}."]
    named: list[tuple[str, Floats | None]] = [
        ("Truth", fields.truth),
        ("Baseline", fields.baseline),
        ("Ensemble mean", fields.mean),
        *((f"Member {n + 1}", member) for n, member in enumerate(shown)),
        ("Spread", fields.spread),
    ]

    for name, values in named:
        if values is not None and np.isfinite(values).any():
            low, middle, high = (
                float(function(values))
                for function in (np.nanmin, np.nanmean, np.nanmax)
            )
            parts.append(f"{name}: {low:.3g} to {high:.3g}, mean {middle:.3g}.")
    return " ".join(parts)


def spectrum_pictures(diagnostics: Diagnostics) -> list[Picture]:
    """Return one picture per variable: power by wavelength, truth and all sources."""
    # Cycles per cell to cells per cycle; k = 0 is no wave.
    positive = np.where(diagnostics.wavenumber > 0, diagnostics.wavenumber, np.nan)
    wavelength = 1.0 / positive
    pictures = []
    for variable, spectra in diagnostics.spectra.items():
        truth = diagnostics.truth_spectrum[variable]
        if not np.isfinite(truth).any():
            continue

        # The power axis has the variable's units squared.
        squared = _squared(diagnostics.units[variable])
        figure = plot_spectra(
            wavelength,
            spectra,
            truth,
            title=variable,
            x_label="wavelength (grid cells)",
            y_label=f"mean power per mode ({squared})",
        )

        shares = ", ".join(
            f"{name} {ratio:.2g}"
            for name, power in spectra.items()
            if np.isfinite(ratio := power[-1] / truth[-1])
        )
        pictures.append(
            _picture(
                figure,
                alt=(
                    f"Power spectra of {variable}, truth and {len(spectra)} sources. "
                    f"Power at the shortest wave over that of the truth: {shares}."
                ),
                caption=f"{variable}: mean over the scored days, and over members.",
            )
        )
    return pictures


def _squared(units: str) -> str:
    """Return squared units as print sets them."""
    units = pretty_units(units)
    return f"({units})²" if " " in units else f"{units}²"


def variogram_pictures(diagnostics: Diagnostics) -> list[Picture]:
    """Return one picture per variable that has no spectrum."""
    found = diagnostics.variograms
    pictures = []
    for variable, truth in (found.truth if found else {}).items():
        assert found is not None
        if np.isfinite(diagnostics.truth_spectrum[variable]).any():
            continue

        # The axis has the variable's units squared.
        sources = found.sources[variable]
        figure = plot_variograms(
            found.axis,
            truth,
            sources,
            title=variable,
            units=_squared(diagnostics.units[variable]),
        )

        shares = ", ".join(
            f"{name} {v[0] / truth[0]:.2g}" for name, v in sources.items()
        )
        pictures.append(
            _picture(
                figure,
                alt=(
                    f"Variograms of {variable}, truth and {len(sources)} sources. "
                    f"Semivariance of neighbours over that of the truth: {shares}."
                ),
                caption=f"{variable}: mean over the scored days, and over members.",
            )
        )
    return pictures


def quantile_pictures(diagnostics: Diagnostics) -> list[Picture]:
    """Return one picture per variable: quantiles of the sources minus the truth's."""
    found = diagnostics.quantiles
    pictures = []
    for variable, truth in (found.truth if found else {}).items():
        assert found is not None
        sources, units = found.sources[variable], diagnostics.units[variable]
        figure = plot_quantiles(
            found.axis, truth, sources, title=variable, units=pretty_units(units)
        )

        gaps = ", ".join(f"{n} {v[-1] - truth[-1]:+.2g}" for n, v in sources.items())
        pictures.append(
            _picture(
                figure,
                alt=(
                    f"Quantiles of {variable}, sources minus truth. At the "
                    f"{100 * found.axis[-1]:g}th percentile in {units}: {gaps}."
                ),
                caption=f"{variable}: all cells, days and members pooled.",
                min_width=480,
                png=True,
            )
        )
    return pictures


def scale_picture(scores: Scores) -> Picture | None:
    """Return spread over error of the model at every scale; None without any."""
    ratios: dict[str, dict[Scale, Floats]] = {}

    for variable in scores.variables:
        for scale in SCALES:
            key = (scores.sources[0], variable, f"spread_skill{scale.suffix}")
            value = scores.get(*key)
            if np.isfinite(value):
                bounds = scores.bounds.get(key, (np.nan, np.nan))
                numbers = np.array([value, *bounds])
                ratios.setdefault(variable, {})[scale] = numbers

    if all(len(found) < 2 for found in ratios.values()):
        return None

    parts = [
        f"{variable} {', '.join(f'{s.words} {v[0]:.2g}' for s, v in found.items())}"
        for variable, found in ratios.items()
    ]
    return _picture(
        plot_scales(ratios),
        alt=f"Spread over error by scale: {'; '.join(parts)}.",
        caption="Spread over error of means over blocks of cells (lines) and of days, "
        "with 95 % intervals; shaded: 0.9 to 1.1. Below, the ensemble is too sure.",
        min_width=600 if len(ratios) > 1 else 360,
    )


def scale_rank_pictures(diagnostics: Diagnostics) -> list[Picture]:
    """Return one picture per variable: the first source's ranks at every scale."""
    pictures = []
    for variable, ranks in diagnostics.scale_ranks.items():
        if len(ranks) < 2:
            continue

        outer = ", ".join(
            f"{scale.words} {(own[0, 0] + own[0, -1]) * own.shape[1] / 2:.2g}"
            for scale, own in ranks.items()
        )
        pictures.append(
            _picture(
                plot_scale_ranks(ranks, title=variable),
                alt=(
                    f"Rank histograms of {variable} at several scales. Share of the "
                    f"outer ranks over that of a flat one: {outer}."
                ),
                caption=f"{variable}; dashed: the flat line of a reliable ensemble.",
                min_width=600,
                png=True,
            )
        )
    return pictures


def rank_pictures(diagnostics: Diagnostics) -> list[Picture]:
    """Return one picture per variable with a panel per ensemble source."""
    pictures = []
    for variable, ranks in diagnostics.ranks.items():
        if not ranks:
            continue

        outer = ", ".join(
            f"{name} {counts[0] + counts[-1]:.2g} (flat {2 / len(counts):.2g})"
            for name, counts in ranks.items()
        )
        columns = min(3, len(ranks))
        pictures.append(
            _picture(
                plot_rank_histograms(ranks, title=variable),
                alt=(
                    f"Rank histograms of {variable}. Share of cases in which the truth "
                    f"takes the first or the last rank: {outer}."
                ),
                caption=f"{variable}; dashed: the flat line of a reliable ensemble.",
                min_width=240 * columns,
            )
        )
    return pictures


def graph_pictures(graph: LearnedGraph) -> list[Picture]:
    """Return the node-link picture and the heat map of the learned graph."""
    dashed = " Dashed: removed to make the graph acyclic." if graph.cut else ""

    return [
        _picture(
            plot_dag_graph(graph.variables, graph.edges, graph.cut),
            alt=f"Learned graph. Edges: {_edge_text(graph.edges)}. "
            f"Cut: {_edge_text(graph.cut)}.",
            caption="Arrows run from source to target, wider for larger weights."
            + dashed,
            min_width=460,
        ),
        _picture(
            plot_dag_heatmap(graph.kept(), graph.variables, show=False),
            alt=f"Heat map of the {len(graph.edges)} kept edge weights, "
            "rows are sources, columns are targets.",
            caption="The kept edges as a matrix; blank means no edge.",
            min_width=460,
        ),
    ]


def _edge_text(edges: Sequence[Edge]) -> str:
    listed = [f"{e.source} to {e.target} {e.weight:.2g}" for e in edges[:12]]
    more = [f"and {len(edges) - 12} more"] if len(edges) > 12 else []
    return ", ".join([*listed, *more]) or "none"


def training_picture(log: TrainingLog) -> Picture:
    """Return the training curves."""
    ends = [
        f"{name} from {values[np.isfinite(values)][0]:.3g} "
        f"to {values[np.isfinite(values)][-1]:.3g}"
        for name, values in log.curves.items()
    ]
    # The two losses share a panel.
    panels = len(log.curves) - (len({"train_loss", "val_loss"} & set(log.curves)) == 2)

    caption = f"{len(log.epoch)} epochs; last epoch {log.epoch[-1]:g}."
    validation = log.curves.get("val_loss")
    if validation is not None:
        best = int(np.nanargmin(validation))
        caption += (
            f" Lowest validation loss {validation[best]:.4g} in epoch "
            f"{log.epoch[best]:g}."
        )

    return _picture(
        plot_training_curves(log.epoch, log.curves),
        alt=f"Training curves over {len(log.epoch)} epochs: {'; '.join(ends)}.",
        caption=caption,
        min_width=240 * min(3, max(panels, 1)),
    )
