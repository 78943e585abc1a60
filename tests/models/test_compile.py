"""Encoder and recurrent causal network as one graph of the compiler."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from st_cdgm.models.causal_rcn import RCNCell, RCNSequenceRunner
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.models.graph_builder import HeteroGraphBuilder
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder

PATHS = {
    "surface": ("GP850", "spat_adj", "GP850"),
    "vertical": ("GP500", "vert_adj", "GP850"),
    "relief": ("SP_HR", "causes", "GP850"),
}
BATCH, STEPS, DRIVERS = 2, 3, 4


class Core(nn.Module):
    """From the features of the first day and all drivers to states and predictions."""

    def __init__(self, *, detach_interval=None, **options):
        super().__init__()
        torch.manual_seed(0)
        static = torch.randn(1, 6, 8)
        self.builder = HeteroGraphBuilder((3, 4), (6, 8), static_features=static)
        self.encoder = IntelligibleVariableEncoder(
            [IntelligibleVariableConfig(*item) for item in PATHS.items()],
            8,
            in_channels={"GP850": 3, "GP500": 2, "SP_HR": 1},
        )
        self.cell = RCNCell(3, 8, DRIVERS, reconstruction_dim=DRIVERS, **options)
        self.runner = RCNSequenceRunner(self.cell, detach_interval=detach_interval)

    def rollout(self, state, drivers):
        run = self.runner.run(state, drivers)
        return torch.stack(run.states), torch.stack(run.reconstructions), run.dag

    def forward(self, features, drivers):
        """The graph is made inside."""
        state = self.encoder.encode_state(*self.builder.prepare_inputs(features))
        return self.rollout(state, drivers)

    def from_graph(self, data, drivers):
        """The graph is given."""
        return self.rollout(self.encoder.init_state(data), drivers)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def features():
    noise = torch.Generator().manual_seed(1)
    return {
        "GP850": torch.randn(BATCH, 12, 3, generator=noise),
        "GP500": torch.randn(BATCH, 12, 2, generator=noise),
    }


@pytest.fixture
def drivers():
    noise = torch.Generator().manual_seed(2)
    return torch.randn(STEPS, 3, BATCH * 12, DRIVERS, generator=noise)


def outputs_and_gradients(core, call, *args):
    core.zero_grad(set_to_none=True)
    out = call(*args)
    sum(part.square().mean() for part in out).backward()
    return [part.detach() for part in out], {
        name: p.grad.clone() for name, p in core.named_parameters()
    }


def assert_same(core, compiled, eager, *args):
    """Values and gradients within 1e-5, and every parameter has a gradient."""
    expected, wanted = outputs_and_gradients(core, eager, *args)
    for _ in range(2):  # the first call traces, the second runs what was traced
        out, gradients = outputs_and_gradients(core, compiled, *args)
        for got, want in zip(out, expected, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        for name, want in wanted.items():
            torch.testing.assert_close(gradients[name], want, atol=1e-5, rtol=1e-5)
            assert want.abs().max() > 0, name


def test_no_graph_breaks(features, drivers):
    core = Core()
    data = core.builder.prepare_batch(features)
    found = torch._dynamo.explain(core.from_graph)(data, drivers)
    assert found.graph_break_count == 0, found.break_reasons
    assert found.graph_count == 1


@pytest.mark.parametrize(
    "options", [{"detach_interval": 2}, {"state_scope": "own"}], ids=str
)
def test_one_graph_with_the_values_and_gradients_of_eager_mode(
    features, drivers, options
):
    core = Core(**options)
    compiled = torch.compile(core, backend="eager", fullgraph=True)
    assert_same(core, compiled, core, features, drivers)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_generated_code_gives_what_eager_mode_gives(features, drivers, backend):
    core = Core()
    compiled = torch.compile(core, backend=backend, fullgraph=True)
    assert_same(core, compiled, core, features, drivers)
