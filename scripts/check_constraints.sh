#!/usr/bin/env bash
# Whether constraints.txt can be installed on the declared Pythons, without installing it:
#   scripts/check_constraints.sh 3.12 3.13
# Wheels only, since pip cannot build for another Python; antlr4 (for Hydra) has no wheel on
# the index, but is pure Python, so that one built here serves all.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" - >"$work/requirements.txt" <<'PYTHON'
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = [x for key in ("dist", "remote", "test", "dev") for x in project["optional-dependencies"][key]]
wanted = [*project["dependencies"], *(x for x in extras if not x.startswith("st-cdgm["))]
Path("/dev/stdout").write_text("\n".join(wanted) + "\n")
PYTHON

antlr=$(grep '^antlr4-python3-runtime==' constraints.txt)
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$antlr"

for version in "${@:-3.12}"; do
  "$python" -m pip install --quiet --dry-run --ignore-installed --only-binary=:all: \
    --python-version "$version" --target "$work/none" --find-links "$work" \
    --constraint constraints.txt --requirement "$work/requirements.txt"
  echo "constraints.txt resolves for Python $version"
done
