from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dagma.linear import DagmaLinear
from dagma.nonlinear import DagmaMLP
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import expm

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.evaluation.graph.dag import export_dag_to_csv
from st_cdgm.evaluation.graph.matrix import (
    acyclic_threshold,
    acyclicity_report,
    find_cycle,
    threshold_graph,
)
from st_cdgm.models.acyclicity import (
    acyclicity,
    central_path,
    dagma,
    in_dagma_domain,
    keep_in_domain,
    notears,
    sparsity,
)

TWO_CYCLE = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def default_dtype():
    """Undo what the reference library does: it changes torch's default dtype."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


def random_matrix(seed, q, scale=1.0):
    values = np.random.default_rng(seed).normal(0.0, scale, (q, q))
    np.fill_diagonal(values, 0.0)
    return torch.from_numpy(values)


def random_dag(seed, q, scale=1.0):
    """Strictly triangular in a random order of the variables."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(q))
    return random_matrix(seed, q, scale).triu(1)[order][:, order]


def spectral_radius(A):
    return float(np.abs(np.linalg.eigvals((A * A).numpy())).max())


def feasible(seed, q, share):
    """A cyclic matrix with the spectral radius of A * A at ``share``."""
    A = random_matrix(seed, q)
    return A * math.sqrt(share / spectral_radius(A))


def library_penalty(A, s):
    """Value and gradient of the log-determinant penalty by the reference library."""
    reference = DagmaLinear(loss_type="l2")
    reference.d, reference.Id = len(A), np.eye(len(A))
    return reference._h(A.detach().numpy(), s)


class TestPenalties:
    def test_two_cycle_of_one_half(self):
        # det [[1, -1/4], [-1/4, 1]] = 15/16; tr exp = 2 cosh 1/4.
        assert dagma(TWO_CYCLE).item() == pytest.approx(-math.log(15 / 16), rel=1e-6)
        assert dagma(TWO_CYCLE).item() == pytest.approx(0.0645, abs=5e-5)
        assert notears(TWO_CYCLE).item() == pytest.approx(2 * math.cosh(0.25) - 2)

    @given(
        seed=seeds,
        q=st.integers(1, 9),
        share=st.floats(0.01, 0.95),
        s=st.floats(0.2, 3.0),
    )
    @settings(max_examples=60, deadline=None)
    def test_dagma_equals_the_reference_library_anywhere_in_the_domain(
        self, seed, q, share, s
    ):
        A = feasible(seed, q, share * s) if q > 1 else torch.zeros(1, 1).double()
        value, gradient = library_penalty(A, s)
        A.requires_grad_()
        h = dagma(A, s)
        h.backward()
        assert h.item() == pytest.approx(value, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(A.grad.numpy(), gradient, rtol=1e-8, atol=1e-12)

    def test_dagma_equals_the_library_for_the_norms_of_a_network(self):
        # There the graph is that of the norms of a first layer's columns.
        torch.manual_seed(0)
        model = DagmaMLP(dims=[4, 3, 1])
        with torch.no_grad():
            model.fc1.weight.uniform_(-0.3, 0.3)
        norms = model.fc1.weight.view(4, 3, 4).square().sum(1).sqrt().T  # i -> j
        reference = model.h_func(s=1.5)
        assert dagma(norms, 1.5).item() == pytest.approx(reference.item(), rel=1e-9)
        assert reference > 0.01
        (ours,) = torch.autograd.grad(dagma(norms, 1.5), model.fc1.weight)
        (theirs,) = torch.autograd.grad(reference, model.fc1.weight)
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-12)

    @given(seed=seeds, q=st.integers(1, 8), scale=st.floats(0.05, 1.2))
    @settings(max_examples=40, deadline=None)
    def test_notears_equals_the_matrix_exponential_of_scipy(self, seed, q, scale):
        A = random_matrix(seed, q, scale)
        E = expm((A * A).numpy())
        A.requires_grad_()
        h = notears(A)
        h.backward()
        assert h.item() == pytest.approx(np.trace(E) - q, rel=1e-9, abs=1e-10)
        expected = 2 * A.detach().numpy() * E.T
        np.testing.assert_allclose(A.grad.numpy(), expected, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("penalty", [dagma, notears])
    @pytest.mark.parametrize("q", [1, 2, 4, 7])
    def test_gradient_equals_finite_differences(self, penalty, q):
        A = feasible(3, q, 0.6) if q > 1 else torch.zeros(1, 1).double()
        A.requires_grad_()
        assert torch.autograd.gradcheck(penalty, (A,))

    @given(seed=seeds, q=st.integers(1, 8))
    @settings(max_examples=30, deadline=None)
    def test_zero_for_a_dag_of_any_size_of_weights(self, seed, q):
        A = random_dag(seed, q, scale=3.0)
        assert dagma(A).item() == pytest.approx(0.0, abs=1e-9)
        small = random_dag(seed, q)
        assert notears(small).item() == pytest.approx(0.0, abs=1e-9)

    @given(seed=seeds, q=st.integers(2, 8), share=st.floats(0.01, 0.95))
    @settings(max_examples=30, deadline=None)
    def test_positive_with_a_cycle(self, seed, q, share):
        A = feasible(seed, q, share)
        assert dagma(A) > 0
        assert notears(A) > 0

    def test_gradient_vanishes_at_a_dag(self):
        A = random_dag(5, 6).requires_grad_()
        dagma(A).backward()
        # d h / d A_ik = 2 A_ik inv(M)_ki, and k does not reach i where A_ik is not 0.
        assert A.grad.abs().max() < 1e-12

    def test_single_precision_near_a_dag(self):
        # 1e-3 both ways: h = 1e-12, far below the rounding of a float32 determinant.
        A = TWO_CYCLE * 2e-3
        assert A.dtype == torch.float32
        assert dagma(A).dtype == torch.float32
        assert dagma(A).item() == pytest.approx(1e-12, rel=1e-3)

    def test_choice_of_constraint(self):
        assert acyclicity(TWO_CYCLE) == dagma(TWO_CYCLE)
        assert acyclicity(TWO_CYCLE, s=2.0) == dagma(TWO_CYCLE, 2.0)
        assert acyclicity(TWO_CYCLE, constraint="notears") == notears(TWO_CYCLE)
        assert acyclicity(TWO_CYCLE, constraint="none") == 0.0
        with pytest.raises(ConfigError, match="no_tears"):
            acyclicity(TWO_CYCLE, constraint="no_tears")

    @pytest.mark.parametrize("constraint", ["dagma", "notears", "none"])
    def test_d61_one_matrix_not_one_per_time_step(self, constraint):
        # D61: the penalty grew with the number of time steps.
        per_step = TWO_CYCLE.expand(6, 2, 2)
        with pytest.raises(InputError, match="once per step"):
            acyclicity(per_step, constraint=constraint)


class TestDomain:
    @given(seed=seeds, q=st.integers(1, 9), scale=st.floats(0.05, 1.5))
    @settings(max_examples=60, deadline=None)
    def test_equals_the_spectral_radius(self, seed, q, scale):
        A = random_matrix(seed, q, scale)
        radius = spectral_radius(A)
        if abs(radius - 1) > 1e-6:
            assert in_dagma_domain(A) == (radius < 1)

    def test_d62_the_largest_entry_is_not_the_spectral_radius(self):
        # D62: outside its domain the penalty was another function.
        # Entries of 0.6: A * A has 0.36 everywhere, spectral radius 3 * 0.36 > 1.
        dense = 0.6 * (1 - torch.eye(4))
        assert spectral_radius(dense) == pytest.approx(1.08)
        assert not in_dagma_domain(dense)
        # A chain of entries of 50 is acyclic, hence inside.
        chain = torch.diag(torch.full((5,), 50.0), 1)
        assert in_dagma_domain(chain)
        assert dagma(chain).item() == pytest.approx(0.0, abs=1e-12)
        # So is a two-cycle of 5 and 0.1: A * A has 25 and 0.01, spectral radius 0.5.
        uneven = torch.tensor([[0.0, 5.0], [0.1, 0.0]])
        assert in_dagma_domain(uneven)
        assert dagma(uneven).item() == pytest.approx(-math.log(1 - 0.25), rel=1e-6)

    def test_border_and_values_that_are_not_finite(self):
        assert not in_dagma_domain(2 * TWO_CYCLE)
        assert in_dagma_domain(2 * TWO_CYCLE, s=1.001)
        assert not in_dagma_domain(TWO_CYCLE * math.nan)
        assert not in_dagma_domain(TWO_CYCLE * math.inf)
        with pytest.raises(ConfigError, match="positive"):
            in_dagma_domain(TWO_CYCLE, s=0.0)

    def test_d62_outside_the_domain_is_an_error_not_another_function(self):
        # D62: outside its domain the penalty was another function.
        with pytest.raises(InputError, match="keep_in_domain"):
            dagma(3 * TWO_CYCLE)

    @given(seed=seeds, q=st.integers(2, 7), length=st.floats(0.1, 1e4))
    @settings(max_examples=40, deadline=None)
    def test_d62_a_step_is_shortened_not_clamped(self, seed, q, length):
        # D62: outside its domain the penalty was another function.
        old = feasible(seed, q, 0.7)
        step = length * random_matrix(seed + 1, q)
        kept = keep_in_domain(old + step, old)
        assert in_dagma_domain(kept)
        share = ((kept - old) * step).sum() / step.square().sum()
        torch.testing.assert_close(kept, old + share * step, atol=1e-8, rtol=1e-8)
        assert 0 <= share <= 1 + 1e-12
        if not in_dagma_domain(old + step):
            # The first halving that fits was taken.
            assert not in_dagma_domain(old + 2 * share * step)

    def test_a_feasible_step_is_taken_whole(self):
        new = torch.nn.Parameter(TWO_CYCLE * 1.5)
        kept = keep_in_domain(new, TWO_CYCLE)
        assert torch.equal(kept, new.detach())
        assert not kept.requires_grad

    def test_a_step_that_never_fits_is_refused(self):
        kept = keep_in_domain(TWO_CYCLE * math.nan, TWO_CYCLE)
        assert torch.equal(kept, TWO_CYCLE)

    def test_no_feasible_start(self):
        with pytest.raises(InputError, match="step back"):
            keep_in_domain(4 * TWO_CYCLE, 3 * TWO_CYCLE)

    def test_descent_along_the_path_reaches_a_dag(self):
        # Two variables, the stronger direction wins; every iterate stays feasible.
        target = torch.tensor([[0.0, 1.2], [0.4, 0.0]], dtype=torch.float64)
        A = torch.full((2, 2), 0.1, dtype=torch.float64).fill_diagonal_(0)
        A.requires_grad_()
        for epoch in range(600):
            mu = central_path(epoch, 600, stages=4)
            score = (A - target).square().sum()
            (gradient,) = torch.autograd.grad(score + dagma(A) / mu, A)
            old = A.detach()
            A = keep_in_domain(old - 0.02 * min(1, 30 * mu) * gradient, old)
            A.requires_grad_()
        assert A[0, 1] > 1.1
        assert A[1, 0].abs() < 0.02
        assert dagma(A) < 1e-3

    def test_the_path_finds_the_graph_that_the_library_finds(self):
        # A linear system with its cause-effect order hidden: 0 -> 1 -> 2, 0 -> 3 -> 2.
        rng = np.random.default_rng(0)
        true = np.zeros((4, 4))
        true[0, 1], true[1, 2], true[0, 3], true[3, 2] = 1.2, -0.9, 0.8, 1.1
        data = rng.normal(size=(400, 4)) @ np.linalg.inv(np.eye(4) - true)
        library = DagmaLinear(loss_type="l2").fit(
            data.copy(),
            lambda1=0.02,
            T=3,
            s=1.0,
            warm_iter=1000,
            max_iter=2000,
            lr=0.01,
        )
        cov = torch.from_numpy(np.cov(data.T, bias=True))
        A = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([A], lr=0.03)
        for step in range(400):
            left = torch.eye(4) - A
            score = 0.5 * torch.trace(left.T @ cov @ left) + 0.02 * sparsity(A)
            loss = central_path(step, 400, stages=3) * score + dagma(A)
            optimiser.zero_grad()
            loss.backward()
            old = A.detach().clone()
            optimiser.step()
            with torch.no_grad():
                A.copy_(keep_in_domain(A, old).fill_diagonal_(0.0))
        found = threshold_graph(A, 0.3) != 0
        assert np.array_equal(found, library != 0)
        assert np.array_equal(found, true != 0)
        assert dagma(A.detach()) < 1e-3


def test_central_path():
    assert [central_path(e, 8, start=2.0, factor=0.5, stages=4) for e in range(8)] == [
        2.0,
        2.0,
        1.0,
        1.0,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    assert central_path(99, 8, stages=3) == pytest.approx(0.01)
    assert central_path(0, 1) == 1.0


@pytest.mark.parametrize(
    "options", [{"start": 0.0}, {"factor": 1.5}, {"factor": 0.0}, {"stages": 0}]
)
def test_central_path_must_decrease(options):
    with pytest.raises(ConfigError, match="central path"):
        central_path(0, 10, **options)


class TestSparsity:
    A = torch.tensor([[9.0, 1.0, -2.0], [3.0, 9.0, 4.0], [0.0, -5.0, 9.0]])

    def test_l1_without_own_lags(self):
        assert sparsity(self.A).item() == 1 + 2 + 3 + 4 + 5

    def test_groups_by_hand(self):
        # Variables 0 and 1 share a source: 1 + 3 inside; blocks (-2, 4) and (0, -5).
        expected = 1 + 3 + math.sqrt(2) * (math.sqrt(20) + 5)
        value = sparsity(self.A, groups=["low", "low", "high"])
        assert value.item() == pytest.approx(expected)

    def test_groups_of_one_are_l1(self):
        value = sparsity(self.A, groups=["a", "b", "c"])
        assert value.item() == pytest.approx(sparsity(self.A).item())

    def test_gradient_is_finite_at_an_absent_block(self):
        A = torch.zeros(3, 3, requires_grad=True)
        sparsity(A, groups=["low", "low", "high"]).backward()
        assert A.grad.abs().max() == 0.0
        B = self.A.clone().requires_grad_()
        sparsity(B, groups=["low", "low", "high"]).backward()
        assert torch.isfinite(B.grad).all()
        assert B.grad[0, 2].item() == pytest.approx(-2 * math.sqrt(2 / 20))
        assert B.grad.diagonal().abs().max() == 0.0

    def test_wrong_groups(self):
        with pytest.raises(InputError, match="one group per variable"):
            sparsity(self.A, groups=["a"])


values = st.sampled_from([0.0, 1e-300, 0.1, 0.1, -0.1, 0.2, -3.0, 1e8]) | st.floats(
    -1.0, 1.0, allow_nan=False
)
matrices = st.integers(1, 7).flatmap(
    lambda q: arrays(np.float64, (q, q), elements=values)
)


class TestExportedGraph:
    """What leaves the package is a DAG, and the threshold that makes it one is said."""

    @given(matrix=matrices)
    @settings(max_examples=80, deadline=None)
    @example(matrix=np.full((4, 4), 0.3))
    @example(matrix=np.array([[5.0]]))
    @example(matrix=np.zeros((3, 3)))
    def test_the_smallest_threshold_gives_a_dag(self, matrix):
        level = acyclic_threshold(matrix)
        kept = threshold_graph(matrix, level)
        assert find_cycle(kept) == []
        # A DAG in some order of its nodes: its pattern is nilpotent.
        pattern = (kept != 0).astype(float)
        assert not np.linalg.matrix_power(pattern, len(matrix)).any()
        # Every smaller weight in the matrix would leave a cycle.
        off = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
        for smaller in np.unique(off[off < level]):
            assert find_cycle(threshold_graph(matrix, smaller))
        names = [f"v{k}" for k in range(len(matrix))]
        assert acyclicity_report(matrix, names).acyclic_above == level
        # Inside the log-determinant's domain too, whatever the size of the weights.
        ordered = torch.from_numpy(np.clip(kept, -1e3, 1e3))
        assert dagma(ordered).item() == pytest.approx(0.0, abs=1e-9)

    def test_equal_weights_in_a_cycle_go_together(self):
        ring = np.roll(np.eye(3), 1, axis=1) * 0.4
        ring[0, 2] = 0.7
        assert acyclic_threshold(ring) == 0.4
        assert np.argwhere(threshold_graph(ring, 0.4)).tolist() == [[0, 2]]

    def test_single_precision_weights(self):
        A = torch.tensor([[0.0, 0.1], [0.3, 0.0]])  # 0.1 has another double
        level = acyclic_threshold(A)
        assert np.argwhere(threshold_graph(A, level)).tolist() == [[1, 0]]

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_diverged_matrix_is_refused(self, bad, tmp_path):
        A = TWO_CYCLE.clone()
        A[0, 1] = bad
        for refuse in (acyclic_threshold, threshold_graph, find_cycle):
            with pytest.raises(InputError, match="NaN"):
                refuse(A)
        with pytest.raises(InputError, match="NaN"):
            export_dag_to_csv(A, ["a", "b"], tmp_path / "dag.csv")
        assert list(tmp_path.iterdir()) == []
