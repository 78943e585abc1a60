"""Defects without another home, and a check that every known one has a test."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import os
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from packaging.requirements import Requirement

from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.read.readers import read_channels, read_targets
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import InputError, MissingFileError

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "st_cdgm"
DEFECTS = 97
TEXT = {"", ".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".env", ".sh", ".cfg"}
PR = TargetVariable(name="pr", units="mm day-1")


@functools.cache
def sources():
    return {path: ast.parse(path.read_text("utf-8")) for path in SRC.rglob("*.py")}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def hard_requirements():
    return [Requirement(line) for line in project()["dependencies"]]


def all_requirements():
    groups = project()["optional-dependencies"].values()
    optional = [Requirement(line) for lines in groups for line in lines]
    return hard_requirements() + optional


def plain(name):
    return name.lower().replace("_", "-")


@functools.cache
def texts():
    """The project's own text files with their content."""
    skipped = {".venv", ".git", ".hypothesis", "runs", "site", "dist", "build"}
    found = {}
    for folder, below, files in os.walk(ROOT):
        below[:] = [d for d in below if d not in skipped and "cache" not in d]
        for path in (Path(folder) / name for name in files):
            if path.suffix in TEXT and path.name != ".coverage":
                found[path] = path.read_text("utf-8")
    return found


# -- data -----------------------------------------------------------------------------


def test_the_precipitation_offset_is_used():
    # D6: precipitation_delta was written in the settings and read by nobody.
    rain = torch.full((1, 1, 1), 1.0)
    for delta, expected in ((0.01, np.log(101.0)), (0.5, np.log(3.0))):
        codec = build_codec((PR,), precipitation="log1p", precipitation_delta=delta)
        assert codec.encode(rain).item() == pytest.approx(expected, rel=1e-6)
        assert codec.decode(codec.encode(rain)).item() == pytest.approx(1.0, rel=1e-5)
    default = build_codec((PR,), precipitation="log1p")
    assert default.encode(rain).item() == pytest.approx(np.log(101.0), rel=1e-6)
    assert DataConfig(lr_path="a", hr_path="b").precipitation_delta == 0.01


def misleading_file(path, *, time, lat, lon, name, units):
    """Names that contain "time", "lat" and "lon" where they mean something else."""
    days = xr.date_range("2001-01-01", periods=4, freq="D")
    values = 0.01 * np.random.default_rng(0).random((4, 3, 5)).astype("float32")
    data = xr.Dataset(
        {
            "plateau_lat_index": ((lat, lon), np.zeros((3, 5), "float32")),
            "longest_spell": ((lat, lon), np.zeros((3, 5), "float32")),
            name: ((time, lat, lon), values, {"units": units}),
        },
        coords={
            time: (time, days, {"standard_name": "time"}),
            lat: (lat, np.array([40.0, 41, 42]), {"units": "degrees_north"}),
            lon: (lon, np.arange(5.0), {"units": "degrees_east"}),
            "lifetime": (time, np.arange(4.0)),
            "flat_area": ((lat, lon), np.ones((3, 5))),
            "along_lon": ((lat, lon), np.ones((3, 5))),
        },
    )
    data.to_netcdf(path)
    return values


@pytest.mark.filterwarnings("error::FutureWarning")
def test_coordinates_are_found_by_what_they_are(tmp_path):
    # D11: dimensions were found by parts of their names, and the coarse file's time
    # name was used for the fine file.
    # D22: Dataset.dims as a mapping is deprecated and warns.
    coarse = misleading_file(
        tmp_path / "lr.nc", time="t", lat="rows", lon="cols", name="q_850", units="1"
    )
    fine = misleading_file(
        tmp_path / "hr.nc", time="day", lat="ny", lon="nx", name="pr", units="mm day-1"
    )
    channels = read_channels(tmp_path / "lr.nc", variables=["q_850"])
    truth = read_targets(tmp_path / "hr.nc", variables=["pr"])
    for cube, values in ((channels, coarse), (truth, fine)):
        np.testing.assert_array_equal(cube.load()[:, 0], values)
        assert cube.days.day.tolist() == [20010101, 20010102, 20010103, 20010104]
        assert cube.grid.lat.ravel()[0] == 40.0
        assert cube.grid.shape == (3, 5)


def test_names_that_contain_lat_and_lon_are_no_coordinates(tmp_path):
    # D11: "latent" and "belongs" were a latitude and a longitude.
    days = xr.date_range("2001-01-01", periods=2, freq="D")
    bare = xr.Dataset(
        {"pr": (("time", "latent", "belongs"), np.ones((2, 3, 4)))},
        coords={"time": days},
    )
    bare.to_netcdf(tmp_path / "bare.nc")
    with pytest.raises(InputError, match="no latitude and longitude") as caught:
        read_targets(tmp_path / "bare.nc")
    assert isinstance(caught.value, ValueError)


def test_dims_are_never_used_as_a_mapping():
    # D22: ds.dims["time"], ds.dims.get(...): xarray makes it a set; sizes is the map.
    found = []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            inner = getattr(node, "value", None)
            if not (isinstance(inner, ast.Attribute) and inner.attr == "dims"):
                continue
            key = getattr(node, "slice", None)
            text = isinstance(key, ast.Constant) and isinstance(key.value, str)
            mapping = getattr(node, "attr", "") in {"get", "items", "keys", "values"}
            if text or mapping:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_absent_targets_are_named(tiny_files):
    # D22: the check for a missing fine file could not be reached.
    options = DataConfig(root=str(tiny_files), lr_path="lr.nc", hr_path="none.nc")
    with pytest.raises(MissingFileError, match=r"none\.nc"):
        NetCDFDataPipeline.from_config(options)


# -- training -------------------------------------------------------------------------


def test_every_day_of_training_is_a_last_day_once(tiny_pipeline):
    # D56: only some days reached the generator: the last ones of windows side by side.
    windows = tiny_pipeline.windows("train")
    last = [int(windows.batch([i]).time[0, -1]) for i in range(len(windows))]
    days = tiny_pipeline.days.day[tiny_pipeline.indices["train"]]
    assert last == days[tiny_pipeline.seq_len - 1 :].tolist()


# -- packaging and documents ----------------------------------------------------------


def test_what_is_imported_is_declared():
    # D95: the environment lacked packages that the code imports.
    declared = {plain(r.name) for r in all_requirements()}
    declared |= {plain(extra) for r in all_requirements() for extra in r.extras}
    homes = importlib.metadata.packages_distributions()
    imported = set()
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"st_cdgm"}
    assert {"torch", "xarray", "zarr"} <= foreign
    unknown = {
        name
        for name in foreign
        if name in homes and not {plain(home) for home in homes[name]} & declared
    }
    assert unknown == set()


def test_requirements_can_be_met_and_are_few():
    # D91: torch-scatter and torch-sparse need a compiler that slim images lack.
    # D94: versions that do not exist, and tools as hard requirements.
    hard = {plain(r.name) for r in hard_requirements()}
    every = {plain(r.name) for r in all_requirements()}
    assert not every & {"torch-scatter", "torch-sparse", "pyg-lib", "k-diffusion"}
    tools = {"pytest", "black", "flake8", "ruff", "mypy", "jupyter", "jupyterlab"}
    assert not hard & {*tools, "notebook", "webdataset", "pre-commit", "dagma"}
    installed = [
        (r, importlib.metadata.version(r.name))
        for r in all_requirements()
        if any(importlib.metadata.distributions(name=r.name))
    ]
    assert len(installed) > 25
    unmet = [f"{r} ({v})" for r, v in installed if not r.specifier.contains(v, True)]
    assert unmet == []


def test_no_file_hides_the_gpus():
    # D92: CUDA_VISIBLE_DEVICES takes device numbers; "all" hides every device.
    pattern = re.compile(r"CUDA_VISIBLE_DEVICES\W{1,6}all\b")
    assert pattern.search("CUDA_VISIBLE_DEVICES: ${CUDA_VISIBLE_DEVICES:-all}")
    found = [
        p.name
        for p, text in texts().items()
        if p.name != Path(__file__).name and pattern.search(text)
    ]
    assert found == []


def test_environment_variables_are_few_and_known():
    # D93: an environment file that nothing read, and settings that no code knew.
    names = set()
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called, first = ast.unparse(node.func), node.args[:1]
            elif isinstance(node, ast.Subscript):
                called, first = ast.unparse(node.value), [node.slice]
            else:
                continue
            if called.startswith("os.environ") or called == "os.getenv":
                names |= {a.value for a in first if isinstance(a, ast.Constant)}
    assert names <= {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "RANK", "WORLD_SIZE"}
    files = [(p, text) for p, text in texts().items() if p.suffix == ".env"]
    assigned = {
        line.split("=")[0].strip()
        for _, text in files
        for line in text.splitlines()
        if "=" in line and not line.lstrip().startswith("#")
    }
    rest = "\n".join(text for p, text in texts().items() if p.suffix != ".env")
    # Read by the container's runtime and by Python itself.
    assigned -= {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
    assigned -= {"PYTHONUNBUFFERED"}
    assert len(assigned) > 6
    assert [name for name in assigned if name not in rest] == []
    assert [p.name for p, _ in files if p.name not in rest] == []


def test_documents_name_files_that_exist():
    # D96: documents cited files that were not there.
    pages = {p: t for p, t in texts().items() if p.suffix == ".md"}
    assert len(pages) >= 5
    broken, seen = [], 0
    for page, text in pages.items():
        links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text)
        paths = re.findall(
            r"`((?:docs|src|tests|benchmarks|scripts|\.ci)/[\w./-]+)`", text
        )
        for target, base in [
            *((link, page.parent) for link in links),
            *((path, ROOT) for path in paths),
        ]:
            seen += 1
            if not (base / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert seen > 5
    assert broken == []


def is_assertion(node):
    """Whether a test fails by a node: `assert`, `assert_allclose()`, `raises()` ..."""
    if not isinstance(node, ast.Call):
        return isinstance(node, ast.Assert)
    name = ast.unparse(node.func).rpartition(".")[2]
    return name.startswith("assert") or name in {"raises", "warns"}


def assertions(function, helpers):
    """Count them, those of the helpers of the same file included."""
    nodes = list(ast.walk(function))
    called = {
        n.func.id for n in nodes if isinstance(n, ast.Call) and hasattr(n.func, "id")
    }
    inside = [n for name in called & set(helpers) for n in ast.walk(helpers[name])]
    return sum(map(is_assertion, nodes + inside))


def guards(text):
    """Return how many assertions the tests have that name a defect, by its number.

    The name stands in the test, or in the comment right above it.
    """
    lines, tree, found = text.splitlines(), ast.parse(text), Counter()
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    tests = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    helpers = {k: f for k, f in functions.items() if not k.startswith("test_")}
    for test in tests:
        if not test.name.startswith("test_"):
            continue
        start = min([test.lineno, *(d.lineno for d in test.decorator_list)]) - 1
        while start and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        source = "\n".join(lines[start : test.end_lineno])
        for number in set(re.findall(r"\bD(\d+)\b", source)):
            found[int(number)] += assertions(test, helpers)
    return found


def test_every_known_defect_is_guarded_by_assertions():
    # D97: tests that ran the code and would have missed most defects.
    found = Counter()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found += guards(path.read_text("utf-8"))
    assert [n for n in range(1, DEFECTS + 1) if not found[n]] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('"""D5."""\ndef test_a():\n    assert f()\n', 0),  # of the file, not a test
        ("def test_a():\n    # D5\n    f()\n", 0),  # run, and nothing looked at
        ("# D5\ndef test_a():\n    assert f()\n", 1),
        ("def test_a():\n    # D5\n    with pytest.raises(E):\n        f()\n", 1),
        ("def h():\n    assert g()\ndef test_a():\n    h()  # D5\n", 1),
    ],
)
def test_mentions_are_no_guards(text, count):
    # D97
    assert guards(text)[5] == count
