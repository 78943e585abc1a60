"""Every key with its type, default value and description, as a JSON schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from st_cdgm.config.schema import Config

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# A value taken from another key or from the environment, resolved when it is read.
INTERPOLATION = {"type": "string", "pattern": r"\$\{"}
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
# ``name, other : type`` of a numpydoc section.
_ENTRY = re.compile(r"^(\w[\w, ]*) :", re.MULTILINE)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of configuration files, for editors.

    Numbers, lists and sections may also be given as an interpolation, ``${...}``.
    """
    schema = _section(Config)
    schema["properties"]["defaults"] = {
        "description": "Presets or files that this one builds on, in order.",
        "type": ["array", "string"],
    }
    return {"$schema": DRAFT, "title": "st-cdgm configuration", **schema}


@cache
def descriptions(kind: type) -> dict[str, str]:
    """Return what the docstring of a settings class says of its fields."""
    text = "\n".join(line.strip() for line in (kind.__doc__ or "").splitlines())
    _, _, attributes = text.partition("Attributes\n----------\n")
    parts = _ENTRY.split(attributes)[1:]
    found: dict[str, str] = {}
    for names, body in zip(parts[::2], parts[1::2], strict=True):
        meaning = " ".join(body.split("\n", 1)[-1].split())
        found |= {name.strip(): meaning for name in names.split(",")}
    return found


def _section(kind: Any) -> dict[str, Any]:
    """Return the schema of a settings class; no other key is allowed."""
    hints, meaning = get_type_hints(kind), descriptions(kind)
    properties = {}
    for item in fields(kind):
        hint = hints[item.name]
        about = meaning.get(item.name) or _summary(hint)
        default = {} if is_dataclass(hint) else _default(item)
        properties[item.name] = {"description": about, **_type(hint), **default}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _default(item: Any) -> dict[str, Any]:
    if item.default is not MISSING:
        return {"default": item.default}
    made = item.default_factory() if item.default_factory is not MISSING else None
    return {} if made is None else {"default": made}


def _summary(hint: Any) -> str:
    """Return the first line about a section."""
    return (getattr(hint, "__doc__", None) or "").strip().split("\n", 1)[0]


def _type(hint: Any) -> dict[str, Any]:
    """Return the schema of a type."""
    choices = list(_choices(hint))
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _choices(hint: Any) -> Iterator[dict[str, Any]]:
    """Yield what a value may be; nothing about ``Any``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kept = [part for part in inner if part is not NoneType]
        yield from (choice for part in kept for choice in _choices(part))
        yield {"type": "null"}
        return

    # One type; every other than text may also be an interpolation.
    if is_dataclass(hint):
        yield _section(hint)
    elif origin is list:
        yield {"type": "array", "items": _type(inner[0])}
    elif origin is dict:
        yield {"type": "object", "additionalProperties": _type(inner[1])}
    elif hint in _PLAIN:
        yield {"type": _PLAIN[hint]}
    else:
        yield {}
        return

    if hint is not str:
        yield INTERPOLATION
