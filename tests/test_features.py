"""The table of features: each is there once, and what shows it exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| F(\d{3}) \| (.+?) \| (.+?) \| ?(.*?) ?\|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "features.md").read_text("utf-8"))
OPEN = 26  # may only shrink


@cache
def named_in(file):
    """Return the names of the tests of a file."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_feature_has_one_row():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 193))
    still_open = [number for number, _, state, _ in ROWS if state == "open"]
    assert len(still_open) <= OPEN, still_open


@pytest.mark.parametrize(
    ("state", "shown"), [row[2:] for row in ROWS], ids=[f"F{row[0]}" for row in ROWS]
)
def test_what_shows_a_feature_exists(state, shown):
    assert state in {"works", "open"} or state.startswith("replaced by ")
    if state == "open":
        assert shown == ""
        return
    file, _, name = shown.strip("`").partition("::")
    assert name in named_in(file)
