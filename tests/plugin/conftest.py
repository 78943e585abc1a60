"""The outside package is importable by its folder, and forgotten after each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from st_cdgm import registry

OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch):
    """Put the package's folder on the path; leave no part of it behind."""
    for kind in registry.KINDS:
        registry.names(kind)
    for name in ("_ENTRIES", "_PLUGINS"):
        monkeypatch.setattr(registry, name, getattr(registry, name).copy())
    monkeypatch.syspath_prepend(OUTSIDE)
    yield OUTSIDE
    for name in [n for n in sys.modules if n.partition(".")[0] == "gusts"]:
        del sys.modules[name]
