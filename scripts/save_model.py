"""Save a trained model under a dated name, with a JSON description beside it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import st_cdgm
from st_cdgm.runs.console import run_tool

MODELS = os.environ.get("MODELS_DIR", "models")


def save_model(
    model: st_cdgm.Downscaler,
    out_dir: str | Path = MODELS,
    metadata: Mapping[str, Any] | None = None,
    *,
    name: str = "st_cdgm",
) -> Path:
    """Write a folder that ``load_model`` reads, and its JSON; return the folder."""
    now = datetime.now(UTC)
    folder = Path(out_dir) / f"{name}_{now:%Y%m%d_%H%M%S}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    content = {
        "created": now.isoformat(timespec="seconds"),
        "package_version": st_cdgm.__version__,
        "targets": {t.name: t.units for t in model.preprocessor.targets},
        "periods": model.preprocessor.periods,
        **(metadata or {}),
    }
    text = json.dumps(content, indent=2) + "\n"
    folder.with_suffix(".json").write_text(text, "utf-8")
    return folder


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="RUN/checkpoints/best")
    parser.add_argument("--output-dir", default=MODELS, help="(%(default)s)")
    parser.add_argument("--note", help="kept in the description")
    given = parser.parse_args()
    metadata = {"checkpoint": given.checkpoint, "note": given.note}
    folder = save_model(st_cdgm.load(given.checkpoint), given.output_dir, metadata)
    sys.stdout.write(f"Model: {folder}\n")


if __name__ == "__main__":
    run_tool(main)
