"""Any value of a climate file as a type that strict JSON has, and files of these."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cftime
import numpy as np

from st_cdgm.outputs import check_output_path, temporary_name

__all__ = ["native", "to_json", "write_table", "write_text"]


def native(value: Any) -> Any:
    """Return the value as None, bool, int, float, str, list or dict.

    Numbers of numpy become those of Python (a float32 the shortest decimal that gives
    it back), NaN, masked values and NaT None, infinities the text ``inf`` or ``-inf``,
    dates ISO 8601, bytes text, arrays and tuples lists.
    """
    if isinstance(value, np.ma.core.MaskedConstant) or value is None:
        return None
    if isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        return {str(key): native(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return (
            native(value[()]) if value.ndim == 0 else [native(item) for item in value]
        )
    if isinstance(value, list | tuple | set | frozenset):
        return [native(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return _number(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, cftime.datetime):
        return value.isoformat()
    if isinstance(value, np.void) and value.dtype.names:
        return {name: native(value[name]) for name in value.dtype.names}
    return str(value)


def _number(value: Any) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # str() of a single-precision number has the digits that belong to it.
    return float(str(value)) if isinstance(value, np.floating) else float(value)


def to_json(content: Any) -> str:
    """Strict JSON (RFC 8259: no NaN), indented by 2, other alphabets kept."""
    return json.dumps(native(content), indent=2, ensure_ascii=False, allow_nan=False)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 under a temporary name and rename it when it is complete.

    Raises
    ------
    OutputError
        If nothing can be written there.
    """
    target = check_output_path(path)
    part = temporary_name(target)
    try:
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def write_table(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as CSV; columns in order of appearance, nested values as JSON text.

    Raises
    ------
    OutputError
        If nothing can be written there.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(native(value)) for key, value in row.items()})
    return write_text(path, stream.getvalue())


def _cell(value: Any) -> Any:
    nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if nested else value
