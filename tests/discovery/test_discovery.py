"""The causal network finds the links that are there, and none that are not."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from benchmarks.lagged_climate import LaggedOptions, simulate_lagged
from tests.toy import tiny_model

from st_cdgm.discovery.granger import patch_granger
from st_cdgm.discovery.heads import EdgeHeads
from st_cdgm.discovery.network import DiscoveryConfig, proximal_step, train_network
from st_cdgm.discovery.search import discover_edges, judge_model, judge_network
from st_cdgm.discovery.series import Record, prepare_series, window_ends
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.causal_rcn import RCNCell
from st_cdgm.models.st_cdgm import STCDGM, ModelInputs

# Small, so that a search takes a second or two.
QUICK = DiscoveryConfig(
    hidden_dim=8,
    window=3,
    steps=90,
    windows_per_step=16,
    head_steps=60,
    head_days=24,
    head_lr=0.01,
    max_cells=4,
)
CHAIN = ((0, 0.6, 0), (0, 0, 0.6), (0, 0, 0))


@functools.cache
def climate(graph=CHAIN, **kwargs):
    options = {"num_vars": len(graph), "years": 4, "shape": (4, 5), **kwargs}
    return simulate_lagged(LaggedOptions(**options), graph)


def record(source, fields=None):
    fields = source.fields if fields is None else fields
    return Record(
        fields={name: fields[:, [k]] for k, name in enumerate(source.names)},
        year=source.year,
        season=source.season,
    )


@functools.cache
def chain_verdicts():
    return discover_edges(record(climate()), QUICK)


def test_a_chain_gives_its_edges_and_no_others():
    """Neither the reverse of an edge nor the indirect link x0 -> x2."""
    verdicts = chain_verdicts()
    assert verdicts.edge.tolist() == [
        [False, True, False],
        [False, False, True],
        [False, False, False],
    ]
    assert verdicts.gain[0, 1] > 0.02
    assert not verdicts.doubtful.any()


def test_scrambling_a_parent_destroys_its_edge():
    source = climate()
    fields = source.fields.copy()
    # Whole years in another order keep season and memory; only the link is lost.
    fields[:, 0] = np.roll(fields[:, 0], 365, axis=0)
    verdicts = discover_edges(record(source, fields), QUICK)
    assert not verdicts.edge[0].any()
    assert verdicts.edge[1, 2]


def test_without_links_there_are_no_edges():
    verdicts = discover_edges(record(climate(((0, 0),) * 2, seed=3)), QUICK)
    assert not verdicts.edge.any()


def test_a_quadratic_link_is_found_where_linear_granger_finds_none():
    source = climate(((0, 0.8), (0, 0)), family="quadratic", seed=5)
    verdicts = discover_edges(record(source), QUICK)
    linear = patch_granger(
        source.fields, source.year, source.season, names=source.names
    )
    assert verdicts.edge.tolist() == [[False, True], [False, False]]
    assert not linear.edge.any()
    assert linear.gain[0, 1] < 0.1 * verdicts.gain[0, 1]


def test_a_season_left_in_makes_no_edges_and_its_removal_restores_the_truth():
    """Shadows know the season as well as parents do."""
    source = climate(((0, 0),) * 2, seed=7, season=3.0)
    left = discover_edges(record(source), dataclasses.replace(QUICK, harmonics=0))
    assert not left.edge.any()
    assert left.verdict(0, 1) == "not identifiable"
    assert left.shadow[0, 1] > 0.5 * left.gain[0, 1]
    removed = discover_edges(record(source), QUICK)
    assert not removed.edge.any()
    assert not removed.unidentifiable.any()


def test_edges_made_by_a_slow_hidden_driver_are_called_doubtful():
    """Not one of the years' common causes: shadows do not see it, residuals do."""
    source = climate(((0,) * 3,) * 3, seed=8, slow_driver=1.0, years=6)
    verdicts = discover_edges(record(source), dataclasses.replace(QUICK, min_t=0.0))
    assert verdicts.slow[1, 2] > 5  # the two that the driver acts on
    assert verdicts.slow[0].max() < 3
    assert verdicts.edge[1:, 1:].any()
    np.testing.assert_array_equal(verdicts.doubtful[1:, 1:], verdicts.edge[1:, 1:])


@functools.cache
def trained():
    source = climate()
    series = prepare_series(record(source), source.year % 2 == 0)
    return train_network(series, QUICK), series


def test_rescaling_the_layers_leaves_the_verdicts_unchanged():
    """No layer can take over the strength of the matrix."""
    network, series = trained()
    before = judge_network(network, series, QUICK)
    cell = network.cell
    layers = (
        (cell.parent_block, 100.0),
        (cell.memory_block, 0.01),
        (cell.structural_out, 30.0),
        (cell.reconstruction_decoder, 0.1),
    )
    with torch.no_grad():
        for layer, factor in layers:
            layer.weight.mul_(factor)
    after = judge_network(network, series, QUICK)
    with torch.no_grad():
        for layer, factor in layers:
            layer.weight.div_(factor)
    np.testing.assert_array_equal(before.tested, after.tested)
    np.testing.assert_allclose(after.without, before.without, rtol=1e-3)


def test_the_same_seed_gives_the_same_verdict():
    network, series = trained()
    first = judge_network(network, series, QUICK, seed=1)
    again = judge_network(network, series, QUICK, seed=1)
    np.testing.assert_array_equal(first.without, again.without)


def test_an_own_state_remembers_its_own_drivers_alone():
    torch.manual_seed(0)
    cell = RCNCell(3, 4, 2, reconstruction_dim=1, state_scope="own")
    mixed = RCNCell(3, 4, 2, reconstruction_dim=1)
    mixed.load_state_dict(cell.state_dict())
    state, drivers = torch.randn(3, 5, 4), torch.randn(2, 3, 5, 2)

    def second_state(cell, first_driver):
        H, _, _ = cell(state, first_driver)
        return cell(H, drivers[1])[0]

    changed = drivers[0].clone()
    changed[0] += 1.0
    for network, others_change in ((cell, False), (mixed, True)):
        a, b = second_state(network, drivers[0]), second_state(network, changed)
        assert not torch.equal(a[0], b[0])
        assert torch.equal(a[1:], b[1:]) is not others_change
    # Both scopes predict the same from the same states.
    torch.testing.assert_close(cell.structural(state), mixed.structural(state))


def test_own_states_without_edges_are_the_mixed_ones():
    torch.manual_seed(0)
    cell = RCNCell(3, 4, 2, state_scope="own")
    mixed = RCNCell(3, 4, 2)
    mixed.load_state_dict(cell.state_dict())
    mixed.restrict_edges(torch.zeros(3, 3))
    state, driver = torch.randn(3, 5, 4), torch.randn(3, 5, 2)
    torch.testing.assert_close(cell(state, driver)[0], mixed(state, driver)[0])


def test_heads_start_as_the_cell_and_differ_by_one_edge():
    torch.manual_seed(0)
    cell = RCNCell(3, 4, 2, reconstruction_dim=1)
    parents = ~torch.eye(3, dtype=torch.bool)
    heads = EdgeHeads(cell, parents)
    state, other = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    out = heads(state, other)
    full = cell.reconstruct(cell.structural(state))
    torch.testing.assert_close(out[:3], full)
    for v, (i, k) in enumerate(heads.pairs.tolist()):
        A = cell.effective_dag().detach().clone()
        A[i, k] = 0.0
        without = cell.reconstruct(cell.structural(state, A))[k]
        torch.testing.assert_close(out[3 + v], without)
        swapped = state.clone()
        swapped[i] = other[i]
        shadow = cell.reconstruct(cell.structural(swapped))[k]
        torch.testing.assert_close(out[3 + len(heads.pairs) + v], shadow)


def test_the_proximal_step_holds_weak_pulls_at_zero():
    """Minimise (a - 1)^2 + (b - 0.01)^2 + 0.1 (|a| + |b|): a = 0.95, b = 0."""
    x = torch.nn.Parameter(torch.tensor([0.5, 0.5]))
    target = torch.tensor([1.0, 0.01])
    optimizer = torch.optim.Adam([x], betas=(0.9, 0.99))
    for step in range(800):
        lr = 0.02 * 0.993**step
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        (x - target).square().sum().backward()
        optimizer.step()
        proximal_step(x, optimizer, lr, 0.1)
    x = x.detach()
    assert float(x[0]) == pytest.approx(0.95, abs=0.01)
    assert float(x[1]) == 0.0


def test_windows_do_not_cross_gaps():
    ordinal = np.array([0, 1, 2, 5, 6, 7, 8])
    assert np.flatnonzero(window_ends(ordinal, 3)).tolist() == [2, 5, 6]


def test_variables_may_have_several_channels():
    source = climate()
    fields = {
        "both": source.fields[:, [0, 2]],
        "one": source.fields[:, [1]],
    }
    series = prepare_series(
        Record(fields=fields, year=source.year, season=source.season),
        source.year < 2,
    )
    assert series.widths == (18, 9)
    assert series.mask.tolist() == [[1, 1], [1, 0]]
    assert not series.drivers[:, 1, :, 9:].any()
    quick = dataclasses.replace(QUICK, steps=3, head_steps=2)
    errors = judge_network(train_network(series, quick), series, quick)
    assert np.isfinite(errors.full).all()


def two_level_model():
    lat, lon = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    inputs = ModelInputs(
        groups={"GP850": [0], "GP500": [1]},
        lr_shape=(3, 4),
        hr_shape=(3, 4),
        target_channels=1,
        static=torch.randn(1, 3, 4),
        index=torch.arange(12)[:, None],
        weight=torch.ones(12, 1),
        parent=torch.arange(12),
        lr_lat=lat,
        lr_lon=lon,
        hr_lat=lat,
        hr_lon=lon,
        baseline_mean=torch.zeros(1),
        baseline_std=torch.ones(1),
    )
    return STCDGM(inputs, tiny_model())


def test_the_edges_of_a_downscaling_model_are_judged_on_its_own_states():
    torch.manual_seed(0)
    model = two_level_model()
    noise = np.random.default_rng(0).standard_normal((365 * 6, 2, 3, 4))
    x = np.zeros_like(noise)
    for t in range(1, len(x)):
        x[t] = 0.6 * x[t - 1] + 0.8 * noise[t]
        x[t, 1] += 0.5 * x[t - 1, 0]
    lr = torch.from_numpy(x).float()
    year, season = np.arange(len(x)) // 365, np.arange(len(x)) % 365 / 365
    parameters = [*model.encoder.parameters(), *model.cell.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(60):
        days = torch.randint(2, 4 * 365, (32, 1)) + torch.arange(-2, 1)
        rollout = model.rollout(lr[days])
        error = (rollout.predicted - rollout.drivers[1:]).square()
        loss = (error * model.gather_mask[None, :, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before = [p.clone() for p in model.parameters()]
    config = DiscoveryConfig(window=3, head_steps=50)
    verdicts = judge_model(model, lr, year, season, year < 4, config=config)
    assert verdicts.names == ("level_850", "level_500", "terrain")
    assert np.argwhere(verdicts.edge).tolist() == [[0, 1]]
    assert verdicts.gain[0, 1] > 0.2
    after = list(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fields": {"a": np.zeros((9, 1, 3, 3))}}, "two or more variables"),
        ({"fields": dict.fromkeys("ab", np.zeros((9, 1, 2, 3)))}, "neighbours"),
        ({"season": np.zeros(8)}, "calendar"),
        (
            {"fields": dict.fromkeys("ab", np.full((9, 1, 3, 3), np.nan))},
            "missing values",
        ),
    ],
)
def test_records_that_do_not_fit_are_refused(change, match):
    values = {
        "fields": dict.fromkeys("ab", np.zeros((9, 1, 3, 3))),
        "year": np.zeros(9, int),
        "season": np.zeros(9),
    }
    with pytest.raises(InputError, match=match):
        Record(**{**values, **change}).check()


def test_a_short_record_is_refused_before_any_work():
    source = climate()
    short = Record(
        fields={n: source.fields[:900, [k]] for k, n in enumerate(source.names)},
        year=source.year[:900],
        season=source.season[:900],
    )
    with pytest.raises(InputError, match="too few years"):
        discover_edges(short)


@pytest.mark.parametrize(
    "change", [{"window": 1}, {"folds": 1}, {"steps": 0}, {"sparsity": -1.0}]
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        DiscoveryConfig(**change).check()


def test_an_unknown_state_scope_is_refused():
    with pytest.raises(ConfigError, match="scope"):
        RCNCell(2, 4, 1, state_scope="all")
