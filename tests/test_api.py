"""The Python front door gives what the command line gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import st_cdgm
from st_cdgm.errors import ConfigError, InputError, MissingFileError
from st_cdgm.inference.downscale import downscale
from st_cdgm.runs.scoring import FIGURES
from tests.evaluation.run_directory import write_run

DAYS = {"start": "2001-07-15", "end": "2001-08-10"}
CODER = xr.coders.CFDatetimeCoder(use_cftime=True)


@pytest.fixture(scope="module")
def model(trained):
    return st_cdgm.load(trained.checkpoint, device="cpu")


@pytest.fixture(scope="module")
def file(trained, tiny_files, tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "out.nc"
    predictors = tiny_files / "lr.nc"
    downscale(trained.checkpoint, predictors, path, members=3, seed=4, **DAYS)
    with xr.open_dataset(path, decode_times=CODER, decode_coords="all") as opened:
        return opened.load()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "made")
    return st_cdgm.open_run(folder)


# -- A model ---------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("given", ["path", "dataset"])
def test_an_ensemble_is_that_of_the_file(model, file, tiny_files, lazy, given):
    """Values, coordinates and attributes, to the bit."""
    source = tiny_files / "lr.nc"
    with xr.open_dataset(source, decode_times=CODER) as opened:
        predictors = source if given == "path" else opened.load()
    made = model.downscale(predictors, members=3, seed=4, lazy=lazy, **DAYS)
    assert (made["pr"].chunks is not None) is lazy
    xr.testing.assert_identical(
        made.drop_attrs(deep=False).drop_encoding(),
        file.drop_attrs(deep=False).set_coords(made.coords).drop_encoding(),
    )
    assert {k: made.attrs[k] for k in ("title", "source", "seed")} == {
        k: file.attrs[k] for k in ("title", "source", "seed")
    }


def test_a_large_ensemble_is_lazy_by_itself(model, tiny_files, monkeypatch):
    monkeypatch.setattr(st_cdgm.api, "LAZY_BYTES", 1000)
    made = model.downscale(tiny_files / "lr.nc", members=1, **DAYS)
    assert made["tasmin"].chunks is not None


def test_a_part_of_the_period_is_the_same(model, file, tiny_files):
    made = model.downscale(
        tiny_files / "lr.nc", members=3, seed=4, start="2001-07-20", end="2001-07-25"
    )
    part = file.sel(time=made.time)
    for name in ("pr", "tasmin", "tasmax"):
        scale = float(part[name].std())
        np.testing.assert_allclose(made[name], part[name], atol=1e-5 * scale)


def test_options_reach_the_draw(model, tiny_files):
    with pytest.raises(ConfigError, match="one step"):
        model.downscale(tiny_files / "lr.nc", sampler="heun", **DAYS)
    with pytest.raises(ConfigError, match="no members"):
        model.downscale(tiny_files / "lr.nc", members=0, **DAYS)
    with pytest.raises(TypeError, match="samplr"):
        model.downscale(tiny_files / "lr.nc", samplr="heun", **DAYS)


def test_a_model_is_shared_as_a_folder(model, file, tiny_files, tmp_path):
    folder = model.save_pretrained(tmp_path / "shared")
    assert {p.name for p in folder.iterdir()} == {
        *("config.json", "meta.json", "model.safetensors", "README.md")
    }
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["model_type"] == "st_cdgm"
    assert list(config["targets"]) == ["tasmin", "tasmax", "pr"]

    again = st_cdgm.Downscaler.from_pretrained(folder, device="cpu")
    made = again.downscale(tiny_files / "lr.nc", members=3, seed=4, **DAYS)
    np.testing.assert_array_equal(made["pr"], file["pr"])
    # Once more over itself, and with what the training noted.
    meta = json.loads((again.save_pretrained(folder) / "meta.json").read_text("utf-8"))
    assert meta == json.loads(json.dumps(model.checkpoint.meta))


def test_a_model_comes_from_the_hub(trained, monkeypatch):
    import huggingface_hub

    asked = []

    def fetch(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(trained.checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    found = st_cdgm.Downscaler.from_pretrained("someone/iberia", revision="v1")
    assert found.preprocessor.codec.names == ("tasmin", "tasmax", "pr")
    assert asked[0][:2] == ("someone/iberia", "v1")
    assert not any("*" in pattern for pattern in asked[0][2])  # no code, no pickle

    def fail(*_args, **_kwargs):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MissingFileError, match="offline"):
        st_cdgm.load("someone/iberia")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nothing"):
        st_cdgm.load(tmp_path / "nothing")


def test_a_run_directory_stands_for_its_best_checkpoint(trained):
    run_dir = trained.checkpoint.parents[1]
    assert (
        st_cdgm.load(run_dir).checkpoint.meta
        == st_cdgm.load(trained.checkpoint).checkpoint.meta
    )


def test_a_model_says_what_it_is(model):
    text = repr(model)
    assert "tasmin (degC), tasmax (degC), pr (mm day-1)" in text
    assert "4 x 5 to 8 x 10" in text
    assert "<pre>" in model._repr_html_()
    assert "&lt;st_cdgm" in model._repr_html_()


def test_a_day_is_drawn(model, file, tmp_path):
    figure = model.plot_day(file, "2001-07-16", "tasmax")
    figure.savefig(tmp_path / "day.png")
    assert (tmp_path / "day.png").stat().st_size > 10_000
    assert any("Ensemble mean" in axes.get_title() for axes in figure.axes)
    with pytest.raises(InputError, match="2001-07-15 to 2001-08-10"):
        model.plot_day(file, "2002-01-01")
    with pytest.raises(InputError, match="tasmin, tasmax, pr"):
        model.plot_day(file, "2001-07-16", "wind")


# -- Scores ----------------------------------------------------------------------------


def test_scores_are_those_of_the_files(file, tiny_files, tmp_path):
    with xr.open_dataset(tiny_files / "hr.nc", decode_times=CODER) as opened:
        truth = opened.load()
    path = tmp_path / "mine.nc"
    file.to_netcdf(path)
    single = file.isel(realization=0, drop=True)
    card = st_cdgm.evaluate(file, truth, {"first": single}, output=tmp_path / "scores")
    other = st_cdgm.evaluate(path, tiny_files / "hr.nc", {"first": single})

    table = card.to_dataframe()
    assert list(table.columns) == ["out", "first"]
    assert list(other.to_dataframe().columns) == ["mine", "first"]
    np.testing.assert_allclose(table.to_numpy(), other.to_dataframe().to_numpy())
    expected = abs(single["pr"].values - truth["pr"].sel(time=file.time).values)
    found = table.loc[("pr", "mae", "mm day-1"), "first"]
    weights = np.cos(np.deg2rad(file.lat.values))[:, None] * np.ones(10)
    weights = np.where(np.isfinite(expected), weights, 0.0)
    mean = (np.nan_to_num(expected) * weights).sum() / weights.sum()
    assert found == pytest.approx(mean, rel=2e-3)
    assert (tmp_path / "scores" / "scorecard.json").is_file()
    assert "<table" in card._repr_html_()


# -- A run -----------------------------------------------------------------------------


def test_a_run_is_opened_as_objects(run):
    assert run.scorecard.to_dataframe().columns[0] == "st-cdgm"
    assert run.graph.variables[0] == "SURF"
    assert [edge.source for edge in run.graph.edges]
    assert list(run.losses.index[:2]) == [0, 1]
    sections = {"maps", "spectra", "ranks", "quantiles", "graph", "training"}
    assert set(run.figures) == sections == set(FIGURES)
    assert "data:image" in run.figures["maps"][0]._repr_html_()
    assert "scorecard" in repr(run)
    assert "<table" in run._repr_html_()


@pytest.mark.parametrize("part", ["ensemble", "report", "verdicts", "model"])
def test_what_a_run_does_not_have_is_said(run, part):
    with pytest.raises(InputError) as caught:
        getattr(run, part)
    assert str(run.directory) in str(caught.value)


def test_no_run_is_said_at_once(tmp_path):
    with pytest.raises(MissingFileError, match="no such run directory"):
        st_cdgm.open_run(tmp_path / "none")
    with pytest.raises(InputError, match="nothing to report"):
        st_cdgm.open_run(tmp_path)


def test_a_configuration_made_in_python_takes_no_overrides():
    from st_cdgm.config.load import load_config

    with pytest.raises(ConfigError, match="overrides"):
        st_cdgm.run(load_config("demo_quick"), ["run.seed=2"])


def test_inspect_says_what_a_file_is(tiny_files):
    report = st_cdgm.inspect(tiny_files / "lr.nc")
    assert any(verdict.usable for verdict in report.verdicts)


@pytest.mark.slow
def test_the_first_run_example_runs(tmp_path):
    example = Path(__file__).parents[1] / "examples" / "first_run.py"
    assert len(example.read_text("utf-8").splitlines()) < 100
    done = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "first")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stderr
    assert (tmp_path / "first" / "2003-01-05.png").stat().st_size > 10_000
