"""An outside package adds parts of every kind by configuration alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import xarray as xr
from tests.toy import tiny_model
from typer.testing import CliRunner

from st_cdgm import registry
from st_cdgm.checkpoint.build import build_model
from st_cdgm.checkpoint.directory import META, load_checkpoint, save_checkpoint
from st_cdgm.cli.main import EXIT_INPUT, app
from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.evaluation.report.build import build_report
from st_cdgm.evaluation.scorecard import Scorecard
from st_cdgm.runs.checks import check_before_training
from st_cdgm.runs.console import Session

SCORES = "gusts.scores"
EVERYTHING = (SCORES, "gusts.fields", "gusts.sampling")
# A smaller run than the quick demo.
SMALL = """
defaults: [demo_quick, _self_]
plugins: [{plugins}]
data: {{root: "{root}", stride: 8}}
run: {{dir: "{run}"}}
synthetic: {{hr_shape: [16, 16]}}
training: {{epochs: 1}}
inference: {{members: 3}}
evaluation:
  references: [climatology, mean_day]
  metrics: [f1_p95]
  stride: 10
"""


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def configuration(tmp_path: Path):
    """Write the configuration of a small run; return its file."""

    def write(*plugins: str) -> Path:
        path = tmp_path / "small.yaml"
        text = SMALL.format(
            plugins=", ".join(plugins), root=tmp_path / "data", run=tmp_path / "run"
        )
        path.write_text(text, encoding="utf-8")
        return path

    return write


# By configuration and by command line -------------------------------------------------


def test_names_of_a_plugin_are_valid_where_built_in_ones_are(outside, configuration):
    with pytest.raises(ConfigError, match="no reference of this name") as caught:
        load_config(configuration())
    assert "--plugin MODULE" in str(caught.value)
    config = load_config(configuration(SCORES))
    assert config.plugins == [SCORES]
    assert config.evaluation.references == ["climatology", "mean_day"]
    with pytest.raises(ConfigError, match="did you mean mean_day"):
        load_config(configuration(SCORES), ["evaluation.references=[meanday]"])


def test_an_override_names_a_plugin_too(outside):
    changes = [f"plugins=[{SCORES}]", "evaluation.metrics=[peak_ratio]"]
    assert load_config("demo", changes).evaluation.metrics == ["peak_ratio"]


def test_a_missing_plugin_is_named_with_the_remedy(configuration):
    with pytest.raises(ConfigError, match="a plugin cannot be imported") as caught:
        load_config(configuration("no_such_package.parts"))
    assert "No module named 'no_such_package'" in str(caught.value)
    assert "PYTHONPATH" in str(caught.value)


def test_the_option_works_for_every_verb_and_is_kept(outside, tmp_path):
    chosen = "evaluation.references=[mean_day]"
    refused = call("run", "--config", "demo", "--dry-run", chosen)
    assert refused.exit_code == EXIT_INPUT
    done = call("--plugin", SCORES, "run", "--config", "demo", "--dry-run", chosen)
    assert done.exit_code == 0, done.output
    assert f"plugins:\n- {SCORES}\n" in done.stdout
    (tmp_path / "kept.yaml").write_text(done.stdout, encoding="utf-8")
    assert load_config(tmp_path / "kept.yaml").plugins == [SCORES]


def test_a_wrong_option_ends_any_verb_with_a_readable_error(outside):
    done = call("--plugin", "gusts.nothing", "doctor")
    assert done.exit_code == EXIT_INPUT
    assert "a plugin cannot be imported" in done.stderr
    assert "gusts.nothing" in done.stderr


def test_plugins_are_listed_with_their_origin(outside, monkeypatch):
    done = call("--plugin", SCORES, "plugins")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["metric", "crps", "built-in"] in rows
    assert ["metric", "peak_ratio", "gusts, not installed"] in rows
    done = call("plugins", "--kind", "reference")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {kind for kind, _, _ in rows} == {"reference"}
    assert rows[-1] == ["reference", "mean_day", "gusts, not installed"]
    monkeypatch.setattr(
        "importlib.metadata.packages_distributions", lambda: {"gusts": ["typer"]}
    )
    assert "peak_ratio\ttyper " in call("plugins", "--kind", "metric").stdout
    wrong = call("plugins", "--kind", "colour")
    assert wrong.exit_code == EXIT_INPUT
    assert "sampler | codec" in wrong.stderr


def test_the_list_is_a_table_on_a_terminal(monkeypatch):
    monkeypatch.setattr(Session, "quiet", property(lambda _: False))
    done = call("plugins", "--kind", "reference")
    assert done.stdout.split()[:3] == ["kind", "name", "origin"]
    assert "\t" not in done.stdout


def test_an_oracle_of_a_plugin_may_not_predict_either(outside, tmp_path):
    changes = [f"plugins=[{SCORES},gusts.fields]", "data.baseline_strategy=mean"]
    changes += [f"data.root={tmp_path}", f"run.dir={tmp_path / 'run'}"]
    config = load_config("demo", [*changes, "evaluation.references=[mean_day]"])
    for name in ("predictors.nc", "targets.nc", "static.nc"):
        (tmp_path / name).touch()
    check_before_training(config, to_the_end=True)
    registry.get("baseline", "mean").oracle = True
    with pytest.raises(ConfigError, match="made from the fine truth") as caught:
        check_before_training(config, to_the_end=True)
    assert caught.value.facts["found"] == "mean"
    assert caught.value.facts["expected"] == (
        "auto | climatology | lr_interp | regression | ridge"
    )


# What a file from somebody else may do ------------------------------------------------


def test_an_untrusted_configuration_imports_nothing(outside, configuration):
    with pytest.raises(ConfigError, match="plugins that are not loaded") as caught:
        load_config(configuration(SCORES), trusted=False)
    assert f"st-cdgm --plugin {SCORES} VERB" in str(caught.value)
    assert SCORES not in sys.modules
    registry.load_plugins([SCORES])
    assert load_config(configuration(SCORES), trusted=False).plugins == [SCORES]


def test_a_checkpoint_names_its_plugins_and_never_imports_them(
    outside, tiny_pipeline, tmp_path
):
    preprocessor = tiny_pipeline.preprocessor
    ones = torch.ones(len(preprocessor.targets))
    model = build_model(
        preprocessor, tiny_model(), baseline_mean=ones, baseline_std=ones
    )
    folder = save_checkpoint(tmp_path / "best", model, preprocessor)
    assert "plugins" not in load_checkpoint(folder).meta
    registry.load_plugins([SCORES])
    save_checkpoint(folder, model, preprocessor)
    assert load_checkpoint(folder).meta["plugins"] == [SCORES]

    # Not needed for the model: it loads without. Needed: the error names it.
    registry._PLUGINS.clear()
    del sys.modules[SCORES]
    assert load_checkpoint(folder).meta["plugins"] == [SCORES]
    meta = json.loads((folder / META).read_text("utf-8"))
    meta["data"]["baseline"]["kind"] = "mean"
    for part in meta["data"]["baseline"].get("parts", []):
        part["baseline"]["kind"] = "mean"
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(InputError, match="trained with plugins") as caught:
        load_checkpoint(folder)
    assert f"st-cdgm --plugin {SCORES} VERB" in str(caught.value)
    assert SCORES not in sys.modules
    del meta["plugins"]
    (folder / META).write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder)
    assert "plugins that are not loaded" not in str(caught.value)


# The whole way ------------------------------------------------------------------------


@pytest.fixture
def run(outside, configuration, tmp_path: Path) -> Path:
    """Run a small demo with one part of each kind, by configuration alone."""
    from st_cdgm.runs.steps import make_climate

    file = configuration(*EVERYTHING)
    make_climate(load_config(file), tmp_path / "data", Session())
    chosen = [
        "data.codecs={pr: gust}",
        "data.baseline_strategy=mean",
        "data.lr_derived=[wet_warmth]",
        "diffusion.scheduler_type=edm",
        "inference.sampler=few_steps",
    ]
    done = call("run", "--config", str(file), *chosen)
    assert done.exit_code == 0, done.output
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_with_one_part_of_each_kind(run, tmp_path):
    assert load_config(run / "config.yaml").plugins == list(EVERYTHING)
    check_scores(run)

    # What was learned with the parts is rebuilt with them.
    checkpoint = load_checkpoint(run / "checkpoints" / "best")
    assert checkpoint.meta["plugins"] == list(EVERYTHING)
    about = checkpoint.preprocessor
    assert about.baseline.strategy == "mean"
    assert about.channels[-1].name == "wet_warmth"
    assert '"gust"' in json.dumps(checkpoint.meta["data"])
    done = downscale(run, tmp_path / "new.nc")
    assert done.exit_code == 0, done.output
    with xr.open_dataset(tmp_path / "new.nc") as made:
        assert float(made["pr"].min()) >= 0

    # Without them the report can still be built; the model cannot.
    for entry in [e for e in registry._ENTRIES.values() if e.origin == "gusts"]:
        del registry._ENTRIES[entry.kind, entry.name]
    registry._PLUGINS.clear()
    remedy = "st-cdgm --plugin " + " --plugin ".join(EVERYTHING)
    page = build_report(run).read_text("utf-8")
    assert "metrics peak_ratio: a plugin that is not loaded" in page
    assert remedy in page
    done = downscale(run, tmp_path / "other.nc")
    assert done.exit_code == EXIT_INPUT
    assert "trained with plugins that are not loaded" in done.stderr
    assert remedy in done.stderr
    assert not (tmp_path / "other.nc").exists()


def downscale(run: Path, output: Path):
    return call(
        *("downscale", "--checkpoint", str(run / "checkpoints" / "best")),
        *("--lr", str(run.parent / "data" / "predictors.nc")),
        *("--output", str(output), "--members", "2", "--sampler", "few_steps"),
        *("--start", "2003-01-01", "--end", "2003-01-03"),
    )


def check_scores(run: Path) -> None:
    """Check that metric and reference are seen in scorecard and report."""
    card = Scorecard.from_json(run / "scorecard.json")
    assert set(card.rows["source"]) == {"st-cdgm", "climatology", "mean_day"}
    ratio = card.wide("peak_ratio")
    assert (ratio > 0).all(axis=None)
    assert "f1_p95" in set(card.rows["metric"])
    assert "peak_ratio" in (run / "scorecard.csv").read_text("utf-8")
    page = (run / "report.html").read_text("utf-8")
    assert "peak ratio" in page
    assert "mean_day" in page
