"""What is exported, and what the wheel holds."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import st_cdgm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "st_cdgm"
PACKAGES = [
    "st_cdgm",
    *(f"st_cdgm.{p.parent.name}" for p in PACKAGE.glob("*/__init__.py")),
]


def test_exports_are_frozen():
    assert sorted(st_cdgm.__all__) == [
        "CausalDiffusionDecoder",
        "DiffusionOutput",
        "Downscaler",
        "EarlyStopping",
        "HeteroGraphBuilder",
        "IntelligibleVariableConfig",
        "IntelligibleVariableEncoder",
        "NetCDFDataPipeline",
        "NetCDFToDataFrame",
        "RCNCell",
        "RCNSequenceRunner",
        "ResDiffIterableDataset",
        "Run",
        "WebDatasetIterableDataset",
        "ZarrDataPipeline",
        "__version__",
        "counterfactual",
        "evaluate",
        "inspect",
        "load",
        "open_run",
        "run",
        "train_epoch",
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_exists(name):
    package = importlib.import_module(name)
    exported = getattr(package, "__all__", [])
    assert all(getattr(package, item) is not None for item in exported)
    assert set(exported) <= set(dir(package))


@pytest.mark.parametrize("name", PACKAGES)
def test_unknown_names_are_attribute_errors(name):
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(name).no_such_name  # noqa: B018


def test_version_is_written_once():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert settings["project"]["dynamic"] == ["version"]
    assert f"version: {st_cdgm.__version__}" in (ROOT / "CITATION.cff").read_text(
        "utf-8"
    )


def test_constraints_cover_the_dependencies():
    """Every direct dependency has one exact version, free of build suffixes."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all("+" not in version and "/" not in version for version in pins.values())
    known = {name.lower().replace("_", "-") for name in pins}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for requirement in settings["project"]["dependencies"]:
        name = requirement.split(">=")[0].lower().replace("_", "-")
        assert name in known, name


@pytest.mark.slow
def test_wheel_holds_presets_and_templates(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [p for p in PACKAGE.rglob("*") if p.suffix in {".yaml", ".j2", ".typed"}]
    assert len(data) >= 5
    expected = {
        str(p.relative_to(PACKAGE.parent)) for p in [*data, *PACKAGE.rglob("*.py")]
    }
    assert expected <= names
    stray = {n for n in names - expected if ".dist-info/" not in n}
    assert stray == set()
    assert any(n.endswith("licenses/LICENSE") for n in names)
