"""Options of the data in runs: URLs and patterns, folds, derived predictors."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.config.load import load_config, save_config
from st_cdgm.errors import ConfigError, MissingFileError
from st_cdgm.evaluation.scorecard import Scorecard
from st_cdgm.runs import steps, workflow
from st_cdgm.runs.checks import check_before_training
from st_cdgm.runs.console import Session

URLS = [
    "https://host/task/lr.nc",
    "https://host/lr.nc?version=2&raw=1",
    "s3://bucket/lr_*.nc",
    "memory://box/lr.zarr",
    "simplecache::https://host/lr.nc",
]


def configured(tmp_path: Path, *overrides: str):
    return load_config(
        "demo",
        [
            f"data.root='{tmp_path}'",
            f"run.dir='{tmp_path / 'run'}'",
            "data.static_path=null",
            *overrides,
        ],
    )


@pytest.mark.parametrize("url", URLS)
def test_a_url_comes_through_the_configuration_and_the_checks(tmp_path, url):
    config = configured(tmp_path, f"data.lr_path={url}", f"data.hr_path={url}")
    assert config.data.lr_path == url
    assert config.data.resolve(config.data.lr_path) == url
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    # Whether it exists shows when it is opened.
    check_before_training(config, to_the_end=True)


def test_files_below_a_url(tmp_path):
    config = configured(tmp_path, "data.root=s3://bucket/task")
    assert config.data.resolve(config.data.lr_path) == (
        "s3://bucket/task/predictors.nc"
    )
    check_before_training(config, to_the_end=True)


def test_a_pattern_must_match_something(tmp_path):
    (tmp_path / "targets.nc").write_bytes(b"")
    config = configured(tmp_path, "data.lr_path=part_*.nc")
    with pytest.raises(MissingFileError, match="does not exist"):
        check_before_training(config, to_the_end=True)
    (tmp_path / "part_1.nc").write_bytes(b"")
    check_before_training(config, to_the_end=True)


def test_a_local_path_is_still_looked_for(tmp_path):
    config = configured(tmp_path, "data.lr_path=s3://bucket/lr.nc")
    with pytest.raises(MissingFileError, match=r"targets\.nc"):
        check_before_training(config, to_the_end=True)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.splits.folds=4"],
        ["data.splits.train_years=[2001]", "data.splits.validation_years=[2002]"],
    ],
)
def test_splits_are_given_in_one_way(tmp_path, overrides):
    with pytest.raises(ConfigError, match="more than one way"):
        configured(tmp_path, *overrides)


def test_folds_and_years_need_no_periods(tmp_path):
    empty = [f"data.splits.{name}=[]" for name in ("train", "validation", "test")]
    urls = ["data.lr_path=s3://b/lr.nc", "data.hr_path=s3://b/hr.nc"]
    folds = configured(tmp_path, *empty, *urls, "data.splits.folds=4")
    check_before_training(folds, to_the_end=True)
    years = [f"data.splits.{n}_years=[{y}]" for n, y in (("train", 1), ("test", 2))]
    listed = configured(tmp_path, *empty, *urls, *years)
    with pytest.raises(ConfigError, match="no validation period"):
        check_before_training(listed, to_the_end=True)


@pytest.mark.parametrize("strategy", ["regression", "climatology"])
def test_a_reference_that_the_first_guess_rules_out_is_found_first(tmp_path, strategy):
    urls = ["data.lr_path=s3://b/lr.nc", "data.hr_path=s3://b/hr.nc"]
    chosen = configured(tmp_path, *urls, f"data.baseline_strategy={strategy}")
    chosen.evaluation.references.append("lr_interp")
    with pytest.raises(ConfigError, match="another baseline") as caught:
        check_before_training(chosen, to_the_end=True)
    assert strategy in caught.value.facts["found"]
    check_before_training(chosen, to_the_end=False)
    chosen.evaluation.references.remove("lr_interp")
    check_before_training(chosen, to_the_end=True)


@pytest.mark.slow
def test_the_whole_way_with_folds_and_fitted_options(tmp_path):
    """The test block lies between the others; everything fitted is used throughout."""
    config = load_config(
        "demo_quick",
        [
            f"data.root='{tmp_path / 'data'}'",
            f"run.dir='{tmp_path / 'run'}'",
            "synthetic.hr_shape=[16,16]",
            "data.stride=8",
            *(f"data.splits.{name}=[]" for name in ("train", "validation", "test")),
            "data.splits.folds=3",
            "data.splits.fold=1",
            "data.splits.embargo_days=10",
            "data.lr_derived=[ug,ws,hur]",
            "data.baseline_strategy=regression",
            "data.precipitation_codec=quantile",
            "data.robust=true",
            "data.memory=4 MB",
            "evaluation.references=[climatology,analogs,ridge]",
            "training.epochs=1",
            "inference.members=3",
            "evaluation.stride=10",
        ],
    )
    steps.make_climate(config, tmp_path / "data", Session())
    check_before_training(config, to_the_end=True)
    workflow.run_workflow(config, Session())
    run_dir = tmp_path / "run"
    assert load_config(run_dir / "config.yaml") == config
    prep = load_checkpoint(run_dir / "checkpoints" / "best").preprocessor
    assert prep.baseline.strategy == "regression"
    assert prep.codec.chosen["pr"] == "quantile"
    assert any(c.derived and c.variable == "ug" for c in prep.channels)
    assert {name: period[0][:4] for name, period in prep.periods.items()} == {
        "train": "2001",
        "validation": "2003",
        "test": "2002",
    }
    with xr.open_dataset(run_dir / "downscaled.nc", decode_times=False) as ensemble:
        assert ensemble.sizes["time"] == 365
    card = Scorecard.from_json(run_dir / "scorecard.json")
    assert set(card.rows["source"]) == {"st-cdgm", *config.evaluation.references}
    assert card.protocol["splits"] == {"folds": 3, "fold": 1}
    assert (run_dir / "report.html").stat().st_size > 0
