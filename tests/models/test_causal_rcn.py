from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.acyclicity import acyclicity, in_dagma_domain
from st_cdgm.models.causal_rcn import MaskDiagonal, RCNCell, RCNSequenceRunner
from st_cdgm.models.stacked import GRUStep, StackedGRUCell, StackedLinear, rms_normalise

Q, N, H, D, R = 4, 6, 8, 5, 3


def make_cell(**kwargs):
    torch.manual_seed(kwargs.pop("seed", 0))
    options = {"reconstruction_dim": R, **kwargs}
    cell = RCNCell(Q, H, D, **options)
    with torch.no_grad():  # every bias in play, and a graph that matters
        for parameter in (cell.parent_block.bias, cell.structural_out.bias):
            parameter.normal_(0, 0.3)
        cell.A_dag.normal_(0, 0.4)
        cell.own_lag.normal_(0.5, 0.2)
    return cell


@pytest.fixture
def cell():
    return make_cell()


@pytest.fixture
def state():
    return torch.randn(Q, N, H, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def driver():
    return torch.randn(Q, N, D, generator=torch.Generator().manual_seed(2))


def direction(weight):
    """Same root-mean-square row length 1, written independently."""
    return weight * math.sqrt(weight.shape[0]) / weight.pow(2).sum().sqrt()


def step_by_loops(cell, state, driver):
    """The cell's equations, variable by variable."""
    new, decoded = [], []
    for k in range(cell.num_vars):
        parents = torch.zeros_like(state[k])
        for i in range(cell.num_vars):
            if i != k:
                rms = (state[i].pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
                parents = parents + cell.A_dag[i, k] * state[i] / rms
        inner = (
            parents @ direction(cell.parent_block.weight[k]).T
            + cell.own_lag[k] * state[k] @ direction(cell.memory_block.weight[k]).T
            + cell.parent_block.bias[k]
        )
        hat = inner.relu() @ direction(cell.structural_out.weight[k]).T
        hat = hat + cell.structural_out.bias[k]
        x = driver[k] @ cell.driver_encoder.weight[k].T + cell.driver_encoder.bias[k]
        gru = nn.GRUCell(H, H)
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(gru, name).copy_(getattr(cell.gru, name)[k])
        new.append(gru(x.relu(), hat))
        rows = cell.reconstruction_decoder.weight[k]
        rows = rows / rows.pow(2).sum(1, keepdim=True).sqrt()
        decoded.append(hat @ rows.T + cell.reconstruction_decoder.bias[k])
    return torch.stack(new), torch.stack(decoded)


def flat(tensor):
    return tensor.flatten()


class TestStacked:
    def test_gru_equals_one_torch_cell_per_variable(self):
        torch.manual_seed(0)
        stacked = StackedGRUCell(Q, D, H)
        x, hidden = torch.randn(Q, N, D), torch.randn(Q, N, H)
        out = stacked(x, hidden)
        for k in range(Q):
            single = nn.GRUCell(D, H)
            with torch.no_grad():
                for name, parameter in single.named_parameters():
                    parameter.copy_(getattr(stacked, name)[k])
            torch.testing.assert_close(
                out[k], single(x[k], hidden[k]), atol=1e-6, rtol=0
            )

    def test_gru_gradients_equal_those_of_one_torch_cell_per_variable(self):
        torch.manual_seed(0)
        stacked = StackedGRUCell(Q, D, H).double()
        x = torch.randn(Q, N, D, dtype=torch.float64, requires_grad=True)
        hidden = torch.randn(Q, N, H, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(Q, N, H, dtype=torch.float64)
        (stacked(x, hidden) * weight).sum().backward()
        for k in range(Q):
            single = nn.GRUCell(D, H).double()
            with torch.no_grad():
                for name, parameter in single.named_parameters():
                    parameter.copy_(getattr(stacked, name)[k])
            one = x.detach()[k].requires_grad_(), hidden.detach()[k].requires_grad_()
            (single(*one) * weight[k]).sum().backward()
            pairs = [(x.grad[k], one[0].grad), (hidden.grad[k], one[1].grad)]
            pairs += [
                (getattr(stacked, name).grad[k], parameter.grad)
                for name, parameter in single.named_parameters()
            ]
            for got, expected in pairs:
                torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-10)

    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 2), (2, 5, 1)])
    def test_gru_gradients_equal_finite_differences(self, shape):
        q, n, h = shape
        torch.manual_seed(0)
        shapes = [(q, n, 2), (q, n, h), (q, 3 * h, 2), (q, 3 * h, h)]
        shapes += [(q, 3 * h), (q, 3 * h)]
        inputs = [
            torch.randn(shape, dtype=torch.float64, requires_grad=True)
            for shape in shapes
        ]

        def step(*inputs):
            return GRUStep.apply(*inputs)[0]

        assert torch.autograd.gradcheck(step, inputs)
        # A sum's gradient is one number, expanded without memory of its own.
        new = step(*inputs)
        total = torch.autograd.grad(new.sum(), inputs, retain_graph=True)
        wanted = torch.autograd.grad(new, inputs, torch.ones_like(new))
        for got, expected in zip(total, wanted, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)

    def test_gru_without_a_gradient_for_its_input_gives_the_same_others(self):
        torch.manual_seed(0)
        stacked = StackedGRUCell(Q, D, H)
        x, hidden = torch.randn(Q, N, D), torch.randn(Q, N, H)
        stacked(x, hidden).sum().backward()
        first = [p.grad.clone() for p in stacked.parameters()]
        stacked.zero_grad()
        stacked(x.requires_grad_(), hidden).sum().backward()
        for before, parameter in zip(first, stacked.parameters(), strict=True):
            assert torch.equal(before, parameter.grad)
        assert x.grad.abs().sum() > 0

    @pytest.mark.parametrize("scope", ["mixed", "own"])
    def test_half_precision_stays_near_single(self, scope):
        torch.manual_seed(0)
        cell = RCNCell(Q, H, D, reconstruction_dim=D, state_scope=scope)
        state, drivers = torch.randn(Q, N, H), torch.randn(4, Q, N, D)
        runner, results = RCNSequenceRunner(cell), []
        for enabled in (False, True):
            cell.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = runner.run(state, drivers)
            out.states[-1].float().square().mean().backward()
            grads = [p.grad.clone() for p in cell.gru.parameters()]
            assert all(g.dtype == torch.float32 for g in grads)
            results.append((out.states[-1].float(), torch.cat([*map(flat, grads)])))
        for single, half in zip(*results, strict=True):
            # bfloat16 keeps 8 bits: a few per cent after four steps.
            assert (single - half).norm() < 0.05 * single.norm()

    def test_linear_equals_one_torch_layer_per_variable(self):
        torch.manual_seed(0)
        stacked = StackedLinear(Q, D, H)
        nn.init.normal_(stacked.bias)
        shared, own = torch.randn(N, D), torch.randn(Q, N, D)
        for k in range(Q):
            weight, bias = stacked.weight[k], stacked.bias[k]
            for out, x in ((stacked(shared), shared), (stacked(own), own[k])):
                expected = nn.functional.linear(x, weight, bias)
                torch.testing.assert_close(out[k], expected)

    def test_fixed_norms(self):
        whole = StackedLinear(Q, D, H, norm=2.0, bias=False)
        rows = StackedLinear(Q, D, H, norm=1.0, per_row=True)
        with torch.no_grad():
            whole.weight.mul_(7.0)
            rows.weight.mul_(torch.rand(Q, H, 1) + 0.1)
        lengths = whole.effective_weight().flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((Q,), 2.0))
        lengths = rows.effective_weight().norm(dim=2)
        torch.testing.assert_close(lengths, torch.ones(Q, H))

    def test_rms_normalise_forgets_the_scale_node_by_node(self):
        state = torch.randn(Q, N, H)
        unit = rms_normalise(state)
        torch.testing.assert_close(
            unit.pow(2).mean(-1), torch.ones(Q, N), atol=1e-3, rtol=0
        )
        scale = torch.rand(Q, N, 1) * 50 + 1
        torch.testing.assert_close(
            rms_normalise(scale * state), unit, atol=1e-3, rtol=0
        )
        assert rms_normalise(torch.zeros(1, 1, H)).abs().max() == 0


class TestEquation:
    def test_equals_loops_over_variables(self, cell, state, driver):
        H_next, decoded, A = cell(state, driver)
        expected, expected_decoded = step_by_loops(cell, state, driver)
        torch.testing.assert_close(H_next, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(decoded, expected_decoded, atol=2e-6, rtol=1e-5)
        assert torch.equal(A, cell.effective_dag())

    def test_gradients_equal_those_of_the_loops(self, cell, state, driver):
        stacked = cell(state, driver)
        (stacked[0].square().sum() + stacked[1].square().sum()).backward()
        names = ("A_dag", "own_lag", "parent_block.weight", "memory_block.weight")
        got = {n: cell.get_parameter(n).grad.clone() for n in names}
        cell.zero_grad()
        new, decoded = step_by_loops(cell, state, driver)
        (new.square().sum() + decoded.square().sum()).backward()
        for name in names:
            torch.testing.assert_close(
                got[name], cell.get_parameter(name).grad, atol=1e-4, rtol=1e-4
            )

    def test_shared_driver_equals_repeated_driver(self, cell, state, driver):
        shared = cell(state, driver[0])
        repeated = cell(state, driver[:1].expand(Q, N, D))
        torch.testing.assert_close(shared[0], repeated[0])
        assert shared[1].shape == (N, R)
        assert repeated[1].shape == (Q, N, R)
        torch.testing.assert_close(shared[1], repeated[1].mean(0))

    def test_direction_of_edges(self, state):
        cell = make_cell(reconstruction_dim=None)
        with torch.no_grad():
            cell.A_dag.zero_()
            cell.A_dag[0, 2] = 0.7  # 0 -> 2 only
        past = state.clone().requires_grad_()
        hat = cell.structural(past)
        for k in range(Q):
            (gradient,) = torch.autograd.grad(
                hat[k].square().sum(), past, retain_graph=True
            )
            reached = {i for i in range(Q) if gradient[i].abs().max() > 0}
            assert reached == ({0, 2} if k == 2 else {k})

    def test_the_diagonal_is_never_an_edge(self, cell, state, driver):
        before = cell(state, driver)[0]
        with torch.no_grad():
            cell.A_dag.fill_diagonal_(9.0)
        after, _, A = cell(state, driver)
        assert torch.equal(before, after)
        assert A.diagonal().abs().max() == 0
        assert cell.dag_matrix(masked=False).diagonal().min() == 9.0
        assert torch.equal(cell.dag_matrix(), A)
        after.sum().backward()
        assert cell.A_dag.grad.diagonal().abs().max() == 0
        assert cell.A_dag.grad.abs().max() > 0

    def test_mask_diagonal_gradient(self):
        A = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(MaskDiagonal.apply, (A,))
        stack = torch.randn(2, 3, 3)
        masked = torch.vmap(MaskDiagonal.apply)(stack)
        assert torch.equal(masked, stack * (1 - torch.eye(3)))

    def test_nodes_and_so_batches_are_independent(self, cell, state, driver):
        # D43: no batch axis; a batch is folded into the nodes.
        together = cell(state, driver)
        for part in (slice(0, 2), slice(2, N)):
            alone = cell(state[:, part], driver[:, part])
            torch.testing.assert_close(together[0][:, part], alone[0])
            torch.testing.assert_close(together[1][:, part], alone[1])

    def test_restricted_edges(self, cell, state, driver):
        keep = torch.zeros(Q, Q, dtype=torch.bool)
        keep[1, 3] = True
        cell.restrict_edges(keep)
        A = cell.effective_dag()
        assert A.nonzero().tolist() == [[1, 3]]
        restricted = cell(state, driver)[0]
        with torch.no_grad():
            cell.A_dag.mul_(keep)
        cell.restrict_edges()
        torch.testing.assert_close(cell(state, driver)[0], restricted)
        with pytest.raises(InputError, match="edges"):
            cell.restrict_edges(torch.ones(2, 2))

    def test_no_loop_over_the_variables(self):
        # As many operations for nine variables as for two, forward and backward.
        class Count(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.calls = []

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.calls.append(str(func))
                return func(*args, **(kwargs or {}))

        calls = []
        for q in (2, 9):
            cell = RCNCell(q, H, D, reconstruction_dim=R)
            state, driver = torch.randn(q, N, H), torch.randn(q, N, D)
            with Count() as count:
                H_next, decoded, _ = cell(state, driver)
                (H_next.sum() + decoded.sum()).backward()
            calls.append(count.calls)
        assert len(calls[0]) > 20
        assert calls[0] == calls[1]


class TestGauge:
    """A carries the strength of the edges, and nothing else can."""

    LAYERS = ("parent_block", "memory_block", "structural_out")

    def scale(self, cell, factors):
        with torch.no_grad():
            for name, factor in factors.items():
                cell.get_parameter(name).mul_(factor)

    @pytest.mark.parametrize("factor", [1e-2, 1e2])
    @pytest.mark.parametrize("layer", [*LAYERS, "reconstruction_decoder"])
    def test_layers_around_the_graph_have_no_scale(
        self, cell, state, driver, layer, factor
    ):
        before = cell(state, driver)
        self.scale(cell, {f"{layer}.weight": factor})
        after = cell(state, driver)
        for a, b in zip(before, after, strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)

    @pytest.mark.parametrize(
        "factors",
        [
            {"parent_block.weight": 100},
            {"structural_out.weight": 100},
            {"reconstruction_decoder.weight": 100},
            # ReLU is homogeneous: everything before it down, everything after it up.
            {
                "own_lag": 0.01,
                "parent_block.bias": 0.01,
                "structural_out.weight": 100,
            },
            {
                "own_lag": 0.01,
                "parent_block.bias": 0.01,
                "structural_out.bias": 0.01,
                "gru.weight_hh": 100,
                "reconstruction_decoder.weight": 100,
            },
        ],
    )
    def test_a_smaller_graph_is_paid_for(self, cell, state, driver, factors):
        H_before, x_before, A = cell(state, driver)
        self.scale(cell, {"A_dag": 0.01, **factors})
        H_after, x_after, smaller = cell(state, driver)
        torch.testing.assert_close(smaller, 0.01 * A)
        assert (x_after - x_before).std() > 0.3 * x_before.std()
        assert (H_after - H_before).abs().max() > 0.02

    def test_the_scale_of_the_states_does_not_replace_the_graph(self, cell, state):
        with torch.no_grad():
            cell.own_lag.zero_()
        once, louder = cell.structural(state), cell.structural(100 * state)
        torch.testing.assert_close(once, louder, atol=1e-4, rtol=0)

    def test_the_graph_bounds_the_influence(self, state):
        # |d x_k / d n(H_i)| <= |w| |W_2| |A_ik| |W_S| <= H |A_ik|, whatever training
        # makes of the weights.
        for seed in range(5):
            cell = make_cell(seed=seed)
            with torch.no_grad():
                for parameter in cell.parameters():
                    parameter.mul_(10 ** float(torch.empty(()).uniform_(-2, 2)))
            past = rms_normalise(state[:, :1]).requires_grad_()
            decoded = cell.reconstruct(cell.structural(past))  # (Q, 1, R)
            for k in range(Q):
                (gradient,) = torch.autograd.grad(
                    decoded[k, 0, 0], past, retain_graph=True
                )
                for i in set(range(Q)) - {k}:
                    # n(n(H)) projects, so its derivative has norm <= 1 (up to eps).
                    bound = H * cell.A_dag[i, k].abs() * 1.001
                    assert gradient[i].norm() <= bound

    def test_typical_directions_keep_the_root_mean_square(self):
        torch.manual_seed(0)
        layer = RCNCell(2, 64, 3).parent_block
        x = rms_normalise(torch.randn(2, 500, 64))
        torch.testing.assert_close(
            layer(x).pow(2).mean(), torch.tensor(1.0), atol=0.05, rtol=0
        )


class TestMemory:
    def test_d42_roots_keep_their_past_beyond_q_steps(self, state):
        # D42: roots carried no memory.
        cell = make_cell(reconstruction_dim=None)
        with torch.no_grad():
            cell.A_dag.copy_(cell.A_dag.triu(1))  # acyclic, hence nilpotent
        H0 = state.clone().requires_grad_()
        run = RCNSequenceRunner(cell).run(H0, torch.zeros(Q + 2, N, D))
        (gradient,) = torch.autograd.grad(run.states[-1][0].square().sum(), H0)
        assert gradient[0].abs().max() > 1e-6
        assert gradient[1:].abs().max() == 0  # a root has no other past than its own

    def test_d42_without_own_lag_the_past_is_lost(self, state):
        # D42: roots carried no memory.
        cell = make_cell(reconstruction_dim=None)
        with torch.no_grad():
            cell.A_dag.copy_(cell.A_dag.triu(1))
            cell.own_lag.zero_()
        H0 = state.clone().requires_grad_()
        run = RCNSequenceRunner(cell).run(H0, torch.zeros(Q, N, D))
        (gradient,) = torch.autograd.grad(run.states[-1].square().sum(), H0)
        assert gradient.abs().max() == 0

    def test_the_own_lag_is_not_in_the_matrix(self, cell):
        before = cell.effective_dag()
        with torch.no_grad():
            cell.own_lag.mul_(10)
        assert torch.equal(before, cell.effective_dag())


class TestReconstruction:
    def test_d41_the_source_is_used(self, cell, state, driver):
        # D41: the reconstruction source was ignored.
        source = torch.randn(Q, N, H)
        _, decoded, _ = cell(state, driver, source)
        torch.testing.assert_close(decoded, cell.reconstruct(source))
        _, default, _ = cell(state, driver)
        torch.testing.assert_close(default, cell.reconstruct(cell.structural(state)))
        assert not torch.allclose(decoded, default)

    def test_the_present_driver_is_not_seen(self, cell, state, driver):
        _, one, _ = cell(state, driver)
        _, two, _ = cell(state, driver + 3.0)
        assert torch.equal(one, two)

    def test_no_decoder(self, state, driver):
        cell = make_cell(reconstruction_dim=None)
        assert cell(state, driver)[1] is None
        assert cell(state, driver[0])[1] is None


class TestRunner:
    def test_equals_single_steps(self, cell, state, driver):
        drivers = [driver, driver + 1, driver - 1]
        run = RCNSequenceRunner(cell).run(state, drivers)
        H = state
        for t, x in enumerate(drivers):
            H, decoded, _ = cell(H, x)
            torch.testing.assert_close(run.states[t], H)
            torch.testing.assert_close(run.reconstructions[t], decoded)
        stacked = RCNSequenceRunner(cell).run(state, torch.stack(drivers))
        assert torch.equal(stacked.states[-1], run.states[-1])

    def test_d41_sources_are_handed_on(self, cell, state, driver):
        # D41: the reconstruction source was ignored.
        sources = [torch.randn(Q, N, H), None]
        run = RCNSequenceRunner(cell).run(state, [driver, driver], sources)
        torch.testing.assert_close(run.reconstructions[0], cell.reconstruct(sources[0]))
        torch.testing.assert_close(
            run.reconstructions[1], cell.reconstruct(cell.structural(run.states[0]))
        )

    def test_d61_the_penalty_does_not_grow_with_the_length(self, state, driver):
        # D61: the penalty grew with the number of time steps.
        cell = RCNCell(Q, H, D)
        runner = RCNSequenceRunner(cell)
        short, long = (runner.run(state, [driver] * t) for t in (1, 6))
        assert len(long.dag_matrices) == 6
        assert acyclicity(short.dag) == acyclicity(long.dag)
        assert acyclicity(long.dag) > 0

    @pytest.mark.parametrize(
        ("interval", "reach"), [(None, 0), (1, 4), (2, 4), (3, 3), (9, 0)]
    )
    def test_truncation(self, cell, state, driver, interval, reach):
        drivers = [driver.clone().requires_grad_() for _ in range(5)]
        runner = RCNSequenceRunner(cell, detach_interval=interval)
        run = runner.run(state, drivers)
        gradients = torch.autograd.grad(
            run.states[-1].square().sum(), drivers, allow_unused=True
        )
        seen = [t for t, g in enumerate(gradients) if g is not None]
        assert seen == list(range(reach, 5))
        full = RCNSequenceRunner(cell).run(state, drivers)
        assert torch.equal(full.states[-1], run.states[-1])

    @pytest.mark.parametrize("interval", [0, -1])
    def test_d43_detach_interval_must_be_positive(self, cell, interval):
        # D43: an interval of 0 divided by zero, 8 channels were fixed, no batch.
        with pytest.raises(ValueError, match="detach_interval"):
            RCNSequenceRunner(cell, detach_interval=interval)

    def test_bad_sequences(self, cell, state, driver):
        runner = RCNSequenceRunner(cell)
        with pytest.raises(InputError, match="at least one driver"):
            runner.run(state, [])
        with pytest.raises(InputError, match="one reconstruction source per driver"):
            runner.run(state, [driver], [state, state])


class TestParameters:
    def test_d43_any_number_of_channels_and_a_batch(self):
        # D43: an interval of 0 divided by zero, 8 channels were fixed, no batch.
        cell = RCNCell(3, 16, 15, reconstruction_dim=15)
        H_next, decoded, _ = cell(torch.randn(3, 4 * 20, 16), torch.randn(80, 15))
        assert H_next.shape == (3, 80, 16)
        assert decoded.shape == (80, 15)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((Q, N), (N, D)), "state"),
            (((Q + 1, N, H), (N, D)), "state"),
            (((Q, N, H + 1), (N, D)), "state"),
            (((Q, N, H), (N, D + 1)), "driver"),
            (((Q, N, H), (N + 1, D)), "driver"),
            (((Q, N, H), (Q + 1, N, D)), "driver"),
            (((Q, N, H), (1, Q, N, D)), "driver"),
            (((Q, N, H), (N, D), (Q, N + 1, H)), "reconstruction source"),
        ],
    )
    def test_wrong_shapes(self, cell, shapes, message):
        with pytest.raises(ValueError, match=message):
            cell(*(torch.zeros(shape) for shape in shapes))

    @pytest.mark.parametrize(
        "options",
        [
            {"num_vars": 0},
            {"hidden_dim": 0},
            {"driver_dim": 0},
            {"reconstruction_dim": 0},
            {"dropout": 1.0},
        ],
    )
    def test_wrong_sizes(self, options):
        sizes = {"num_vars": 2, "hidden_dim": 3, "driver_dim": 4, **options}
        with pytest.raises(ConfigError, match=next(iter(options))):
            RCNCell(**sizes)

    @pytest.mark.parametrize("num_vars", [1, 5, 200])
    def test_training_starts_inside_the_domain_but_not_at_zero(self, num_vars):
        for seed in range(3):
            torch.manual_seed(seed)
            cell = RCNCell(num_vars, 2, 1)
            A = cell.effective_dag()
            assert in_dagma_domain(A, s=0.5)
            assert A.abs().max() <= 0.1
            assert A.count_nonzero() == num_vars * (num_vars - 1)

    def test_reset_draws_anew_and_keeps_restrictions(self, cell):
        keep = torch.ones(Q, Q).triu(1)
        cell.restrict_edges(keep)
        before = {n: p.detach().clone() for n, p in cell.named_parameters()}
        torch.manual_seed(9)
        cell.reset_parameters()
        for name, parameter in cell.named_parameters():
            assert not torch.equal(parameter, before[name]) or "bias" in name
        assert cell.own_lag.tolist() == [1.0] * Q
        assert torch.equal(cell.effective_dag() != 0, keep.bool())

    def test_every_parameter_learns(self, cell, state, driver):
        run = RCNSequenceRunner(cell).run(state, [driver, driver])
        loss = run.states[-1].square().sum() + run.reconstructions[-1].square().sum()
        loss.backward()
        for name, parameter in cell.named_parameters():
            assert parameter.grad.abs().max() > 0, name

    def test_dropout_only_in_training(self, state, driver):
        cell = make_cell(dropout=0.5)
        zeros = (cell(state, driver)[0] == 0).float().mean()
        assert 0.3 < zeros < 0.7
        cell.eval()
        assert torch.equal(cell(state, driver)[0], cell(state, driver)[0])
        assert (cell(state, driver)[0] == 0).sum() == 0


class TestPooling:
    def test_mean_and_max_by_graph(self, cell, state):
        batch = torch.tensor([0, 0, 0, 2, 2, 2])
        mean = cell.pool_state(state, batch=batch)
        assert mean.shape == (3, Q, H)
        torch.testing.assert_close(mean[2], state[:, 3:].mean(1))
        largest = cell.pool_state(state, batch=batch, pool="max")
        torch.testing.assert_close(largest[0], state[:, :3].amax(1))

    @pytest.mark.parametrize("pool", ["mean", "max"])
    def test_d40_an_empty_graph_is_zero(self, cell, state, pool):
        # D40: empty groups got the whole graph's mean, unknown pools meant the mean.
        batch = torch.tensor([0, 0, 0, 2, 2, 2])
        pooled = cell.pool_state(state - 10, batch=batch, pool=pool)
        assert pooled[1].abs().max() == 0
        assert pooled[0].max() < 0

    def test_one_graph_without_batch(self, cell, state):
        pooled = cell.pool_state(state, pool="avg")
        torch.testing.assert_close(pooled, state.mean(1)[None])
        torch.testing.assert_close(
            cell.pool_state(state, pool="max"), state.amax(1)[None]
        )

    def test_wrong_arguments(self, cell, state):
        # D40: an unknown pool meant the mean.
        with pytest.raises(ValueError, match="pool"):
            cell.pool_state(state, pool="median")
        with pytest.raises(InputError, match="one graph per node"):
            cell.pool_state(state, batch=torch.zeros(N + 1, dtype=torch.long))
        with pytest.raises(InputError, match="state"):
            cell.pool_state(state[0])


def test_learns_which_variable_drives_which():
    # x(t) = B' x(t-1) + noise, 0 -> 1 -> 2 and own memory; from the reconstruction.
    B = torch.tensor([[0.5, 0.8, 0.0], [0.0, 0.5, 0.8], [0.0, 0.0, 0.5]])
    noise = torch.Generator().manual_seed(0)
    x = [torch.randn(3, 128, generator=noise)]
    for _ in range(60):
        x.append(B.T @ x[-1] + 0.5 * torch.randn(3, 128, generator=noise))
    series = torch.stack(x[-40:])[..., None]  # (T, Q, N, 1)
    series = series / series.std((0, 2), keepdim=True)
    torch.manual_seed(0)
    cell = RCNCell(3, 8, 1, reconstruction_dim=1)
    optimiser = torch.optim.Adam(cell.parameters(), lr=0.02)
    for step in range(80):
        days = series[step % 37 : step % 37 + 3]
        H0 = torch.zeros(3, 128, 8)
        run = RCNSequenceRunner(cell).run(H0, days)
        predicted = torch.stack(run.reconstructions[1:])
        loss = (predicted - days[1:]).square().mean() + 0.01 * run.dag.abs().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    strength = cell.effective_dag().detach().abs()
    true = torch.stack([strength[0, 1], strength[1, 2]])
    others = strength.sum() - true.sum()
    assert true.min() > 2 * others
