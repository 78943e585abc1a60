"""First guesses: right by hand, without NaN, without truth unless they say so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_task import HR_LAT, HR_LON, LR_LAT, LR_LON, array_blocks

from st_cdgm.data.fit.baseline import regression
from st_cdgm.data.fit.baseline.climatology import ClimatologyBaseline
from st_cdgm.data.fit.baseline.combined import (
    CombinedBaseline,
    build_baseline,
    counterparts,
)
from st_cdgm.data.fit.baseline.contract import BaselineTask
from st_cdgm.data.fit.baseline.hr_smoothing import SmoothingBaseline
from st_cdgm.data.fit.baseline.lr_interp import LrInterpBaseline
from st_cdgm.data.fit.baseline.regression import RegressionBaseline
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.harmonics import HarmonicSums
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.errors import ConfigError, InputError, MissingVariableError

NAN = np.nan
LR = Grid(lat=LR_LAT, lon=LR_LON, y_name="lat", x_name="lon")
HR = Grid(lat=HR_LAT, lon=HR_LON, y_name="latitude", x_name="longitude")
CHANNELS = (
    Channel(
        name="t_850",
        variable="t",
        level=850.0,
        units="K",
        standard_name="air_temperature",
    ),
    Channel(
        name="tas",
        variable="tas",
        level=None,
        units="K",
        standard_name="air_temperature",
    ),
    Channel(name="pr", variable="pr", level=None, units="mm day-1"),
)
PR = TargetVariable(name="pr", units="mm day-1")
TASMIN = TargetVariable(name="tasmin", units="degC", standard_name="air_temperature")
TASMAX = TargetVariable(name="tasmax", units="degC", standard_name="air_temperature")
WIND = TargetVariable(name="sfcWind", units="m s-1")


def _season(days=400):
    return ((np.arange(days) % 365) / 365).astype(np.float32)


def _truth(targets, days=400, seed=0):
    shape = (days, len(targets), *HR.shape)
    return np.random.default_rng(seed).gamma(1, 3, shape).astype(np.float32)


def _blocks(truth, days=256):
    rng = np.random.default_rng(12)
    raw = rng.gamma(2, 1, (len(truth), len(CHANNELS), *LR.shape)).astype(np.float32)
    return array_blocks(raw, _season(len(truth)), truth, days)


def _climatology(truth, season, name="x"):
    rows, columns = truth.shape[-2:]
    grid = Grid(lat=np.arange(rows), lon=np.arange(columns), y_name="y", x_name="x")
    task = BaselineTask(
        targets=[TargetVariable(name=name, units="1")],
        channels=(),
        lr_grid=grid,
        hr_grid=grid,
        blocks=array_blocks(truth, season, truth),
        found={},
    )
    return ClimatologyBaseline.build(task)


def _build(strategy="auto", targets=(PR, TASMAX, TASMIN), truth=None, **options):
    truth = _truth(targets) if truth is None else truth
    return build_baseline(
        strategy,
        targets=targets,
        channels=CHANNELS,
        lr_grid=LR,
        hr_grid=HR,
        blocks=_blocks(truth),
        **options,
    )


def _plane(grid):
    """A field that bilinear interpolation reproduces exactly inside the coarse grid."""
    return 2 * grid.lat2d - 0.5 * grid.lon2d


def test_lr_interp_reproduces_a_plane_by_coordinates_and_converts_units():
    # D1, D2: other variable names and other dimension names on the two grids.
    lr = np.zeros((2, 3, *LR.shape), dtype=np.float32)
    lr[:, 1] = 273.15 + _plane(LR)
    lr[:, 2] = _plane(LR)
    guess = _build("lr_interp").predict(lr, _season(2))
    assert guess.shape == (2, 3, *HR.shape)
    for channel in range(3):
        assert guess[0, channel] == pytest.approx(_plane(HR), abs=1e-3)


def test_lr_interp_has_no_missing_frame():
    # D3: the fine grid here reaches beyond the coarse cell centres.
    wide = Grid(
        lat=np.arange(30.0, 50.0),
        lon=np.arange(-20.0, 10.0),
        y_name="lat",
        x_name="lon",
    )
    lr = np.full((1, 3, *LR.shape), 280.0, dtype=np.float32)
    made = build_baseline(
        "lr_interp",
        targets=(TASMIN,),
        channels=CHANNELS,
        lr_grid=LR,
        hr_grid=wide,
        blocks=_blocks(np.zeros((40, 1, *wide.shape), np.float32)),
    )
    assert made.predict(lr, _season(1)) == pytest.approx(6.85, abs=1e-4)


def test_the_map_decides_then_the_name_then_the_only_surface_standard_name():
    found = counterparts((PR, TASMIN, TASMAX, WIND), CHANNELS, {"tasmin": "t_850"})
    assert found == {"pr": 2, "tasmin": 0, "tasmax": 1}


@pytest.mark.parametrize("mapping", [{"tas": "tas"}, {"tasmin": "tos"}])
def test_a_map_with_unknown_names_is_an_error_that_lists_the_known_ones(mapping):
    with pytest.raises(MissingVariableError, match="tas"):
        counterparts((TASMIN,), CHANNELS, mapping)


def test_lr_interp_without_counterpart_is_a_key_error():
    with pytest.raises(KeyError, match="sfcWind"):
        _build("lr_interp", targets=(PR, WIND))


def test_units_that_do_not_convert_are_an_error():
    with pytest.raises(InputError, match="do not convert"):
        _build("lr_interp", targets=(PR,), mapping={"pr": "tas"})


def test_auto_uses_climatology_where_there_is_no_counterpart_and_keeps_the_order():
    targets = (WIND, PR, TASMIN)
    made = _build("auto", targets)
    assert (made.strategy, made.oracle) == ("auto", False)
    lr = np.full((5, 3, *LR.shape), 280.0, dtype=np.float32)
    guess = made.predict(lr, _season(5))
    assert guess[:, 1] == pytest.approx(280.0)
    assert guess[:, 2] == pytest.approx(6.85, abs=1e-4)
    alone = _build("climatology", targets).predict(lr, _season(5))
    assert guess[:, 0] == pytest.approx(alone[:, 0])


def test_climatology_recovers_harmonics_and_ignores_the_predictors():
    season = _season(3650)
    angle = 2 * np.pi * season
    wave = 3 + 2 * np.cos(angle) - np.sin(2 * angle) + 0.5 * np.cos(3 * angle)
    truth = np.broadcast_to(wave[:, None, None, None], (3650, 1, 2, 3)).copy()
    truth = truth.astype(np.float32)
    truth[::2, 0, 0, 0] = NAN
    fitted = _climatology(truth, season)
    lr = np.full((3650, 1, 2, 2), NAN, dtype=np.float32)
    guess = fitted.predict(lr, season)
    expected = np.broadcast_to(wave[:, None, None, None], guess.shape)
    assert guess == pytest.approx(expected, abs=2e-3)


def test_climatology_is_finite_in_cells_that_never_have_truth():
    truth = np.ones((100, 1, 3, 3), dtype=np.float32)
    truth[:, 0, 0] = NAN
    truth[5:, 0, 2, 2] = NAN
    truth[:, 0, 1] = 4
    fitted = _climatology(truth, _season(100))
    guess = fitted.predict(truth, _season(10))
    assert guess[:, 0, 0] == pytest.approx(4, abs=1e-3)
    assert np.isfinite(guess).all()


def test_climatology_of_winters_stays_within_reason():
    season = _season(3650)
    season = season[(season < 0.16) | (season > 0.92)]
    rng = np.random.default_rng(4)
    truth = rng.normal(5, 2, (len(season), 1, 2, 2)).astype(np.float32)
    fitted = _climatology(truth, season)
    guess = fitted.predict(truth, season)
    assert np.abs(guess - 5).max() < 1.0


def test_climatology_without_any_truth_names_the_variable():
    truth = np.full((50, 1, 2, 2), NAN, dtype=np.float32)
    with pytest.raises(InputError, match="sfcWind"):
        _climatology(truth, _season(50), "sfcWind")


def test_guesses_are_admissible():
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 5, (60, 3, *HR.shape)).astype(np.float32)
    guess = _build("climatology", truth=truth).predict(truth, _season(60))
    assert (guess[:, 0] >= 0).all()
    assert (guess[:, 2] <= guess[:, 1]).all()


def test_smoothing_by_hand_with_uneven_blocks():
    # Blocks {0, 1}, {2, 3}, {4}: means 1, 5, 20 at centres 0.5, 2.5, 4.
    row = np.array([0, 2, 4, 6, 20], dtype=np.float32)
    truth = np.broadcast_to(row, (1, 1, 2, 5)).copy()
    guess = SmoothingBaseline(2).predict(truth, _season(1), truth)
    assert guess[0, 0, 0] == pytest.approx([1, 2, 4, 10, 20])


@pytest.mark.parametrize("shape", [(172, 179), (16, 28), (7, 5), (3, 2)])
def test_smoothing_leaves_no_missing_frame(shape):
    # D3: also where the size is no multiple of the factor, and beside the sea.
    truth = np.random.default_rng(6).random((1, 1, *shape)).astype(np.float32)
    truth[..., : shape[0] // 3, :] = NAN
    guess = SmoothingBaseline(4).predict(truth, _season(1), truth)
    assert guess.shape == truth.shape
    assert np.isfinite(guess).all()


def test_smoothing_with_factor_one_is_the_truth():
    truth = np.random.default_rng(7).random((2, 1, 4, 5)).astype(np.float32)
    guess = SmoothingBaseline(1).predict(truth, _season(2), truth)
    assert guess == pytest.approx(truth, abs=1e-6)


def test_smoothing_is_an_oracle_and_refuses_to_guess_without_truth():
    # D4: the only baseline that says so, and it is never what auto gives.
    made = _build("hr_smoothing")
    assert (made.strategy, made.oracle) == ("hr_smoothing", True)
    assert not _build("auto").oracle
    with pytest.raises(InputError, match="needs the fine truth"):
        made.predict(np.zeros((1, 3, *LR.shape), np.float32), _season(1))


def test_unknown_strategy_is_refused():
    with pytest.raises(ConfigError, match="auto, climatology, hr_smoothing, lr_interp"):
        _build("median")


@pytest.mark.parametrize(
    "strategy", ["auto", "lr_interp", "climatology", "hr_smoothing", "regression"]
)
def test_state_is_json_and_arrays_and_rebuilds_the_baseline(strategy):
    targets = (PR, TASMIN) if strategy == "lr_interp" else (WIND, PR, TASMIN)
    made = _build(strategy, targets)
    meta, arrays = made.to_state()
    again = CombinedBaseline.from_state(json.loads(json.dumps(meta)), arrays)
    rng = np.random.default_rng(8)
    lr = rng.normal(280, 3, (4, 3, *LR.shape)).astype(np.float32)
    truth = _truth(targets, days=4)
    assert (again.strategy, again.oracle) == (made.strategy, made.oracle)
    same = again.predict(lr, _season(4), truth) == made.predict(lr, _season(4), truth)
    assert same.all()


def test_an_unknown_kind_in_a_state_is_refused():
    meta, arrays = _build("climatology").to_state()
    meta["parts"][0]["baseline"]["kind"] = "oracle_of_delphi"
    with pytest.raises(ConfigError, match="no baseline of this name"):
        CombinedBaseline.from_state(meta, arrays)


# -- Fitting by blocks -----------------------------------------------------------------


def _least_squares(season, values, order=3):
    angle = 2 * np.pi * season.astype(np.float64)
    waves = [f(k * angle) for k in range(1, order + 1) for f in (np.cos, np.sin)]
    design = np.stack([np.ones_like(angle), *waves], axis=1)
    out = np.empty((design.shape[1], values.shape[1]))
    for cell, column in enumerate(values.T.astype(np.float64)):
        known = np.isfinite(column)
        some = design[known]
        ridge = 1e-4 * known.sum() * np.diag([0.0] + [1.0] * (2 * order))
        out[:, cell] = np.linalg.solve(some.T @ some + ridge, some.T @ column[known])
    return out


@pytest.mark.parametrize("size", [1, 7, 800])
def test_harmonics_by_blocks_are_the_least_squares_of_all_days(size):
    rng = np.random.default_rng(9)
    season, values = _season(800), rng.normal(280, 9, (800, 6)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = NAN
    values[:200, 2] = NAN
    values[:, 5] = NAN
    sums = HarmonicSums(6)
    for start in range(0, 800, size):
        sums.add(season[start : start + size], values[start : start + size])
    found = sums.solve(30)
    expected = _least_squares(season, values[:, :5])
    assert found[:, :5] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found[:, 5]).all()
    angle = 2 * np.pi * season.astype(np.float64)
    waves = [f(k * angle) for k in (1, 2, 3) for f in (np.cos, np.sin)]
    fitted = np.stack([np.ones_like(angle), *waves], axis=1) @ expected
    spread = np.nanvar(values[:, :5] - fitted, axis=0)
    assert sums.variance(found)[:5] == pytest.approx(spread, rel=1e-6)


@pytest.mark.parametrize("strategy", ["climatology", "regression"])
@pytest.mark.parametrize("size", [1, 7])
def test_a_fit_does_not_depend_on_the_size_of_blocks(strategy, size):
    targets = (PR, TASMAX, TASMIN)
    truth = _truth(targets, days=90)
    truth[10:20, :, 2] = NAN
    whole, pieces = (
        build_baseline(
            strategy,
            targets=targets,
            channels=CHANNELS,
            lr_grid=LR,
            hr_grid=HR,
            blocks=_blocks(truth, days),
        )
        for days in (90, size)
    )
    lr = np.random.default_rng(3).gamma(2, 1, (5, 3, *LR.shape)).astype(np.float32)
    expected = whole.predict(lr, _season(5))
    assert pieces.predict(lr, _season(5)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("strategy", ["climatology", "regression", "lr_interp"])
def test_a_day_is_predicted_alike_alone_and_in_company(strategy):
    made = _build(strategy, truth=_truth((PR, TASMAX, TASMIN), days=120))
    lr = np.random.default_rng(3).gamma(2, 1, (9, 3, *LR.shape)).astype(np.float32)
    season = _season(9)
    together = made.predict(lr, season)
    alone = [made.predict(lr[t : t + 1], season[t : t + 1])[0] for t in range(9)]
    assert np.array_equal(together, np.stack(alone))


def test_nothing_is_read_where_nothing_is_fitted():
    def blocks():
        raise AssertionError("read")

    made = build_baseline(
        "lr_interp",
        targets=(PR,),
        channels=CHANNELS,
        lr_grid=LR,
        hr_grid=HR,
        blocks=blocks,
    )
    assert isinstance(made.parts[0][0], LrInterpBaseline)


# -- Regression ------------------------------------------------------------------------


def _weather(days, *, seed=0, noise=0.1, cells=6):
    """Raw predictors with two patterns of weather, and a target that follows them."""
    rng = np.random.default_rng(seed)
    season = _season(days)
    year = np.cos(2 * np.pi * season)
    state = rng.normal(size=(days, 2))
    # The patterns are the same whatever the days.
    fixed = np.random.default_rng(99)
    maps = fixed.normal(size=(2, 2, 3, 4))
    raw = np.einsum("tk,kcyx->tcyx", state, maps)
    raw = raw * np.array([30.0, 2.0])[:, None, None] + rng.normal(
        0, 0.01, (days, 2, 3, 4)
    )
    raw += np.array([54000.0, 280.0])[:, None, None] + 5 * year[:, None, None, None]
    respond = fixed.normal(size=(2, cells))
    truth = (
        12 - 8 * year[:, None] + state @ respond + rng.normal(0, noise, (days, cells))
    )
    truth = truth.reshape(days, 1, 2, cells // 2)
    return raw.astype(np.float32), season, truth.astype(np.float32)


def _regression(raw, season, truth, target=TASMIN, days=256, **options):
    blocks = array_blocks(raw, season, truth, days)
    return RegressionBaseline.fit(blocks, codec=build_codec((target,)), **options)


def _rmse(a, b):
    return float(np.sqrt(np.nanmean(np.square(a.astype(np.float64) - b))))


def test_regression_finds_a_linear_response_on_days_it_has_not_seen():
    made = _regression(*_weather(1500))
    raw, season, truth = _weather(400, seed=1)
    # The noise of the truth is 0.1; the year alone leaves 1.3.
    assert _rmse(made.predict(raw, season), truth) < 0.12
    quiet = _climatology(truth, season).predict(raw, season)
    assert _rmse(quiet, truth) > 1.0


def test_regression_on_noise_falls_back_to_the_year():
    raw, season, truth = _weather(400)
    raw = np.random.default_rng(5).normal(size=raw.shape).astype(np.float32)
    made = _regression(raw, season, truth)
    later, season, truth = _weather(400, seed=1)
    later = np.random.default_rng(6).normal(size=later.shape).astype(np.float32)
    clim = _climatology(truth, season).predict(later, season)
    assert _rmse(made.predict(later, season), truth) < 1.05 * _rmse(clim, truth)


def test_regression_with_missing_truth_is_fitted_to_the_days_that_have_it():
    raw, season, truth = _weather(1500)
    truth[::2, 0, 0, 0] = NAN
    truth[:700, 0, 0, 1] = NAN
    truth[:, 0, 1, 2] = NAN
    made = _regression(raw, season, truth)
    later, season, expected = _weather(400, seed=1)
    guess = made.predict(later, season)
    assert np.isfinite(guess).all()
    for cell in [(0, 0), (0, 1)]:
        assert _rmse(guess[:, 0, *cell], expected[:, 0, *cell]) < 0.25


def test_regression_ignores_a_predictor_cell_that_was_never_there():
    raw, season, truth = _weather(900)
    raw[:, 1, 0, 0] = NAN
    raw[5:9] = NAN
    made = _regression(raw, season, truth)
    later, season, expected = _weather(300, seed=1)
    later[:, 1, 0, 0] = 1e4
    assert _rmse(made.predict(later, season), expected) < 0.12


def test_a_sketch_of_many_predictors_gives_the_components(monkeypatch):
    exact = _regression(*_weather(900))
    monkeypatch.setattr(regression, "EXACT_LIMIT", 10)
    monkeypatch.setattr(regression, "COMPONENTS", 4)
    sketched = _regression(*_weather(900))
    later, season, _ = _weather(100, seed=1)
    expected = exact.predict(later, season)
    assert sketched.predict(later, season) == pytest.approx(expected, abs=0.03)


def test_regression_keeps_the_guarantees_of_its_codec():
    targets = (PR, TASMAX, TASMIN)
    truth = _truth(targets, days=120)
    made = _build("regression", targets, truth=truth)
    assert (made.strategy, made.oracle) == ("regression", False)
    lr = np.random.default_rng(3).normal(0, 50, (30, 3, *LR.shape)).astype(np.float32)
    guess = made.predict(lr, _season(30))
    assert (guess[:, 2] <= guess[:, 1]).all()
    assert ((guess[:, 0] == 0) | (guess[:, 0] >= np.float32(0.1))).all()


def test_regression_without_days_or_without_variation_is_refused():
    raw, season, truth = _weather(50)
    with pytest.raises(InputError, match="no training days"):
        _regression(raw[:0], season[:0], truth[:0])
    with pytest.raises(InputError, match="no predictor varies"):
        _regression(np.zeros_like(raw), season, truth)
    with pytest.raises(InputError, match="tasmin"):
        _regression(raw, season, np.full_like(truth, NAN))


def test_regression_on_the_real_record_beats_interpolation_and_climatology(real_data):
    import xarray as xr

    folder = real_data / "iberia"
    names = ["t_850", "z_500", "psl", "tas"]
    with xr.open_dataset(folder / "predictors_ncep_r1.nc") as ds:
        ds = ds.sel(time=slice("1996", "2002"))
        raw = np.stack([ds[n].values for n in names], axis=1).astype(np.float32)
        season = ((ds.time.dt.dayofyear.values - 1) / 366).astype(np.float32)
        late = ds.time.dt.year.values >= 2001
    with xr.open_dataset(folder / "targets_eobs_050.nc") as ds:
        truth = ds.tasmin.sel(time=slice("1996", "2002")).values[:, None]
    truth = truth.astype(np.float32)
    made = _regression(raw[~late], season[~late], truth[~late])
    clim = _climatology(truth[~late], season[~late], "tasmin")
    error = [
        _rmse(one.predict(raw[late], season[late]), truth[late]) for one in (made, clim)
    ]
    assert error[0] < 2.1 < 2.9 < error[1]
