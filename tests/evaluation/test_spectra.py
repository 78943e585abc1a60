"""Radially averaged spectra."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.evaluation.metrics.spectra import (
    power_spectrum,
    spectra,
    spectrum_distance,
)


def modes(shape):
    """Wavenumber of every mode in cycles per cell, from its definition."""
    along = [np.arange(size) / (2 * size) for size in shape]
    return np.hypot(*np.meshgrid(*along, indexing="ij"))


def cosines(size):
    """Rows of the orthonormal DCT-II."""
    k, x = np.arange(size)[:, None], np.arange(size) + 0.5
    rows = np.sqrt(2 / size) * np.cos(np.pi * k * x / size)
    rows[0] /= np.sqrt(2)
    return rows


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (6, 11), (9, 4)])
def test_rings_hold_all_power_of_the_modes_they_cover(shape):
    # Parseval, with the modes beyond the last ring counted apart (odd and even sizes)
    rng = np.random.default_rng(0)
    field = rng.normal(size=shape)
    coefficient = cosines(shape[0]) @ field @ cosines(shape[1]).T
    assert (coefficient**2).sum() == pytest.approx((field**2).sum())
    ring = np.rint(modes(shape) * 2 * min(shape))
    wavenumber, power = power_spectrum(field)
    expected = [
        (coefficient[ring == k] ** 2).mean() / field.size for k in range(1, min(shape))
    ]
    np.testing.assert_allclose(power, expected)
    np.testing.assert_allclose(
        wavenumber * 2 * min(shape), np.arange(1, len(power) + 1)
    )


def test_a_wave_has_its_power_at_its_own_wavenumber():
    # D78: a field (Y, X) is enough. Amplitude 3 gives a mean square of 3^2 / 2.
    x = np.arange(16) + 0.5
    field = np.broadcast_to(3 * np.cos(2 * np.pi * 4 * x / 16), (16, 16))
    wavenumber, power = power_spectrum(field)
    assert wavenumber[power.argmax()] == pytest.approx(4 / 16)
    ring = np.rint(modes((16, 16)) * 32) == 8
    assert power.max() * ring.sum() == pytest.approx(9 / 2)
    assert np.delete(power, power.argmax()).max() < 1e-20


def test_a_slope_does_not_leak_into_small_scales():
    """What a Fourier transform takes for a jump at the border is none here."""
    slope = np.broadcast_to(np.linspace(-1, 1, 32), (32, 32))
    _, power = power_spectrum(slope)
    fourier = np.abs(np.fft.fft(slope[0]) / 32) ** 2
    shares = power[24:28].mean() / power[0], fourier[12:14].mean() / fourier[1]
    assert shares[0] < 0.01 * shares[1]


def test_small_scales_are_those_under_eight_cells():
    rng = np.random.default_rng(0)
    white = rng.normal(size=(100, 16, 24))
    short = modes((16, 24)) > 1 / 8
    transform = cosines(16) @ white @ cosines(24).T
    louder = transform * np.where(short, np.sqrt(2), 5.0)
    forecast = cosines(16).T @ louder @ cosines(24)
    level = spectra(forecast, white).small_scales
    assert level.value == pytest.approx(10 * np.log10(2))
    assert level.low == pytest.approx(level.high)
    members = rng.normal(size=(100, 5, 16, 24))
    level = spectra(members, white).small_scales
    assert level.low < 0 < level.high


def test_distance_is_in_decibel_and_zero_for_the_truth():
    truth = np.random.default_rng(0).normal(size=(5, 12, 10))
    assert spectrum_distance(truth, truth) == pytest.approx(0, abs=1e-12)
    louder = np.sqrt(2) * truth
    assert spectrum_distance(louder, truth) == pytest.approx(10 * np.log10(2))
    assert spectrum_distance(truth + 7, truth) == pytest.approx(0, abs=1e-9)


def test_members_are_compared_not_their_mean():
    # D79: the mean of many members is smooth, each member is not.
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 16, 16))
    members = rng.normal(size=(60, 20, 16, 16))
    assert spectrum_distance(members, truth) < 1
    assert spectrum_distance(members.mean(axis=1), truth) > 10
    spectrum = spectra(members, truth)
    assert spectrum.forecast.shape == (20, 15)
    assert spectrum.reference.shape == spectrum.wavenumber.shape == (15,)


def test_days_with_a_hole_have_no_spectrum():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 12, 12))
    truth[2, :, 7:] = np.nan
    expected = power_spectrum(truth[[0, 1, 3]])[1]
    np.testing.assert_allclose(spectra(truth, truth).reference, expected)
    truth[:, 0, 0] = np.nan
    assert np.isnan(spectrum_distance(truth, truth))


def test_a_forecast_without_variance_has_a_finite_distance_and_dry_truth_none():
    truth = np.random.default_rng(0).normal(size=(3, 8, 8))
    flat = np.zeros_like(truth)
    assert 50 < spectrum_distance(flat, truth) < 200
    assert np.isnan(spectrum_distance(truth, flat))
    assert np.isnan(spectrum_distance(truth, np.full_like(truth, np.nan)))
    assert np.isnan(spectrum_distance(np.ones((3, 1, 1)), np.ones((3, 1, 1))))
