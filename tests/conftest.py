"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real data sets, or a skip that says why."""
    named = os.environ.get("ST_CDGM_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (root / "iberia").is_dir():
        pytest.skip(f"real data not found at {root}; set ST_CDGM_DATA to use it")
    return root
