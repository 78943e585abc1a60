"""The plan of rooms as data: who may import whom, and how large a room may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "st_cdgm").rglob("*.py"))

SHARED = {
    *("errors", "outputs", "randomness", "redaction", "registry", "typing"),
    *("_version", "_lazy"),
}

# Rooms of the data layer, each with the rooms it may use. `pipeline` and
# `netcdf_utils` are documented module paths; they belong to no room.
_GROUND = {"data.variables", "data.space"}
_READ = {"data.read", "data.files", "data.time", *_GROUND}
_FIT = {"data.fit", "data.time", *_GROUND}
_TABLES = {"data.tables", "data.netcdf_utils", *_READ}
_TASK = {"data.task", *_READ, *_FIT, *_TABLES}
_STORE = {"data.store", "data.pipeline", *_TASK}
ROOMS = {
    "data.variables": set(),
    "data.space": set(),
    "data.time": {"data.variables"},
    "data.files": {"data.space"},
    "data.read": _READ,
    "data.fit": _FIT,
    "data.inspect": _READ | _FIT,
    "data.tables": _READ,
    "data.netcdf_utils": _TABLES,
    "data.task": _TASK,
    "data.pipeline": _TASK | {"data.store"},  # names that are documented there
    "data.store": _STORE,
    "data.synthetic": {"data.variables", "data.time", "data.space"},
}
LAYERS = {
    "models": {"physics.blocks"},
    "checkpoint": {"data", "models"},
    "physics": {"data"},
    "evaluation": {"data", "evaluation.evaluation_xai"},
    # Names that are documented there: the metrics, and a rollout drawn by hand.
    "evaluation.evaluation_xai": {"evaluation", "inference"},
    "training": {"data", "models", "checkpoint", "physics"},
    "inference": {"data", "models", "checkpoint", "physics"},
    "references": {"data", "models", "checkpoint", "training"},
    "discovery": {"data", "models", "checkpoint", "training"},
    "explanation": {
        *("data", "models", "checkpoint", "physics", "inference", "discovery"),
    },
}
_ALL = {"data", *LAYERS}
ALLOWED = {
    **ROOMS,
    "data": set(ROOMS),  # the face of the layer
    **LAYERS,
    "config": _ALL,
    "runs": {*_ALL, "config"},
    "api": {*_ALL, "config", "runs"},
    "cli": {"runs", "config", "api", "data"},
}


def module_name(path: Path) -> str:
    """Return the dotted name of a source file below ``src``."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the parsed file."""
    return ast.parse(path.read_text("utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield every absolute module name imported, also those written as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and _is_module_path(node.value):
            yield node.value


def _is_module_path(value: object) -> bool:
    """Whether a text is the home of a lazily imported name."""
    return (
        isinstance(value, str)
        and value.count(".") >= 2
        and value.startswith("st_cdgm.")
        and not value.endswith(".")
        and " " not in value
    )


def room_of(module: str) -> str | None:
    """Return the room of a module below ``st_cdgm``: the longest name of the table."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in ALLOWED), None)


def is_allowed(target: str, room: str) -> bool:
    """Whether a room may import ``target``, a name below ``st_cdgm``."""
    if target.partition(".")[0] in SHARED or room_of(target) == room:
        return True
    return any(f"{target}.".startswith(f"{name}.") for name in ALLOWED[room])


def arrows() -> dict[str, set[str]]:
    """Return the modules that each module imports, type checking included."""
    return {
        module: {
            found
            for name in imported(tree_of(path))
            if name.startswith("st_cdgm") and (found := _module_of(name))
        }
        - {module}
        for module, path in MODULES.items()
    }


def _module_of(name: str) -> str | None:
    """Return the module that holds a dotted name; packages' faces do not count."""
    parts = name.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
    found = next((n for n in names if n in MODULES), None)
    return None if found is None or MODULES[found].name == "__init__.py" else found


def circles() -> list[list[str]]:
    """Return the strongly connected groups of modules (Tarjan)."""
    graph = {m: t for m, t in arrows().items() if MODULES[m].name != "__init__.py"}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def modules_per_folder() -> dict[str, int]:
    """Return the number of modules in each folder, faces left out."""
    count: dict[str, int] = {}
    for path in FILES:
        folder = str(path.parent.relative_to(SRC))
        count[folder] = count.get(folder, 0) + (path.name != "__init__.py")
    return count


# Documented module paths that offer names of other modules.
FACES = {
    *("st_cdgm.data.pipeline", "st_cdgm.data.netcdf_utils"),
    *("st_cdgm.training.training_loop", "st_cdgm.training.callbacks"),
}


def lines_of_all() -> int:
    """Return the lines that ``__all__`` takes in modules that are no face."""
    return sum(
        node.end_lineno - node.lineno + 1
        for module, path in MODULES.items()
        if path.name != "__init__.py" and module not in FACES
        for node in tree_of(path).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, list]]:
    """Yield (place, function, body without docstring) for every function."""
    for module, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    yield f"{module}:{node.lineno} {node.name}", node, body


def body_lines(path: Path, node: ast.FunctionDef, body: list[ast.stmt]) -> list[str]:
    """Return the source lines of a function's body, docstring left out."""
    lines = path.read_text("utf-8").splitlines()
    return lines[body[0].lineno - 1 : node.end_lineno]


def without_paragraphs() -> tuple[list[str], int]:
    """Return functions of 15 lines and more without a break, and how many are long."""
    dense, long = [], 0
    for place, node, body in functions():
        path = MODULES[place.split(":")[0]]
        lines = body_lines(path, node, body)
        if len(lines) >= 15:
            long += 1
            if not any(not x.strip() or x.strip().startswith("#") for x in lines):
                dense.append(place)
    return dense, long


def longest_runs() -> list[tuple[int, str]]:
    """Return (statements in a row without a break, place), the longest first."""
    found = []
    for place, node, body in functions():
        lines = MODULES[place.split(":")[0]].read_text("utf-8").splitlines()
        starts = sorted(
            {
                s.lineno
                for s in ast.walk(node)
                if isinstance(s, ast.stmt)
                and s.lineno >= body[0].lineno
                and not isinstance(s, ast.FunctionDef)
            }
        )
        run = most = 0
        for before, at in zip([None, *starts], starts, strict=False):
            between = lines[before : at - 1] if before is not None else []
            broken = any(not x.strip() or x.strip().startswith("#") for x in between)
            run = 1 if broken else run + 1
            most = max(most, run)
        found.append((most, place))
    return sorted(found, reverse=True)


def uncommented() -> list[str]:
    """Return functions of more than 25 lines in which no comment names a step."""
    found = []
    for place, node, body in functions():
        lines = body_lines(MODULES[place.split(":")[0]], node, body)
        if len(lines) > 25 and not any(x.strip().startswith("#") for x in lines):
            found.append(place)
    return found
