"""Parts by name: the package's own, and those of plugins."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from st_cdgm import registry
from st_cdgm.errors import ConfigError


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Leave no part and no plugin of a test behind."""
    for kind in registry.KINDS:
        registry.names(kind)
    for name in ("_ENTRIES", "_COMPLETE", "_PLUGINS"):
        kept = getattr(registry, name)
        monkeypatch.setattr(registry, name, kept.copy())
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a module that can be imported; return its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str, name: str = "plugin_one") -> str:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return name

    return write


REGISTER = """
from st_cdgm.registry import register

@register("reference", "persistence")
class Persistence:
    pass
"""


def test_own_parts_are_found_in_their_files():
    own = {"analogs", "climatology", "glm", "lr_interp", "quantile_mapping", "corrdiff"}
    assert own < set(registry.names("reference"))
    # Also of folders inside the home of a kind.
    assert registry.get("reference", "ridge").__name__ == "LocalRidgeReference"
    assert {entry.origin for entry in registry.entries("reference")} == {"st_cdgm"}


def test_an_unknown_name_gets_a_suggestion_and_an_unknown_kind_the_kinds():
    with pytest.raises(ConfigError, match="no reference of this name") as caught:
        registry.get("reference", "climatolgy")
    facts = caught.value.facts
    assert facts["variable"] == "evaluation.references"
    assert facts["remedy"] == "did you mean climatology?"
    assert facts["expected"].startswith("analogs | climatology | ")
    with pytest.raises(ConfigError, match="--plugin MODULE"):
        registry.get("reference", "zzz")
    for ask in (registry.names, lambda kind: registry.get(kind, "a")):
        with pytest.raises(ConfigError, match="sampler | codec"):
            ask("colour")
    with pytest.raises(ConfigError, match="unknown kind"):
        registry.register("colour", "red")


def test_a_plugin_adds_a_part_behind_the_own_ones(plugin):
    name = plugin(REGISTER)
    registry.load_plugins([name])
    assert registry.names("reference")[-1] == "persistence"
    assert registry.entries("reference")[-1].origin == "plugin_one"
    assert registry.plugins() == registry.plugins(named=True) == [name]
    registry.load_plugins([name])  # twice is once
    assert registry.plugins() == [name]


def test_two_parts_of_one_name_clash_but_a_definition_may_be_repeated(plugin):
    module = importlib.import_module(plugin(REGISTER))
    importlib.reload(module)
    assert registry.get("reference", "persistence") is module.Persistence
    with pytest.raises(ConfigError, match="one name") as caught:
        registry.load_plugins([plugin(REGISTER, name="plugin_two")])
    assert "plugin_one.Persistence and plugin_two.Persistence" in str(caught.value)
    taken = plugin(REGISTER.replace("persistence", "ridge"), name="plugin_three")
    registry.names("reference")
    with pytest.raises(ConfigError, match="one name"):
        registry.load_plugins([taken])


def test_installed_plugins_are_found_by_their_entry_point(plugin, monkeypatch):
    name = plugin(REGISTER)
    point = EntryPoint("mine", f"{name}:anything", registry.GROUP)
    asked = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [point]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._COMPLETE.clear()
    assert "persistence" in registry.names("reference")
    assert asked == ["st_cdgm.plugins"]
    assert registry.plugins() == [name]
    assert registry.plugins(named=True) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_named_with_its_error(plugin, text, said):
    name = plugin(text)
    with pytest.raises(ConfigError, match="a plugin cannot be imported") as caught:
        registry.load_plugins([name])
    assert said in str(caught.value)
    assert str(caught.value.facts["found"]).startswith(name)
    assert registry.plugins() == []


def test_a_failure_is_not_forgotten(plugin, monkeypatch):
    """The second question must not be answered without the plugin either."""
    point = EntryPoint("mine", plugin("1 / 0"), registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry._COMPLETE.clear()
    for _ in range(2):
        with pytest.raises(ConfigError, match="division by zero"):
            registry.names("reference")


def test_help_and_the_registry_import_nothing_heavy():
    code = (
        "import sys, st_cdgm.registry, st_cdgm.cli.main\n"
        "heavy = {'torch', 'xarray', 'matplotlib', 'pandas', 'scipy', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
