"""The house rules that a reader of one file cannot see."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "st_cdgm").rglob("*.py"))

# What each layer may import. A dotted name allows that module alone.
SHARED = {"errors", "outputs", "randomness", "_version", "_lazy"}
ALLOWED = {
    "data": set(),
    "models": set(),
    "training": {"models", "data"},
    "inference": {"models", "data", "training.checkpoint"},
    "references": {"data", "models", "training"},
    "evaluation": {"data"},
    "config": {"data", "models", "training", "inference", "references", "evaluation"},
    "cli": {
        *("data", "models", "training", "inference", "references", "evaluation"),
        "config",
    },
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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
    return isinstance(value, str) and value.startswith("st_cdgm.") and " " not in value


def is_allowed(target: str, layer: str) -> bool:
    """Whether ``layer`` may import ``target``, a name below ``st_cdgm``."""
    first = target.partition(".")[0]
    if first == layer or first in SHARED:
        return True
    return any(f"{target}.".startswith(f"{permitted}.") for permitted in ALLOWED[layer])


def test_the_tree_is_found():
    layers = {p.relative_to(SRC / "st_cdgm").parts[0] for p in FILES}
    assert set(ALLOWED) <= layers


@pytest.mark.parametrize(
    ("target", "layer", "allowed"),
    [
        ("models.config.ModelConfig", "training", True),
        ("training.checkpoint.load_checkpoint", "inference", True),
        ("training.checkpoints.x", "inference", False),
        ("training.fit", "inference", False),
        ("data.batch.Batch", "models", False),
        ("errors.InputError", "data", True),
        ("cli.main", "config", False),
        ("config.schema", "training", False),
    ],
)
def test_the_rule_itself(target, layer, allowed):
    assert is_allowed(target, layer) is allowed


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path):
    layer, _, _ = module_name(path).removeprefix("st_cdgm").lstrip(".").partition(".")
    if layer not in ALLOWED:  # the package itself and the shared modules
        return
    found = {
        name.removeprefix("st_cdgm.")
        for name in imported(ast.parse(path.read_text("utf-8")))
        if name.startswith("st_cdgm.")
    }
    assert [t for t in sorted(found) if not is_allowed(t, layer)] == []


@pytest.mark.parametrize("name", sorted(SHARED))
def test_shared_modules_know_no_layer(name):
    tree = ast.parse((SRC / "st_cdgm" / f"{name}.py").read_text("utf-8"))
    own = {n.split(".")[1] for n in imported(tree) if n.startswith("st_cdgm.")}
    assert own & set(ALLOWED) == set()


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yield what no module may do: relative imports, pickle, torch.load, print."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: relative import"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"print", "torch.load", "torch.save", "eval", "exec"}:
                yield f"line {node.lineno}: {called}()"
            if called.endswith(("load_from_checkpoint", "read_pickle", "to_pickle")):
                yield f"line {node.lineno}: {called}()"
            for keyword in node.keywords:
                if (
                    keyword.arg == "allow_pickle"
                    and ast.unparse(keyword.value) != "False"
                ):
                    yield f"line {node.lineno}: allow_pickle"
    for name in imported(tree):
        if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "shelve"}:
            yield f"import of {name}"


@pytest.mark.parametrize(
    "code",
    [
        "from . import x",
        "from ..data import x",
        "import pickle",
        "from pickle import loads",
        "torch.load('x')",
        "print(1)",
        "np.load('x', allow_pickle=True)",
    ],
)
def test_what_is_forbidden_is_seen(code):
    assert list(forbidden(ast.parse(code)))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_forbidden(path):
    assert list(forbidden(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_annotations_are_not_evaluated_early(path):
    tree = ast.parse(path.read_text("utf-8"))
    code = [node for node in tree.body if not _is_docstring(node)]
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in code):
        assert "from __future__ import annotations" in ast.unparse(code[0])


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def config_classes() -> list[tuple[str, str]]:
    """Return (module, class) of every ``...Config`` dataclass of the layers."""
    found = []
    for path in FILES:
        module = module_name(path)
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                decorators = " ".join(map(ast.unparse, node.decorator_list))
                if "dataclass" in decorators:
                    found.append((module, node.name))
    return found


def test_every_settings_class_is_reachable_from_the_root():
    """D84: no setting that the command line and the files cannot reach."""
    from dataclasses import fields, is_dataclass
    from typing import get_args, get_type_hints

    from st_cdgm.config.schema import Config

    reached: set[str] = set()

    def walk(kind: type) -> None:
        reached.add(kind.__name__)
        hints = get_type_hints(kind)
        for item in fields(kind):
            hint = hints[item.name]
            for inner in (hint, *get_args(hint)):
                if isinstance(inner, type) and is_dataclass(inner):
                    walk(inner)

    walk(Config)
    # Not settings of a run: the bundle a checkpoint stores, and the public description
    # of one intelligible variable, which MetaPathConfig expresses in YAML. Nor is the
    # test of edges a step of a run.
    reached |= {"ModelConfig", "IntelligibleVariableConfig", "DiscoveryConfig"}
    missing = [name for _, name in config_classes() if name not in reached]
    assert missing == []
    assert len(config_classes()) >= 12
