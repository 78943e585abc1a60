"""Check a checkout: syntax, configurations, notebooks, files; exit 1 if unsound."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from st_cdgm.config.load import load_config, preset_names
from st_cdgm.errors import InputError

REQUIRED = (
    *("README.md", "pyproject.toml", "constraints.txt", "LICENSE", "CHANGELOG.md"),
    *("config/training_config.yaml", "config/training_config_vice.yaml"),
    *(
        "config/docker.env",
        "src/st_cdgm/__init__.py",
        "ops",
        "scripts",
        "tests",
        "docs",
    ),
)
CODE = ("src", "ops", "scripts", "tests", "benchmarks", "examples")


def problems(root: Path) -> Iterator[str]:
    """Yield what is wrong in a checkout, file by file."""
    yield from (f"{n}: missing" for n in REQUIRED if not (root / n).exists())
    for path in sorted(p for folder in CODE for p in (root / folder).rglob("*.py")):
        try:
            ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            yield f"{path.relative_to(root)}: {error}"

    for path in sorted(root.glob("*.ipynb")):
        if not json.loads(path.read_text("utf-8")).get("cells"):
            yield f"{path.name}: a notebook without cells"
    for source in [*preset_names(), *sorted((root / "config").glob("*.yaml"))]:
        try:
            load_config(source)
        except InputError as error:
            yield f"{source}: {error}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    found = list(problems(parser.parse_args().root))
    sys.stdout.write("\n".join(found or ["The checkout is sound."]) + "\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
