"""From an edit of a coarse channel to both worlds of the fine fields."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tests.toy import SPLITS
from typer.testing import CliRunner

import st_cdgm
from st_cdgm.checkpoint.directory import load_checkpoint, pool_checkpoints
from st_cdgm.cli.main import app
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.predictor_check import open_predictors
from st_cdgm.errors import InputError
from st_cdgm.explanation.coarse import CoarseRecord
from st_cdgm.explanation.counterfactual import paired_p_values
from st_cdgm.explanation.edits import Edit
from st_cdgm.explanation.graph import TestedGraph
from st_cdgm.training.fit import TrainingResult

EDGES = [("GP500", "GP850", "1"), ("GP850", "pr", "0-1"), ("SURF", "tasmax", "0")]
DO, START = "GP850.q += 2 sd", "2001-07-20"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = {
        "edges": [{"source": i, "target": k, "lag": lag} for i, k, lag in EDGES],
        "targets": ["tasmin", "tasmax", "pr"],
        "same_step": [["GP850", "SURF"]],
    }
    path = tmp_path_factory.mktemp("graph") / "dag.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


@pytest.fixture(scope="module")
def record(trained: TrainingResult, tiny_files: Path, graph: Path) -> CoarseRecord:
    preprocessor = load_checkpoint(trained.checkpoint).preprocessor
    cube = open_predictors(preprocessor, tiny_files / "lr.nc").cube
    return CoarseRecord(cube, preprocessor, TestedGraph.read(graph))


@pytest.fixture(scope="module")
def answer(trained: TrainingResult, tiny_files: Path, graph: Path) -> xr.Dataset:
    return st_cdgm.counterfactual(
        trained.checkpoint,
        tiny_files / "lr.nc",
        DO,
        start=START,
        days=3,
        members=6,
        seed=9,
        graph=graph,
        allow_uncertified=True,
    )


def worlds_of(record: CoarseRecord, text: str, days: int = 3, **options):
    edit = Edit.parse(text, record.preprocessor.channels)
    pattern = np.ones(record.preprocessor.lr_grid.shape)
    return record.worlds(START, days, [edit], pattern, **options)


def test_only_levels_that_an_edit_reaches_change(record):
    number = {c.group: n for n, c in enumerate(record.preprocessor.channels)}
    worlds = worlds_of(record, "GP500.z += 1 sd")
    changed = worlds.counterfactual != worlds.factual
    assert changed[0, number["GP500"]].all()
    assert not changed[0, number["GP850"]].any()
    assert changed[1, number["GP850"]].any()
    assert not changed[:, number["SURF"]].any()
    assert not worlds.changed(record.preprocessor)[:, number["SURF"]].any()

    # With the others held the child does not answer, the level itself does.
    held = worlds_of(record, "GP500.z += 1 sd", hold_others=True)
    changed = held.counterfactual != held.factual
    assert not changed[:, number["GP850"]].any()
    assert changed[1, number["GP500"]].any()


def test_derived_predictors_follow_from_the_edited_fields(tiny_files, graph, tmp_path):
    """The speed of a wind that is set, on the day itself."""
    rng = np.random.default_rng(1)
    with xr.open_dataset(tiny_files / "lr.nc", decode_times=False) as opened:
        coarse = opened.load()
    for name in ("ua_850", "va_850"):
        wind = rng.normal(5.0, 1.0, coarse.q_850.shape).astype("float32")
        coarse[name] = coarse.q_850.copy(data=wind)
        standard = {"u": "eastward_wind", "v": "northward_wind"}[name[0]]
        coarse[name].attrs = {"units": "m s-1", "standard_name": standard}
    coarse.to_netcdf(tmp_path / "lr.nc")

    # Fitted, not trained: the world model needs no more.
    files = {"lr_path": tmp_path / "lr.nc", "hr_path": tiny_files / "hr.nc"}
    config = DataConfig(
        **{key: str(path) for key, path in files.items()},
        lr_derived=["ws_850"],
        seq_len=3,
        splits=SPLITS,
    )
    preprocessor = NetCDFDataPipeline.from_config(config).preprocessor
    cube = open_predictors(preprocessor, tmp_path / "lr.nc").cube
    record = CoarseRecord(cube, preprocessor, TestedGraph.read(graph))
    worlds = worlds_of(record, "GP850.ua = 30 m s-1", days=1)

    number = {name: n for n, name in enumerate(cube.names)}
    raw = preprocessor.physical_lr(worlds.counterfactual)[0]
    np.testing.assert_allclose(raw[number["ua_850"]], 30.0, atol=1e-3)
    expected = np.hypot(raw[number["ua_850"]], raw[number["va_850"]])
    np.testing.assert_allclose(raw[number["ws_850"]], expected, rtol=1e-3)
    change = worlds.changed(preprocessor)[0]
    assert not change[number["va_850"]].any()


def test_a_value_in_units_is_set_in_units(record):
    worlds = worlds_of(record, "SURF.tas = 20 degC", days=2, edit_days=2)
    number = [c.name for c in record.preprocessor.channels].index("tas")
    fields = record.preprocessor.physical_lr(worlds.counterfactual)
    np.testing.assert_allclose(fields[:, number], 293.15, atol=1e-2)


def test_an_edit_outside_of_training_is_flagged(record):
    assert worlds_of(record, "GP850.q += 0 sd").outside == {}
    far = worlds_of(record, "GP850.q += 40 sd").outside
    assert far["GP850"] > 1
    assert "SURF" not in far


def test_the_worlds_have_the_same_random_numbers(answer, trained, tiny_files):
    """The factual one is what the model draws anyway."""
    drawn = st_cdgm.load(trained.checkpoint).downscale(
        tiny_files / "lr.nc", members=6, seed=9, start=START, end="2001-07-22"
    )
    np.testing.assert_array_equal(answer.pr_factual, drawn.pr)
    difference = answer.pr_counterfactual - answer.pr_factual
    np.testing.assert_array_equal(answer.pr_response, difference)
    assert answer.lead.values.tolist() == [0, 1, 2]
    assert answer.pr_response.dims == ("time", "realization", "lat", "lon")


def test_more_moisture_makes_more_rain(answer):
    """In the toy rain follows humidity at 850 hPa, on the day itself."""
    response = answer.pr_response.mean(("realization", "lat", "lon"))
    assert response[0] > 0.5
    assert answer.pr_significant[0].mean() > 0.5
    units = {v: answer[v].attrs["units"] for v in ("tasmax_response", "pr_response")}
    assert units == {"tasmax_response": "K", "pr_response": "mm day-1"}


def test_the_answer_says_what_it_is(answer):
    attrs = answer.attrs
    assert attrs["estimand"].startswith("total effect")
    assert attrs["intervention"] == f"{DO} from {START}"
    assert attrs["graph"] == "GP850->pr (lag 0,1, not certified)"
    assert attrs["certificate"].startswith("not certified: GP850->pr")
    assert attrs["valid_leads"].startswith(">= 1, for GP850 and SURF")
    assert attrs["targets_without_path"] == "tasmin, tasmax"


def test_nothing_changed_nothing_answers(trained, tiny_files, graph):
    answer = st_cdgm.counterfactual(
        trained.checkpoint,
        tiny_files / "lr.nc",
        "GP850.q += 0 sd",
        start=START,
        days=2,
        members=2,
        graph=graph,
        allow_uncertified=True,
    )
    assert not np.nan_to_num(answer.pr_response.values).any()
    assert not answer.pr_significant.any()


def test_all_networks_of_a_pool_see_the_other_world(
    trained, tiny_files, graph, answer, tmp_path
):
    pool = tmp_path / "pool"
    shutil.copytree(trained.checkpoint, pool)
    pool_checkpoints(pool, [trained.checkpoint])
    pooled = st_cdgm.counterfactual(
        pool,
        tiny_files / "lr.nc",
        DO,
        start=START,
        days=3,
        members=6,
        seed=9,
        graph=graph,
        allow_uncertified=True,
    )

    # Two equal networks make the members that one makes.
    assert pooled.network.values.tolist() == [0, 1] * 3
    for world in ("factual", "counterfactual"):
        np.testing.assert_allclose(
            pooled[f"pr_{world}"], answer[f"pr_{world}"], atol=1e-4
        )


def test_a_paired_test_knows_no_change_and_a_sure_one():
    response = np.zeros((1, 5, 3))
    response[0, :, 1] = 1.0
    response[0, :, 2] = [1, -1, 2, -2, 0]
    p = paired_p_values(response)
    np.testing.assert_allclose(p, [[1.0, 0.0, 1.0]])
    assert np.isnan(paired_p_values(response[:, :1])).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allow_uncertified": False}, "not certified"),
        ({"do": "GP700.q += 1 sd"}, r"GP850\.q"),
        ({"do": []}, "nothing is changed"),
        ({"days": 0}, "too small"),
        ({"days": 400}, "not all in the file"),
        ({"start": "2001-01-01"}, "not all in the file"),
        ({"start": "1999-01-01"}, "no day lies"),
        ({"box": "0,1,0,1", "pattern": "p.nc"}, "not both"),
        ({"output": "out.zarr"}, "ends in .nc"),
    ],
)
def test_questions_that_cannot_be_asked(trained, tiny_files, graph, changes, message):
    options = {"do": DO, "start": START, "graph": graph, "allow_uncertified": True}
    with pytest.raises(InputError, match=message):
        st_cdgm.counterfactual(
            trained.checkpoint, tiny_files / "lr.nc", **options | changes
        )


def test_a_checkpoint_without_graph_asks_for_one(trained, tiny_files):
    with pytest.raises(InputError, match="--graph FILE"):
        st_cdgm.counterfactual(
            trained.checkpoint, tiny_files / "lr.nc", DO, start=START
        )


def test_the_command_writes_the_answer(trained, tiny_files, graph, tmp_path):
    words = ["counterfactual", "--checkpoint", str(trained.checkpoint)]
    words += ["--lr", str(tiny_files / "lr.nc"), "--graph", str(graph)]
    words += ["--do", DO, "--from", START, "--days", "2", "--members", "3"]
    words += ["--box", "40,44,0,4", "--output", str(tmp_path / "out.nc")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert not (tmp_path / "out.nc").exists()

    done = CliRunner().invoke(app, [*words, "--allow-uncertified"])
    assert done.exit_code == 0, done.output
    with xr.open_dataset(tmp_path / "out.nc") as written:
        assert written.sizes["time"] == 2
        assert "in the box 40,44,0,4" in written.attrs["intervention"]
        assert "checkpoint" in written.attrs
        assert np.isfinite(written.pr_response).any()


def test_an_unknown_node_is_wrong_use_and_lists_those_there_are(
    trained, tiny_files, graph, tmp_path
):
    words = ["counterfactual", "--checkpoint", str(trained.checkpoint)]
    words += ["--lr", str(tiny_files / "lr.nc"), "--do", "GP1.x += 1 sd"]
    words += ["--graph", str(graph), "--output", str(tmp_path / "out.nc")]
    done = CliRunner().invoke(app, [*words, "--from", START])
    assert done.exit_code == 2
    assert "GP850.q, " in done.output
