"""Maps of one day: truth, baseline, ensemble mean, members, spread and error."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, CenteredNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from st_cdgm.data.variables.table import PRECIPITATION, Colours, quantity_of
from st_cdgm.evaluation.report.plots import FIGURE_STYLE, new_figure, pretty_units
from st_cdgm.typing import Floats

# Steps a forecaster reads at a glance, mm day-1; the first is replaced by the wet
# threshold and the last ones dropped where nothing reaches them.
_RAIN_STEPS = (0.1, 1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
_TEMPERATURE_UNITS = {"degc", "k", "celsius", "degree_celsius", "kelvin", "deg_c"}
_NO_DATA = "#dcdcdc"
SHOWN_MEMBERS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class MapGrid:
    """Where the fields lie.

    Attributes
    ----------
    lat, lon : ndarray
        Cell centres in degrees, each of shape ``(Y, X)``.
    land : ndarray or None
        Land area fraction in [0, 1], shape ``(Y, X)``; its 0.5 contour is the coast.
    """

    lat: Floats
    lon: Floats
    land: Floats | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class DayMaps:
    """The fields of one variable on one day, NaN where there is no data.

    Attributes
    ----------
    variable, units, day : str
        Name and units of the variable, ISO date.
    truth, baseline, mean, spread : ndarray or None
        Shape ``(Y, X)``; None where it was not stored.
    members : ndarray
        Shape ``(M, Y, X)``; up to three are drawn.
    """

    variable: str
    units: str
    day: str
    truth: Floats | None
    baseline: Floats | None
    mean: Floats | None
    spread: Floats | None
    members: Floats


def kind_of(variable: str, units: str) -> Colours:
    """Return which colours suit a variable, from its name and units."""
    quantity = quantity_of(variable, {})
    if quantity is not None:
        return quantity.colours
    if units.replace("°", "deg_").lower() in _TEMPERATURE_UNITS:
        return "temperature"
    return "precipitation" if units == PRECIPITATION.units else "other"


def plot_day_maps(
    fields: DayMaps, grid: MapGrid, *, wet_threshold: float = 0.1
) -> Figure:
    """Draw all fields of a day, with one colour scale for everything comparable.

    Parameters
    ----------
    fields : DayMaps
        What to draw.
    grid : MapGrid
        Cell centres and land fraction. Without land fraction the border of the cells
        that have a truth is drawn instead.
    wet_threshold : float
        Precipitation below it is white, mm day-1.

    Returns
    -------
    Figure
        Two rows of four maps: truth, baseline, ensemble mean, spread; three
        members, ensemble mean minus truth. With neither truth nor baseline: ensemble
        mean, five members, spread. Cells without data are grey.
    """
    with mpl.rc_context(FIGURE_STYLE):
        frame = _Frame(_height_over_width(grid))
        figure = new_figure(_Frame.width, frame.height, constrained=False)
        colors, norm = _main_scale(fields, wet_threshold)

        for place, (title, values) in enumerate(_shared(fields)):
            row, column = divmod(place, 3)
            axes = frame.add_map(figure, row, column)
            _draw_map(axes, title, values, grid, colors, norm)
            axes.tick_params(labelbottom=row == 1, labelleft=column == 0)

        bar = figure.colorbar(
            ScalarMappable(norm, colors),
            cax=frame.add_wide_bar(figure),
            orientation="horizontal",
            # Below the first rain step is white, which the left arrow of the bar shows.
            extend="both",
            label=f"{fields.variable} ({pretty_units(fields.units)})",
        )
        if isinstance(norm, BoundaryNorm):
            steps = norm.boundaries.tolist()
            bar.set_ticks(steps, labels=[f"{step:g}" for step in steps])

        _draw_own_scales(figure, frame, fields, grid)
        figure.suptitle(
            f"{fields.variable}, {fields.day}",
            x=_Frame.left / _Frame.width,
            y=1 - 0.06 / frame.height,
            ha="left",
            va="top",
            fontsize=11.5,
            fontweight="bold",
        )
    return figure


def _shared(fields: DayMaps) -> list[tuple[str, Floats | None]]:
    """Return title and values of the maps with the common colours, row by row."""
    alone = fields.truth is None and fields.baseline is None
    known = [("Truth", fields.truth), ("Baseline", fields.baseline)]
    shown = 5 if alone else SHOWN_MEMBERS
    members = [
        (f"Member {n + 1}", fields.members[n] if n < len(fields.members) else None)
        for n in range(shown)
    ]
    return [*([] if alone else known), ("Ensemble mean", fields.mean), *members]


@dataclass(frozen=True)
class _Frame:
    """Places of maps and colour bars in inches; all maps are of one size."""

    ratio: float  # height over width of a map

    width = 12.0
    left, right, top, bottom = 0.5, 0.95, 0.56, 0.55
    gap, own_gap, row_gap = 0.12, 0.4, 0.34
    bar, bar_gap = 0.13, 0.34
    map_width = (width - left - right - 2 * gap - own_gap) / 4

    @property
    def map_height(self) -> float:
        """Height of one map."""
        return self.map_width * self.ratio

    @property
    def height(self) -> float:
        """Height of the figure."""
        maps = 2 * self.map_height + self.row_gap
        return self.top + maps + self.bar_gap + self.bar + self.bottom

    def add_map(self, figure: Figure, row: int, column: int) -> Axes:
        """Add the axes of a map; row 0 is the upper one."""
        x = self.left + column * (self.map_width + self.gap)
        x += self.own_gap - self.gap if column == 3 else 0.0
        return self._add(figure, x, self._bottom(row), self.map_width, self.map_height)

    def add_wide_bar(self, figure: Figure) -> Axes:
        """Add the axes of the shared colour bar under the first three columns."""
        wide = 3 * self.map_width + 2 * self.gap
        return self._add(
            figure, self.left + 0.1 * wide, self.bottom, 0.8 * wide, self.bar
        )

    def add_own_bar(self, figure: Figure, row: int) -> Axes:
        """Add the axes of a colour bar to the right of the last column."""
        x = self.width - self.right + 0.08
        y = self._bottom(row) + 0.05
        return self._add(figure, x, y, self.bar, self.map_height - 0.1)

    def _bottom(self, row: int) -> float:
        y = self.bottom + self.bar + self.bar_gap
        return y + (1 - row) * (self.map_height + self.row_gap)

    def _add(self, figure: Figure, x: float, y: float, w: float, h: float) -> Axes:
        wide, high = self.width, self.height
        return figure.add_axes((x / wide, y / high, w / wide, h / high))


def _draw_own_scales(
    figure: Figure, frame: _Frame, fields: DayMaps, grid: MapGrid
) -> None:
    """Draw spread and error, each with a colour bar of its own."""
    error = None
    if fields.mean is not None and fields.truth is not None:
        error = fields.mean - fields.truth
    spread_norm = Normalize(0.0, _limit(fields.spread))
    error_norm = CenteredNorm(halfrange=_limit(error))
    title = "Spread (standard deviation)"
    rows: list[tuple[str, Floats | None, str, Normalize, str]] = [
        (title, fields.spread, "cividis", spread_norm, "max"),
        ("Ensemble mean minus truth", error, "PuOr_r", error_norm, "both"),
    ]

    # An ensemble alone has no error.
    if fields.truth is None and fields.baseline is None:
        del rows[1]
    for row, (title, values, colors, norm, extend) in enumerate(rows):
        axes = frame.add_map(figure, row, 3)
        _draw_map(axes, title, values, grid, mpl.colormaps[colors], norm)
        axes.tick_params(labelbottom=row == 1, labelleft=False)
        if values is None:
            continue

        bar = figure.colorbar(
            ScalarMappable(norm, colors),
            cax=frame.add_own_bar(figure, row),
            extend=extend,
            label=pretty_units(fields.units),
        )
        bar.ax.tick_params(labelsize=8.5)


def _main_scale(fields: DayMaps, wet_threshold: float) -> tuple[Colormap, Normalize]:
    """Return colours and scale for truth, baseline, mean and members together."""
    stored = [values for _, values in _shared(fields)]
    values = np.concatenate(
        [np.ravel(field[np.isfinite(field)]) for field in stored if field is not None]
        or [np.zeros(1)]
    )
    values = values if values.size else np.zeros(1)

    kind = kind_of(fields.variable, fields.units)
    if kind == "precipitation":
        top = float(np.percentile(values, 99.8))
        upper = [step for step in _RAIN_STEPS[1:] if step > wet_threshold]
        used = [step for step in upper if step <= top]
        # At least three classes, and one step above the largest common value.
        count = min(max(len(used) + 1, 3), len(upper))
        colors = mpl.colormaps["viridis_r"].with_extremes(under="white")
        steps = [wet_threshold, *upper[:count]]
        return colors, BoundaryNorm(steps, colors.N, extend="max")

    low, high = np.percentile(values, [0.5, 99.5])
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    name = "inferno" if kind == "temperature" else "cividis"
    return mpl.colormaps[name].copy(), Normalize(float(low), float(high))


def _limit(values: Floats | None) -> float:
    if values is None or not np.isfinite(values).any():
        return 1.0
    return float(np.nanpercentile(np.abs(values), 99)) or 1.0


def _height_over_width(grid: MapGrid) -> float:
    """Return the shape of the maps, kept between a third and one and a half."""
    rows, columns = (max(n - 1, 1) for n in grid.lat.shape)
    # From outer edge to outer edge, half a cell beyond the centres.
    height = float(np.ptp(grid.lat)) * (1 + 1 / rows) or 1.0
    width = float(np.ptp(grid.lon)) * (1 + 1 / columns) * _cos_middle(grid) or 1.0
    return min(max(height / width, 1 / 3), 1.4)


def _cos_middle(grid: MapGrid) -> float:
    middle = 0.5 * (float(grid.lat.min()) + float(grid.lat.max()))
    return max(float(np.cos(np.deg2rad(middle))), 0.2)


def _draw_map(
    axes: Axes,
    title: str,
    values: Floats | None,
    grid: MapGrid,
    colors: Colormap,
    norm: Normalize,
) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_facecolor(_NO_DATA)
    axes.set_aspect(1.0 / _cos_middle(grid))

    axes.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(_longitude))
    axes.yaxis.set_major_formatter(FuncFormatter(_latitude))
    axes.tick_params(labelsize=8, length=2)

    if values is None or not np.isfinite(values).any():
        reason = "not stored" if values is None else "no data"
        axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center")
        return

    axes.pcolormesh(
        grid.lon,
        grid.lat,
        np.ma.masked_invalid(values),
        cmap=colors,
        norm=norm,
        shading="nearest",
        rasterized=True,
    )
    _draw_coast(axes, values, grid)


def _draw_coast(axes: Axes, values: Floats, grid: MapGrid) -> None:
    land = grid.land if grid.land is not None else np.isfinite(values).astype(float)
    land = np.nan_to_num(land)
    if min(land.shape) < 2 or land.min() >= 0.5 or land.max() < 0.5:
        return
    coast = axes.contour(
        grid.lon, grid.lat, land, levels=[0.5], colors="black", linewidths=0.9
    )
    # White on both sides: the line shows on dark colours too.
    coast.set_path_effects(
        [patheffects.withStroke(linewidth=2.0, foreground="white", alpha=0.8)]
    )


def _longitude(value: float, _: int | None = None) -> str:
    wrapped = (value + 180.0) % 360.0 - 180.0
    side = "" if wrapped in (0.0, -180.0) else "E" if wrapped > 0 else "W"
    return f"{abs(wrapped):g}°{side}"


def _latitude(value: float, _: int | None = None) -> str:
    side = "" if value == 0 else "N" if value > 0 else "S"
    return f"{abs(value):g}°{side}"
