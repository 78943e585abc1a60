"""The recipes of docs/house.md, followed to the letter in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data import small_task

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'```python title="(src/[\w/]+\.py)"\n(.*?)```', re.DOTALL)
RECIPES = dict(BLOCK.findall((ROOT / "docs" / "house.md").read_text("utf-8")))

# What a user would do next, in a process that sees the copy alone.
USE = """
import json, sys
from pathlib import Path
import numpy as np, torch, xarray as xr
folder = Path(sys.argv[1])
found = {}

from st_cdgm.config.load import load_config
from st_cdgm.registry import entries, get, names
for kind in ("sampler", "codec", "metric", "reference", "derived"):
    found[kind] = [e.name for e in entries(kind) if e.origin == "st_cdgm"]
config = load_config("demo", [
    "diffusion.scheduler_type=edm", "inference.sampler=midpoint",
    "evaluation.references=[climatology, last_year]",
    "data.lr_derived=[wet_warmth]", "data.codecs={pr: gust}",
])
found["sampler_chosen"] = config.inference.sampler

# The sampler walks to a Gaussian of known spread.
from st_cdgm.models.samplers import sample
spread, mean = 0.7, 1.5
def D(x, sigma):
    return (spread**2 * x + sigma**2 * mean) / (spread**2 + sigma**2)
draws = sample(
    D, (40_000,), sampler="midpoint", steps=64,
    generator=torch.Generator().manual_seed(0),
)
found["std"], found["mean"] = float(draws.std()), float(draws.mean())

# The codec and the derived predictor in a pipeline.
from st_cdgm.data.pipeline import NetCDFDataPipeline
from tests.data import small_task
pipeline = NetCDFDataPipeline.from_config(small_task.config(
    folder, codecs={"pr": "gust"}, lr_derived=["wet_warmth"]))
prep = pipeline.preprocessor
found["channels"] = [c.name for c in prep.channels]
encoded = prep.codec.encode(torch.full((3, 2, 2), 9.0))
found["encoded"] = float(encoded[prep.codec.names.index("pr"), 0, 0])
found["lowest"] = float(prep.codec.decode(torch.full((3, 2, 2), -4.0))[0].min())
raw = xr.open_dataset(folder / "lr.nc")
warmth = np.maximum(raw.tas - 273.15, 0) * raw.pr
days = pipeline.arrays("train").day
stamps = [int(str(t)[:10].replace("-", "")) for t in raw.time.values]
mean = float(warmth.values[np.isin(stamps, days)].mean())
found["difference"] = abs(float(np.mean(prep.lr_mean[-1])) / mean - 1)

# The reference predicts, and the metric is in scorecard and report.
from st_cdgm.references.base import build_reference
test = pipeline.arrays("test")
fields = build_reference("last_year").fit(pipeline.arrays("train"), prep).predict(
    test, members=1, seed=0)
found["shape"] = list(fields.shape)

from tests.evaluation.run_directory import write_run
from st_cdgm.evaluation.report.build import build_report
run = write_run(folder / "run")
card = json.loads((run / "scorecard.json").read_text())
found["warm_days"] = sorted(
    row["value"] for row in card["rows"]
    if row["metric"] == "warm_days" and row["variable"] == "tasmax")
found["report"] = "warm days" in build_report(run).read_text("utf-8")
Path(sys.argv[2]).write_text(json.dumps(found))
"""


def test_there_are_five():
    assert len(RECIPES) == 5
    assert not any((ROOT / path).exists() for path in RECIPES)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Add the five files to a copy of the package and use them all."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", copy / "src")
    for path, code in RECIPES.items():
        assert (copy / path).parent.is_dir()
        (copy / path).write_text(code, encoding="utf-8")
    data = small_task.write(copy / "data")
    answer = copy / "found.json"
    done = subprocess.run(
        [sys.executable, "-c", USE, str(data), str(answer)],
        env={**os.environ, "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        cwd=copy,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(answer.read_text("utf-8"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("sampler", "midpoint"),
        ("codec", "gust"),
        ("metric", "warm_days"),
        ("reference", "last_year"),
        ("derived", "wet_warmth"),
    ],
)
def test_one_file_registers_a_part(found, kind, name):
    assert name in found[kind]


def test_the_sampler_reaches_the_distribution(found):
    assert found["sampler_chosen"] == "midpoint"
    assert found["std"] == pytest.approx(0.7, rel=0.025)
    assert found["mean"] == pytest.approx(1.5, abs=0.02)


def test_the_codec_encodes_a_target(found):
    assert found["encoded"] == pytest.approx(np.log(10.0), rel=1e-6)
    assert found["lowest"] >= 0.0


def test_the_predictor_is_computed_from_surface_fields(found):
    assert found["channels"][-1] == "wet_warmth"
    assert found["difference"] < 1e-5


def test_the_reference_predicts(found):
    assert found["shape"][1:] == [1, 3, 8, 9]


def test_the_metric_is_in_scorecard_and_report(found):
    assert len(found["warm_days"]) == 4
    assert all(0.0 <= value <= 1.0 for value in found["warm_days"])
    assert found["report"] is True
