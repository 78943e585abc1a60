from __future__ import annotations

import itertools
import logging
from fractions import Fraction

import numpy as np
import pytest
import torch
import xarray as xr

from st_cdgm.errors import ConfigError, InputError, MissingVariableError
from st_cdgm.models.graph_builder import HeteroGraphBuilder
from st_cdgm.models.grid_edges import NEIGHBOURS, grid_edges


def pairs(index):
    """Edges as a sorted list of (source, target), so that repeats show."""
    return sorted(zip(*np.asarray(index).tolist(), strict=True))


def brute_edges(rows, cols, steps, *, wrap):
    found = []
    for i, j, (dy, dx) in itertools.product(range(rows), range(cols), steps):
        r, c = i + dy, j + dx
        if wrap:
            c %= cols
        if 0 <= r < rows and 0 <= c < cols and (r, c) != (i, j):
            found.append((i * cols + j, r * cols + c))
    return sorted(set(found))


def great_circle(lat0, lon0, lat1, lon1):
    """Haversine distance in radians, all pairs."""
    a, b = np.radians(lat0).ravel()[:, None], np.radians(lat1).ravel()[None]
    d = np.radians(lon0).ravel()[:, None] - np.radians(lon1).ravel()[None]
    h = np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(d / 2) ** 2
    return 2 * np.arcsin(np.sqrt(h.clip(0, 1)))


class TestStructure:
    def test_edge_counts_of_the_default_grids(self):
        data, report = HeteroGraphBuilder((23, 26), (172, 179)).build()
        assert report.edges_spatial == {"GP850": 4494, "GP500": 4494, "GP250": 4494}
        assert report.edges_vertical == {"GP850↔GP500": 1196, "GP500↔GP250": 1196}
        assert report.edges_static == {
            f"SP_HR→{level}": 30788 for level in ("GP850", "GP500", "GP250")
        }
        assert report.num_nodes_lr["GP500"] == 598
        assert report.num_nodes_hr == {"SP_HR": 30788}
        assert len(report.hr_to_lr_parent) == 30788
        assert data["GP850", "spat_adj", "GP850"].edge_index.shape == (2, 4494)
        assert data["GP850", "vert_adj", "GP500"].edge_index.shape == (2, 598)
        assert data["SP_HR", "causes", "GP250"].edge_index.dtype == torch.int64
        assert data["SP_HR"].x.shape == (30788, 0)
        assert data["GP850"].batch.tolist() == [0] * 598

    @pytest.mark.parametrize("neighbours", [8, 16])
    @pytest.mark.parametrize("wrap", [False, True])
    @pytest.mark.parametrize(
        "shape", [(4, 6), (3, 4), (2, 5), (1, 5), (5, 1), (3, 2), (2, 3), (1, 1)]
    )
    def test_spatial_edges_equal_a_loop(self, shape, neighbours, wrap):
        steps = NEIGHBOURS[neighbours]
        edges = grid_edges(shape, steps, wrap=wrap)
        assert pairs(edges) == brute_edges(*shape, steps, wrap=wrap)

    def test_sixteen_neighbours_are_eight_and_the_knights_moves(self):
        assert len(NEIGHBOURS[8]) == 8
        assert len(set(NEIGHBOURS[16])) == 16
        assert {dy**2 + dx**2 for dy, dx in NEIGHBOURS[16]} == {1, 2, 5}

    def test_wrap_joins_first_and_last_longitude_only(self):
        plain = HeteroGraphBuilder((4, 6), (4, 6)).build_template()
        ring = HeteroGraphBuilder((4, 6), (4, 6), wrap=True).build_template()
        key = ("GP850", "spat_adj", "GP850")
        new = set(pairs(ring[key].edge_index)) - set(pairs(plain[key].edge_index))
        assert (0, 5) in new
        assert {abs(a % 6 - b % 6) for a, b in new} == {5}
        assert len(new) == 2 * (4 + 2 * 3)

    @pytest.mark.parametrize("neighbours", [8, 16])
    @pytest.mark.parametrize("wrap", [False, True])
    def test_the_report_counts_what_the_graph_holds(self, neighbours, wrap):
        levels = ["SURF", "GP1000", "GP10"]
        rows, cols = 5, 7
        builder = HeteroGraphBuilder(
            (rows, cols), (9, 11), levels=levels, neighbours=neighbours, wrap=wrap
        )
        data, report = builder.build()
        steps = NEIGHBOURS[neighbours]
        spatial = sum(
            (rows - abs(dy)) * (cols if wrap else cols - abs(dx)) for dy, dx in steps
        )
        assert report.edges_spatial == dict.fromkeys(levels, spatial)
        assert report.edges_vertical == {"SURF↔GP1000": 70, "GP1000↔GP10": 70}
        assert report.edges_static == {f"SP_HR→{level}": 99 for level in levels}
        assert report.num_nodes_lr == dict.fromkeys(levels, 35)
        assert report.hr_to_lr_parent == builder.get_hr_to_lr_parent_index().tolist()
        total = 3 * spatial + 2 * 70 + 3 * 99
        assert sum(data[key].edge_index.shape[1] for key in data.edge_types) == total
        assert data.validate()

    def test_the_level_names_have_no_meaning_but_their_order(self):
        names = ["one", "two", "three", "four", "five"]
        builder = HeteroGraphBuilder((2, 2), (3, 3), levels=names)
        vertical = [key for key in builder.edge_types if key[1] == "vert_adj"]
        neighbours = [(a, b) for a, b in itertools.pairwise(names)]
        both = {(a, "vert_adj", b) for a, b in neighbours}
        assert set(vertical) == both | {(b, "vert_adj", a) for a, b in neighbours}

    def test_both_directions_exist(self):
        data = HeteroGraphBuilder((3, 4), (6, 8)).build_template()
        edges = pairs(data["GP500", "spat_adj", "GP500"].edge_index)
        assert edges == sorted((b, a) for a, b in edges)
        up = data["GP500", "vert_adj", "GP250"].edge_index
        down = data["GP250", "vert_adj", "GP500"].edge_index
        same = [(n, n) for n in range(12)]
        assert pairs(up) == pairs(down) == same

    def test_levels_bottom_up(self):
        levels = ("SURF", "GP1000", "GP850")
        builder = HeteroGraphBuilder((2, 3), (4, 6), levels=levels)
        assert builder.dynamic_node_types == list(levels)
        assert list(builder.get_report().edges_vertical) == [
            "SURF↔GP1000",
            "GP1000↔GP850",
        ]
        assert ("SURF", "vert_adj", "GP850") not in builder.edge_types
        assert ("SP_HR", "causes", "SURF") in builder.edge_types

    def test_without_the_mid_layer_one_level(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6), include_mid_layer=False)
        assert builder.dynamic_node_types == ["GP850"]
        assert builder.get_report().edges_vertical == {}


class TestParents:
    def test_d37_parent_is_the_covering_cell(self):
        # D37: parents were shifted by half a cell (round(i / ratio)).
        # At ratio 4 each coarse cell has exactly its 4 x 4 block.
        builder = HeteroGraphBuilder((3, 2), (12, 8))
        parent = builder.get_hr_to_lr_parent_index().reshape(12, 8)
        expected = np.kron(np.arange(6).reshape(3, 2), np.ones((4, 4)))
        assert np.array_equal(parent, expected)

    @pytest.mark.parametrize(("coarse", "fine"), [(23, 172), (26, 179), (5, 7), (7, 5)])
    def test_d37_formula_for_any_ratio(self, coarse, fine):
        # D37: parents were shifted by half a cell (round(i / ratio)).
        builder = HeteroGraphBuilder((coarse, 1), (fine, 1))
        ratio = Fraction(fine, coarse)  # in floats 89.5 / (179 / 26) falls below 13
        expected = [(i + Fraction(1, 2)) // ratio for i in range(fine)]
        assert builder.get_hr_to_lr_parent_index().tolist() == expected

    def test_d37_coordinates_equal_the_index_formula_on_aligned_grids(self):
        # D37: parents were shifted by half a cell (round(i / ratio)).
        lat, lon = np.arange(40.0, 43), np.arange(-5.0, -1)
        fine_lat = (np.arange(12) + 0.5) / 4 + 39.5
        fine_lon = (np.arange(16) + 0.5) / 4 - 5.5
        kwargs = {"lr_lat": lat, "lr_lon": lon, "hr_lat": fine_lat, "hr_lon": fine_lon}
        here = HeteroGraphBuilder((3, 4), (12, 16), **kwargs)
        plain = HeteroGraphBuilder((3, 4), (12, 16))
        assert torch.equal(
            here.get_hr_to_lr_parent_index(), plain.get_hr_to_lr_parent_index()
        )

    def test_opposite_latitude_orders(self):
        lat, lon = np.arange(42.0, 39, -1), np.arange(4.0)
        builder = HeteroGraphBuilder(
            (3, 4), (3, 4), lr_lat=lat, lr_lon=lon, hr_lat=lat[::-1], hr_lon=lon
        )
        expected = np.arange(12).reshape(3, 4)[::-1]
        parent = builder.get_hr_to_lr_parent_index().reshape(3, 4)
        assert np.array_equal(parent, expected)

    @pytest.mark.parametrize("centre", [(70.0, 10.0), (0.0, 179.5), (-87.0, 0.0)])
    def test_curvilinear_parents_are_nearest_on_the_sphere(self, centre):
        # Rotated and sheared grids, across the date line and near a pole.
        def tilted(rows, cols, scale):
            y, x = np.meshgrid(
                np.linspace(-1, 1, rows), np.linspace(-1, 1, cols), indexing="ij"
            )
            lat = centre[0] + scale * (1.5 * y - 0.4 * x)
            return lat, (centre[1] + scale * (2 * x + 0.7 * y)) % 360

        coarse, fine = tilted(5, 6, 1.3), tilted(13, 11, 1.0)
        builder = HeteroGraphBuilder(
            (5, 6),
            (13, 11),
            lr_lat=coarse[0],
            lr_lon=torch.from_numpy(coarse[1]),
            hr_lat=fine[0],
            hr_lon=fine[1],
        )
        distance = great_circle(*fine, *coarse)
        parent = builder.get_hr_to_lr_parent_index().numpy()
        chosen = distance[np.arange(len(parent)), parent]
        np.testing.assert_allclose(chosen, distance.min(axis=1), atol=1e-9)
        edges = builder.build_template()["SP_HR", "causes", "GP500"].edge_index
        assert torch.equal(edges[1], torch.from_numpy(parent))

    def test_a_rotated_grid_keeps_its_blocks(self):
        # Fine cells are quarters of coarse cells in a rotated system whose equator
        # crosses the domain: nearest on the sphere must give the same 4 x 4 blocks,
        # although no row has one latitude.
        def geographic(rlat, rlon, pole_lat=39.25, pole_lon=-162.0):
            a, b = np.meshgrid(np.radians(rlat), np.radians(rlon), indexing="ij")
            x, y, z = np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)
            tilt = np.radians(90.0 - pole_lat)
            x, z = (
                np.cos(tilt) * x - np.sin(tilt) * z,
                np.sin(tilt) * x + np.cos(tilt) * z,
            )
            return np.degrees(np.arcsin(z)), np.degrees(
                np.arctan2(y, x)
            ) + pole_lon + 180

        lr_lat, lr_lon = geographic(0.44 * np.arange(-3, 3), 0.44 * np.arange(-2, 3))
        fine = [
            0.11 * (np.arange(4 * n) - 1.5 + 4 * first)
            for n, first in ((6, -3), (5, -2))
        ]
        hr_lat, hr_lon = geographic(*fine)
        assert np.ptp(lr_lat, axis=1).min() > 0.001
        builder = HeteroGraphBuilder(
            (6, 5),
            (24, 20),
            lr_lat=lr_lat,
            lr_lon=lr_lon % 360,  # another convention of longitudes
            hr_lat=hr_lat,
            hr_lon=hr_lon,
        )
        blocks = np.kron(np.arange(30).reshape(6, 5), np.ones((4, 4)))
        parent = builder.get_hr_to_lr_parent_index().reshape(24, 20)
        assert np.array_equal(parent, blocks)

    def test_parents_of_a_regional_model_by_its_own_coordinates(
        self, real_data, caplog
    ):
        # RACMO on a rotated pole below CNRM-CM5 on a regular grid, both as published.
        fine_path = real_data / "cordex_iberia" / "racmo22e_winter.nc"
        coarse_path = real_data / "cmip5_iberia" / "cnrm_cm5_winter.nc"
        with xr.open_dataset(fine_path) as fine, xr.open_dataset(coarse_path) as coarse:
            lat, lon = coarse.lat.values, coarse.lon.values
            hr_lat, hr_lon = fine.lat.values, fine.lon.values
        assert hr_lat.ndim == 2
        builder = HeteroGraphBuilder(
            (len(lat), len(lon)),
            hr_lat.shape,
            lr_lat=lat,
            lr_lon=lon,
            hr_lat=hr_lat,
            hr_lon=hr_lon,
        )
        distance = great_circle(hr_lat, hr_lon, *np.meshgrid(lat, lon, indexing="ij"))
        parent = builder.get_hr_to_lr_parent_index().numpy()
        chosen = distance[np.arange(len(parent)), parent]
        np.testing.assert_allclose(chosen, distance.min(axis=1), atol=1e-9)
        # The corners of the rotated domain stick out of the file of the global model.
        assert "of 840 fine cells lie outside the coarse grid" in caplog.text
        box = (hr_lat > lat.min()) & (hr_lat < lat.max())
        box &= (hr_lon > lon.min()) & (hr_lon < lon.max())
        assert box.sum() > 300
        diagonal = np.hypot(np.diff(lat).max(), np.diff(lon).max())
        assert np.degrees(chosen[box.ravel()]).max() <= diagonal / 2

    def test_cells_outside_the_coarse_grid_are_counted(self, caplog):
        lat = np.arange(40.0, 43.0)
        options = {"lr_lat": lat, "lr_lon": lat, "hr_lon": np.linspace(39.6, 42.4, 8)}
        HeteroGraphBuilder((3, 3), (8, 8), hr_lat=np.linspace(39.6, 42.4, 8), **options)
        assert caplog.text == ""
        HeteroGraphBuilder((3, 3), (2, 8), hr_lat=[41.0, 44.0], **options)
        assert "8 of 16 fine cells lie outside the coarse grid" in caplog.text

    def test_coordinates_of_a_projection_are_refused(self):
        metres = np.linspace(-4e5, 4e5, 4)
        with pytest.raises(InputError, match=r"fine grid[\s\S]*beyond the poles"):
            HeteroGraphBuilder(
                (2, 2),
                (4, 4),
                lr_lat=[40.0, 41.0],
                lr_lon=[0.0, 1.0],
                hr_lat=metres,
                hr_lon=metres,
            )

    def test_incomplete_coordinates(self):
        with pytest.raises(ConfigError, match="both grids"):
            HeteroGraphBuilder((2, 2), (4, 4), lr_lat=[0.0, 1.0], lr_lon=[0.0, 1.0])

    @pytest.mark.parametrize(
        ("lat", "message"), [([0.0, 1.0, 2.0], "shape"), ([0.0, np.nan], "finite")]
    )
    def test_bad_coordinates(self, lat, message):
        fine = np.arange(4.0)
        with pytest.raises(InputError, match=message):
            HeteroGraphBuilder(
                (2, 2),
                (4, 4),
                lr_lat=lat,
                lr_lon=[0.0, 1.0],
                hr_lat=fine,
                hr_lon=fine,
            )


class TestFeatures:
    def test_d38_earlier_graphs_do_not_change(self):
        # D38: one graph object was reused for every step; list shapes never fitted.
        builder = HeteroGraphBuilder((2, 3), (4, 6))
        x = torch.ones(6, 2)
        first = builder.prepare_step_data({"GP850": x})
        x.zero_()
        second = builder.prepare_step_data({"GP850": torch.full((6, 2), 5.0)})
        assert first is not second
        assert first["GP850"].x.unique().tolist() == [1.0]
        assert second["GP850"].x.unique().tolist() == [5.0]

    def test_d38_list_shapes_from_configs(self):
        # D38: one graph object was reused for every step; list shapes never fitted.
        builder = HeteroGraphBuilder([2, 3], [4, 6])
        assert builder.lr_shape == (2, 3)
        assert builder.hr_grid_to_nodes(torch.zeros(1, 4, 6)).shape == (24, 1)

    def test_templates_share_nothing_with_the_builder(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6))
        key = ("GP850", "spat_adj", "GP850")
        before = builder.prepare_step_data({})[key].edge_index.clone()
        builder.build_template()[key].edge_index.zero_()
        own = builder.prepare_step_data({}, clone_template=True)
        own[key].edge_index.zero_()
        assert torch.equal(builder.prepare_step_data({})[key].edge_index, before)

    def test_d36_each_level_has_its_own_channels(self):
        # D36: every level got every channel.
        builder = HeteroGraphBuilder((2, 3), (4, 6), levels=("SURF", "GP850"))
        data = builder.prepare_batch(
            {"SURF": torch.zeros(2, 6, 1), "GP850": torch.zeros(2, 6, 5)}
        )
        assert data["SURF"].x.shape == (12, 1)
        assert data["GP850"].x.shape == (12, 5)

    def test_a_batch_is_the_disjoint_union_of_its_graphs(self):
        static = torch.randn(2, 4, 6)
        builder = HeteroGraphBuilder((2, 3), (4, 6), static_features=static)
        features = torch.randn(3, 6, 2)
        data = builder.prepare_batch({"GP850": features})
        one = builder.build_template()
        for key in builder.edge_types:
            static_shift = 0 if key[0] == "SP_HR" else 6
            expected = [
                (a + b * static_shift, c + b * 6)
                for b in range(3)
                for a, c in pairs(one[key].edge_index)
            ]
            assert pairs(data[key].edge_index) == sorted(expected)
        assert data["GP850"].batch.tolist() == [0] * 6 + [1] * 6 + [2] * 6
        assert torch.equal(data["GP850"].x[6:12], features[1])
        assert torch.equal(data["SP_HR"].x, builder.hr_grid_to_nodes(static))

    def test_plain_mappings_hold_what_a_batch_holds(self):
        static = torch.randn(2, 4, 6)
        builder = HeteroGraphBuilder(
            (2, 3), (4, 6), levels=["SURF", "GP850"], static_features=static
        )
        features = {"SURF": torch.randn(3, 6, 2), "GP850": torch.randn(3, 6, 1)}
        data = builder.prepare_batch(features)
        x, edges = builder.prepare_inputs(features)
        assert set(x) == {"SURF", "GP850", "SP_HR"}
        assert all(torch.equal(x[name], data[name].x) for name in x)
        assert set(edges) == set(data.edge_types) == set(builder.edge_types)
        assert all(torch.equal(edges[key], data[key].edge_index) for key in edges)
        with pytest.raises(InputError, match="needs features"):
            builder.prepare_inputs({})

    def test_batch_sizes_may_alternate_beyond_the_cache(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6))
        for size in (1, 2, 3, 4, 5, 6, 2, 1):
            data = builder.prepare_batch({"GP850": torch.zeros(size, 6, 1)})
            assert data["GP850", "vert_adj", "GP500"].edge_index.shape == (2, 6 * size)
        assert len(builder._batches) == 4

    def test_grid_and_nodes_are_inverse(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6))
        grid = torch.randn(5, 4, 6)
        nodes = builder.hr_grid_to_nodes(grid)
        assert torch.equal(nodes[1 * 6 + 2], grid[:, 1, 2])
        assert torch.equal(builder.hr_nodes_to_grid(nodes), grid)
        last = builder.hr_nodes_to_grid(nodes, channel_last=True)
        assert torch.equal(builder.hr_grid_to_nodes(last, channel_last=True), nodes)
        coarse = torch.randn(5, 2, 3)
        assert torch.equal(
            builder.lr_grid_to_nodes(coarse),
            builder.lr_grid_to_nodes(coarse.permute(1, 2, 0), channel_last=True),
        )

    def test_expansion_repeats_the_parent(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6))
        fine = builder.expand_lr_nodes_to_hr(torch.arange(6.0)[:, None])
        expected = np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2)))
        assert np.array_equal(fine.reshape(4, 6), expected)

    def test_wrong_features(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6), include_mid_layer=False)
        with pytest.raises(KeyError, match="GP500"):
            builder.prepare_step_data({"GP500": torch.zeros(6, 1)})
        with pytest.raises(MissingVariableError, match="one of GP850"):
            builder.prepare_batch({"SP_HR": torch.zeros(1, 24, 1)})
        with pytest.raises(ValueError, match="wrong shape"):
            builder.prepare_step_data({"GP850": torch.zeros(5, 1)})
        with pytest.raises(InputError, match="wrong shape"):
            builder.prepare_batch({"GP850": torch.zeros(2, 5, 1)})
        with pytest.raises(InputError, match="needs features"):
            builder.prepare_batch({})
        with pytest.raises(InputError, match="wrong shape"):
            builder.hr_nodes_to_grid(torch.zeros(6, 1))
        with pytest.raises(InputError, match="wrong shape"):
            builder.expand_lr_nodes_to_hr(torch.zeros(24, 1))
        with pytest.raises(InputError, match="wrong shape"):
            builder.lr_grid_to_nodes(torch.zeros(2, 3))

    def test_batches_of_different_size(self):
        builder = HeteroGraphBuilder((2, 3), (4, 6))
        with pytest.raises(InputError, match="GP500"):
            builder.prepare_batch(
                {"GP850": torch.zeros(2, 6, 1), "GP500": torch.zeros(3, 6, 1)}
            )


class TestStaticFields:
    @pytest.fixture
    def dataset(self):
        rng = np.random.default_rng(0)
        height = rng.normal(500.0, 300.0, (4, 6))
        height[0, 0] = np.nan
        return xr.Dataset(
            {
                "height": (("time", "lat", "lon"), height[None]),
                "soil": (("layer", "lat", "lon"), rng.normal(size=(3, 4, 6))),
                "flat": (("lat", "lon"), np.full((4, 6), 7.0)),
                "lat_bnds": (("lat", "bnds"), np.zeros((4, 2))),
                "coarse": (("y", "x"), np.zeros((2, 3))),
            }
        )

    def test_d39_level_axes_scaling_and_missing_values(self, dataset, caplog):
        # D39: static fields with a level axis crashed, NaN stayed, [] was not a choice.
        with caplog.at_level(logging.WARNING):
            builder = HeteroGraphBuilder((2, 3), (4, 6), static_dataset=dataset)
        x = builder.build_template()["SP_HR"].x
        assert x.shape == (24, 5)  # height, three soil layers, flat
        assert torch.isfinite(x).all()
        assert x[0, 0] == 0.0
        torch.testing.assert_close(x.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
        torch.testing.assert_close(x[:, 1:4].std(0, correction=0), torch.ones(3))
        torch.testing.assert_close(x[1:, 0].std(correction=0), torch.tensor(1.0))
        assert x[:, 4].abs().max() == 0.0
        assert "coarse" in caplog.text
        assert "lat_bnds" not in caplog.text
        assert builder.static_node_types == ["SP_HR"]

    def test_d39_an_empty_list_selects_none(self, dataset):
        # D39: static fields with a level axis crashed, NaN stayed, [] was not a choice.
        builder = HeteroGraphBuilder(
            (2, 3), (4, 6), static_dataset=dataset, static_variables=[]
        )
        assert builder.build_template()["SP_HR"].x.shape == (24, 0)

    def test_a_listed_order_is_kept(self, dataset):
        builder = HeteroGraphBuilder(
            (2, 3), (4, 6), static_dataset=dataset, static_variables=["flat", "height"]
        )
        x = builder.build_template()["SP_HR"].x
        assert x[:, 0].abs().max() == 0.0
        assert x[:, 1].abs().max() > 0.0

    def test_an_unknown_variable(self, dataset):
        with pytest.raises(KeyError, match=r"slope[\s\S]*height"):
            HeteroGraphBuilder(
                (2, 3), (4, 6), static_dataset=dataset, static_variables=["slope"]
            )

    def test_ready_features_on_another_grid(self):
        with pytest.raises(InputError, match="wrong shape"):
            HeteroGraphBuilder((2, 3), (4, 6), static_features=torch.zeros(1, 6, 4))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"lr_shape": (2,)},
        {"hr_shape": (4, 6, 1)},
        {"lr_shape": (0, 3)},
        {"neighbours": 4},
        {"levels": []},
        {"levels": ["GP850", "GP850"]},
        {"levels": ["GP850", "SP_HR"]},
    ],
)
def test_invalid_options(kwargs):
    options = {"lr_shape": (2, 3), "hr_shape": (4, 6), **kwargs}
    with pytest.raises(ConfigError):
        HeteroGraphBuilder(**options)
    assert issubclass(ConfigError, ValueError)


def test_edges_off_the_grid_are_refused():
    builder = HeteroGraphBuilder((2, 3), (4, 6))
    builder._parent = builder._parent + 1
    with pytest.raises(ValueError, match="leaves the grid"):
        builder._build_edges()


@pytest.mark.parametrize(
    "options",
    [{"lr_shape": (4.5, 5)}, {"hr_shape": (9, float("nan"))}, {"levels": "GP850"}],
)
def test_sizes_and_levels_are_taken_literally(options):
    """Half a row was dropped; a single name was taken for five levels."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        HeteroGraphBuilder(**{"lr_shape": (4, 5), "hr_shape": (9, 11)} | options)
