"""Remove lines of a notebook that repeat the line above them, keeping a backup.

Blank lines stay. A second run finds nothing, and the first backup is never replaced.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from st_cdgm.outputs import write_bytes


def without_repeats(lines: list[str]) -> list[str]:
    """Return lines without those that equal the one before; blank ones are kept."""
    kept = [
        line
        for before, line in pairwise(["", *lines])
        if not line.strip() or line.rstrip("\n") != before.rstrip("\n")
    ]
    # The last line of a cell has no line break.
    return [*kept[:-1], kept[-1].rstrip("\n")] if kept else kept


def clean(notebook: dict[str, Any]) -> int:
    """Clean all cells in place; return how many lines went."""
    removed = 0
    for cell in notebook["cells"]:
        source = cell["source"]
        lines = source.splitlines(keepends=True) if isinstance(source, str) else source
        kept = without_repeats(lines)
        if len(kept) < len(lines):
            removed += len(lines) - len(kept)
            cell["source"] = "".join(kept) if isinstance(source, str) else kept
    return removed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="only count")
    given = parser.parse_args()
    content = json.loads(given.notebook.read_text("utf-8"))
    count = clean(content)
    backup = given.notebook.with_suffix(".ipynb.bak")
    if count and not given.dry_run:
        if not backup.exists():
            shutil.copy2(given.notebook, backup)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_bytes(given.notebook, text.encode())
    sys.stdout.write(
        f"{count} repeated lines{' found' if given.dry_run else ' removed'}\n"
    )
