"""Encoder of the intelligible variables: one graph convolution per meta-path.

Nothing is summed across meta-paths: every variable is a tensor of its own, also where
several share a target node type, or the learned graph between them would be arbitrary.
A variable stands for its meta-path's source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.data import HeteroData

from st_cdgm.errors import ConfigError, InputError, MissingVariableError
from st_cdgm.models.convolutions import (
    EdgeType,
    IntelligibleVariableConfig,
    build_convolution,
    check_pool,
    unsuitable_convolution,
)
from st_cdgm.models.stacked import check_shape, pool_nodes


class IntelligibleVariableEncoder(nn.Module):
    """Encode a heterogeneous graph as Q intelligible variables.

    ``H_k = act(norm_k(conv_k(x_source, x_target, edges_k)))``

    On a meta-path between two node types, a convolution that could also copy the
    target's own features (``root_weight``) does not, unless asked to: the variable
    stands for its source.

    Parameters
    ----------
    configs : sequence of IntelligibleVariableConfig
        The variables, in the order of Q.
    hidden_dim : int
        Width H.
    activation : nn.Module, optional
        ReLU when absent.
    use_layer_norm : bool
        Normalise each variable over H.
    default_pool : str
        Pooling of variables that name none.
    conditioning_dim : int, optional
        Width of a conditioning token; H when absent.
    in_channels : mapping of str to int, optional
        Number of features of each node type. When absent the first graph decides:
        encode one before counting, copying or optimising the parameters.

    Raises
    ------
    ConfigError
        No variable, a repeated name, an unknown pool or convolution, or one that cannot
        be built or does not map node features and edges alone to H values per node.
    MissingVariableError
        A meta-path names a node type without known features.

    References
    ----------
    Hamilton, Ying & Leskovec, Inductive representation learning on large graphs,
    arXiv:1706.02216 (SAGEConv).
    """

    def __init__(
        self,
        configs: Sequence[IntelligibleVariableConfig],
        hidden_dim: int,
        *,
        activation: nn.Module | None = None,
        use_layer_norm: bool = True,
        default_pool: str = "mean",
        conditioning_dim: int | None = None,
        in_channels: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.configs = list(configs)
        self.hidden_dim = hidden_dim
        self.conditioning_dim = conditioning_dim or hidden_dim
        self.default_pool = check_pool(default_pool)
        self.pools = [check_pool(c.pool or default_pool) for c in self.configs]
        if not self.configs or len(set(self.names)) != len(self.names):
            raise ConfigError(
                "the encoder needs one or more variables with different names",
                variable="configs",
                found=self.names,
                expected="at least one, all different",
            )

        # One convolution and one norm per variable: nothing is shared or summed.
        self.convolutions = nn.ModuleList(
            build_convolution(config, hidden_dim, in_channels)
            for config in self.configs
        )
        self._sized = in_channels is not None
        self.norms = nn.ModuleList(
            nn.LayerNorm(hidden_dim) if use_layer_norm else nn.Identity()
            for _ in self.configs
        )
        self.activation = activation if activation is not None else nn.ReLU()
        self.conditioning_projection = (
            nn.Identity()
            if self.conditioning_dim == hidden_dim
            else nn.Linear(hidden_dim, self.conditioning_dim)
        )

    @property
    def names(self) -> list[str]:
        """Names of the variables, in the order of Q."""
        return [config.name for config in self.configs]

    @property
    def sources(self) -> list[str]:
        """Source node type of each variable: what it stands for."""
        return [config.meta_path[0] for config in self.configs]

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for module in (*self.convolutions, *self.norms, self.conditioning_projection):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()

    def encode(
        self, x: Mapping[str, Tensor], edge_index: Mapping[EdgeType, Tensor]
    ) -> list[Tensor]:
        """Return each variable on its target nodes, from plain mappings.

        Parameters
        ----------
        x : mapping of str to Tensor
            Node type -> features. Shape ``(B * N, F)``.
        edge_index : mapping of tuple to Tensor
            Meta-path -> edges, int64. Shape ``(2, E)``.

        Returns
        -------
        list of Tensor
            Shape ``(B * N_target, H)`` each.

        Raises
        ------
        MissingVariableError
            The graph lacks a node type or meta-path.
        InputError
            A convolution of unknown input size gives another width than H.
        ConfigError
            A convolution of unknown input size has layers left without one.
        """
        out = []
        for config, conv, norm in zip(
            self.configs, self.convolutions, self.norms, strict=True
        ):
            source, _, target = config.meta_path
            _check_present(config, x, edge_index)
            edges = edge_index[config.meta_path]
            nodes = x[source] if source == target else (x[source], x[target])

            if self._sized:
                hidden = conv(nodes, edges)
            else:
                hidden = self._first_convolved(config, conv, nodes, edges)
            check_shape(f"variable {config.name!r}", hidden, (None, self.hidden_dim))
            out.append(self.activation(norm(hidden)))

        self._sized = True
        return out

    def _first_convolved(
        self,
        config: IntelligibleVariableConfig,
        conv: nn.Module,
        nodes: Tensor | tuple[Tensor, Tensor],
        edges: Tensor,
    ) -> Tensor:
        """Apply a convolution to the first graph, which gives all layers a size."""
        try:
            first: Tensor = conv(nodes, edges)
        except Exception as error:  # whatever a foreign layer meets without its inputs
            raise unsuitable_convolution(
                config, conv, str(error), self.hidden_dim
            ) from error

        if any(map(is_lazy, conv.parameters())):
            raise ConfigError(
                f"the convolution of variable {config.name!r} has layers that the "
                "first graph does not reach",
                variable="in_channels",
                found="none",
                expected="number of features of each node type",
                remedy="give in_channels, so that all layers have a size",
            )
        return first

    def forward(self, data: HeteroData, *, pooled: bool = False) -> dict[str, Tensor]:
        """Return each variable by name.

        Parameters
        ----------
        data : HeteroData
            Graph, or several side by side.
        pooled : bool
            Pool over the nodes of each graph; a variable of pool ``none`` stays as is.

        Returns
        -------
        dict of str to Tensor
            Shape ``(B * N_target, H)``, pooled ``(B, H)``.
        """
        states = self.encode(data.x_dict, data.edge_index_dict)
        for k, pool in enumerate(self.pools if pooled else []):
            if pool != "none":
                store = data[self.configs[k].meta_path[2]]
                batch = getattr(store, "batch", None)
                states[k] = pool_nodes(states[k], batch, pool=pool)
        return dict(zip(self.names, states, strict=True))

    def init_state(self, data: HeteroData) -> Tensor:
        """Return H(0), the variables stacked. Shape ``(Q, B * N, H)``.

        Raises
        ------
        InputError
            The variables' target node types have different numbers of nodes.
        """
        return self.encode_state(data.x_dict, data.edge_index_dict)

    def encode_state(
        self, x: Mapping[str, Tensor], edge_index: Mapping[EdgeType, Tensor]
    ) -> Tensor:
        """Return what `init_state` returns, from plain mappings as `encode` takes."""
        states = self.encode(x, edge_index)
        counts = [state.shape[0] for state in states]
        if any(count != counts[0] for count in counts):
            raise InputError(
                "variables on different numbers of nodes make no common state",
                found=", ".join(
                    f"{config.name} on {config.meta_path[2]}: {count}"
                    for config, count in zip(self.configs, counts, strict=True)
                ),
                expected="targets with the same number of nodes",
                remedy="choose target node types of one grid",
            )
        return torch.stack(states)  # (Q, B*N, H)

    def pooled_state(self, data: HeteroData) -> Tensor:
        """Return the pooled variables. Shape ``(B, Q, H)``.

        Raises
        ------
        ConfigError
            A variable has pool ``none``.
        """
        if "none" in self.pools:
            raise ConfigError(
                "a variable without pooling has no pooled state",
                variable=self.names[self.pools.index("none")],
                found="none",
                expected="mean | max",
            )
        return torch.stack(list(self(data, pooled=True).values()), dim=1)

    def project_conditioning(self, data: HeteroData) -> Tensor:
        """Return conditioning tokens. Shape ``(B, Q, conditioning_dim)``."""
        tokens: Tensor = self.conditioning_projection(self.pooled_state(data))
        return tokens

    def project_state_tensor(
        self,
        state: Tensor,
        *,
        batch_index: Tensor | None = None,
        pool: str | None = None,
    ) -> Tensor:
        """Pool states over nodes and project them to conditioning tokens.

        Parameters
        ----------
        state : Tensor
            Shape ``(Q, N, H)`` or ``(B, Q, N, H)``.
        batch_index : Tensor, optional
            Graph of each node for a state ``(Q, N, H)``. Shape ``(N,)``, int64.
        pool : str, optional
            ``mean`` or ``max`` for all; each variable's own when absent (``none``
            counts as the mean here, where a token is asked for).

        Returns
        -------
        Tensor
            Shape ``(B, Q, conditioning_dim)``.

        Raises
        ------
        InputError
            Another rank, or a batch index with a batched state.
        """
        if state.dim() not in (3, 4) or (state.dim() == 4 and batch_index is not None):
            raise InputError(
                "the state to project has the wrong rank",
                found=tuple(state.shape),
                expected="(Q, N, H), with or without batch_index, or (B, Q, N, H)",
            )
        if state.shape[-3] != len(self.configs):
            raise InputError(
                "the state has another number of variables than the encoder",
                found=state.shape[-3],
                expected=len(self.configs),
            )

        # Variables that pool alike are pooled together.
        wanted = self.pools if pool is None else [check_pool(pool)] * state.shape[-3]
        methods = ["max" if p == "max" else "mean" for p in wanted]
        if len(set(methods)) == 1:
            pooled = pool_nodes(state, batch_index, pool=methods[0])  # (..., Q, G, H)
        else:
            parts = state.unbind(-3)
            pooled = torch.stack(
                [
                    pool_nodes(s, batch_index, pool=m)
                    for s, m in zip(parts, methods, strict=True)
                ],
                dim=-3,
            )
        grouped = pooled.squeeze(-2) if state.dim() == 4 else pooled.transpose(0, 1)
        tokens: Tensor = self.conditioning_projection(grouped)
        return tokens


def _check_present(
    config: IntelligibleVariableConfig,
    x: Mapping[str, Tensor],
    edge_index: Mapping[EdgeType, Tensor],
) -> None:
    source, _, target = config.meta_path
    if config.meta_path in edge_index and source in x and target in x:
        return
    edges = ", ".join("/".join(edge) for edge in edge_index)
    raise MissingVariableError(
        f"the graph has no meta-path for variable {config.name!r}",
        variable="/".join(config.meta_path),
        found=f"node types with features {', '.join(x)}; meta-paths {edges}",
        expected="its source and target with features, and its edges",
        remedy="add the level to the graph, or correct the variable's meta-path",
    )
