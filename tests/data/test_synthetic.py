"""The synthetic climate: its truth, its weather and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.synthetic import (
    GROUPS,
    VARIABLES,
    CausalGraph,
    Edge,
    Intervention,
    SyntheticConfig,
    simulate,
    write_climate,
    write_synthetic,
    writer,
)
from st_cdgm.data.synthetic.flow import (
    DAY,
    MARGIN,
    MEAN_WIND,
    PSI_SD,
    Plane,
    _advect,
    _Spectral,
    random_stream,
)
from st_cdgm.data.synthetic.geography import _block_mean, build_geography
from st_cdgm.errors import ConfigError, OutputError


def small(**options):
    """A region cheap enough for many runs."""
    defaults = {
        "years": 1,
        "calendar": "360_day",
        "lr_shape": [6, 7],
        "hr_shape": [12, 21],
        "lat_range": [40.0, 47.5],
        "lon_range": [0.0, 8.75],
    }
    return SyntheticConfig(**(defaults | options))


@pytest.fixture(scope="module")
def climate():
    return simulate(SyntheticConfig(years=3, hr_shape=[32, 32]))


@pytest.fixture(scope="module")
def calm():
    return simulate(small())


# --- the graph and the options ---------------------------------------------------


def test_edges_are_read_with_and_without_operator():
    plain = Edge.parse("psi_500 -> psi_850 : 2 : -0.5")
    assert (plain.source, plain.target, plain.lag) == ("psi_500", "psi_850", 2)
    assert (plain.strength, plain.operator) == (-0.5, "value")
    assert Edge.parse("psi_500->wet_surf:1:0.2:vorticity").operator == "vorticity"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("psi_500", "source->target:lag"),
        ("psi_500->psi_850:1", "source->target:lag"),
        ("psi_500->psi_850:x:0.2", "source->target:lag"),
        ("psi_500->psi_850:1:0.2:v:v", "source->target:lag"),
        ("psi_600->psi_850:1:0.2", "psi_600"),
        ("psi_500->psi_500:1:0.2", "itself"),
        ("psi_500->psi_850:0:0.2", "lag 0"),
        ("psi_500->psi_850:8:0.2", "lag 8"),
        ("psi_500->psi_850:1:nan", "nan"),
        ("psi_500->psi_850:1:0.2:curl", "curl"),
        ("tau_500->psi_850:1:0.2:v", "psi_<level>"),
    ],
)
def test_a_bad_edge_is_named(text, says):
    with pytest.raises(ConfigError, match=says):
        SyntheticConfig(edges=[text]).check()


def test_graph_matrices_are_oriented_source_to_target():
    graph = SyntheticConfig(
        edges=[
            "psi_250->psi_500:1:0.1",
            "psi_250->psi_500:3:-0.4",
            "psi_500->tau_500:1:0.9:v",
            "hum_850->wet_surf:2:0.2",
        ]
    ).graph()
    i, j = VARIABLES.index("psi_250"), VARIABLES.index("psi_500")
    assert (graph.A[i, j], graph.lag[i, j]) == (-0.4, 3)
    assert graph.A[j, i] == 0
    assert graph.lag[j, i] == 0
    expected = np.zeros((4, 4))
    expected[GROUPS.index("GP250"), GROUPS.index("GP500")] = 0.4
    expected[GROUPS.index("GP850"), GROUPS.index("SURF")] = 0.2
    np.testing.assert_array_equal(graph.group_A, expected)


def test_acyclic_looks_at_paths_between_levels():
    assert SyntheticConfig().graph().acyclic
    down = ["psi_250->psi_500:1:0.1", "psi_500->psi_850:1:0.1"]
    assert not SyntheticConfig(edges=[*down, "psi_850->psi_250:1:0.1"]).graph().acyclic
    assert CausalGraph(edges=()).acyclic


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"years": 0},
        {"calendar": "julian_day"},
        {"lr_shape": [16]},
        {"lr_shape": [3, 8]},
        {"hr_shape": [8, 64]},
        {"lat_range": [55.0, 35.0]},
        {"lat_range": [-10.0, 35.0]},
        {"psi_memory": 1.0},
        {"pace": 2.0},
        {"land_fraction": 0.0},
        {"temperature_noise": -1.0},
    ],
)
def test_a_bad_option_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        simulate(SyntheticConfig(**wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"variable": "psi_600"},
        {"kind": "push"},
        {"days": 0},
        {"start_day": 360},
        {"pattern": "ring"},
        {"value": float("inf")},
    ],
)
def test_a_bad_intervention_is_named(wrong):
    what = {"variable": "psi_500", "value": 1.0} | wrong
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        simulate(small(), intervention=Intervention(**what))


# --- dynamics --------------------------------------------------------------------


def test_a_wave_moves_with_the_rossby_speed():
    config = small(pace=1.0)
    plane = Plane.from_config(config)
    ops = _Spectral(plane, config)
    ny, nx = plane.shape
    k = 2 * np.pi / (nx * plane.spacing[1])
    speed = MEAN_WIND[1] - plane.beta / (k**2 + 1.0e-12)  # m s-1, 500 hPa
    x = np.arange(nx) * plane.spacing[1]
    hat = np.fft.rfft2(np.broadcast_to(np.cos(k * x), (ny, nx)))
    after = np.fft.irfft2(ops.propagator[1] * hat, s=(ny, nx))
    expected = config.psi_memory * np.cos(k * (x - speed * DAY))
    np.testing.assert_allclose(after, np.broadcast_to(expected, (ny, nx)), atol=1e-12)


def test_derivatives_are_those_of_a_wave():
    config = small()
    plane = Plane.from_config(config)
    ops = _Spectral(plane, config)
    (ny, nx), (dy, dx) = plane.shape, plane.spacing
    ky, kx = 2 * np.pi / (ny * dy), 4 * np.pi / (nx * dx)
    phase = ky * np.arange(ny)[:, None] * dy + kx * np.arange(nx)[None, :] * dx
    hat = np.fft.rfft2(np.sin(phase), norm="ortho")
    psi, u, v, vorticity = ops.derive(np.broadcast_to(hat, (4, *hat.shape)))
    np.testing.assert_allclose(psi[0], np.sin(phase), atol=1e-12)
    np.testing.assert_allclose(u[0], -ky * np.cos(phase), atol=1e-12 * ky)
    np.testing.assert_allclose(v[0], kx * np.cos(phase), atol=1e-12 * kx)
    np.testing.assert_allclose(
        vorticity[0], -(kx**2 + ky**2) * np.sin(phase), atol=1e-10 * kx**2
    )


def test_noise_has_the_variance_that_keeps_a_level_at_one():
    config = small()
    ops = _Spectral(Plane.from_config(config), config)
    psi_hat, scalars = ops.noise(random_stream(0, "flow"), 400)
    psi = np.fft.irfft2(psi_hat, s=ops.shape, norm="ortho")
    np.testing.assert_allclose(psi.var(), 1 - config.psi_memory**2, rtol=0.1)
    np.testing.assert_allclose(scalars[:, -1].var(), 1 - config.wet_memory**2, rtol=0.1)
    derived = ops.derive(psi_hat[:, 0][:4])
    assert derived.shape == (4, 4, *ops.shape)


def test_advection_by_whole_cells_is_a_roll():
    plane = Plane(shape=(8, 8), spacing=(DAY, DAY), f0=1e-4, beta=1e-11)
    fields = np.random.default_rng(0).standard_normal((2, 4, 8, 8))
    wind = np.zeros((2, 4, 8, 8))
    wind[0] = 2 - MEAN_WIND[:, None, None]  # 2 cells a day eastward in all
    wind[1] = -1
    moved = _advect(fields, wind, plane, pace=1.0)
    np.testing.assert_allclose(moved, np.roll(fields, (-1, 2), axis=(2, 3)), atol=1e-9)


def test_levels_that_feed_each_other_too_much_are_refused():
    both = ["psi_500->psi_850:1:0.5", "psi_850->psi_500:1:0.5"]
    with pytest.raises(ConfigError, match="without bound"):
        simulate(small(edges=both))
    weak = simulate(small(edges=[edge.replace("0.5", "0.1") for edge in both]))
    assert not weak.graph.acyclic
    assert np.isfinite(weak.state).all()


def test_same_seed_same_climate_and_another_seed_another(calm):
    again, other = simulate(small()), simulate(small(seed=1))
    for name, field in calm.hr.items():
        np.testing.assert_array_equal(field, again.hr[name])
        assert np.abs(field - other.hr[name]).max() > 1
    assert not np.array_equal(calm.static["orog"], other.static["orog"])


def test_a_longer_record_begins_with_the_shorter(calm):
    longer = simulate(small(years=2))
    for name in ("z_500", "pr"):
        np.testing.assert_array_equal(longer.lr[name][:360], calm.lr[name])
    for name, field in calm.hr.items():
        np.testing.assert_allclose(longer.hr[name][:360], field, rtol=1e-5, atol=1e-4)


def test_block_size_does_not_change_the_weather(calm, monkeypatch):
    monkeypatch.setattr("st_cdgm.data.synthetic.fine.BLOCK_VALUES", 12 * 21 * 37)
    blocks = simulate(small())
    for name, field in calm.hr.items():
        np.testing.assert_allclose(blocks.hr[name], field, rtol=1e-5, atol=1e-4)


# --- the true interventional response --------------------------------------------


def response(calm, what, config=None):
    forced = simulate(config or small(), intervention=what)
    return forced, forced.state.astype(float) - calm.state


def test_uniform_shift_follows_the_closed_form(calm):
    start, value = 30, 2.0
    what = Intervention(variable="psi_250", value=value, start_day=start)
    _, change = response(calm, what)
    rho, n = small().psi_memory, 25
    expected = np.zeros((3, n))  # psi_250, psi_500, psi_850
    expected[0, 0] = value
    for t in range(1, n):
        expected[:, t] = rho * expected[:, t - 1]
        expected[1:, t] += 0.18 * expected[:-1, t - 1]
    for row, name in enumerate(("psi_250", "psi_500", "psi_850")):
        got = change[:, VARIABLES.index(name)]
        np.testing.assert_array_equal(got[:start], 0)
        np.testing.assert_allclose(
            got[start : start + n],
            np.broadcast_to(expected[row][:, None, None], got[start : start + n].shape),
            atol=2e-6,
        )


@pytest.mark.parametrize("lag", [1, 3, 7])
def test_an_effect_waits_for_its_lag(lag):
    config = small(edges=[f"tau_850->tau_surf:{lag}:0.5"], hr_shape=[6, 7])
    what = Intervention(variable="tau_850", value=1.0, start_day=10)
    change = response(simulate(config), what, config)[1]
    effect = np.abs(change[:, VARIABLES.index("tau_surf")]).max(axis=(1, 2))
    np.testing.assert_array_equal(effect[: 10 + lag], 0)
    np.testing.assert_allclose(effect[10 + lag], 0.5, atol=1e-6)


def descendants(source):
    A = SyntheticConfig().graph().A != 0
    reach = A.copy()
    for _ in VARIABLES:
        reach |= (reach.astype(int) @ A.astype(int)) > 0
    return reach[VARIABLES.index(source)]


@pytest.mark.parametrize("source", ["psi_850", "hum_850", "tau_surf", "psi_500"])
def test_only_descendants_and_what_the_wind_carries_respond(calm, source):
    what = Intervention(
        variable=source, value=1.5, start_day=50, pattern="bump", days=2
    )
    forced, change = response(calm, what)
    level = source.rpartition("_")[2]
    # A changed wind also carries its own level's scalars elsewhere.
    may = descendants(source) | np.array([v == source for v in VARIABLES])
    carried = [v.endswith(level) and source.startswith("psi") for v in VARIABLES]
    may |= np.array(carried)
    moved = np.abs(change).max(axis=(0, 2, 3))
    np.testing.assert_array_equal(moved[~may], 0)
    assert np.all(moved[may] > 1e-3)
    shown = forced.forcing[:, VARIABLES.index(source)]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(shown)), [50, 51])
    assert np.isnan(np.delete(forced.forcing, VARIABLES.index(source), axis=1)).all()


def test_predictors_of_a_level_show_its_own_state_only(calm):
    what = Intervention(variable="hum_850", value=1.0, start_day=100)
    forced, _ = response(calm, what)
    same = [n for n in calm.lr if np.array_equal(calm.lr[n], forced.lr[n])]
    assert set(calm.lr) - set(same) == {
        "q_850",
        "pr",
    }  # pr through wet_surf, a day later
    np.testing.assert_array_equal(calm.lr["pr"][100], forced.lr["pr"][100])
    assert (forced.lr["q_850"][100] > calm.lr["q_850"][100]).all()
    # Moister air rains more at once on the fine grid, where no slope dries it.
    more = forced.hr["pr"][100] - calm.hr["pr"][100]
    assert more.mean() > 0
    flat = np.hypot(calm.geography.slope_x, calm.geography.slope_y) < 1e-6
    assert flat.any()
    assert more[flat].min() >= 0


def test_set_replaces_the_field_and_cuts_its_causes(calm):
    what = Intervention(variable="psi_500", value=0.7, kind="set", start_day=5, days=40)
    forced, _ = response(calm, what)
    field = forced.state[5:45, VARIABLES.index("psi_500")]
    np.testing.assert_allclose(field, 0.7, atol=1e-6)
    np.testing.assert_allclose(forced.lr["v_500"][5:45], 0, atol=1e-4)
    assert forced.state[45, VARIABLES.index("psi_500")].std() > 0.01


# --- geography -------------------------------------------------------------------


def test_land_has_the_share_asked_for_and_the_sea_is_flat():
    geo = build_geography(SyntheticConfig(land_fraction=0.4))
    assert abs(geo.sftlf.mean() - 0.4) < 0.03
    assert geo.orog[geo.sftlf <= 0.5].max() == 0
    np.testing.assert_allclose(geo.orog.max(), 2800, rtol=1e-5)
    assert geo.sftlf.min() == 0
    assert geo.sftlf.max() == 1


def test_the_same_seed_gives_the_same_land_at_every_resolution():
    coarse, fine = (
        build_geography(SyntheticConfig(hr_shape=[n, n])).sftlf for n in (32, 64)
    )
    halved = fine.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(halved, coarse, atol=1e-5)


@pytest.mark.parametrize("shapes", [([16, 16], [64, 64]), ([23, 26], [172, 179])])
def test_grids_share_the_region_and_refine_keeps_lines(shapes):
    lr, hr = shapes
    config = SyntheticConfig(lr_shape=lr, hr_shape=hr)
    geo = build_geography(config)
    for lat, n in ((geo.lat_lr, lr[0]), (geo.lat_hr, hr[0])):
        half = 10.0 / n
        np.testing.assert_allclose([lat[0] - half, lat[-1] + half], [35, 55])
    rows = np.arange(-MARGIN, lr[0] + MARGIN) + 0.5
    window = np.broadcast_to(rows[:, None], (len(rows), lr[1] + 2 * MARGIN))
    expected = (np.arange(hr[0]) + 0.5) * lr[0] / hr[0]
    refined = geo.refine(window.astype(np.float32))
    np.testing.assert_allclose(refined, np.tile(expected[:, None], hr[1]), atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(coarse=st.integers(1, 20), extra=st.integers(0, 40))
def test_block_means_average_every_fine_cell(coarse, extra):
    weights = _block_mean(coarse + extra, coarse)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights.sum(axis=0) * (coarse + extra) / coarse, 1)
    assert weights.min() >= 0


# --- weather ---------------------------------------------------------------------


def test_temperatures_are_ordered_and_cooler_on_summits(climate):
    low, mean, high = (climate.hr[n] for n in ("tasmin", "tas", "tasmax"))
    assert (low <= mean).all()
    assert (mean <= high).all()
    land = climate.static["sftlf"] == 1
    anomaly = mean.mean(axis=0) + 0.65 * climate.geography.lat_hr[:, None]
    slope = np.polyfit(climate.static["orog"][land], anomaly[land], 1)[0]
    assert -0.0075 < slope < -0.0045  # K m-1
    summer = (climate.season > 0.45) & (climate.season < 0.65)
    winter = climate.season < 0.15
    assert mean[summer].mean() - mean[winter].mean() > 8


def test_rain_is_intermittent_heavy_tailed_and_likes_mountains(climate):
    pr = climate.hr["pr"]
    assert pr.min() == 0
    assert not ((pr > 0) & (pr < 0.1)).any()
    assert 0.3 < (pr >= 1).mean() < 0.6
    assert 2 < pr.mean() < 4
    assert 20 < np.percentile(pr[pr >= 1], 99) < 60
    height = climate.static["orog"].ravel()
    assert np.corrcoef(pr.mean(axis=0).ravel(), height)[0, 1] > 0.4


def test_weather_persists_for_days(climate):
    state = climate.state
    today, tomorrow = state[:-1], state[1:]
    lag_one = (today * tomorrow).mean(axis=(0, 2, 3)) / state.var(axis=(0, 2, 3))
    assert lag_one.min() > 0.3
    assert lag_one.max() < 0.95
    assert 0.7 < state.std() < 1.6


def test_predictors_are_physical_and_in_geostrophic_balance(climate):
    lr = climate.lr
    assert len(lr) == 18
    for level, warm, cold in ((850, 310, 240), (500, 285, 215), (250, 245, 195)):
        assert cold < lr[f"t_{level}"].min()
        assert lr[f"t_{level}"].max() < warm
        assert lr[f"q_{level}"].min() > 0
    assert lr["q_850"].max() < 0.03
    assert 94000 < lr["psl"].min() < lr["psl"].max() < 109000
    assert lr["pr"].max() * 86400 < 150
    plane = Plane.from_config(climate.config)
    dzdx = np.gradient(lr["z_500"], plane.spacing[1], axis=2)[:, 1:-1, 1:-1]
    dzdy = np.gradient(lr["z_500"], plane.spacing[0], axis=1)[:, 1:-1, 1:-1]
    v, u = lr["v_500"][:, 1:-1, 1:-1], lr["u_500"][:, 1:-1, 1:-1]
    assert np.corrcoef(dzdx.ravel(), v.ravel())[0, 1] > 0.98
    assert abs(np.mean(-dzdy) / plane.f0 / u.mean() - 1) < 0.05
    assert abs(np.polyfit(v.ravel(), dzdx.ravel() / plane.f0, 1)[0] - 1) < 0.1
    assert PSI_SD[1] * plane.f0 > 300  # geopotential, m2 s-2


def anomalies(climate, field, fitted):
    phase = 2 * np.pi * climate.season[:, None] * np.arange(1, 4)
    basis = np.hstack([np.ones((len(phase), 1)), np.cos(phase), np.sin(phase)])
    flat = field.reshape(len(field), -1).astype(float)
    out = flat - basis @ np.linalg.lstsq(basis[fitted], flat[fitted], rcond=None)[0]
    return (out / out[fitted].std(axis=0)).reshape(field.shape)


@pytest.fixture(scope="module")
def split(climate):
    fitted = np.arange(len(climate.time)) < len(climate.time) - 365
    lr = {name: anomalies(climate, x, fitted) for name, x in climate.lr.items()}
    return fitted, lr


def held_out_r2(X, Y, fitted, ridge=100.0):
    gram = X[fitted].T @ X[fitted] + ridge * np.eye(X.shape[1])
    error = Y - X @ np.linalg.solve(gram, X[fitted].T @ Y[fitted])
    return 1 - (error[~fitted] ** 2).mean(axis=0) / (Y[~fitted] ** 2).mean(axis=0)


def channels_of(*groups):
    document = {g: [] for g in GROUPS}
    for name in [f"{v}_{p}" for p in (850, 500, 250) for v in "utvqz"]:
        document[f"GP{name[2:]}"].append(name)
    document["SURF"] = ["psl", "tas", "pr"]
    return [name for group in groups for name in document[group]]


def test_fine_weather_is_partly_predictable_and_from_several_levels(climate, split):
    fitted, lr = split

    def skill(name, groups):
        scores = []
        for j, i in ((3, 3), (3, 12), (8, 8), (12, 4), (12, 12)):
            X = [lr[n][:, j - 1 : j + 2, i - 1 : i + 2] for n in channels_of(*groups)]
            X = np.stack(X, axis=1).reshape(len(fitted), -1)
            field = np.sqrt(climate.hr["pr"]) if name == "pr" else climate.hr[name]
            Y = anomalies(
                climate, field[:, 2 * j : 2 * j + 2, 2 * i : 2 * i + 2], fitted
            )
            scores.append(held_out_r2(X, Y.reshape(len(Y), -1), fitted).mean())
        return np.mean(scores)

    everything = ("SURF", "GP850", "GP500")
    assert 0.2 < skill("pr", everything) < 0.6
    assert skill("pr", everything) > skill("pr", ("SURF",)) + 0.08
    assert 0.6 < skill("tas", everything) < 0.95
    assert skill("tas", everything) > skill("tas", ("SURF",)) + 0.01


def test_the_true_graph_of_levels_can_be_recovered(climate, split):
    fitted, lr = split
    patches = {}
    for group in GROUPS:
        x = np.stack([lr[n] for n in channels_of(group)], axis=-1)
        near = [
            x[:, 1 + j : 15 + j, 1 + i : 15 + i] for j in (-1, 0, 1) for i in (-1, 0, 1)
        ]
        patches[group] = np.concatenate(near, axis=-1)[:, ::4, ::4]
    late = np.repeat(~fitted[1:], 16)

    def error(target, sources):
        X = np.concatenate([patches[g][:-1] for g in sources], axis=-1)
        X = X.reshape(-1, X.shape[-1])
        width = patches[target].shape[-1] // 9
        Y = patches[target][1:, ..., 4 * width : 5 * width].reshape(-1, width)
        gram = X[~late].T @ X[~late] + 50 * np.eye(X.shape[1])
        fit = np.linalg.solve(gram, X[~late].T @ Y[~late])
        return np.mean((Y[late] - X[late] @ fit) ** 2)

    found = np.zeros((4, 4), bool)
    for j, target in enumerate(GROUPS):
        full = error(target, GROUPS)
        for i, source in enumerate(GROUPS):
            if i != j:
                without = error(target, [g for g in GROUPS if g != source])
                found[i, j] = (without - full) / full > 0.004
    np.testing.assert_array_equal(found, climate.graph.group_A > 0)


# --- files -----------------------------------------------------------------------


def test_files_are_cf_and_hold_the_climate(calm, tmp_path):
    paths = write_climate(calm, tmp_path / "new" / "folder")
    lr = xr.open_dataset(
        paths.lr, decode_times=xr.coders.CFDatetimeCoder(use_cftime=True)
    )
    hr = xr.open_dataset(paths.hr, decode_times=False)
    static = xr.open_dataset(paths.static)
    with lr, hr, static:
        assert lr.attrs["Conventions"] == "CF-1.8"
        assert "ynthetic" in lr.attrs["title"]
        assert set(lr.data_vars) - set(calm.lr) == {"time_bnds", "lat_bnds", "lon_bnds"}
        assert lr["time"].size == 360
        assert lr["time"].values[59].isoformat() == "2001-02-30T00:00:00"
        assert lr["q_850"].attrs["units"] == "kg kg-1"
        assert lr["q_850"].attrs["pressure_level_hPa"] == 850
        assert lr["pr"].attrs["units"] == "kg m-2 s-1"
        assert lr["z_500"].dims == ("time", "lat", "lon")
        assert hr["tasmin"].attrs["cell_methods"] == "time: minimum"
        assert hr["pr"].attrs["units"] == "mm day-1"
        assert hr["time"].attrs["calendar"] == "360_day"
        np.testing.assert_array_equal(hr["time_bnds"][:, 1] - hr["time"], 1)
        np.testing.assert_allclose(hr["lat_bnds"].values[[0, -1], [0, 1]], [40, 47.5])
        assert static["orog"].attrs["units"] == "m"
        assert static["lon"].attrs["axis"] == "X"
        for dataset, fields in ((lr, calm.lr), (hr, calm.hr), (static, calm.static)):
            for name, field in fields.items():
                assert "standard_name" in dataset[name].attrs
                np.testing.assert_array_equal(dataset[name].values, field)
    assert sorted(p.name for p in paths.lr.parent.iterdir()) == sorted(
        ["predictors.nc", "targets.nc", "static.nc", "truth.json"]
    )


def test_truth_document_tells_the_graph(calm, tmp_path):
    truth = json.loads(write_climate(calm, tmp_path).truth_json.read_text())
    assert truth["variables"] == list(VARIABLES)
    np.testing.assert_array_equal(truth["A"], calm.graph.A)
    assert truth["acyclic"] is True
    assert truth["channels"]["SURF"] == ["psl", "tas", "pr"]
    assert truth["channels"]["GP500"] == ["u_500", "v_500", "t_500", "q_500", "z_500"]
    assert [Edge(**edge) for edge in truth["edges"]] == list(calm.graph.edges)
    assert SyntheticConfig(**truth["config"]) == calm.config


@pytest.mark.parametrize(
    ("calendar", "days"), [("standard", 366 + 365), ("noleap", 730), ("360_day", 720)]
)
def test_calendars_have_their_days(calendar, days):
    config = small(calendar=calendar, years=2, start_year=2004, hr_shape=[6, 7])
    made = simulate(config)
    assert len(made.time) == days
    assert (np.diff(made.time) == 1).all()
    np.testing.assert_allclose(
        np.diff(made.season)[:300], 1 / (366 if days == 731 else days / 2)
    )
    assert made.season.max() < 1


def test_targets_can_be_missing_over_the_sea():
    made = simulate(small(land_only_targets=True))
    sea = made.static["sftlf"] <= 0.5
    assert sea.any()
    for field in made.hr.values():
        assert np.isnan(field[:, sea]).all()
        assert np.isfinite(field[:, ~sea]).all()


def test_existing_files_are_kept_unless_told(calm, tmp_path):
    write_climate(calm, tmp_path)
    before = (tmp_path / "truth.json").stat().st_mtime_ns
    with pytest.raises(OutputError, match=r"existing files[\s\S]*predictors\.nc"):
        write_synthetic(small(), tmp_path)
    assert (tmp_path / "truth.json").stat().st_mtime_ns == before
    paths = write_synthetic(small(seed=3), tmp_path, overwrite=True)
    assert json.loads(paths.truth_json.read_text())["config"]["seed"] == 3


def test_a_failed_write_leaves_nothing(calm, tmp_path, monkeypatch):
    def full_disk(dataset, climate, path):
        path.write_bytes(b"half")
        if path.name == "static.nc":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_save", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_climate(calm, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
