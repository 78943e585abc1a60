"""Graph convolutions of the encoder, built by class or name and tried out once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_geometric.nn as pyg_nn
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from st_cdgm.errors import ConfigError, MissingVariableError, check_choice

EdgeType = tuple[str, str, str]
POOLS = {"mean": "mean", "avg": "mean", "max": "max", "none": "none"}


@dataclass(frozen=True)
class IntelligibleVariableConfig:
    """One intelligible variable.

    Attributes
    ----------
    name : str
        Unique name.
    meta_path : tuple of str
        Source node type, relation, target node type.
    conv_class : type or str
        A convolution of ``torch_geometric.nn``, or its name.
    conv_kwargs : mapping, optional
        Further arguments of the convolution.
    pool : str, optional
        ``mean`` (``avg``), ``max`` or ``none``; the encoder's default when absent.
    """

    name: str
    meta_path: EdgeType
    conv_class: type[nn.Module] | str = SAGEConv
    conv_kwargs: Mapping[str, Any] | None = None
    pool: str | None = None


def check_pool(pool: str) -> str:
    """Return the plain name of a pooling, or say which there are."""
    check_choice("pool", pool, tuple(POOLS), section="")
    return POOLS[pool]


FROM_FIRST_GRAPH = -1  # PyG's mark for a size it takes from the first input


def build_convolution(
    config: IntelligibleVariableConfig,
    hidden_dim: int,
    in_channels: Mapping[str, int] | None,
) -> nn.Module:
    """Build the convolution of one variable.

    With known sizes it is tried out on three nodes, so that one that does not map node
    features and edges alone to ``(N, H)`` is refused here and not by the first batch.
    ``in_channels`` is the number of features of each node type, None: from the first
    graph.

    Raises
    ------
    ConfigError
        An unknown or unsuitable convolution, or arguments it does not take.
    MissingVariableError
        The meta-path names a node type without known features.
    """
    source, _, target = config.meta_path
    sizes = (FROM_FIRST_GRAPH, FROM_FIRST_GRAPH)
    if in_channels is not None:
        _check_features(config, in_channels)
        sizes = (in_channels[source], in_channels[target])
    conv_class = _convolution_class(config)
    accepted = inspect.signature(conv_class).parameters
    kwargs = _convolution_kwargs(config, accepted, hidden_dim)
    if "in_channels" in accepted:
        kwargs.setdefault("in_channels", sizes[0] if source == target else sizes)

    try:
        conv = conv_class(**kwargs)
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"the convolution of variable {config.name!r} cannot be built: {error}",
            variable="/".join(config.meta_path),
            found=f"{conv_class.__name__}({kwargs})",
            expected="arguments it accepts; between two node types, a convolution "
            "for bipartite graphs",
        ) from error
    if in_channels is not None:
        _try_out(config, conv, sizes, hidden_dim)
    return conv


def _check_features(
    config: IntelligibleVariableConfig, in_channels: Mapping[str, int]
) -> None:
    for node_type in (config.meta_path[0], config.meta_path[2]):
        if in_channels.get(node_type, 0) < 1:
            known = {name: size for name, size in in_channels.items() if size > 0}
            raise MissingVariableError(
                f"variable {config.name!r} needs a node type without known features",
                variable=node_type,
                found=f"{in_channels.get(node_type, 0)} features",
                expected="one of " + ", ".join(f"{n} ({f})" for n, f in known.items()),
                remedy="correct the meta-path, or provide the level or static fields",
            )


def _convolution_class(config: IntelligibleVariableConfig) -> type[nn.Module]:
    found: Any = config.conv_class
    if isinstance(found, str):
        found = getattr(pyg_nn, found, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ConfigError(
            f"variable {config.name!r} names an unknown convolution",
            variable="conv_class",
            found=config.conv_class,
            expected="a convolution of torch_geometric.nn",
        )
    return found


def _convolution_kwargs(
    config: IntelligibleVariableConfig, accepted: Mapping[str, Any], hidden_dim: int
) -> dict[str, Any]:
    kwargs = dict(config.conv_kwargs or {})
    source, _, target = config.meta_path
    refused = {"cached": "the edges of one batch do not fit the next"}
    # Between two node types a variable stands for its source alone.
    if source != target:
        for name in ("root_weight", "add_self_loops"):
            if name in accepted:
                kwargs.setdefault(name, False)
        refused["add_self_loops"] = "self-loops have no meaning between two node types"
    for name, reason in refused.items():
        if kwargs.get(name):
            raise ConfigError(
                f"variable {config.name!r}: {reason}",
                variable=name,
                found=True,
                expected=False,
            )

    heads = int(kwargs.get("heads", 1)) if kwargs.get("concat", True) else 1
    if hidden_dim % heads:
        raise ConfigError(
            f"variable {config.name!r}: the heads do not share H evenly",
            variable="heads",
            found=heads,
            expected=f"a divisor of {hidden_dim}, or concat: false",
        )
    if "out_channels" in accepted:
        kwargs.setdefault("out_channels", hidden_dim // heads)
    return kwargs


def _try_out(
    config: IntelligibleVariableConfig,
    conv: nn.Module,
    sizes: tuple[int, int],
    hidden_dim: int,
) -> None:
    """Apply a copy of the convolution to three nodes, as the encoder will."""
    trial = copy.deepcopy(conv).eval()
    edges = torch.tensor([[0, 1, 1], [1, 0, 2]])
    x: Any = torch.zeros(3, sizes[0])
    if config.meta_path[0] != config.meta_path[2]:
        x = (torch.zeros(2, sizes[0]), torch.zeros(3, sizes[1]))

    cause: Exception | None = None
    try:
        out: Any = trial(x, edges)
        if isinstance(out, Tensor) and out.shape == (3, hidden_dim):
            _freeze_unused(conv, trial, out)
            return
    except Exception as error:  # whatever a foreign layer meets without its inputs
        out, cause = str(error), error
    raise unsuitable_convolution(config, conv, out, hidden_dim) from cause


def _freeze_unused(conv: nn.Module, trial: nn.Module, out: Tensor) -> None:
    """Train no layer that the result does not depend on, such as a skip that is off.

    Distributed training waits for the gradient of every parameter that can have one.
    """
    if out.requires_grad:
        torch.autograd.backward(out.sum())
    for own, tried in zip(conv.parameters(), trial.parameters(), strict=True):
        own.requires_grad_(tried.grad is not None)


def unsuitable_convolution(
    config: IntelligibleVariableConfig,
    conv: nn.Module,
    out: Any,
    hidden_dim: int,
) -> ConfigError:
    """Return the error for a convolution that gave ``out``, a tensor or a message."""
    return ConfigError(
        f"the convolution of variable {config.name!r} does not map node features and "
        "edges to H values per node",
        variable="/".join(config.meta_path),
        found=f"{type(conv).__name__}: "
        + (f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else str(out)),
        expected=f"{hidden_dim} values for each node, from features and edges alone; "
        "between two node types, a convolution for bipartite graphs",
        remedy="choose another convolution (SAGEConv, GraphConv, GATv2Conv, "
        "TransformerConv), or correct conv_kwargs",
    )
