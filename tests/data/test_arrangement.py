"""Are values where their coordinates say? Sound fields pass, scrambled ones do not.

Measured on all 52 fields of the public files under ``real_data`` that have at least
five rows and columns (27 temperatures, pressures and geopotentials, "smooth"; 25 of
precipitation, humidity, wind, orography and masks), five draws of the random orders.
Found out of all, smooth / others:

===============================  ===========  ===========
as in the file (false alarms)    0 / 135      0 / 125
latitude and longitude swapped   270 / 270    235 / 250
cells in random order            135 / 135    125 / 125
rows in random order             132 / 135    122 / 125
columns in random order          135 / 135    125 / 125
two corners exchanged            135 / 135    65 / 125
blocks transposed                135 / 135    65 / 125
bytes of float32 reversed        135 / 135    110 / 125
===============================  ===========  ===========

Misses: random orders of six rows that left them almost sorted; a square grid, which
transposed is as smooth as before; and seams in rough fields, which have steps anyway.
Reversed bytes are found by their range as well. A field turned upside down, or moved
around the globe, is as smooth as before: comparing with targets shows it.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from st_cdgm.data.inspect.scrambling import Arrangement, arrangement, roughness

SCRAMBLES = {
    "written in (lon, lat) order": lambda f, rng: f.transpose(0, 2, 1).reshape(f.shape),
    "read in (lon, lat) order": lambda f, rng: f.reshape(
        len(f), f.shape[2], f.shape[1]
    ).transpose(0, 2, 1),
    "cells in random order": lambda f, rng: f.reshape(len(f), -1)[
        :, rng.permutation(f[0].size)
    ].reshape(f.shape),
    "rows in random order": lambda f, rng: f[:, rng.permutation(f.shape[1])],
    "columns in random order": lambda f, rng: f[:, :, rng.permutation(f.shape[2])],
    "corners exchanged": lambda f, rng: _corners(f),
    "blocks transposed": lambda f, rng: _blocks(f),
    "bytes reversed": lambda f, rng: f.astype(np.float32).byteswap(),
}


def _corners(field):
    rows, columns = field.shape[1] // 2, field.shape[2] // 2
    out = field.copy()
    out[:, :rows, :columns] = field[:, -rows:, -columns:]
    out[:, -rows:, -columns:] = field[:, :rows, :columns]
    return out


def _blocks(field):
    size = min(field.shape[1:]) // 2
    out = field.copy()
    for row in range(0, field.shape[1] - size + 1, size):
        for column in range(0, field.shape[2] - size + 1, size):
            part = (slice(None), slice(row, row + size), slice(column, column + size))
            out[part] = field[part].transpose(0, 2, 1)
    return out


def weather(steps=60, shape=(12, 20), width=2.0, seed=0):
    """Independent smooth fields over a fixed rough ground."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(steps, *shape))
    fields = gaussian_filter(noise, (0, width, width), mode="nearest")
    ground = rng.normal(size=shape)
    return 280.0 + 10.0 * fields / fields.std() + ground


@pytest.mark.parametrize("steps", [1, 60])
@pytest.mark.parametrize("shape", [(12, 20), (24, 13), (30, 40)])
def test_sound_fields_pass(steps, shape):
    for seed in range(3):
        laid = arrangement(weather(steps, shape, seed=seed))
        assert laid.verdict(smooth=True) is None
        assert laid.verdict(smooth=False) is None
        if steps == 60:
            assert laid.misplaced == 0.0


@pytest.mark.parametrize("name", SCRAMBLES)
@pytest.mark.parametrize("shape", [(12, 20), (30, 40)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scrambled_fields_do_not(name, shape):
    rng = np.random.default_rng(1)
    laid = arrangement(SCRAMBLES[name](weather(60, shape), rng))
    assert laid.verdict(smooth=True) is not None


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    "name",
    [n for n in SCRAMBLES if n not in ("corners exchanged", "blocks transposed")],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scrambled_fields_of_few_steps(name, steps):
    rng = np.random.default_rng(1)
    laid = arrangement(SCRAMBLES[name](weather(steps, (30, 40), width=4.0), rng))
    assert laid.misplaced is None
    assert laid.verdict(smooth=True) is not None


@pytest.mark.parametrize("name", ["corners exchanged", "blocks transposed"])
def test_seams_in_a_single_very_smooth_field(name):
    y, x = np.meshgrid(np.linspace(0, 3, 60), np.linspace(0, 5, 80), indexing="ij")
    field = (np.sin(y) * np.cos(x))[None]
    assert arrangement(field).verdict(smooth=True) is None
    laid = arrangement(SCRAMBLES[name](field, None))
    assert laid.seam > 50.0
    assert laid.verdict(smooth=True) == "broken"
    assert laid.verdict(smooth=False) is None


@pytest.mark.parametrize(
    ("name", "text", "mend"),
    [
        (
            "written in (lon, lat) order",
            "values.reshape(20, 12).T",
            lambda values: values.reshape(20, 12).T,
        ),
        (
            "read in (lon, lat) order",
            "values.T.reshape(12, 20)",
            lambda values: values.T.reshape(12, 20),
        ),
    ],
)
def test_the_way_back_is_named(name, text, mend):
    field = weather(30, (12, 20))
    scrambled = SCRAMBLES[name](field, None)
    laid = arrangement(scrambled)
    assert laid.verdict(smooth=False) == "swapped axes"
    assert laid.swap_gain > 2.0
    assert laid.swapped == text
    np.testing.assert_array_equal(mend(scrambled[0]), field[0])


def test_white_noise_is_no_weather_but_no_swap_either():
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=(60, 9, 14))
        laid = arrangement(noise)
        assert laid.verdict(smooth=True) == "scattered"
        assert laid.misplaced is None
        assert laid.swap_gain is not None
        assert laid.swap_gain < 1.3


def test_rough_but_lawful_fields_pass():
    """Rain in cells, a mask, and orography with the sea at 0."""
    base = weather(60, (20, 30), width=1.5) - 280.0
    rain = np.where(base > 8.0, (base - 8.0) ** 2, 0.0)
    mask = (weather(1, (20, 30), width=3.0) > 280.0).astype(float)
    orography = np.maximum(weather(1, (20, 30), width=1.5) - 280.0, 0.0)
    for field in (rain, mask, orography):
        assert arrangement(field).verdict(smooth=False) is None


def test_missing_values_and_small_or_constant_fields():
    field = weather(60, (20, 30))
    sea = np.zeros((20, 30), dtype=bool)
    sea[:, :12] = True
    masked = np.where(sea, np.nan, field)
    laid = arrangement(masked)
    assert laid.verdict(smooth=True) is None
    assert laid.misplaced == 0.0
    rows = np.random.default_rng(0).permutation(20)
    assert arrangement(masked[:, rows]).verdict(smooth=True) == "displaced"
    nothing = Arrangement(roughness=None)
    assert arrangement(field[:, :4]) == nothing
    assert arrangement(np.full((30, 9, 9), 3.0)) == nothing
    assert arrangement(np.full((30, 9, 9), np.nan)) == nothing
    assert nothing.verdict(smooth=True) is None


def test_the_columns_of_a_global_grid_close_the_circle():
    field = gaussian_filter(
        np.random.default_rng(0).normal(size=(60, 12, 24)),
        (0, 2, 2),
        mode=["nearest", "nearest", "wrap"],
    )
    moved = np.roll(field, 12, axis=2)
    assert arrangement(moved).verdict(smooth=True) is None


def soil(rng, steps=60, shape=(20, 30), memory=3.0):
    """Soil moisture on land with a ragged coast: 62 % of the cells are missing.

    Differences between soils stay, the weather's part changes within weeks.
    """
    coast = gaussian_filter(rng.normal(size=shape), 2.0)
    coast = coast / coast.std() + 0.4 * rng.normal(size=shape)
    soils = gaussian_filter(rng.normal(size=shape), 1.0)
    weeks = gaussian_filter(rng.normal(size=(steps, *shape)), (memory, 2.0, 2.0))
    field = 25.0 + 6.0 * soils / soils.std() + 3.0 * weeks / weeks.std()
    return np.where(coast > np.quantile(coast, 0.62), field, np.nan)


@pytest.mark.parametrize("steps", [1, 3, 24, 120])
@pytest.mark.parametrize("shape", [(20, 30), (40, 60)])
def test_fields_of_land_alone_pass_and_their_scrambles_do_not(steps, shape):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        field = soil(rng, steps, shape)
        assert arrangement(field).verdict(smooth=False) is None, seed
        cells = rng.permutation(field[0].size)
        scattered = field.reshape(steps, -1)[:, cells].reshape(field.shape)
        assert arrangement(scattered).verdict(smooth=False) is not None, seed
        columns = field[:, :, rng.permutation(shape[1])]
        assert arrangement(columns).verdict(smooth=False) is not None, seed


def test_few_neighbours_with_values_are_not_judged():
    field = weather(60, (12, 20))
    islands = np.where(np.indices((12, 20)).sum(axis=0) % 2, field, np.nan)
    islands[:, 2, 2:8] = field[:, 2, 2:8]
    laid = arrangement(islands)
    assert laid.unsure == "only 12 pairs of neighbouring cells have values"
    assert laid.verdict(smooth=True) is None
    assert arrangement(field).unsure is None


def test_a_few_very_wide_cells_are_not_judged():
    """At 11 degrees two neighbours may have nothing in common."""
    noise = np.random.default_rng(0).normal(size=(60, 5, 5))
    assert arrangement(noise).verdict(smooth=True) == "scattered"
    laid = arrangement(noise, cell_width=11.0)
    assert laid.verdict(smooth=True) is None
    assert "25 cells of 11 degrees" in laid.unsure
    # Small cells, or a large region of wide ones, are judged as ever.
    assert arrangement(noise, cell_width=2.5).verdict(smooth=True) == "scattered"
    globe = np.random.default_rng(0).normal(size=(60, 16, 32))
    assert arrangement(globe, cell_width=11.0).verdict(smooth=True) == "scattered"


def test_roughness_by_hand():
    # A ramp of n steps: differences 1 one way and 0 the other, variance (n^2-1)/12.
    ramp = np.broadcast_to(np.arange(10.0), (10, 10))
    assert roughness(ramp) == pytest.approx(0.5 * 0.5 / (99 / 12))
    # A chequerboard: differences 2, variance 1.
    board = np.where(np.indices((10, 10)).sum(axis=0) % 2, 1.0, -1.0)
    assert roughness(board) == pytest.approx(2.0)
    noise = np.random.default_rng(1).normal(size=(4, 60, 60))
    assert roughness(noise) == pytest.approx(1.0, abs=0.02)
    assert roughness(np.ones((10, 10))) is None
    assert roughness(np.full((10, 10), np.nan)) is None
    assert roughness(ramp[:4, :4]) is None


REAL = [
    ("iberia/predictors_ncep_r1.nc", ["z_500", "psl", "tas"]),
    ("cmip5_iberia/cnrm_cm5_winter.nc", ["t_850"]),
    ("cordex_iberia/racmo22e_winter.nc", ["tas"]),
    ("iberia/targets_eobs_050.nc", ["tasmin"]),
]


@pytest.mark.parametrize(("file", "names"), REAL)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scrambles_of_real_weather(real_data, file, names):
    import xarray as xr

    with xr.open_dataset(real_data / file) as ds:
        steps = np.linspace(0, ds.sizes["time"] - 1, 120).astype(int)
        fields = {name: ds[name].isel(time=steps).values for name in names}
    for name, field in fields.items():
        assert arrangement(field).verdict(smooth=True) is None, name
        for scramble, order in SCRAMBLES.items():
            laid = arrangement(order(field, np.random.default_rng(0)))
            assert laid.verdict(smooth=True) is not None, (name, scramble)
