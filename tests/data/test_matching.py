"""Grids with the same cells in another order."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.matching import same_cells_order

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
