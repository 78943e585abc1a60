"""Check the installation: libraries, threads, memory, GPU, CyVerse VICE.

Exits with 1 if something essential is wrong. The same checks as `st-cdgm doctor`, and
whether this is an interactive container of CyVerse.
"""

from __future__ import annotations

import argparse
import importlib
import sys

import st_cdgm
from st_cdgm.runs.environment import Status, run_checks
from vice_utils import advice, on_vice

PARTS = (
    "data",
    "models",
    "training",
    "inference",
    "evaluation",
    "references",
    "config",
)


def main() -> int:
    """Print one line for each check."""
    failed = False
    for check in run_checks():
        failed |= check.status is Status.FAIL
        remedy = f" -> {check.remedy}" if check.remedy else ""
        sys.stdout.write(
            f"{check.status.value:<5}{check.name:<18} {check.found}{remedy}\n"
        )

    for part in PARTS:  # with every public name, not the package alone
        module = importlib.import_module(f"st_cdgm.{part}")
        for name in module.__all__:
            getattr(module, name)
    sys.stdout.write(f"ok   st_cdgm            {st_cdgm.__version__}, all parts\n")
    where = "yes" if on_vice() else "no"
    sys.stdout.write(f"ok   CyVerse VICE       {where}\n")
    if on_vice():
        sys.stdout.write("".join(f"     - {line}\n" for line in advice()))
    return int(failed)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    sys.exit(main())
