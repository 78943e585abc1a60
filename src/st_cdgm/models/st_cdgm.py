"""The assembled model: predictors -> graph -> causal states -> generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from st_cdgm.errors import ConfigError
from st_cdgm.models.causal_rcn import RCNCell
from st_cdgm.models.conditioning import Conditioning, SpatialConditioner, context_maps
from st_cdgm.models.config import MetaPathConfig, ModelConfig
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.models.declared import check_declared
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
from st_cdgm.models.graph_builder import STATIC_NODE, HeteroGraphBuilder
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder
from st_cdgm.models.linear_path import LinearPath


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """What the model must know of the data before it is built.

    Attributes
    ----------
    groups : mapping of str to list of int
        Node type -> predictor channels of that level, bottom-up.
    lr_shape, hr_shape : tuple of int
        Coarse and fine grid.
    target_channels : int
        C.
    static : Tensor
        Standardised static fields. Shape ``(C_s, Y, X)``.
    index, weight : Tensor
        Interpolation from coarse to fine. Shape ``(Y*X, K)``.
    parent : Tensor
        Nearest coarse node of each fine cell. Shape ``(Y*X,)``.
    lr_lat, lr_lon, hr_lat, hr_lon : Tensor
        Coordinates in degrees, 2-D.
    baseline_mean, baseline_std : Tensor
        Of the encoded baseline in the training period. Shape ``(C,)``.
    history : int
        Days of a window that the linear path sees: 2, or 1 where windows are a day.
    """

    groups: Mapping[str, Sequence[int]]
    lr_shape: tuple[int, int]
    hr_shape: tuple[int, int]
    target_channels: int
    static: Tensor
    index: Tensor
    weight: Tensor
    parent: Tensor
    lr_lat: Tensor
    lr_lon: Tensor
    hr_lat: Tensor
    hr_lon: Tensor
    baseline_mean: Tensor
    baseline_std: Tensor
    history: int = 1


@dataclass(frozen=True)
class CausalRollout:
    """Causal states of a batch of windows.

    Attributes
    ----------
    state : Tensor
        After the last day. Shape ``(Q, B*N, H)``.
    predicted : Tensor or None
        Drivers of days 2..T as predicted from a variable's own and its parents' past.
        Shape ``(T-1, Q, B*N, D)``; None for windows of one day.
    drivers : Tensor
        The drivers themselves. Shape ``(T, Q, B*N, D)``.
    lr : Tensor
        The windows. Shape ``(B, T, C, y, x)``.
    """

    state: Tensor
    predicted: Tensor | None
    drivers: Tensor
    lr: Tensor


def default_metapaths(groups: Sequence[str], *, static: bool) -> list[MetaPathConfig]:
    """One intelligible variable per level, and one for the static fields.

    A variable stands for the source of its meta-path; with one variable per source the
    edges between variables are statements about sources.
    """
    paths = [
        MetaPathConfig(
            name="surface" if g == "SURF" else f"level_{g.removeprefix('GP')}",
            src=g,
            relation="spat_adj",
            target=g,
        )
        for g in groups
    ]
    if static:
        paths.append(
            MetaPathConfig(
                name="terrain", src=STATIC_NODE, relation="causes", target=groups[0]
            )
        )

    return paths


class STCDGM(nn.Module):
    """Spatio-temporal causal diffusion model for downscaling.

    A window of T days of predictors drives a recurrent causal network over Q
    intelligible variables on the coarse nodes; its state on the last day conditions the
    generator of that day's standardised fine-scale residual.

    Parameters
    ----------
    inputs : ModelInputs
        Grids, channels and static fields of the training data.
    config : ModelConfig
        Sizes and choices.

    Raises
    ------
    ConfigError
        A meta-path names a node type that the data do not have; a size that the
        configuration states is another one.
    """

    baseline_mean: Tensor
    baseline_std: Tensor
    static: Tensor
    static_driver: Tensor
    gather: Tensor
    gather_mask: Tensor
    gates: Tensor

    def __init__(self, inputs: ModelInputs, config: ModelConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.lr_shape, self.hr_shape = inputs.lr_shape, inputs.hr_shape
        self.groups = {name: list(index) for name, index in inputs.groups.items()}
        has_static = inputs.static.shape[0] > 0
        self.metapaths = config.encoder.metapaths or default_metapaths(
            list(self.groups), static=has_static
        )
        self._check_metapaths(has_static)
        self.names = [path.name for path in self.metapaths]

        self.register_buffer("static", inputs.static.float())
        shape = (-1, 1, 1)
        self.register_buffer("baseline_mean", inputs.baseline_mean.float().view(shape))
        self.register_buffer("baseline_std", inputs.baseline_std.float().view(shape))
        self._register_drivers(inputs)
        # Only now the sizes are known that a configuration may state.
        check_declared(
            config,
            lr_shape=inputs.lr_shape,
            hr_shape=inputs.hr_shape,
            target_channels=inputs.target_channels,
            groups=list(self.groups),
            driver_dim=self.driver_dim,
        )
        self._build_causal_part(inputs)
        self._build_generator(inputs)

    @property
    def num_vars(self) -> int:
        """Number Q of intelligible variables."""
        return len(self.metapaths)

    @property
    def sources(self) -> list[str]:
        """Source node type of each intelligible variable."""
        return [path.src for path in self.metapaths]

    def _check_metapaths(self, has_static: bool) -> None:
        known = [*self.groups, *([STATIC_NODE] if has_static else [])]
        for path in self.metapaths:
            missing = {path.src, path.target} - set(known)
            if missing:
                raise ConfigError(
                    f"meta-path {path.name!r} names a node type the data do not have",
                    found=", ".join(sorted(missing)),
                    expected="one of " + ", ".join(known),
                    remedy="correct encoder.metapaths, or leave it empty for one "
                    "variable per level",
                )

    def _register_drivers(self, inputs: ModelInputs) -> None:
        """Prepare the gathering of each variable's own channels into (Q, ..., D)."""
        nodes = self.lr_shape[0] * self.lr_shape[1]
        every = sorted(c for group in self.groups.values() for c in group)
        own = [
            every if self.config.rcn.driver_scope == "all" else self.groups.get(src, [])
            for src in self.sources
        ]

        # The static fields of a coarse node are the mean of its fine cells.
        parent = inputs.parent.long()
        count = torch.bincount(parent, minlength=nodes).clamp(min=1)
        static_mean = torch.zeros(nodes, inputs.static.shape[0]).index_add_(
            0, parent, inputs.static.float().flatten(1).T
        )
        static_mean = static_mean / count[:, None]  # (N, C_s)

        width = max([len(c) for c in own] + [static_mean.shape[1], 1])
        gather = torch.zeros(self.num_vars, width, dtype=torch.long)
        mask = torch.zeros(self.num_vars, width)
        static_driver = torch.zeros(self.num_vars, nodes, width)
        for k, channels in enumerate(own):
            gather[k, : len(channels)] = torch.tensor(channels, dtype=torch.long)
            mask[k, : len(channels)] = 1.0
            if self.sources[k] == STATIC_NODE and not channels:
                static_driver[k, :, : static_mean.shape[1]] = static_mean

        self.driver_dim = width
        self.register_buffer("gather", gather)
        self.register_buffer("gather_mask", mask)
        self.register_buffer("static_driver", static_driver)

    def _build_causal_part(self, inputs: ModelInputs) -> None:
        enc, rcn = self.config.encoder, self.config.rcn
        self.builder = HeteroGraphBuilder(
            self.lr_shape,
            self.hr_shape,
            levels=list(self.groups),
            lr_lat=inputs.lr_lat,
            lr_lon=inputs.lr_lon,
            hr_lat=inputs.hr_lat,
            hr_lon=inputs.hr_lon,
            static_features=inputs.static.float(),
            neighbours=self.config.graph.neighbours,
            wrap=self.config.graph.wrap,
        )
        in_channels = {name: len(index) for name, index in self.groups.items()}
        in_channels[STATIC_NODE] = inputs.static.shape[0]
        self.encoder = IntelligibleVariableEncoder(
            [
                IntelligibleVariableConfig(
                    p.name, (p.src, p.relation, p.target), pool=p.pool
                )
                for p in self.metapaths
            ],
            enc.hidden_dim,
            conditioning_dim=enc.conditioning_dim,
            in_channels=in_channels,
        )
        self.cell = RCNCell(
            self.num_vars,
            enc.hidden_dim,
            self.driver_dim,
            reconstruction_dim=self.driver_dim,
            dropout=rcn.dropout,
        )
        self.cell.restrict_edges(self._allowed_edges())

        # A level that drives no target does not reach the generator.
        known = rcn.conditioning
        opened = [known is None or s in (*known, STATIC_NODE) for s in self.sources]
        self.register_buffer("gates", torch.tensor(opened), persistent=False)

    def _allowed_edges(self) -> Tensor:
        """Return which variable may act on which, ``[i, k]``, bool."""
        parents = self.config.rcn.parents
        keep = torch.ones(self.num_vars, self.num_vars, dtype=torch.bool)
        for k, target in enumerate(self.sources):
            # Nothing in the atmosphere causes a field that does not change.
            if target == STATIC_NODE:
                keep[:, k] = False
            elif parents is not None:
                allowed = (*parents.get(target, ()), target, STATIC_NODE)
                keep[:, k] = torch.tensor([s in allowed for s in self.sources])
        return keep

    def _build_generator(self, inputs: ModelInputs) -> None:
        enc, diffusion = self.config.encoder, self.config.diffusion
        channels = inputs.target_channels
        self.conditioner = SpatialConditioner(
            self.num_vars,
            enc.hidden_dim,
            diffusion.spatial_channels,
            lr_shape=self.lr_shape,
            hr_shape=self.hr_shape,
            index=inputs.index,
            weight=inputs.weight,
        )

        context = 2 * channels + inputs.static.shape[0] + 2
        self.decoder = CausalDiffusionDecoder(
            channels,
            enc.conditioning_dim,
            *self.hr_shape,
            config=diffusion,
            spatial_channels=diffusion.spatial_channels + context,
        )

        # What is linear in the weather of the whole domain, beside the network.
        self.linear: LinearPath | None = None
        if diffusion.linear_components:
            coarse = sum(map(len, self.groups.values()))
            self.linear = LinearPath(
                diffusion.linear_components,
                inputs.history,
                coarse * self.lr_shape[0] * self.lr_shape[1],
                (channels, *self.hr_shape),
            )

    def drivers(self, lr: Tensor) -> Tensor:
        """Gather each variable's drivers. ``(B, T, C, y, x)`` -> ``(T, Q, B*N, D)``."""
        b, t, c = lr.shape[:3]
        nodes = lr.permute(1, 0, 3, 4, 2).reshape(t, -1, c)  # (T, B*N, C)
        own = nodes[:, :, self.gather] * self.gather_mask  # (T, B*N, Q, D)
        fixed = self.static_driver.repeat(1, b, 1)  # (Q, B*N, D)
        return own.permute(0, 2, 1, 3) + fixed

    def initial_state(self, lr: Tensor) -> Tensor:
        """Encode one day ``(B, C, y, x)`` as causal states ``(Q, B*N, H)``."""
        nodes = lr.flatten(2).permute(0, 2, 1)  # (B, N, C)
        # Plain tensors, not a graph object: torch.compile follows them in one graph.
        x, edges = self.builder.prepare_inputs(
            {name: nodes[:, :, index] for name, index in self.groups.items()}
        )
        return self.encoder.encode_state(x, edges)

    def rollout(self, lr: Tensor) -> CausalRollout:
        """Run the causal network over windows ``(B, T, C, y, x)``.

        The encoder reads the first day; the network is driven by days 2..T, so that no
        driver is predicted from a state that has already seen it.
        """
        drivers = self.drivers(lr)
        state = self.initial_state(lr[:, 0])
        predicted = []
        interval = self.config.rcn.detach_interval
        for t in range(1, lr.shape[1]):
            if interval and t % interval == 0:
                state = state.detach()
            state, reconstruction, _ = self.cell(state, drivers[t])
            predicted.append(reconstruction)

        stacked = torch.stack(predicted) if predicted else None
        return CausalRollout(state, stacked, drivers, lr)

    def condition(
        self,
        state: Tensor,
        *,
        baseline: Tensor,
        season: Tensor,
        valid: Tensor,
        lr: Tensor | None = None,
    ) -> Conditioning:
        """Make the generator's conditioning of one day per window.

        Parameters
        ----------
        state : Tensor
            Causal states. Shape ``(Q, B*N, H)``.
        baseline : Tensor
            Encoded baseline of the day. Shape ``(B, C, Y, X)``.
        season : Tensor
            Fraction of the year. Shape ``(B,)``.
        valid : Tensor
            Where the target exists. Shape ``(B, C, Y, X)``, bool.
        lr : Tensor, optional
            Predictors of the windows, for the linear path. Shape ``(B, T, C, y, x)``.
        """
        q, _, h = state.shape
        state = state * self.gates[:, None, None]
        per_window = state.reshape(q, len(baseline), -1, h).transpose(0, 1)
        standard = (baseline - self.baseline_mean) / self.baseline_std
        return Conditioning(
            tokens=self.encoder.project_state_tensor(per_window),
            state_maps=self.conditioner(state),
            context=context_maps(standard, self.static, season, valid),
            mean=None if self.linear is None or lr is None else self.linear(lr),
        )

    @property
    def possible_edges(self) -> int:
        """Number of edges the graph may have."""
        allowed = self.cell.edge_mask.clone().fill_diagonal_(False)
        return int(allowed.sum())

    def effective_dag(self) -> Tensor:
        """Return the learned matrix, ``A[i, k]``: i -> k. Shape ``(Q, Q)``."""
        matrix: Tensor = self.cell.effective_dag()
        return matrix
