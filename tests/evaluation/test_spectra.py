"""Radially averaged spectra."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.evaluation.metrics.spectra import (
    power_spectrum,
    spectra,
    spectrum_distance,
)


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (6, 11), (9, 4)])
def test_rings_hold_all_power_of_the_modes_they_cover(shape):
    # Parseval, with the modes beyond the last ring counted apart (odd and even sizes)
    rng = np.random.default_rng(0)
    field = rng.normal(size=shape)
    coefficient = np.fft.fft2(field - field.mean()) / field.size
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    ring = np.rint(radius * min(shape))
    wavenumber, power = power_spectrum(field)
    expected = [
        (np.abs(coefficient[ring == k]) ** 2).mean()
        for k in range(1, min(shape) // 2 + 1)
    ]
    np.testing.assert_allclose(power, expected)
    np.testing.assert_allclose(wavenumber * min(shape), np.arange(1, len(power) + 1))


def test_a_wave_has_its_power_at_its_own_wavenumber():
    # D78: a field (Y, X) is enough. Amplitude 3 gives 3^2 / 4 in each of two modes.
    x = np.arange(16)
    field = np.broadcast_to(3 * np.cos(2 * np.pi * 4 * x / 16), (16, 16))
    wavenumber, power = power_spectrum(field)
    assert wavenumber[power.argmax()] == pytest.approx(4 / 16)
    ring = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(16) * 16] * 2))) == 4
    assert power.max() * ring.sum() == pytest.approx(2 * 9 / 4)
    assert np.delete(power, power.argmax()).max() < 1e-20


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
    assert spectrum.forecast.shape == (20, 8)
    assert spectrum.reference.shape == spectrum.wavenumber.shape == (8,)


def test_sea_leaves_the_same_trace_in_forecast_and_truth():
    rng = np.random.default_rng(0)
    truth = 15 + rng.normal(size=(4, 12, 12))
    forecast = truth.copy()
    truth[:, :, 7:] = np.nan
    forecast[:, :, 7:] = 1e5
    assert spectrum_distance(forecast, truth) == pytest.approx(0, abs=1e-9)
    truth[2] = np.nan  # a day without truth takes no part
    expected = power_spectrum(truth[[0, 1, 3]])[1]
    np.testing.assert_allclose(spectra(forecast, truth).reference, expected)


def test_a_forecast_without_variance_has_a_finite_distance_and_dry_truth_none():
    truth = np.random.default_rng(0).normal(size=(3, 8, 8))
    flat = np.zeros_like(truth)
    assert 50 < spectrum_distance(flat, truth) < 200
    assert np.isnan(spectrum_distance(truth, flat))
    assert np.isnan(spectrum_distance(truth, np.full_like(truth, np.nan)))
    assert np.isnan(spectrum_distance(np.ones((3, 1, 1)), np.ones((3, 1, 1))))
