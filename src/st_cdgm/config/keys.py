"""The dotted keys of the configuration, and the one a user probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from st_cdgm.config.schema import Config


def _without_none(hint: Any) -> Any:
    """Return ``T`` for ``T | None``."""
    if NoneType in get_args(hint):
        return next(arg for arg in get_args(hint) if arg is not NoneType)
    return hint


def _walk(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, type) of a dataclass and of the dataclasses inside."""
    hints = get_type_hints(section)
    for field in fields(section):
        key, hint = f"{prefix}{field.name}", _without_none(hints[field.name])
        yield key, hint
        if is_dataclass(hint):
            yield from _walk(hint, f"{key}.")


@cache
def _types() -> dict[str, Any]:
    return dict(_walk(Config))


def all_keys() -> list[str]:
    """Return every dotted key, sections included."""
    return list(_types())


def type_name(key: str) -> str | None:
    """Return the declared type of a key as text; None for an unknown key."""
    hint = _types().get(key)
    if hint is None:
        return None
    if is_dataclass(hint):
        return f"a section, such as {key}.{fields(hint)[0].name}=VALUE"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def keys_like(name: str) -> list[str]:
    """Return the keys of this name, or of this last part; else those spelt like it."""
    keys = [key for key, hint in _types().items() if not is_dataclass(hint)]
    exact = [key for key in keys if f".{key}".endswith(f".{name}")]
    return exact or difflib.get_close_matches(name, keys, n=1, cutoff=0.8)


def closest_key(key: str) -> str | None:
    """Return the valid key most like ``key``: by its whole name, then by its last part.

    ``los.beta_rec`` finds ``loss.beta_rec``; ``epochs`` finds ``training.epochs``.
    """
    keys, name = all_keys(), key.rpartition(".")[2]
    alike = difflib.get_close_matches(key, keys, n=1, cutoff=0.8)
    if not alike:
        last = {k: k.rpartition(".")[2] for k in keys}
        names = difflib.get_close_matches(name, set(last.values()), n=1, cutoff=0.7)
        candidates = [k for k in keys if names and last[k] == names[0]]
        alike = difflib.get_close_matches(key, candidates or keys, n=1, cutoff=0.4)
        alike = alike or candidates
    return alike[0] if alike else None
