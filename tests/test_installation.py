"""The package and what it needs are installed and can be imported."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys

import pytest

import st_cdgm
from st_cdgm.runs.environment import LIBRARIES, Status, check_library, check_python

FACES = (
    "data",
    "models",
    "training",
    "inference",
    "evaluation",
    "references",
    "config",
)


def test_python_is_new_enough():
    assert check_python().status is Status.OK
    assert sys.version_info >= (3, 11)


@pytest.mark.parametrize("distribution", LIBRARIES)
def test_libraries_are_there(distribution):
    found = check_library(distribution, LIBRARIES[distribution])
    assert found.status is Status.OK, found.found


def test_the_version_is_that_of_the_distribution():
    assert st_cdgm.__version__ == importlib.metadata.version("st-cdgm")


def test_every_module_can_be_imported():
    names = [m.name for m in pkgutil.walk_packages(st_cdgm.__path__, "st_cdgm.")]
    assert len(names) > 200
    for name in names:
        if not name.startswith("st_cdgm.references.neural"):  # optional packages
            importlib.import_module(name)


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_there(face):
    module = importlib.import_module(f"st_cdgm.{face}")
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
