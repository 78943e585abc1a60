from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import (
    AGNNConv,
    CGConv,
    ChebConv,
    FiLMConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GENConv,
    GINConv,
    GraphConv,
    LEConv,
    MixHopConv,
    NNConv,
    ResGatedGraphConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    TAGConv,
    TransformerConv,
)

from st_cdgm.errors import ConfigError, InputError, MissingVariableError
from st_cdgm.models.convolutions import IntelligibleVariableConfig as Config
from st_cdgm.models.graph_builder import HeteroGraphBuilder
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder

CHANNELS = {"GP850": 3, "GP500": 2, "SP_HR": 1}
ADVECTION = ("GP850", "spat_adj", "GP850")
CONVECTION = ("GP500", "vert_adj", "GP850")
RELIEF = ("SP_HR", "causes", "GP850")
PATHS = {"surface": ADVECTION, "vertical": CONVECTION, "relief": RELIEF}


@pytest.fixture
def builder():
    torch.manual_seed(0)
    return HeteroGraphBuilder((3, 4), (6, 8), static_features=torch.randn(1, 6, 8))


@pytest.fixture
def features():
    torch.manual_seed(1)
    return {"GP850": torch.randn(2, 12, 3), "GP500": torch.randn(2, 12, 2)}


def encoder(paths=None, hidden=8, **kwargs):
    torch.manual_seed(2)
    paths = PATHS if paths is None else paths
    extra = kwargs.pop("config", {})
    configs = [Config(name, path, **extra) for name, path in paths.items()]
    return IntelligibleVariableEncoder(configs, hidden, in_channels=CHANNELS, **kwargs)


class TestSeparateVariables:
    def test_d32_variables_on_one_target_differ(self, builder, features):
        # D32: variables on one target got one summed tensor.
        state = encoder().init_state(builder.prepare_batch(features))
        assert state.shape == (3, 24, 8)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert (state[a] - state[b]).abs().mean() > 0.1

    def test_d32_a_variable_does_not_change_with_the_others(self, builder, features):
        # D32: variables on one target got one summed tensor.
        data = builder.prepare_batch(features)
        three = encoder()
        alone = encoder({"surface": ADVECTION})
        torch.testing.assert_close(three(data)["surface"], alone(data)["surface"])

    def test_a_variable_stands_for_its_source(self, builder, features):
        model = encoder()
        before = model.init_state(builder.prepare_batch(features))
        changed = {**features, "GP850": features["GP850"] + 1.0}
        after = model.init_state(builder.prepare_batch(changed))
        assert not torch.allclose(before[0], after[0])
        torch.testing.assert_close(before[1:], after[1:], rtol=0, atol=0)
        assert model.sources == ["GP850", "GP500", "SP_HR"]

    def test_the_target_enters_where_asked_for(self, builder, features):
        model = encoder(
            {"vertical": CONVECTION}, config={"conv_kwargs": {"root_weight": True}}
        )
        before = model.init_state(builder.prepare_batch(features))
        changed = {**features, "GP850": features["GP850"] + 1.0}
        after = model.init_state(builder.prepare_batch(changed))
        assert not torch.allclose(before, after)

    def test_d35_equal_meta_paths_have_their_own_weights(self, builder, features):
        # D35: only SAGEConv got input sizes; equal meta-paths overwrote each other.
        model = encoder({"a": ADVECTION, "b": ADVECTION})
        a, b = model(builder.prepare_batch(features)).values()
        assert (a - b).abs().mean() > 0.1


class TestConvolution:
    def test_mean_of_neighbours_by_hand(self):
        # A row of three cells with values 1, 2, 4; weights 1 (neighbours), 10 (self).
        grid = HeteroGraphBuilder((1, 3), (1, 3), include_mid_layer=False)
        model = IntelligibleVariableEncoder(
            [Config("v", ADVECTION)],
            1,
            in_channels={"GP850": 1},
            use_layer_norm=False,
            activation=nn.Identity(),
        )
        conv = model.convolutions[0]
        with torch.no_grad():
            conv.lin_l.weight.fill_(1.0)
            conv.lin_l.bias.fill_(0.5)
            conv.lin_r.weight.fill_(10.0)
        data = grid.prepare_step_data({"GP850": torch.tensor([[1.0], [2.0], [4.0]])})
        expected = [[2 + 10 + 0.5], [2.5 + 20 + 0.5], [2 + 40 + 0.5]]
        assert model.init_state(data)[0].tolist() == expected

    def test_static_cells_reach_the_cell_above_them(self):
        static = torch.arange(16.0).reshape(1, 4, 4)
        grid = HeteroGraphBuilder((2, 2), (4, 4), static_features=static)
        model = IntelligibleVariableEncoder(
            [Config("v", RELIEF)],
            1,
            in_channels={"GP850": 1, "SP_HR": 1},
            use_layer_norm=False,
            activation=nn.Identity(),
        )
        with torch.no_grad():
            model.convolutions[0].lin_l.weight.fill_(1.0)
            model.convolutions[0].lin_l.bias.zero_()
        data = grid.prepare_batch({"GP850": torch.zeros(3, 4, 1)})
        blocks = [2.5, 4.5, 10.5, 12.5]
        assert model.init_state(data)[0, :, 0].tolist() == blocks * 3

    BIPARTITE = [
        (SAGEConv, {"aggr": "max"}),
        (GATConv, {"heads": 2}),
        (GATv2Conv, {"heads": 4}),
        (GATv2Conv, {"heads": 3, "concat": False}),
        (TransformerConv, None),
        (GraphConv, None),
        (ResGatedGraphConv, None),
        (GENConv, None),
        (FiLMConv, None),
        (LEConv, None),
        ("SAGEConv", None),
    ]
    ONE_TYPE = [
        (GCNConv, None),
        (ChebConv, {"K": 2}),
        (TAGConv, None),
        (SGConv, {"K": 2}),
        (GINConv, {"nn": nn.Linear(3, 8)}),
    ]

    @pytest.mark.parametrize(("conv", "kwargs"), BIPARTITE)
    def test_d35_any_convolution_with_explicit_sizes(
        self, builder, features, conv, kwargs
    ):
        # D35: only SAGEConv got input sizes; equal meta-paths overwrote each other.
        model = encoder(config={"conv_class": conv, "conv_kwargs": kwargs})
        state = model.init_state(builder.prepare_batch(features))
        assert state.shape == (3, 24, 8)
        state.square().sum().backward()
        for convolution in model.convolutions:
            grads = [p.grad for p in convolution.parameters() if p.grad is not None]
            assert max(float(grad.abs().max()) for grad in grads) > 0

    @pytest.mark.parametrize(("conv", "kwargs"), [*BIPARTITE, *ONE_TYPE])
    def test_d32_two_variables_of_one_target_differ(
        self, builder, features, conv, kwargs
    ):
        # D32: variables on one target got one summed tensor.
        both = kwargs is not None and "nn" in kwargs  # a network given is one network
        paths = {"a": ADVECTION, "b": ADVECTION}
        if (conv, kwargs) in self.BIPARTITE:
            paths["c"] = ("GP850", "vert_adj", "GP500")
        model = encoder(paths, config={"conv_class": conv, "conv_kwargs": kwargs})
        state = model.init_state(builder.prepare_batch(features))
        assert both or (state[0] - state[1]).abs().mean() > 0.05
        # Nor does any of them change with its neighbours in the list.
        with torch.no_grad():
            for parameter in model.convolutions[1].parameters():
                parameter.mul_(1.0 if both else -2.0)
        again = model.init_state(builder.prepare_batch(features))
        torch.testing.assert_close(again[0], state[0], rtol=0, atol=0)
        torch.testing.assert_close(again[2:], state[2:], rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("conv", "kwargs", "path"),
        [
            (NNConv, {"nn": nn.Linear(2, 24)}, ADVECTION),  # edge features
            (NNConv, None, ADVECTION),
            (CGConv, None, ADVECTION),
            (RGCNConv, {"num_relations": 2}, ADVECTION),  # edge types
            (AGNNConv, None, ADVECTION),  # keeps the width of its input
            (MixHopConv, None, ADVECTION),  # three times H
            (SAGEConv, {"out_channels": 5}, CONVECTION),
            (GINConv, {"nn": nn.Linear(3, 8)}, CONVECTION),  # sums both ends
            ("MessagePassing", None, ADVECTION),
        ],
    )
    def test_an_unsuitable_convolution_is_refused_before_the_first_batch(
        self, conv, kwargs, path
    ):
        name = conv if isinstance(conv, str) else conv.__name__
        with pytest.raises(ConfigError, match=rf"'v'[\s\S]*{name}"):
            encoder({"v": path}, config={"conv_class": conv, "conv_kwargs": kwargs})

    def test_edges_of_one_batch_are_not_kept_for_the_next(self):
        kwargs = {"conv_class": GCNConv, "conv_kwargs": {"cached": True}}
        with pytest.raises(ConfigError, match="cached"):
            encoder({"v": ADVECTION}, config=kwargs)

    def test_the_trial_leaves_no_trace(self):
        torch.manual_seed(7)
        one = IntelligibleVariableEncoder(
            [Config("v", ADVECTION, GENConv)], 8, in_channels=CHANNELS
        )
        drawn = torch.rand(3)
        torch.manual_seed(7)
        plain = GENConv(3, 8)
        nn.LayerNorm(8)
        assert torch.equal(drawn, torch.rand(3))
        assert one.convolutions[0].training
        for mine, theirs in zip(
            one.convolutions[0].parameters(), plain.parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)
            assert mine.grad is None

    def test_d33_all_parameters_exist_before_the_first_batch(self):
        # D33: unused convolutions kept uninitialised parameters.
        for conv in (SAGEConv, GATv2Conv, TransformerConv):
            model = encoder(config={"conv_class": conv})
            assert not any(
                isinstance(p, nn.parameter.UninitializedParameter)
                for p in model.parameters()
            )
            assert sum(p.numel() for p in model.parameters()) > 0

    @pytest.mark.parametrize("conv", [SAGEConv, GATv2Conv, GraphConv])
    def test_sizes_from_the_first_graph(self, builder, features, conv):
        # D33: unused convolutions kept uninitialised parameters.
        torch.manual_seed(0)
        configs = [Config(name, path, conv) for name, path in PATHS.items()]
        model = IntelligibleVariableEncoder(configs, 8)
        data = builder.prepare_batch(features)
        assert model.init_state(data).shape == (3, 24, 8)
        known = encoder(config={"conv_class": conv})
        assert {n: p.shape for n, p in model.named_parameters()} == {
            n: p.shape for n, p in known.named_parameters()
        }
        before = [p.detach().clone() for p in model.convolutions.parameters()]
        model.reset_parameters()
        changed = [
            not torch.equal(p, old)
            for p, old in zip(model.convolutions.parameters(), before, strict=True)
            if p.dim() == 2
        ]
        assert all(changed)

    def test_d33_layers_that_the_first_graph_does_not_reach(self, builder, features):
        # D33: unused convolutions kept uninitialised parameters.
        configs = [Config("v", CONVECTION, TransformerConv)]  # its own skip is off
        model = IntelligibleVariableEncoder(configs, 8)
        with pytest.raises(ConfigError, match=r"'v'[\s\S]*in_channels"):
            model.init_state(builder.prepare_batch(features))

    def test_a_wrong_width_is_found_by_the_first_graph(self, builder, features):
        model = IntelligibleVariableEncoder([Config("v", ADVECTION, AGNNConv)], 8)
        with pytest.raises(InputError, match="variable 'v'"):
            model.init_state(builder.prepare_batch(features))

    def test_a_convolution_that_the_first_graph_shows_not_to_fit(
        self, builder, features
    ):
        # D35: an error of the library about sizes of tensors a and b.
        kwargs = {"nn": nn.Linear(features["GP850"].shape[-1], 8)}
        configs = [Config("v", CONVECTION, GINConv, kwargs)]
        model = IntelligibleVariableEncoder(configs, 8)
        features = dict(features, GP500=torch.randn(2, 12, 7))
        with pytest.raises(ConfigError, match=r"'v'[\s\S]*GINConv"):
            model.init_state(builder.prepare_batch(features))

    def test_layers_without_use_are_not_trained(self, builder, features):
        # D33: a skip that is off waited for a gradient that never came.
        model = encoder({"v": CONVECTION}, config={"conv_class": TransformerConv})
        model.init_state(builder.prepare_batch(features)).sum().backward()
        unused = {n for n, p in model.named_parameters() if p.grad is None}
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert unused == frozen
        assert all("lin_skip" in name for name in frozen)
        assert frozen

    def test_a_convolution_for_one_node_type_only(self):
        encoder({"v": ADVECTION}, config={"conv_class": GCNConv})
        with pytest.raises(ConfigError, match=r"vertical[\s\S]*bipartite"):
            encoder({"vertical": CONVECTION}, config={"conv_class": GCNConv})

    def test_self_loops_between_node_types_are_refused(self):
        kwargs = {"conv_class": GATv2Conv, "conv_kwargs": {"add_self_loops": True}}
        with pytest.raises(ConfigError, match="self-loops"):
            encoder({"vertical": CONVECTION}, config=kwargs)

    @pytest.mark.parametrize("conv", ["NoSuchConv", "to_hetero", 3])
    def test_an_unknown_convolution(self, conv):
        with pytest.raises(ConfigError, match="unknown convolution"):
            encoder(config={"conv_class": conv})

    def test_heads_must_share_the_width(self):
        kwargs = {"conv_class": GATv2Conv, "conv_kwargs": {"heads": 3}}
        with pytest.raises(ConfigError, match="heads"):
            encoder(config=kwargs)

    def test_unknown_arguments(self):
        with pytest.raises(ConfigError, match="cannot be built"):
            encoder(config={"conv_kwargs": {"no_such_option": 1}})


class TestMissingParts:
    def test_d31_a_level_outside_the_graph_is_named(self, features):
        # D31: a meta-path into an absent level was a bare KeyError.
        grid = HeteroGraphBuilder((3, 4), (6, 8), include_mid_layer=False)
        data = grid.prepare_batch({"GP850": features["GP850"]})
        with pytest.raises(MissingVariableError) as caught:
            encoder({"vertical": CONVECTION}).init_state(data)
        text = str(caught.value)
        assert "'vertical'" in text
        assert "GP500/vert_adj/GP850" in text
        assert "GP850/spat_adj/GP850" in text

    def test_d31_a_node_type_without_known_features(self):
        # D31: a meta-path into an absent level was a bare KeyError.
        with pytest.raises(MissingVariableError, match=r"GP250[\s\S]*GP850 \(3\)"):
            encoder({"high": ("GP250", "spat_adj", "GP250")})

    def test_d33_an_absent_relation_is_an_error(self, builder, features):
        # D33: unused convolutions kept uninitialised parameters.
        model = encoder({"up": ("GP850", "rises", "GP500")})
        with pytest.raises(MissingVariableError, match="rises"):
            model(builder.prepare_batch(features))

    def test_features_not_given(self, builder, features):
        data = builder.prepare_batch({"GP850": features["GP850"]})
        with pytest.raises(MissingVariableError, match="vertical"):
            encoder()(data)

    def test_static_path_without_static_fields(self):
        configs = [Config("relief", RELIEF)]
        with pytest.raises(MissingVariableError, match="0 features"):
            IntelligibleVariableEncoder(
                configs, 8, in_channels={"GP850": 3, "SP_HR": 0}
            )

    def test_d35_different_node_counts_cannot_be_stacked(self, builder, features):
        # D35: only SAGEConv got input sizes; equal meta-paths overwrote each other.
        model = encoder({"surface": ADVECTION, "down": ("GP850", "causes_up", "SP_HR")})
        data = builder.prepare_batch(features)
        data["GP850", "causes_up", "SP_HR"].edge_index = torch.tensor([[0], [47]])
        assert model(data)["down"].shape == (48, 8)
        with pytest.raises(
            InputError, match=r"surface on GP850: 24, down on SP_HR: 48"
        ):
            model.init_state(data)

    @pytest.mark.parametrize("names", [[], ["a", "a"]])
    def test_names(self, names):
        configs = [Config(name, ADVECTION) for name in names]
        with pytest.raises(ValueError, match="different names"):
            IntelligibleVariableEncoder(configs, 8, in_channels=CHANNELS)


class TestBatches:
    def test_plain_mappings_equal_a_graph(self, builder, features):
        model = encoder()
        data = builder.prepare_batch(features)
        plain = model.encode_state(*builder.prepare_inputs(features))
        torch.testing.assert_close(plain, model.init_state(data), rtol=0, atol=0)

    def test_a_batch_equals_its_graphs_one_by_one(self, builder, features):
        model = encoder()
        together = model.init_state(builder.prepare_batch(features))
        for b in range(2):
            one = {name: x[b] for name, x in features.items()}
            state = model.init_state(builder.prepare_step_data(one))
            torch.testing.assert_close(together[:, 12 * b : 12 * b + 12], state)

    def test_graphs_of_a_batch_are_independent(self, builder, features):
        model = encoder()
        x = {name: value.clone().requires_grad_() for name, value in features.items()}
        state = model.init_state(builder.prepare_batch(x))
        state[:, :12].square().sum().backward()
        assert x["GP850"].grad[0].abs().sum() > 0
        assert x["GP850"].grad[1].abs().sum() == 0
        assert x["GP500"].grad[1].abs().sum() == 0


class TestPooling:
    def test_pooled_is_the_pool_of_the_nodes(self, builder, features):
        configs = [Config("m", ADVECTION), Config("x", CONVECTION, pool="max")]
        model = IntelligibleVariableEncoder(configs, 8, in_channels=CHANNELS)
        data = builder.prepare_batch(features)
        nodes, pooled = model(data), model(data, pooled=True)
        torch.testing.assert_close(pooled["m"], nodes["m"].view(2, 12, 8).mean(1))
        torch.testing.assert_close(pooled["x"], nodes["x"].view(2, 12, 8).amax(1))
        stacked = model.pooled_state(data)
        assert stacked.shape == (2, 2, 8)
        torch.testing.assert_close(stacked[:, 1], pooled["x"])

    def test_projection_of_states(self, builder, features):
        model = encoder(conditioning_dim=5)
        data = builder.prepare_batch(features)
        state = model.init_state(data)  # (3, 24, 8)
        tokens = model.project_conditioning(data)
        assert tokens.shape == (2, 3, 5)
        index = torch.arange(2).repeat_interleave(12)
        grouped = model.project_state_tensor(state, batch_index=index)
        torch.testing.assert_close(grouped, tokens)
        batched = state.view(3, 2, 12, 8).transpose(0, 1)
        torch.testing.assert_close(model.project_state_tensor(batched), tokens)
        whole = model.project_state_tensor(state, pool="max")
        expected = model.conditioning_projection(state.amax(1))[None]
        torch.testing.assert_close(whole, expected)

    def test_each_variable_keeps_its_own_pool_in_a_projection(self):
        configs = [
            Config("m", ADVECTION, pool="avg"),
            Config("x", ADVECTION, pool="max"),
        ]
        model = IntelligibleVariableEncoder(configs, 8, in_channels=CHANNELS)
        state = torch.randn(4, 2, 12, 8)
        tokens = model.project_state_tensor(state)
        torch.testing.assert_close(tokens[:, 0], state[:, 0].mean(1))
        torch.testing.assert_close(tokens[:, 1], state[:, 1].amax(1))
        index = torch.arange(4).repeat_interleave(12)
        folded = state.transpose(0, 1).reshape(2, 48, 8)
        grouped = model.project_state_tensor(folded, batch_index=index)
        torch.testing.assert_close(grouped, tokens)

    def test_identity_projection_by_default(self):
        assert isinstance(encoder().conditioning_projection, nn.Identity)
        same = encoder(conditioning_dim=8).conditioning_projection
        assert isinstance(same, nn.Identity)

    def test_d40_an_empty_group_is_zero(self):
        # D40: empty groups got the whole graph's mean, unknown pools meant the mean.
        model = encoder()
        index = torch.tensor([0, 0, 2, 2])
        for pool in ("mean", "max"):
            tokens = model.project_state_tensor(
                -torch.ones(3, 4, 8), batch_index=index, pool=pool
            )
            assert tokens[:, 0, 0].tolist() == [-1.0, 0.0, -1.0]

    def test_d40_unknown_pools_are_refused(self):
        # D40: empty groups got the whole graph's mean, unknown pools meant the mean.
        with pytest.raises(ConfigError, match="median"):
            encoder(default_pool="median")
        with pytest.raises(ConfigError, match="sum"):
            encoder(config={"pool": "sum"})
        with pytest.raises(ConfigError, match="sum"):
            encoder().project_state_tensor(torch.zeros(3, 4, 8), pool="sum")

    def test_pool_none(self, builder, features):
        model = encoder({"surface": ADVECTION}, default_pool="none")
        data = builder.prepare_batch(features)
        assert model(data, pooled=True)["surface"].shape == (24, 8)
        with pytest.raises(ConfigError, match="surface"):
            model.pooled_state(data)

    def test_wrong_states(self):
        model = encoder()
        for shape in ((4, 8), (1, 2, 3, 4, 8)):
            with pytest.raises(ValueError, match="rank"):
                model.project_state_tensor(torch.zeros(shape))
        with pytest.raises(ValueError, match="rank"):
            model.project_state_tensor(
                torch.zeros(2, 3, 4, 8), batch_index=torch.zeros(4, dtype=torch.long)
            )
        with pytest.raises(InputError, match="number of variables"):
            model.project_state_tensor(torch.zeros(2, 4, 8))
        with pytest.raises(InputError, match="one graph per node"):
            model.project_state_tensor(
                torch.zeros(3, 4, 8), batch_index=torch.zeros(5, dtype=torch.long)
            )


def test_d34_reset_ends_and_draws_anew():
    # D34: reset_parameters called itself for ever.
    model = encoder(conditioning_dim=5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.reset_parameters()
    after = dict(model.named_parameters())
    weights = [n for n in before if n.endswith("weight") and "norms" not in n]
    assert len(weights) == 5  # neighbours of 3 variables, own cell of 1, projection
    assert all(not torch.equal(before[n], after[n]) for n in weights)


def test_layer_norm_and_activation(builder, features):
    data = builder.prepare_batch(features)
    plain = encoder(activation=nn.Identity()).init_state(data)
    torch.testing.assert_close(plain.mean(-1), torch.zeros(3, 24), atol=1e-5, rtol=0)
    assert (encoder().init_state(data) >= 0).all()
    raw = encoder(activation=nn.Identity(), use_layer_norm=False).init_state(data)
    assert raw.mean(-1).abs().max() > 0.01
