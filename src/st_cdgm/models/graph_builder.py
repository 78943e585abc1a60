"""Heterogeneous graph of coarse pressure levels and fine static cells.

Node index of cell (row i, column j) is ``i * width + j``. Relations:

``spat_adj``
    Between touching cells of one level, both ways.
``vert_adj``
    Between the same cell of adjacent levels, both ways.
``causes``
    From each fine cell to the coarse cell nearest to it, on every level.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree
from torch import Tensor
from torch_geometric.data import HeteroData

from st_cdgm.errors import (
    ConfigError,
    InputError,
    MissingVariableError,
    check_choice,
)
from st_cdgm.models.convolutions import EdgeType
from st_cdgm.models.grid_edges import (
    NEIGHBOURS,
    check_grid_shape,
    count_far_cells,
    covering_cell,
    grid_edges,
    grid_to_nodes,
    unit_vectors,
)
from st_cdgm.models.stacked import check_shape
from st_cdgm.models.static_fields import read_static

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger(__name__)

STATIC_NODE = "SP_HR"
UPPER_LEVELS = ("GP850", "GP500", "GP250")
CACHED_BATCHES = 4


@dataclass(frozen=True)
class GraphBuildReport:
    """Sizes of a graph.

    Attributes
    ----------
    num_nodes_lr, num_nodes_hr : dict of str to int
        Nodes per dynamic and per static node type.
    edges_spatial : dict of str to int
        Edges per level, ``GP850``.
    edges_vertical : dict of str to int
        Edges per pair of levels, both directions together, ``GP850↔GP500``.
    edges_static : dict of str to int
        Edges per pair, ``SP_HR→GP850``.
    hr_to_lr_parent : list of int
        Coarse node of each fine cell, length N_hr.
    """

    num_nodes_lr: dict[str, int]
    num_nodes_hr: dict[str, int]
    edges_spatial: dict[str, int]
    edges_vertical: dict[str, int]
    edges_static: dict[str, int]
    hr_to_lr_parent: list[int] = field(repr=False)


@dataclass(frozen=True)
class _Edges:
    """Edges of B stacked graphs on one device; static nodes are shared by all."""

    index: dict[EdgeType, Tensor]
    node_batch: Tensor
    static_x: Tensor
    static_batch: Tensor


class HeteroGraphBuilder:
    """Build the graph once and fill it with each day's features.

    Parameters
    ----------
    lr_shape, hr_shape : sequence of int
        Rows and columns of the coarse and the fine grid.
    static_dataset : xarray.Dataset, optional
        Static fine fields, one feature per variable and level, standardised, NaN set to
        the mean. Fields not on the fine grid are skipped.
    static_variables : sequence of str, optional
        Which of them; all but cell bounds when absent, none when empty.
    include_mid_layer : bool
        Levels ``GP850, GP500, GP250``; without it ``GP850`` alone.
    levels : sequence of str, optional
        Dynamic node types, bottom-up, for instance ``("SURF", "GP1000", "GP850")``;
        overrides ``include_mid_layer``.
    lr_lat, lr_lon, hr_lat, hr_lon : array-like, optional
        Degrees, 1-D or 2-D, all four or none. With them the parent of a fine cell is
        the coarse cell nearest on the sphere; without, the one that covers the same
        share of the index range.
    static_features : Tensor, optional
        Static fields ready for use, instead of ``static_dataset``.
        Shape ``(C_s, Y, X)``.
    neighbours : int
        8 touching cells, or 16: also the eight knight's moves.
    wrap : bool
        Join the first and the last column (a global grid).

    Raises
    ------
    ConfigError
        A shape, level or option is not valid, or the coordinates are incomplete.
    MissingVariableError
        A listed static variable is absent.
    InputError
        Coordinates or static features do not fit the grid.
    """

    def __init__(
        self,
        lr_shape: Sequence[int],
        hr_shape: Sequence[int],
        *,
        static_dataset: xr.Dataset | None = None,
        static_variables: Sequence[str] | None = None,
        include_mid_layer: bool = True,
        levels: Sequence[str] | None = None,
        lr_lat: ArrayLike | None = None,
        lr_lon: ArrayLike | None = None,
        hr_lat: ArrayLike | None = None,
        hr_lon: ArrayLike | None = None,
        static_features: Tensor | None = None,
        neighbours: int = 8,
        wrap: bool = False,
    ) -> None:
        self.lr_shape = check_grid_shape("lr_shape", lr_shape)
        self.hr_shape = check_grid_shape("hr_shape", hr_shape)
        self.num_nodes_lr = self.lr_shape[0] * self.lr_shape[1]
        self.num_nodes_hr = self.hr_shape[0] * self.hr_shape[1]
        self.include_mid_layer = include_mid_layer
        self.dynamic_node_types = _check_levels(levels, include_mid_layer)
        self.static_node_types = [STATIC_NODE]
        check_choice("neighbours", f"{neighbours}", ("8", "16"), section="")
        self.neighbours, self.wrap = neighbours, wrap
        self._parent = self._build_parent(lr_lat, lr_lon, hr_lat, hr_lon)

        if static_features is None:
            static_features = read_static(
                static_dataset, static_variables, self.hr_shape
            )
        self._static_x = self.hr_grid_to_nodes(static_features)  # (N_hr, C_s)
        self._edge_index = self._build_edges()
        self._batches: OrderedDict[tuple[int, str], _Edges] = OrderedDict()

    @property
    def edge_types(self) -> list[EdgeType]:
        """All meta-paths of the graph."""
        return list(self._edge_index)

    # -- building ---------------------------------------------------------------------

    def _build_parent(self, *coordinates: ArrayLike | None) -> Tensor:
        given = [value is not None for value in coordinates]
        if not any(given):
            rows, cols = map(covering_cell, self.lr_shape, self.hr_shape)
            return torch.from_numpy((rows[:, None] * self.lr_shape[1] + cols).ravel())
        if not all(given):
            raise ConfigError(
                "nearest parents need the coordinates of both grids",
                found=f"lr_lat, lr_lon, hr_lat, hr_lon given: {given}",
                expected="all four, or none",
            )
        lr_lat, lr_lon, hr_lat, hr_lon = (np.asarray(c, float) for c in coordinates)
        source = unit_vectors("coarse", lr_lat, lr_lon, self.lr_shape)
        target = unit_vectors("fine", hr_lat, hr_lon, self.hr_shape)
        # The chord grows with the great-circle distance: both have the same nearest.
        parent = np.asarray(cKDTree(source).query(target)[1], dtype=np.int64)
        far = count_far_cells(source, target, parent, self.lr_shape)
        if far:
            logger.warning(
                "%d of %d fine cells lie outside the coarse grid; each is given the "
                "nearest coarse cell at its border",
                far,
                len(parent),
            )
        return torch.from_numpy(parent)

    def _build_edges(self) -> dict[EdgeType, Tensor]:
        ring = torch.from_numpy(
            grid_edges(self.lr_shape, NEIGHBOURS[self.neighbours], wrap=self.wrap)
        )
        same = torch.arange(self.num_nodes_lr).repeat(2, 1)
        below = torch.stack([torch.arange(self.num_nodes_hr), self._parent])
        low, high = int(self._parent.min()), int(self._parent.max())
        if low < 0 or high >= self.num_nodes_lr:
            raise InputError(
                "an edge from a fine cell leaves the grid",
                found=f"{low} .. {high}",
                expected=f"0 .. {self.num_nodes_lr - 1}",
            )

        levels = self.dynamic_node_types
        edges: dict[EdgeType, Tensor] = {(k, "spat_adj", k): ring for k in levels}
        for lower, upper in pairwise(levels):
            edges[lower, "vert_adj", upper] = edges[upper, "vert_adj", lower] = same
        return edges | {(STATIC_NODE, "causes", k): below for k in levels}

    # -- graphs -----------------------------------------------------------------------

    def build(self) -> tuple[HeteroData, GraphBuildReport]:
        """Return the graph without dynamic features, and its report."""
        return self.build_template(), self.get_report()

    def build_template(self) -> HeteroData:
        """Return a copy of the graph that shares nothing with the builder."""
        return self._graph(self._edges_for(1, torch.device("cpu"))).clone()

    def get_report(self) -> GraphBuildReport:
        """Return the sizes of the graph."""
        levels = self.dynamic_node_types
        size = {key: int(index.shape[1]) for key, index in self._edge_index.items()}

        return GraphBuildReport(
            num_nodes_lr=dict.fromkeys(levels, self.num_nodes_lr),
            num_nodes_hr={STATIC_NODE: self.num_nodes_hr},
            edges_spatial={k: size[k, "spat_adj", k] for k in levels},
            edges_vertical={
                f"{a}↔{b}": size[a, "vert_adj", b] + size[b, "vert_adj", a]
                for a, b in pairwise(levels)
            },
            edges_static={
                f"{STATIC_NODE}→{k}": size[STATIC_NODE, "causes", k] for k in levels
            },
            hr_to_lr_parent=self._parent.tolist(),
        )

    def prepare_step_data(
        self, features: Mapping[str, Tensor], *, clone_template: bool = False
    ) -> HeteroData:
        """Return the graph of one day, of its own: earlier graphs do not change.

        Parameters
        ----------
        features : mapping of str to Tensor
            Node type -> features, copied. Shape ``(N_lr, F)``.
        clone_template : bool
            Copy the (never changed) edges as well.

        Raises
        ------
        MissingVariableError
            Unknown node type.
        InputError
            Wrong number of nodes.
        """
        device = next((x.device for x in features.values()), torch.device("cpu"))
        data = self._graph(self._edges_for(1, device))
        if clone_template:
            data = data.clone()
        return self.inject_dynamic_features(
            data, {name: x.clone() for name, x in features.items()}
        )

    def inject_dynamic_features(
        self, data: HeteroData, features: Mapping[str, Tensor]
    ) -> HeteroData:
        """Set ``x`` of dynamic node types in ``data``, and return it.

        Raises
        ------
        MissingVariableError, InputError
            As `prepare_step_data`.
        """
        self._check_features(features)
        for name, x in features.items():
            data[name].x = x
        return data

    def prepare_batch(self, features: Mapping[str, Tensor]) -> HeteroData:
        """Return B graphs side by side; the nodes of graph b are ``b*N .. (b+1)*N-1``.

        The static nodes are the same for all graphs and are not repeated: their edges
        lead to the nodes of every graph.

        Parameters
        ----------
        features : mapping of str to Tensor
            Node type -> features. Shape ``(B, N_lr, F)``.

        Returns
        -------
        HeteroData
            ``x`` of shape ``(B * N_lr, F)`` on the features' device.

        Raises
        ------
        MissingVariableError
            Unknown node type.
        InputError
            No features, wrong number of nodes, or batch sizes differ.
        """
        size, device = self._check_batch(features)
        data = self._graph(self._edges_for(size, device))
        for name, x in features.items():
            data[name].x = x.flatten(0, 1)
        return data

    def prepare_inputs(
        self, features: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[EdgeType, Tensor]]:
        """Return ``x`` and edges of `prepare_batch` as plain mappings.

        For `IntelligibleVariableEncoder.encode` inside ``torch.compile``, which does
        not see through the making of a ``HeteroData``.
        """
        size, device = self._check_batch(features)
        edges = self._edges_for(size, device)
        x = {name: value.flatten(0, 1) for name, value in features.items()}
        return {**x, STATIC_NODE: edges.static_x}, edges.index

    def _check_batch(self, features: Mapping[str, Tensor]) -> tuple[int, torch.device]:
        """Return the number of graphs and the device of checked features."""
        if not features:
            raise InputError("a batch of graphs needs features", found=0)
        first = next(iter(features.values()))
        size = first.shape[0]
        self._check_features(features, size)
        return size, first.device

    def _check_features(self, features: Mapping[str, Tensor], *batch: int) -> None:
        """Raise unless these are features ``(*batch, N_lr, F)`` of dynamic nodes."""
        for name, x in features.items():
            if name not in self.dynamic_node_types:
                raise MissingVariableError(
                    "the graph has no such dynamic node type",
                    variable=name,
                    expected="one of " + ", ".join(self.dynamic_node_types),
                )
            check_shape(f"features of {name}", x, (*batch, self.num_nodes_lr, None))

    def _edges_for(self, size: int, device: torch.device) -> _Edges:
        """Return the edges of ``size`` stacked graphs, from a small cache."""
        key = (size, str(device))
        if key not in self._batches:
            self._batches[key] = self._offset_edges(size, device)
            if len(self._batches) > CACHED_BATCHES:
                self._batches.popitem(last=False)
        self._batches.move_to_end(key)
        return self._batches[key]

    def _offset_edges(self, size: int, device: torch.device) -> _Edges:
        shift = torch.arange(size)[:, None] * self.num_nodes_lr  # (B, 1)
        stacked: dict[int, Tensor] = {}  # the levels share their edges
        for (node, _, _), index in self._edge_index.items():
            if id(index) not in stacked:
                source = index[0] if node == STATIC_NODE else index[0] + shift
                ends = source.expand(size, -1).flatten(), (index[1] + shift).flatten()
                stacked[id(index)] = torch.stack(ends).to(device)

        return _Edges(
            index={key: stacked[id(index)] for key, index in self._edge_index.items()},
            node_batch=torch.arange(size, device=device).repeat_interleave(
                self.num_nodes_lr
            ),
            static_x=self._static_x.to(device),
            static_batch=torch.zeros(
                self.num_nodes_hr, dtype=torch.long, device=device
            ),
        )

    def _graph(self, edges: _Edges) -> HeteroData:
        data = HeteroData()
        for name in self.dynamic_node_types:
            data[name].num_nodes = len(edges.node_batch)
            data[name].batch = edges.node_batch
        data[STATIC_NODE].x = edges.static_x
        data[STATIC_NODE].batch = edges.static_batch
        for key, index in edges.index.items():
            data[key].edge_index = index
        return data

    # -- grids and nodes --------------------------------------------------------------

    def get_hr_to_lr_parent_index(self) -> Tensor:
        """Return the coarse node of each fine cell. Shape ``(N_hr,)``, int64."""
        return self._parent.clone()

    def lr_grid_to_nodes(self, grid: Tensor, *, channel_last: bool = False) -> Tensor:
        """Flatten ``(C, y, x)``, or ``(y, x, C)``, to ``(N_lr, C)``."""
        return grid_to_nodes(grid, self.lr_shape, channel_last=channel_last)

    def hr_grid_to_nodes(self, grid: Tensor, *, channel_last: bool = False) -> Tensor:
        """Flatten ``(C, Y, X)``, or ``(Y, X, C)``, to ``(N_hr, C)``."""
        return grid_to_nodes(grid, self.hr_shape, channel_last=channel_last)

    def hr_nodes_to_grid(self, nodes: Tensor, *, channel_last: bool = False) -> Tensor:
        """Unflatten ``(N_hr, C)`` to ``(C, Y, X)``, or ``(Y, X, C)``."""
        check_shape("fine nodes", nodes, (self.num_nodes_hr, None))
        grid = nodes.reshape(*self.hr_shape, nodes.shape[1])  # (Y, X, C)
        return grid if channel_last else grid.permute(2, 0, 1)

    def expand_lr_nodes_to_hr(self, lr_nodes: Tensor) -> Tensor:
        """Give each fine cell its parent's features: ``(N_lr, C)`` -> ``(N_hr, C)``."""
        check_shape("coarse nodes", lr_nodes, (self.num_nodes_lr, None))
        return lr_nodes[self._parent.to(lr_nodes.device)]


def _check_levels(levels: Sequence[str] | None, include_mid_layer: bool) -> list[str]:
    if levels is None:
        return list(UPPER_LEVELS if include_mid_layer else UPPER_LEVELS[:1])
    # A string is a sequence of letters: it would make one level of each.
    names = [] if isinstance(levels, str) else list(levels)
    if not names or len(set(names)) != len(names) or STATIC_NODE in names:
        raise ConfigError(
            "levels are one or more different dynamic node types",
            variable="levels",
            found=levels,
            expected=f"distinct names other than {STATIC_NODE}, bottom-up",
        )
    return names
