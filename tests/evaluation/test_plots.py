"""Figures: what they show, and that they need no display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import BoundaryNorm
from matplotlib.patches import FancyArrowPatch

from st_cdgm.errors import InputError, OutputError
from st_cdgm.evaluation.graph.matrix import Edge
from st_cdgm.evaluation.graph.plots import plot_dag_graph, plot_dag_heatmap
from st_cdgm.evaluation.report.maps import DayMaps, MapGrid, kind_of, plot_day_maps
from st_cdgm.evaluation.report.plots import (
    figure_png,
    figure_svg,
    plot_rank_histograms,
    plot_spectra,
    plot_training_curves,
    pretty_units,
)

NAMES = ["SURF", "GP850", "GP500"]
MATRIX = np.array([[0.0, 0.42, 0.03], [0.0, 0.0, -0.66], [0.0, 0.0, 0.0]])


def texts(axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def test_heatmap_writes_an_image_of_the_old_size(tmp_path: Path):
    path = tmp_path / "new" / "dag.png"
    figure = plot_dag_heatmap(MATRIX, NAMES, output_path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert tuple(figure.get_size_inches()) == (8, 6)
    assert [p.name for p in path.parent.iterdir()] == ["dag.png"]
    svg = tmp_path / "dag.svg"
    plot_dag_heatmap(MATRIX, NAMES, output_path=svg)
    assert b"<svg" in svg.read_bytes()


def test_heatmap_is_centred_on_zero_and_annotated():
    axes = plot_dag_heatmap(MATRIX, NAMES, show=False).axes[0]
    image = axes.images[0]
    assert (image.norm.vmin, image.norm.vmax) == (-0.66, 0.66)
    assert {"0.42", "0.03", "-0.66"} <= texts(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES


def test_heatmap_threshold_blanks_weak_edges():
    """D82: the plot had no threshold, every graph looked full."""
    axes = plot_dag_heatmap(MATRIX, NAMES, show=False, threshold=0.1).axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert np.argwhere(np.isfinite(shown)).tolist() == [[0, 1], [1, 2]]
    assert "0.03" not in texts(axes)


def test_heatmap_of_no_edge_and_without_display():
    before = pyplot.get_fignums()
    figure = plot_dag_heatmap(np.zeros((3, 3)), NAMES, show=False)
    assert figure.axes[0].images[0].norm.vmax == 1.0
    assert pyplot.get_fignums() == before


def test_heatmap_shown_through_pyplot_where_no_file_is_named():
    figure = plot_dag_heatmap(MATRIX, NAMES)
    assert pyplot.gcf() is figure
    pyplot.close(figure)


def test_heatmap_errors(tmp_path: Path):
    with pytest.raises(InputError, match="distinct name"):
        plot_dag_heatmap(MATRIX, NAMES[:2], show=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        plot_dag_heatmap(MATRIX, NAMES, output_path=tmp_path / "file" / "dag.png")


def test_graph_arrows_point_from_source_to_target():
    edges = [Edge("SURF", "GP850", 0.2), Edge("GP850", "GP500", -0.8)]
    axes = plot_dag_graph(NAMES, edges, [Edge("GP500", "SURF", 0.1)]).axes[0]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    nodes = {text.get_text(): np.array(text.get_position()) for text in axes.texts}
    cut, weak, strong = arrows
    start, end = strong._posA_posB
    np.testing.assert_allclose(start, nodes["GP850"])
    np.testing.assert_allclose(end, nodes["GP500"])
    assert strong.get_linewidth() > weak.get_linewidth() > cut.get_linewidth()
    assert cut.get_linestyle() != weak.get_linestyle() == "-"
    assert {"0.2", "-0.8", "0.1", *NAMES} <= texts(axes)


def test_graph_without_edges_shows_the_nodes():
    assert texts(plot_dag_graph(NAMES, []).axes[0]) == set(NAMES)


def test_spectra_show_all_sources_and_the_ratio_to_the_truth():
    wavelength = np.array([np.nan, 16.0, 8.0, 4.0, 2.0])
    truth = np.array([9.0, 4.0, 2.0, 1.0, 0.5])
    figure = plot_spectra(
        wavelength, {"model": 2 * truth, "flat": 0 * truth}, truth, title="pr"
    )
    upper, lower = figure.axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    assert labels == ["truth", "model", "flat"]
    np.testing.assert_allclose(lower.lines[1].get_ydata(), 2.0)
    assert np.isnan(lower.lines[2].get_ydata()).all()  # no power: not drawn
    left, right = lower.get_xlim()
    assert left > right  # long waves on the left
    styles = {(line.get_linestyle(), line.get_marker()) for line in upper.lines}
    assert len(styles) == 3  # told apart without colour


def test_rank_histograms_are_shares_with_a_flat_line():
    figure = plot_rank_histograms(
        {"model": np.array([1.0, 2.0, 1.0]), "other": np.ones(5)}, title="pr"
    )
    first, second = figure.axes
    assert [bar.get_height() for bar in first.patches] == [0.25, 0.5, 0.25]
    assert first.lines[0].get_ydata()[0] == pytest.approx(1 / 3)
    assert second.lines[0].get_ydata()[0] == pytest.approx(1 / 5)


def test_training_curves_put_train_and_validation_together():
    epoch = np.arange(4.0)
    curves = {
        "train_loss": np.array([4.0, 3.0, 2.0, 1.0]),
        "val_loss": np.array([4.0, np.nan, 3.0, np.nan]),
        "loss_dag": np.array([1.0, 0.1, 0.01, 0.001]),
    }
    first, second, *_ = plot_training_curves(epoch, curves).axes
    assert len(first.lines) == 2
    assert first.lines[1].get_xdata().tolist() == [0.0, 2.0]  # blank cells left out
    assert first.get_yscale() == "linear"
    assert second.get_yscale() == "log"


@pytest.mark.parametrize(
    ("units", "shown"),
    [
        ("degC", "°C"),
        ("mm day-1", "mm day⁻¹"),
        ("m2 s-2", "m2 s⁻²"),
        ("1", "1"),
        ("K", "K"),
    ],
)
def test_pretty_units(units, shown):
    assert pretty_units(units) == shown


def test_the_same_figure_gives_the_same_bytes():
    def draw():
        return plot_rank_histograms({"model": np.ones(4)}, title="pr")

    assert figure_png(draw()) == figure_png(draw())
    assert figure_svg(draw()) == figure_svg(draw())


@pytest.mark.parametrize(
    ("variable", "units", "kind"),
    [
        ("pr", "mm day-1", "precipitation"),
        ("prc", "kg m-2 s-1", "precipitation"),
        ("tasmax", "degC", "temperature"),
        ("tas", "K", "temperature"),
        ("psl", "Pa", "other"),
        ("pressure", "Pa", "other"),
    ],
)
def test_kind_of(variable, units, kind):
    assert kind_of(variable, units) == kind


def day_fields(variable: str, units: str, scale: float = 1.0) -> DayMaps:
    rng = np.random.default_rng(0)
    values = scale * np.abs(rng.standard_normal((7, 4, 6)))
    values[:, :, :2] = np.nan  # sea
    return DayMaps(
        variable=variable,
        units=units,
        day="2003-01-01",
        truth=values[0],
        baseline=values[1],
        mean=values[2],
        spread=values[3],
        members=values[4:],
    )


def grid_of(ny: int = 4, nx: int = 6, **extra) -> MapGrid:
    lat, lon = np.meshgrid(36 + np.arange(ny), -9.0 + np.arange(nx), indexing="ij")
    return MapGrid(lat=lat, lon=lon, **extra)


def test_maps_share_one_scale_except_spread_and_error():
    figure = plot_day_maps(day_fields("tas", "degC", 10), grid_of())
    maps = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(maps) == [
        "Truth",
        "Baseline",
        "Ensemble mean",
        "Member 1",
        "Member 2",
        "Member 3",
        "Spread (standard deviation)",
        "Ensemble mean minus truth",
    ]
    norms = {title: axes.collections[0].norm for title, axes in maps.items()}
    assert len({id(norm) for norm in list(norms.values())[:6]}) == 1
    error = norms["Ensemble mean minus truth"]
    assert error.vmin == -error.vmax


def test_dry_cells_are_white_and_the_first_step_is_the_wet_threshold():
    figure = plot_day_maps(
        day_fields("pr", "mm day-1", 9), grid_of(), wet_threshold=0.5
    )
    mesh = figure.axes[0].collections[0]
    assert isinstance(mesh.norm, BoundaryNorm)
    assert mesh.norm.boundaries[:3].tolist() == [0.5, 1, 2]
    assert tuple(mesh.cmap(mesh.norm(0.49))) == (1.0, 1.0, 1.0, 1.0)
    assert tuple(mesh.cmap(mesh.norm(0.51))) != (1.0, 1.0, 1.0, 1.0)


def test_coast_comes_from_the_land_fraction_or_else_from_the_valid_cells():
    land = np.zeros((4, 6))
    land[:, 4:] = 1.0
    for extra, coast in (({"land": land}, -5.5), ({}, -7.5)):
        axes = plot_day_maps(day_fields("tas", "K"), grid_of(**extra)).axes[0]
        line = axes.collections[1].get_paths()[0].vertices
        np.testing.assert_allclose(line[:, 0], coast)


def test_maps_say_what_is_not_stored():
    fields = DayMaps(
        variable="tas",
        units="degC",
        day="2003-01-01",
        truth=np.full((4, 6), np.nan),
        baseline=None,
        mean=np.ones((4, 6)),
        spread=None,
        members=np.ones((1, 4, 6)),
    )
    figure = plot_day_maps(fields, grid_of())
    words = {axes.get_title(): texts(axes) for axes in figure.axes if axes.get_title()}
    assert words["Baseline"] == {"not stored"}
    assert words["Truth"] == {"no data"}
    assert words["Member 2"] == {"not stored"}
    assert figure_png(figure).startswith(b"\x89PNG")
