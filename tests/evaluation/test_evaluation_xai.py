"""The original's evaluation interface: a rollout drawn by hand, scores of fields."""

from __future__ import annotations

import inspect
import logging

import numpy as np
import pytest
import torch
from tests.training.test_training_loop import C_LR, HIDDEN, HR, LR, Models, batches

import st_cdgm
from st_cdgm import evaluation
from st_cdgm.errors import ConfigError, GridMismatchError, InputError
from st_cdgm.evaluation import evaluation_xai as xai
from st_cdgm.evaluation.evaluation_xai import metric_report, scores
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.models.diffusion_output import compose
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder
from st_cdgm.training.config import LossConfig, PhysicalLossConfig
from st_cdgm.training.loop_step import LoopStep

N = LR[0] * LR[1]
RNG = np.random.default_rng(0)
TARGET = RNG.gamma(0.7, 3.0, size=(2, 12, 14))
SAMPLES = [TARGET + RNG.normal(size=TARGET.shape) for _ in range(4)]


# -- Names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["WebDatasetIterableDataset", "EarlyStopping", "train_epoch", "RCNCell"]
)
def test_the_package_has_the_documented_names(name):
    assert name in dir(st_cdgm)
    assert inspect.isclass(getattr(st_cdgm, name)) or name == "train_epoch"


SIGNATURES = {
    "compute_mse": ["pred", "target"],
    "compute_mae": ["pred", "target"],
    "compute_histogram_distance": ["pred", "target", "bins"],
    "compute_crps": ["samples", "target"],
    "compute_fss": ["pred", "target", "threshold", "window_size"],
    "compute_f1_extremes": ["pred", "target", "threshold_percentiles"],
    "compute_wasserstein_distance": ["samples", "target", "num_projections"],
    "compute_energy_score": ["samples", "target"],
    "compute_power_spectrum": ["field"],
    "compute_spectrum_distance": ["pred", "target"],
    "compute_structural_hamming_distance": ["A_pred", "A_true", "threshold"],
    "export_dag_to_csv": ["A_matrix", "var_names", "output_path"],
    "export_dag_to_json": ["A_matrix", "var_names", "output_path"],
    "evaluate_metrics": ["samples", "target", "baseline"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_begin_as_specified(name):
    """The same function here and in ``st_cdgm.evaluation``."""
    function = getattr(xai, name)
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == SIGNATURES[name]
    assert getattr(evaluation, name) is function


# -- Scores ----------------------------------------------------------------------------


def test_scores_by_hand():
    truth = np.zeros((2, 3))
    field = np.array([[1.0, 1.0, 1.0], [-3.0, 1.0, 1.0]])
    assert xai.compute_mse(field, truth) == pytest.approx(14 / 6)
    assert xai.compute_rmse(field, truth) == pytest.approx(np.sqrt(14 / 6))
    assert xai.compute_mae(field, truth) == pytest.approx(8 / 6)
    # Two members, 0 and 2, of a truth of 0: mean error 1, half distance 1.
    pair = [np.zeros((2, 3)), np.full((2, 3), 2.0)]
    assert xai.compute_crps(pair, truth) == pytest.approx(0.0)
    assert xai.compute_crps(pair, truth, fair=False) == pytest.approx(0.5)
    assert xai.compute_energy_score(pair, truth) == pytest.approx(0.0)
    assert xai.compute_energy_score(pair[1:], truth) == pytest.approx(2.0)


def test_channels_are_scored_one_by_one():
    """The mean over channels, each with its own thresholds."""
    large = np.stack([TARGET[0], 1000 * TARGET[1]])
    found = [np.stack([s[0], 1000 * s[1]]) for s in SAMPLES]
    members = np.stack(SAMPLES)
    each = [crps(members[None, :, c], TARGET[None, c]) for c in range(2)]
    assert xai.compute_crps(SAMPLES, TARGET) == pytest.approx(np.mean(each))
    for score in (xai.compute_f1_extremes, xai.compute_correlation):
        assert score(found[0], large) == pytest.approx(score(SAMPLES[0], TARGET))


def test_tensors_batches_and_arrays_are_the_same():
    tensors = [
        torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in SAMPLES
    ]
    expected = xai.compute_crps(SAMPLES, TARGET)
    assert xai.compute_crps(tensors, torch.tensor(TARGET)) == pytest.approx(expected)
    batch = [s[None] for s in SAMPLES]
    assert xai.compute_crps(np.stack(batch), TARGET[None]) == pytest.approx(expected)


def test_fss_takes_batches_and_other_thresholds():
    # D73: predictions of shape [B, 1, H, W] were refused.
    batch = torch.tensor(TARGET[:, None])
    assert xai.compute_fss(batch, batch, 1.0, 5) == pytest.approx(1.0)
    assert np.isnan(xai.compute_fss(batch, batch, 1e9, 5))
    with pytest.raises(ValueError, match="odd"):
        xai.compute_fss(batch, batch, 1.0, 4)


def test_missing_truth_is_left_out():
    holed = TARGET.copy()
    holed[:, :3] = np.nan
    part = [s[:, 3:] for s in SAMPLES]
    for score in (xai.compute_crps, xai.compute_energy_score):
        assert score(SAMPLES, holed) == pytest.approx(score(part, TARGET[:, 3:]))


def test_no_sample_gives_no_number():
    for score in (
        xai.compute_crps,
        xai.compute_energy_score,
        xai.compute_wasserstein_distance,
    ):
        assert np.isnan(score([], TARGET))
    assert np.isnan(scores.member_f1([], TARGET, [95.0])["p95"])


def test_spectra_of_planes_and_stacks():
    plane = xai.compute_power_spectrum(TARGET[0])
    assert plane.shape == (11,)
    stack = xai.compute_power_spectrum(torch.tensor(TARGET))
    np.testing.assert_allclose(stack[0], plane)
    assert stack.shape == (2, 11)
    assert xai.compute_spectrum_distance(np.sqrt(2) * TARGET, TARGET) == pytest.approx(
        10 * np.log10(2)
    )


def test_wasserstein_directions_are_those_of_the_generator():
    def distance(seed):
        generator = np.random.default_rng(seed)
        return xai.compute_wasserstein_distance(SAMPLES, TARGET, 5, generator=generator)

    assert distance(1) == distance(1) != distance(2)
    assert xai.compute_wasserstein_distance([TARGET], TARGET) == pytest.approx(0.0)


# -- All at once -----------------------------------------------------------------------


def test_a_report_holds_the_scores():
    # D72: the switch of the same name hid the function, and F1 was always None.
    # D81: neither RMSE nor correlation, and no inverse transform.
    baseline = TARGET + 2.0
    report = xai.evaluate_metrics(SAMPLES, TARGET, baseline, fss_threshold=1.0)
    mean = np.mean(SAMPLES, axis=0)
    assert report.failed == {}
    assert report.mse == pytest.approx(xai.compute_mse(mean, TARGET))
    assert report.rmse == pytest.approx(xai.compute_rmse(mean, TARGET))
    assert report.correlation == pytest.approx(xai.compute_correlation(mean, TARGET))
    assert report.crps == pytest.approx(xai.compute_crps(SAMPLES, TARGET))
    assert report.energy_score == xai.compute_energy_score(SAMPLES, TARGET)
    assert set(report.f1_extremes) == {"p95", "p99"}
    assert 0 < report.fss < 1
    assert report.wasserstein_distance > 0
    assert (report.baseline_mse, report.baseline_mae) == (
        pytest.approx(4.0),
        pytest.approx(2.0),
    )
    # Members, not their mean, are compared with the truth's distribution.
    assert report.hist_distance != pytest.approx(
        xai.compute_histogram_distance(mean, TARGET)
    )


def test_what_was_not_asked_for_is_none():
    report = xai.evaluate_metrics(
        SAMPLES, TARGET, compute_advanced=False, compute_f1_extremes=False
    )
    names = ("fss", "wasserstein_distance", "energy_score", "f1_extremes")
    assert [getattr(report, name) for name in names] == [None] * 4
    assert report.baseline_mse is None
    assert report.to_dict()["crps"] == report.crps


@pytest.mark.parametrize("broken", ["compute_fss", "compute_crps", "compute_mse"])
def test_one_failing_score_leaves_the_others(monkeypatch, caplog, broken):
    # D73: a failing FSS took Wasserstein distance and energy score with it.
    name = broken.removeprefix("compute_")
    whole = xai.evaluate_metrics(SAMPLES, TARGET, fss_threshold=1.0)

    def fails(*_args, **_more):
        raise RuntimeError("out of order")

    monkeypatch.setattr(scores, "member_fss" if name == "fss" else broken, fails)
    with caplog.at_level(logging.WARNING, logger=metric_report.__name__):
        report = xai.evaluate_metrics(SAMPLES, TARGET, fss_threshold=1.0)
    assert report.failed == {name: "out of order"}
    assert "out of order" in caplog.text
    assert np.isnan(getattr(report, name))
    rest = {k: v for k, v in whole.to_dict().items() if k not in (name, "failed")}
    assert {k: v for k, v in report.to_dict().items() if k in rest} == rest


def test_scores_are_of_the_physical_scale():
    encoded = [np.log1p(np.maximum(s, 0)) for s in SAMPLES]
    report = xai.evaluate_metrics(
        encoded, np.log1p(TARGET), np.log1p(TARGET + 1), inverse_transform=np.expm1
    )
    positive = [np.maximum(s, 0) for s in SAMPLES]
    expected = xai.evaluate_metrics(positive, TARGET, TARGET + 1)
    assert report.crps == pytest.approx(expected.crps)
    assert report.baseline_mae == pytest.approx(1.0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        xai.evaluate_metrics([], TARGET)
    # D79: fields of three channels were compared with those of one.
    with pytest.raises(GridMismatchError, match="Sample 1"):
        xai.evaluate_metrics([TARGET, TARGET[:1]], TARGET)
    with pytest.raises(InputError, match="not finite"):
        xai.evaluate_metrics([np.full_like(TARGET, np.nan)], TARGET)
    with pytest.raises(InputError, match="wrong rank"):
        xai.compute_mse(TARGET[0, 0], TARGET[0, 0])


def test_the_draws_of_a_decoder_are_samples_with_a_baseline():
    truth, first = torch.tensor(TARGET)[None], torch.full((1, *TARGET.shape), 1.0)
    draws = [
        compose(truth - first + noise, first, codec=None, triple=False, decode=True)
        for noise in (0.5, -0.5)
    ]
    report = xai.evaluate_metrics(draws, truth)
    assert report.mse == pytest.approx(0.0, abs=1e-20)
    assert report.baseline_mse == pytest.approx(xai.compute_mse(first, truth))


def test_the_baseline_of_decoded_draws_is_not_in_their_units():
    raw = torch.randn(1, 3, 6, 7)
    draw = compose(raw, torch.ones_like(raw), codec=None, triple=True, decode=True)
    assert xai.evaluate_metrics([draw], draw.composite).baseline_mse is None


# -- A rollout -------------------------------------------------------------------------


class Recorder:
    """Keep what a decoder was conditioned on."""

    def __init__(self, decoder, monkeypatch):
        self.seen, inner = [], decoder.sample

        def sample(conditioning, **options):
            self.seen.append((conditioning, options))
            assert not decoder.training
            return inner(conditioning, **options)

        monkeypatch.setattr(decoder, "sample", sample)


def rolled(models, **options):
    batch = batches()[0]
    with torch.no_grad():
        state = models.encoder.init_state(batch["hetero"])
    return batch, xai.autoregressive_inference(
        rcn_runner=models.runner,
        diffusion_decoder=models.decoder,
        initial_state=state,
        drivers=batch["lr"][1:],
        **{"num_steps": 2, "num_samples": 3} | options,
    )


def projecting(models):
    """Give the models an encoder with a projection of its own width."""
    configs = [
        IntelligibleVariableConfig(c.name, c.meta_path) for c in models.encoder.configs
    ]
    models.encoder = IntelligibleVariableEncoder(
        configs,
        HIDDEN,
        in_channels={"GP850": C_LR, "SP_HR": 1},
        conditioning_dim=2 * HIDDEN,
    )
    return models


@pytest.mark.parametrize("given", ["encoder", "conditioning_fn", "neither"])
def test_fields_are_conditioned_as_in_training(given, monkeypatch):
    # D71: conditioned on states averaged over variables, not on what was trained.
    models = Models()
    if given == "conditioning_fn":
        how = {"conditioning_fn": lambda H, _: 2.0 * H.mean(1)[None]}
    else:
        how = {"encoder": models.encoder} if given == "encoder" else {}
    recorder = Recorder(models.decoder, monkeypatch)
    batch, result = rolled(models, **how)

    step = LoopStep(
        encoder=models.encoder,
        rcn_runner=models.runner,
        diffusion_decoder=models.decoder,
        loss=LossConfig(),
        look=PhysicalLossConfig(),
        conditioning_fn=how.get("conditioning_fn"),
    )
    for (seen, _), state in zip(recorder.seen, result.states, strict=True):
        assert seen.shape == (1, 2, HIDDEN)
        torch.testing.assert_close(seen, step._conditioning([state], batch))


def test_a_projection_needs_its_encoder(monkeypatch):
    # D71
    models = projecting(Models())
    models.decoder.conditioning_dim = 2 * HIDDEN
    with pytest.raises(ConfigError, match=r"(?s)not trained.*encoder="):
        rolled(models)
    tokens = models.encoder.project_state_tensor(torch.zeros(2, N, HIDDEN))
    assert tokens.shape == (1, 2, 2 * HIDDEN)


def test_a_rollout_has_steps_samples_and_options(monkeypatch):
    # D71: no baseline, no choice of sampler and steps; gradients, training mode.
    models = Models()
    recorder = Recorder(models.decoder, monkeypatch)
    baseline = torch.full((2, 2, *HR), 5.0)
    batch, result = rolled(
        models,
        generator=torch.Generator().manual_seed(1),
        baseline=baseline,
        scheduler_type="edm",
    )
    assert [len(step) for step in result.generations] == [3, 3]
    assert len(result.states) == len(result.dag_matrices) == len(batch["lr"]) - 1
    torch.testing.assert_close(result.dag_matrices[0], models.cell.effective_dag())
    one = result.generations[0][0]
    assert one.residual.shape == (1, 2, *HR)
    torch.testing.assert_close(one.fields["channel_1"], one.residual[:, 1] + 5.0)
    assert not one.residual.requires_grad
    assert not torch.equal(one.residual, result.generations[0][1].residual)
    options = recorder.seen[0][1]
    assert (options["num_steps"], options["scheduler_type"]) == (2, "edm")
    assert models.decoder.training
    assert models.encoder.training

    # The same generator gives the same members; more of them change none.
    again = rolled(
        models,
        generator=torch.Generator().manual_seed(1),
        baseline=baseline,
        scheduler_type="edm",
        num_samples=1,
    )[1]
    torch.testing.assert_close(again.generations[0][0].residual, one.residual)
    report = xai.evaluate_metrics(result.generations[0], baseline[:1] + 1)
    assert report.baseline_mae == pytest.approx(1.0)


def test_unusable_rollouts_are_refused():
    models = Models()
    with pytest.raises(ConfigError, match="num_samples"):
        rolled(models, num_samples=0)
    with pytest.raises(InputError, match="one baseline per driver"):
        rolled(models, baseline=torch.zeros(1, 2, *HR))
