"""``st-cdgm reference``: one opponent on the days of a run."""

from __future__ import annotations

import json

import netCDF4
import numpy as np
import pytest
from tests.cli.test_bad_input import call, facts_of, train

TASK = (
    "--config=demo_quick",
    "data.lr_path=lr.nc",
    "data.hr_path=hr.nc",
    "data.static_path=static.nc",
    "data.baseline_map={tasmin: tas, tasmax: tas}",
    "data.splits.train=[2001-01-01,2001-05-31]",
    "data.splits.validation=[2001-06-03,2001-07-10]",
    "data.splits.test=[2001-07-15,2001-08-28]",
)


def reference(files, name, output, *more):
    given = ("--output", output, f"data.root={files}", *TASK, *more)
    return call("reference", name, *given)


def test_fits_writes_and_scores(files, tmp_path):
    output = tmp_path / "ridge.nc"
    result = reference(files, "ridge", output, "evaluation.stride=4")
    assert result.exit_code == 0, result.output
    with netCDF4.Dataset(output) as file:
        assert len(file.dimensions["realization"]) == 20
        assert len(file.dimensions["time"]) == 12
        assert file.title == "Reference ridge"
        assert np.isfinite(np.asarray(file["tasmin"])).any()
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert any(line.startswith("ridge ") for line in lines)
    assert "Seen: days of predictors: ridge 2" in lines
    assert any(line.startswith("Tuned: settings compared") for line in lines)
    assert not [path for path in tmp_path.iterdir() if path != output]


def test_members_stride_and_no_validation(files, tmp_path):
    output = tmp_path / "c.nc"
    more = ("--members=3", "data.splits.validation=[]", "evaluation.stride=1")
    result = reference(files, "climatology", output, *more)
    assert result.exit_code == 0, result.output
    with netCDF4.Dataset(output) as file:
        assert len(file.dimensions["realization"]) == 3
        assert len(file.dimensions["time"]) == 45


def test_an_unknown_name_is_answered_with_the_list(files, tmp_path):
    facts = facts_of(reference(files, "rigde", tmp_path / "x.nc"))
    assert facts["problem"] == "there is no reference of this name"
    for name in ("analogs", "glm", "quantile_mapping", "ridge_pc"):
        assert name in facts["expected"]
    assert facts["remedy"] == "did you mean ridge?"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.splits.test=[]"], "no test period"),
        (["data.hr_path=nothing.nc"], "nothing.nc"),
        (["data.baseline_strategy=climatology"], "another baseline"),
    ],
)
def test_what_cannot_work_is_said_before_the_data_are_read(
    files, tmp_path, overrides, said
):
    plain = ["data.baseline_strategy=lr_interp", *overrides]
    result = reference(files, "lr_interp", tmp_path / "x.nc", *plain)
    facts = facts_of(result)
    assert said in " ".join(facts.values())
    assert not list(tmp_path.iterdir())


def test_the_scorecard_of_a_run_says_what_each_saw_and_tried(files, tmp_path):
    more = (
        *("evaluation.references=[climatology,analogs]", "evaluation.stride=9"),
        *("training.epochs=1", "training.batch_size=64", "inference.members=2"),
    )
    result = train(files, tmp_path / "run", *more, verb="run")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "run" / "scorecard.json").read_text("utf-8"))
    protocol = card["protocol"]
    expected = "days of predictors: st-cdgm 3, climatology 0, analogs 2"
    assert protocol["history"] == expected
    assert protocol["tuning"].endswith("climatology 1, analogs 12")
