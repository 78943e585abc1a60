"""Load a trained model and say what it is.

python scripts/load_model.py --checkpoint runs/mine/checkpoints/best
"""

from __future__ import annotations

import argparse
import sys

import st_cdgm
from st_cdgm.runs.console import run_tool


def load_model(path: str, device: str = "auto") -> st_cdgm.Downscaler:
    """Return the model of a checkpoint, a run's folder or a name on the hub."""
    return st_cdgm.load(path, device=device)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="RUN/checkpoints/best")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    given = parser.parse_args()
    model = load_model(given.checkpoint, given.device)
    parameters = sum(p.numel() for p in model.model.parameters())
    sys.stdout.write(f"{model!r}\n{parameters / 1e6:.2f} M parameters\n")


if __name__ == "__main__":
    run_tool(main)
