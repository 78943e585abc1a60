"""What a run leaves out or adds: scores, references, figures, extremes."""

from __future__ import annotations

import pytest
from tests.toy import SPLITS, tiny_model

from st_cdgm.config.schema import Config
from st_cdgm.data.task.config import DataConfig
from st_cdgm.errors import ConfigError
from st_cdgm.evaluation.scorecard import Scorecard
from st_cdgm.runs.console import Session
from st_cdgm.runs.directory import own_files
from st_cdgm.runs.workflow import run_workflow
from st_cdgm.training.config import TrainingConfig


@pytest.fixture
def config(tiny_files, tmp_path):
    """Settings made in Python, of a run of seconds."""
    model = tiny_model()
    made = Config(
        data=DataConfig(
            root=str(tiny_files),
            lr_path="lr.nc",
            hr_path="hr.nc",
            seq_len=3,
            stride=8,
            splits=SPLITS,
        ),
        encoder=model.encoder,
        diffusion=model.diffusion,
        training=TrainingConfig(
            epochs=1, validation_stride=8, device="cpu", fit_noise_memory=False
        ),
    )
    made.run.dir = str(tmp_path / "run")
    made.evaluation.references = ["climatology"]
    made.evaluation.num_samples = 2
    return made


@pytest.mark.slow
def test_a_run_without_scores_ends_with_its_ensemble(config, tmp_path):
    config.evaluation.enabled = False
    report = run_workflow(config, Session(announce=False))
    run = tmp_path / "run"
    assert report.is_file()
    assert (run / "downscaled.nc").is_file()
    left_out = ("scorecard.json", "diagnostics.nc", "references", "figures")
    assert [name for name in left_out if (run / name).exists()] == []
    # Settings made in Python are settled as those of a file.
    assert (config.training.accelerator, config.inference.members) == ("cpu", 2)


@pytest.mark.slow
def test_a_run_draws_figures_and_counts_extremes(config, tmp_path):
    config.evaluation.compute_f1_extremes = True
    config.evaluation.f1_percentiles = [90.0]
    config.evaluation.save_visualizations = True
    config.evaluation.output_dir = "drawn"
    run_workflow(config, Session(announce=False))
    run = tmp_path / "run"
    scores = Scorecard.from_json(run / "scorecard.json")
    assert scores.protocol["scored"]["members"]["st-cdgm"] == 2
    assert {"f1_p90"} == {m for m in scores.rows["metric"] if m.startswith("f1")}

    # They belong to the run; what somebody laid beside them does not.
    (run / "drawn" / "mine-1.png").write_bytes(b"")
    own = {str(path.relative_to(run)) for path in own_files(run)}
    assert {"drawn/maps-1.png", "drawn/graph-1.svg", "drawn/training-1.svg"} <= own
    assert "drawn/mine-1.png" not in own


def test_settings_made_in_python_are_checked_before_anything_is_read(config):
    config.training.device = "abacus"
    with pytest.raises(ConfigError, match=r"training\.device"):
        run_workflow(config, Session(announce=False))
