"""Named parts that a user can choose, and how another package adds one.

``register(kind, name)`` is a decorator. What the package brings is registered in the
file that defines it; all files of the kind's home are imported when a name is first
asked for. Other packages are found by their entry points in the group
``st_cdgm.plugins``, by the configuration key ``plugins`` and by ``--plugin MODULE``.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from st_cdgm.errors import ConfigError

T = TypeVar("T")

GROUP = "st_cdgm.plugins"
# Where the package keeps its own parts of each kind, and in which key one is chosen.
_HOMES = {
    "sampler": ("models.samplers", "inference.sampler"),
    "codec": ("data.fit.codecs", "data.codecs"),
    "baseline": ("data.fit.baseline", "data.baseline_strategy"),
    "derived": ("data.read.derived", "data.lr_derived"),
    "metric": ("evaluation.metrics", "evaluation.metrics"),
    "reference": ("references", "evaluation.references"),
}
KINDS = tuple(_HOMES)


@dataclass(frozen=True)
class Entry:
    """One registered part."""

    kind: str
    name: str  # what it is called in configurations
    part: Any  # the class or function
    origin: str  # package that brings it


_ENTRIES: dict[tuple[str, str], Entry] = {}
_COMPLETE: set[str] = set()
# Modules of plugins that were imported, and whether somebody named them.
_PLUGINS: dict[str, bool] = {}


def register(kind: str, name: str) -> Callable[[T], T]:
    """Return a decorator that makes a class or function known under a name.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    name : str
        What users write in configurations and on the command line.

    Raises
    ------
    ConfigError
        The kind is unknown, or the name belongs to another part already.
    """
    _check_kind(kind)

    def keep(part: T) -> T:
        origin = str(getattr(part, "__module__", "?")).partition(".")[0]
        known = _ENTRIES.get((kind, name))
        if known is not None and _path(known.part) != _path(part):
            raise ConfigError(
                f"two parts want to be the {kind} of one name",
                variable=name,
                found=f"{_path(known.part)} and {_path(part)}",
                expected="a name of its own for each",
                remedy="rename one, or leave one plugin out",
            )
        _ENTRIES[kind, name] = Entry(kind, name, part, origin)
        return part

    return keep


def get(kind: str, name: str) -> Any:
    """Return a part by kind and name.

    Raises
    ------
    ConfigError
        There is none; the message lists those that there are.
    """
    known = names(kind)
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        raise ConfigError(
            f"there is no {kind} of this name",
            variable=_HOMES[kind][1],
            found=name,
            expected=" | ".join(known),
            remedy=f"did you mean {close[0]}?"
            if close
            else "correct the name, or load the plugin that brings it: --plugin MODULE",
        )
    return _ENTRIES[kind, name].part


def name_of(kind: str, part: Any) -> str:
    """Return the name under which a part of a kind is registered.

    Raises
    ------
    ConfigError
        It is not registered.
    """
    for entry in entries(kind):
        if entry.part is part:
            return entry.name
    raise ConfigError(
        f"a {kind} without a name cannot be saved",
        found=_path(part),
        remedy=f'put @register("{kind}", NAME) above it',
    )


def names(kind: str) -> tuple[str, ...]:
    """Return the names of a kind: the package's own first, then those of plugins."""
    return tuple(entry.name for entry in entries(kind))


def entries(kind: str) -> list[Entry]:
    """Return what is registered of a kind, in the order of :func:`names`."""
    _check_kind(kind)
    _complete(kind)
    found = [entry for entry in _ENTRIES.values() if entry.kind == kind]
    return sorted(found, key=lambda e: (e.origin != "st_cdgm", e.name))


def load_plugins(modules: Sequence[str] = ()) -> None:
    """Import plugins: those installed with an entry point, and those named.

    Parameters
    ----------
    modules : sequence of str
        Dotted names. Importing a module runs its code: name only what you trust.

    Raises
    ------
    ConfigError
        One cannot be imported.
    """
    installed = [point.value.partition(":")[0] for point in entry_points(group=GROUP)]
    for name in (*installed, *modules):
        _import_plugin(name)
        _PLUGINS[name] = _PLUGINS.get(name, False) or name in modules


def plugins(*, named: bool = False) -> list[str]:
    """Return the modules of the plugins imported so far.

    With ``named`` only those that somebody named, not those found by entry point alone.
    """
    return [name for name, by_name in _PLUGINS.items() if by_name or not named]


def naming(modules: Sequence[str]) -> str:
    """Return how to load plugins, as the remedy of an error."""
    options = " ".join(f"--plugin {name}" for name in modules)
    return f"if you trust them: st-cdgm {options} VERB ..., or load_plugins in Python"


def _import_plugin(name: str) -> None:
    try:
        importlib.import_module(name)
    except ConfigError:  # of a registration; it says what is wrong
        raise
    except Exception as error:
        raise ConfigError(
            "a plugin cannot be imported",
            variable="plugins",
            found=f"{name}: {type(error).__name__}: {error}",
            expected="the dotted name of a module that can be imported",
            remedy="install its package or add its folder to PYTHONPATH, or correct or "
            "remove its name",
        ) from error


def _complete(kind: str) -> None:
    """Import the package's own parts of a kind, and the installed plugins, once."""
    if kind in _COMPLETE:
        return
    _COMPLETE.add(kind)  # first: a part may ask for others while it is imported
    try:
        home = importlib.import_module(f"st_cdgm.{_HOMES[kind][0]}")

        # With the folders inside, such as metrics.calibration.
        inside = getattr(home, "__path__", ())
        for module in pkgutil.walk_packages(inside, f"{home.__name__}."):
            importlib.import_module(module.name)
        load_plugins()
    except BaseException:
        _COMPLETE.discard(kind)
        raise


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(
            "unknown kind of part", found=kind, expected=" | ".join(KINDS)
        )


def _path(part: Any) -> str:
    return f"{part.__module__}.{getattr(part, '__qualname__', part)}"
