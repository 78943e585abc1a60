"""Principal components of predictors."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.data.fit.components import PrincipalComponents


@pytest.mark.parametrize("T", [200, 20])  # more days than features, and fewer
def test_all_components_keep_distances_and_variance(T):
    lr = np.random.default_rng(0).normal(size=(T, 2, 3, 6))
    area = np.ones((3, 6))
    space = PrincipalComponents.fit(lr, area=area, limit=100)
    scores = space.transform(lr)
    scaled = (lr.reshape(T, -1) * space.scale) - space.mean
    expected = ((scaled[3] - scaled[11]) ** 2).sum()
    assert ((scores[3] - scores[11]) ** 2).sum() == pytest.approx(expected)
    np.testing.assert_allclose(
        space.axes.T @ space.axes, np.eye(scores.shape[1]), atol=1e-9
    )
    covariance = np.cov(scores, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-8)
    assert space.explained.sum() == pytest.approx(1)
    assert (np.diff(space.explained) <= 1e-12).all()


def test_units_of_channels_do_not_matter():
    lr = np.random.default_rng(0).normal(size=(60, 2, 2, 3))
    factor = np.array([1e5, 1e-3])[:, None, None]
    options = {"area": np.ones((2, 3)), "limit": 5}
    first = PrincipalComponents.fit(lr, **options).transform(lr)
    moved = factor * lr + 280
    second = PrincipalComponents.fit(moved, **options).transform(moved)
    np.testing.assert_allclose(np.abs(second), np.abs(first), atol=1e-6)


def test_number_of_components():
    rng = np.random.default_rng(0)
    patterns = np.linalg.qr(rng.normal(size=(12, 3)))[0]
    lr = (rng.normal(size=(500, 3)) * [10, 3, 0.01]) @ patterns.T
    lr = lr.reshape(500, 1, 3, 4)
    area = np.ones((3, 4))
    assert (
        PrincipalComponents.fit(lr, area=area, limit=20, variance=0.5).axes.shape[1]
        == 1
    )
    assert (
        PrincipalComponents.fit(lr, area=area, limit=20, variance=0.99).axes.shape[1]
        == 2
    )
    assert PrincipalComponents.fit(lr, area=area, limit=1).axes.shape[1] == 1
    # no component of rounding errors
    assert PrincipalComponents.fit(lr, area=area, limit=20).axes.shape[1] == 3


def test_cells_count_by_their_area_and_constants_are_harmless():
    lr = np.random.default_rng(0).normal(size=(50, 2, 1, 2))
    lr[:, 1] = 3.0
    space = PrincipalComponents.fit(lr, area=np.array([[1.0, 0.0]]), limit=4)
    assert space.axes.shape[1] == 1
    changed = lr.copy()
    changed[..., 1] += 5
    np.testing.assert_allclose(
        space.transform(changed)[:, 0], space.transform(lr)[:, 0]
    )
