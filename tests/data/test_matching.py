"""Grids with the same cells in another order."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.matching import part_of, same_cells_order, shared_cells

LAT, LON = np.array([40.0, 42.0, 44.0]), np.arange(0.0, 360.0, 90.0)


def grid(lat, lon):
    return Grid(lat=np.asarray(lat), lon=np.asarray(lon), y_name="y", x_name="x")


@pytest.mark.parametrize(
    ("lat", "lon", "rows", "columns"),
    [
        (LAT, LON, [0, 1, 2], [0, 1, 2, 3]),
        (LAT[::-1], LON, [2, 1, 0], [0, 1, 2, 3]),
        (LAT, LON - 180.0, [0, 1, 2], [2, 3, 0, 1]),
        (LAT, LON[::-1] - 360.0, [0, 1, 2], [3, 2, 1, 0]),
        (LAT + 5e-4, LON, [0, 1, 2], [0, 1, 2, 3]),
    ],
)
def test_the_order_of_the_same_cells(lat, lon, rows, columns):
    found = same_cells_order(grid(LAT, LON), grid(lat, lon))
    assert found is not None
    assert [index.tolist() for index in found] == [rows, columns]


@pytest.mark.parametrize(
    ("lat", "lon"),
    [(LAT + 1.0, LON), (LAT, LON + 1.0), (LAT[:2], LON), (LAT, [0.0, 90, 180, 200])],
)
def test_other_cells_have_none(lat, lon):
    assert same_cells_order(grid(LAT, LON), grid(lat, lon)) is None


def test_two_dimensional_coordinates():
    lat, lon = np.meshgrid(LAT, [5.0, 6.0, 7.0, 9.0], indexing="ij")
    lat = lat + 0.1 * lon
    turned = grid(lat[::-1, ::-1], lon[::-1, ::-1] + 360.0)
    rows, columns = same_cells_order(grid(lat, lon), turned)
    assert (rows.tolist(), columns.tolist()) == ([2, 1, 0], [3, 2, 1, 0])
    assert same_cells_order(grid(lat, lon), grid(lat, lon + 0.5)) is None
    assert same_cells_order(grid(lat, lon), grid(LAT, lon[0])) is None


# -- A part of the cells ---------------------------------------------------------------

FINE = np.arange(36.0, 44.0, 0.5)
WORLD = np.arange(0.0, 360.0, 2.5)


@pytest.mark.parametrize(
    ("lat", "lon", "cells"),
    [
        (FINE[3:9], WORLD, (6, 144)),
        (FINE[3:9][::-1], WORLD[5:20], (6, 15)),
        (np.arange(30.0, 40.0, 0.5), WORLD[::-1], (8, 144)),
        # from 10 W to 10 E, on an axis that begins at Greenwich
        (FINE, np.arange(-10.0, 10.1, 2.5), (16, 9)),
        (FINE + 5e-4, np.arange(170.0, 200.0, 2.5) - 360.0, (16, 12)),
        (FINE[4:5], WORLD[7:8], (1, 1)),
    ],
)
def test_rows_and_columns_that_two_grids_share(lat, lon, cells):
    one, other = grid(FINE, WORLD), grid(lat, lon)
    for first, second in ((one, other), (other, one)):
        mine, theirs = shared_cells(first, second)
        part, same = part_of(first, mine), part_of(second, theirs)
        assert part.shape == cells
        assert same_cells_order(part, same) is not None
        np.testing.assert_allclose(part.lat, same.lat, atol=1e-3)
        np.testing.assert_allclose((part.lon - same.lon) % 360.0 % 360.0, 0, atol=1e-9)
        assert np.ptp(part.lon) < 360.0
        assert np.abs(np.diff(part.lon)).max(initial=0.0) <= 2.5


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        (FINE + 0.25, WORLD),
        (FINE, WORLD + 180.3),
        (np.arange(36.0, 44.0, 0.25), WORLD),  # half the spacing
        (np.arange(36.0, 44.0, 1.0), WORLD),  # twice the spacing
        (FINE + 7.5, WORLD),  # a single row
        (FINE + 50.0, WORLD),
    ],
)
def test_other_grids_share_nothing(lat, lon):
    assert shared_cells(grid(FINE, WORLD), grid(lat, lon)) is None
    assert shared_cells(grid(lat, lon), grid(FINE, WORLD)) is None


def curvilinear(rows, columns):
    y, x = np.meshgrid(np.asarray(rows), np.asarray(columns), indexing="ij")
    return Grid(
        lat=40.0 + 0.4 * y + 0.02 * x,
        lon=-2.0 + 0.5 * x - 0.03 * y,
        y_name="rlat",
        x_name="rlon",
        y=np.asarray(rows, float),
        x=np.asarray(columns, float),
    )


def test_a_part_of_a_curvilinear_grid():
    one, other = curvilinear(range(8), range(9)), curvilinear(range(12, 2, -1), [4, 5])
    mine, theirs = shared_cells(one, other)
    assert [index.tolist() for index in mine] == [[3, 4, 5, 6, 7], [4, 5]]
    assert [index.tolist() for index in theirs] == [[9, 8, 7, 6, 5], [0, 1]]
    part = part_of(one, mine)
    assert part.y.tolist() == [3, 4, 5, 6, 7]
    np.testing.assert_array_equal(part.lat, part_of(other, theirs).lat)

    for rows, columns in (
        (range(0, 16, 2), range(9)),  # every other row
        (range(20, 28), range(9)),
        (np.arange(8) + 0.5, range(9)),
        ([0, 3, 2, 1, 7], range(8)),
    ):
        assert shared_cells(one, curvilinear(rows, columns)) is None
    assert shared_cells(one, grid(FINE, WORLD)) is None
