"""Wind derivatives against closed forms, and the losses made of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.space.gradients import EARTH_RADIUS
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.physics.blocks import complete_blocks, loss_block_mean
from st_cdgm.physics.derivatives import WindDerivatives
from st_cdgm.physics.wind import (
    compute_divergence,
    compute_vorticity,
    loss_physical,
    wind_pairs,
)

OMEGA = 7.292e-5


def field(u: np.ndarray, v: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([u, v])[None])


def grid(n: int, *, descending: bool = False, uneven: bool = False):
    """Latitudes 35..60 and longitudes -10..20 with n + 1 and 2 n + 1 points."""
    s = np.linspace(0, 1, n + 1)
    r = np.linspace(0, 1, 2 * n + 1)
    if uneven:
        s, r = s + 0.15 * s * (1 - s), r + 0.1 * np.sin(2 * np.pi * r) / (2 * np.pi)
    lat, lon = 35 + 25 * s, -10 + 30 * r
    return (lat[::-1].copy() if descending else lat), lon


def solid_body(lat, lon):
    u = OMEGA * EARTH_RADIUS * np.cos(np.deg2rad(lat))[:, None] + 0 * lon
    return (
        u,
        np.zeros_like(u),
        np.zeros_like(u),
        2 * OMEGA * np.sin(np.deg2rad(lat))[:, None] + 0 * lon,
    )


def harmonic(lat, lon, *, divergent: bool):
    """Wind of the spherical harmonic f = a sin(phi) cos(phi) cos(lambda), l = 2.

    Its Laplacian is -6 f / a^2: the divergence of grad f, the vorticity of k x grad f.
    """
    phi, lam = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
    f_lam = -np.sin(phi) * np.sin(lam)  # df/dlambda / (a cos phi)
    f_phi = np.cos(2 * phi) * np.cos(lam)  # df/dphi / a
    laplacian = -6 * np.sin(phi) * np.cos(phi) * np.cos(lam) / EARTH_RADIUS
    zero = np.zeros_like(laplacian)
    if divergent:
        return f_lam, f_phi, laplacian, zero
    return -f_phi, f_lam, zero, laplacian


def errors(lat, lon, wind) -> tuple[float, float]:
    """Largest error anywhere, border included, in the size of the true field."""
    u, v, div, zeta = wind
    size = max(np.abs(div).max(), np.abs(zeta).max())
    kwargs = {"lat": lat, "lon": lon}
    got_div = compute_divergence(field(u, v), **kwargs)[0].numpy()
    got_zeta = compute_vorticity(field(u, v), **kwargs)[0].numpy()
    return np.abs(got_div - div).max() / size, np.abs(got_zeta - zeta).max() / size


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_solid_body_rotation(descending, uneven):
    """D63: divergence 0, vorticity 2 omega sin(phi), whatever the order and spacing.

    Without the metric terms of the sphere neither is.
    """
    lat, lon = grid(50, descending=descending, uneven=uneven)
    div, zeta = errors(lat, lon, solid_body(lat, lon))
    assert div == 0.0
    assert zeta < 3e-4


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("kind", ["solid", "divergent", "rotational"])
def test_derivatives_are_of_second_order_up_to_the_border(kind, uneven, descending):
    """Halving the spacing quarters the largest error (D64: not so at borders)."""
    largest = []
    for n in (20, 40, 80):
        lat, lon = grid(n, descending=descending, uneven=uneven)
        wind = (
            solid_body(lat, lon)
            if kind == "solid"
            else harmonic(lat, lon, divergent=kind == "divergent")
        )
        largest.append(max(errors(lat, lon, wind)))
    order = np.log2(np.array(largest[:-1]) / np.array(largest[1:]))
    assert (order > 1.85).all(), order
    assert largest[-1] < 1e-3


def test_orientation_of_rows_does_not_matter():
    """D63: latitudes from north to south give the same field, turned over."""
    lat, lon = grid(10)
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, len(lat), len(lon)))
    for compute in (compute_divergence, compute_vorticity):
        up = compute(field(u, v), lat=lat, lon=lon)
        down = compute(field(u[::-1].copy(), v[::-1].copy()), lat=lat[::-1], lon=lon)
        torch.testing.assert_close(up, down.flip(-2))


def test_a_circle_of_longitudes_has_no_seam():
    lat, lon = np.linspace(-60, 60, 25), np.arange(0.0, 360.0, 5.0)
    phi, lam = np.deg2rad(lat)[:, None], np.deg2rad(lon)[None, :]
    u = np.cos(phi) * np.sin(lam)
    div = compute_divergence(field(u, 0 * u), lat=lat, lon=lon)[0].numpy()
    step = np.deg2rad(5.0)
    expected = np.cos(lam) * np.sin(step) / step / EARTH_RADIUS + 0 * phi
    np.testing.assert_allclose(div, expected, atol=1e-14)
    # The same circle cut elsewhere.
    moved = compute_divergence(field(u, 0 * u), lat=lat, lon=(lon + 180) % 360 - 180)
    np.testing.assert_allclose(moved[0].numpy(), expected, atol=1e-14)


def test_no_derivative_at_a_pole():
    lat, lon = np.linspace(-90, 90, 7), np.arange(0.0, 360.0, 60.0)
    u, v = np.ones((2, 7, 6))
    div = compute_divergence(field(u, v), lat=lat, lon=lon)[0]
    assert torch.isnan(div[[0, -1]]).all()
    assert torch.isfinite(div[1:-1]).all()


def test_a_linear_field_on_a_plane_is_exact_everywhere():
    """D64: at the border too, where the original had half of it."""
    x, y = np.meshgrid(0.5 * np.arange(6), 2.0 * np.arange(5))
    wind = field(2 * x + 3 * y, -x + 5 * y)
    torch.testing.assert_close(
        compute_divergence(wind, 0.5, 2.0), torch.full((1, 5, 6), 7.0).double()
    )
    torch.testing.assert_close(
        compute_vorticity(wind, 0.5, 2.0), torch.full((1, 5, 6), -4.0).double()
    )
    south = torch.flip(wind, dims=[-2])
    torch.testing.assert_close(
        compute_vorticity(south, 0.5, -2.0), torch.full((1, 5, 6), -4.0).double()
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 9), st.integers(0, 1000))
def test_differences_equal_numpy(n, seed):
    """An independent implementation, on uneven axes."""
    rng = np.random.default_rng(seed)
    lat = np.sort(rng.uniform(-80, 80, n))
    lat = lat + 0.5 * np.arange(n)  # never closer than half a degree
    lon = np.cumsum(rng.uniform(0.5, 3, n + 1))
    u, v = rng.normal(size=(2, n, n + 1))
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    cosine = np.cos(phi)[:, None]

    def dy(f):
        return np.gradient(f * cosine, phi, axis=0, edge_order=2)

    def dx(f):
        return np.gradient(f, lam, axis=1, edge_order=2)

    kwargs = {"lat": lat, "lon": lon, "radius": 1.0}
    np.testing.assert_allclose(
        compute_divergence(field(u, v), **kwargs)[0], (dx(u) + dy(v)) / cosine
    )
    np.testing.assert_allclose(
        compute_vorticity(field(u, v), **kwargs)[0], (dx(v) - dy(u)) / cosine
    )


def test_a_missing_cell_spoils_only_its_neighbours():
    """D63: in the original one NaN cell made the total NaN."""
    wind = torch.randn(2, 2, 7, 8)
    wind[1, 0, 3, 4] = torch.nan
    div = compute_divergence(wind)
    assert torch.isfinite(div[0]).all()
    missing = torch.isnan(div[1]).nonzero().tolist()
    # The cell itself and the two whose west-east difference it enters.
    assert missing == [[3, 3], [3, 4], [3, 5]]
    target = wind.clone()
    loss = loss_physical(torch.zeros_like(wind), target)
    assert torch.isfinite(loss)
    assert loss > 0


def test_the_loss_is_the_mean_square_over_covered_cells():
    torch.manual_seed(0)
    output, target = torch.randn(2, 3, 2, 5, 6).double()
    valid = torch.ones(3, 5, 6, dtype=torch.bool)
    valid[1, 2, 3] = False
    lat, lon = np.linspace(50, 40, 5), np.linspace(0, 5, 6)
    kwargs = {"lat": lat, "lon": lon, "radius": 50.0}
    difference = torch.where(valid[:, None], output - target, torch.nan)
    div = compute_divergence(difference, **kwargs)
    zeta = compute_vorticity(difference, **kwargs)
    covered = torch.isfinite(div) & torch.isfinite(zeta)
    area = torch.from_numpy(np.cos(np.deg2rad(lat)))[:, None] * covered
    expected = (torch.nan_to_num(div**2 + zeta**2) * area).sum() / area.sum()
    loss = loss_physical(output, target, valid=valid, **kwargs)
    torch.testing.assert_close(loss, expected)
    operator = WindDerivatives.spherical(lat, lon, radius=50.0)
    torch.testing.assert_close(
        loss_physical(output, target, valid=valid, derivatives=operator), loss
    )


def test_the_loss_pulls_the_prediction():
    """D63: the original's had no gradient."""
    torch.manual_seed(1)
    output = torch.randn(1, 2, 6, 6, requires_grad=True)
    target = torch.randn(1, 2, 6, 6)
    target[0, :, 0, 0] = torch.nan
    loss_physical(output, target).backward()
    assert torch.isfinite(output.grad).all()
    assert (output.grad != 0).float().mean() > 0.9
    assert (output.grad[0, :, 0, 0] == 0).all()
    assert loss_physical(target, target) == 0.0
    # A constant added to the wind has no divergence and no vorticity.
    torch.testing.assert_close(
        loss_physical(output + 7.0, target), loss_physical(output, target)
    )


def test_a_broken_prediction_is_not_masked_away():
    output, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    output[0, 0, 1, 1] = torch.nan
    assert torch.isnan(loss_physical(output, target))


@pytest.mark.parametrize(("name", "smaller"), [("dx", 0.5), ("dy", 0.5)])
def test_spacing_changes_the_loss(name, smaller):
    torch.manual_seed(2)
    output, target = torch.randn(2, 1, 2, 5, 5)
    assert loss_physical(output, target, **{name: smaller}) > loss_physical(
        output, target
    )


def test_single_channels_have_no_wind(caplog):
    """D63: zeros and a warning from the operators, an error from the loss."""
    with caplog.at_level(logging.WARNING):
        assert (compute_divergence(torch.randn(2, 1, 4, 4)) == 0).all()
        assert compute_vorticity(torch.randn(2, 1, 4, 4)).shape == (2, 4, 4)
    assert "two wind components" in caplog.text
    with pytest.raises(ConfigError, match="two wind components"):
        loss_physical(torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lat": np.arange(4.0)}, "half of the coordinates"),
        ({"lat": np.arange(5.0), "lon": np.arange(4.0)}, "do not fit"),
        ({"lat": np.ones((4, 4)), "lon": np.ones((4, 4))}, "regular grid"),
        ({"lat": np.array([0.0, 2, 1, 3]), "lon": np.arange(4.0)}, "rise or fall"),
        ({"dx": 0.0}, "not a length"),
    ],
)
def test_bad_grids_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        compute_divergence(torch.randn(1, 2, 4, 4), **kwargs)


def test_two_points_give_their_difference_and_one_gives_an_error():
    wind = field(np.array([[0.0, 3.0]]).repeat(3, 0), np.zeros((3, 2)))
    assert (compute_divergence(wind) == 3.0).all()
    with pytest.raises(InputError, match="rise or fall"):
        compute_divergence(torch.randn(1, 2, 1, 4))


def test_wind_pairs_by_name_and_standard_name():
    """D63: temperature and precipitation are no wind."""
    assert wind_pairs(["tasmin", "tasmax", "pr"]) == []
    assert wind_pairs(["vas", "pr", "uas"]) == [(2, 0)]
    assert wind_pairs(["u_850", "u_500", "v_500", "v_850"]) == [(0, 3), (1, 2)]
    assert wind_pairs(["u10", "V10"]) == [(0, 1)]
    assert wind_pairs(["u"]) == []
    named = [
        TargetVariable(name="wy", units="m s-1", standard_name="northward_wind"),
        TargetVariable(name="wx", units="m s-1", standard_name="eastward_wind"),
    ]
    assert wind_pairs(named) == [(1, 0)]
    # A name that looks like wind but is declared to be something else.
    channels = [
        Channel(name=n, variable=n, level=None, units="1", standard_name=s)
        for n, s in (("u", "specific_humidity"), ("v", None))
    ]
    assert wind_pairs(channels) == []


# -- Block means -----------------------------------------------------------------------

PARENT = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3])


def test_block_mean_loss_by_hand():
    area = torch.tensor([[1.0], [3.0], [1.0], [1.0]]).expand(4, 4)
    blocks = complete_blocks(PARENT, (4, 4), 4, area=area)
    fine = torch.arange(16.0).reshape(1, 4, 4)
    # Block 0: (0 + 1 + 3 (4 + 5)) / 8 = 3.5; the others 5.5, 10.5, 12.5.
    coarse = torch.tensor([[[3.5, 4.5], [10.5, 12.5]]])
    loss = loss_block_mean(fine, coarse, blocks)
    assert loss.item() == pytest.approx(1 / 4)


def test_block_mean_loss_counts_valid_cells_only():
    area = torch.ones(4, 4)
    blocks = complete_blocks(PARENT, (4, 4), 4, area=area)
    fine = torch.zeros(2, 4, 4, requires_grad=True)
    coarse = torch.ones(2, 2, 2)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, :2, :2] = torch.tensor([[False, False], [False, True]])
    broken = torch.where(valid, fine, torch.nan)
    loss = loss_block_mean(broken, coarse, blocks, valid=valid, min_share=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    # One cell of four is too little for block 0 of the first field.
    assert (fine.grad[0, :2, :2] == 0).all()
    assert (fine.grad[1] < 0).all()
    all_counted = loss_block_mean(fine, coarse, blocks, valid=valid, min_share=0.25)
    all_counted.backward()
    assert fine.grad[0, 1, 1] < 0


def test_cut_blocks_are_left_out():
    """A fine domain that covers a quarter of a coarse cell says nothing of its mean."""
    parent = torch.tensor([0, 0, 1, 1, 2]).repeat(4)
    blocks = complete_blocks(parent, (4, 5), 3, area=torch.ones(4, 5), least=0.8)
    fine = torch.ones(1, 4, 5)
    for coarse, expected in (([1.0, 1.0, 99.0], 0.0), ([2.0, 1.0, 99.0], 0.5)):
        loss = loss_block_mean(fine, torch.tensor([[coarse]]), blocks)
        assert loss.item() == pytest.approx(expected)


def test_a_pole_leaves_the_gradient_finite():
    """D63: what has no derivative made the gradient of everything NaN."""
    torch.manual_seed(0)
    made = torch.randn(1, 2, 7, 9, requires_grad=True)
    lat, lon = torch.linspace(90.0, -90.0, 7), torch.arange(0.0, 360.0, 40.0)
    loss = loss_physical(made, torch.randn(1, 2, 7, 9), lat=lat, lon=lon)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(made.grad).all())
    assert (made.grad != 0).any(dim=(0, 1, 3))[1:-1].all()
