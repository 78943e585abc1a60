"""Whether metadata and fitted state are what a sound directory has, before use.

Files are copied, cut off and edited. What is read from them decides sizes of arrays and
names of files, so types, ranges and shapes are checked where they come in.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import InputError

if TYPE_CHECKING:
    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.space.grid import Grid
    from st_cdgm.data.time.calendar import CalendarDays

# Whether an entry is sound, its name, what was found, what was expected.
Checks = Iterator[tuple[bool, str, Any, str]]
REMEDY = "copy the directory again, or preprocess again"
# What every directory says, and of which type; an entry that may be None may be absent.
_TYPES: dict[str, Any] = {
    "seq_len": int,
    "num_days": int,
    "step_seconds": int,
    "calendar": str,
    "lr_shape": list[int],
    "hr_shape": list[int],
    "variables": dict[str, list[str]],
    "splits": dict[str, dict[str, Any]],
    "checksums": dict[str, dict[str, Any]],
    "config": dict[str, Any],
    "transform_epsilon": float,
    "target_transform": str | dict[str, str | None] | None,
}
_SHARD_TYPES: dict[str, Any] = {"num_samples": int, "shards": list[dict[str, Any]]}


# -- Metadata --------------------------------------------------------------------------


def check_metadata(metadata: Mapping[str, Any], *, file: Path) -> None:
    """Check types and ranges of all that readers take from the metadata.

    Raises
    ------
    InputError
        If an entry is missing, of another type or out of range.
    """
    _hold(_metadata(metadata), "the metadata are", file)


def check_types(
    stored: Mapping[str, Any], cls: type, *, file: str | Path | None
) -> None:
    """Check options read from JSON against the annotations of their dataclass.

    Raises
    ------
    InputError
        If an option has another type.
    """
    hints = get_type_hints(cls)
    known = {name: hints[name] for name in stored}
    _hold(_entries(stored, known, "config."), "the metadata are", file)


def _hold(checks: Checks, what: str, file: str | Path | None) -> None:
    """Raise for the first entry that is not sound; what follows it is not looked at."""
    for sound, entry, found, expected in checks:
        if not sound:
            text = repr(found)
            raise InputError(
                f"{what} damaged",
                file=file,
                variable=entry,
                found=text if len(text) <= 80 else f"{text[:77]}...",
                expected=expected,
                remedy=REMEDY,
            )


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON has the type that an annotation asks for."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if hint is Any:
        return True
    if origin is list:
        return isinstance(value, list) and all(fits(v, inner[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items()
        )

    if hint in (int, float):  # a bool is an int to Python
        wanted = int if hint is int else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    # A nested group of options is checked by itself.
    return isinstance(value, dict if is_dataclass(hint) else hint)


def _count(value: Any, least: int = 1) -> bool:
    return fits(value, int) and value >= least


def _interval(run: Any, first: int, last: int) -> bool:
    """Whether this is ``[start, stop)`` of at least one, within the limits."""
    return fits(run, list[int]) and len(run) == 2 and first <= run[0] < run[1] <= last


def _metadata(metadata: Mapping[str, Any]) -> Checks:
    yield from _entries(metadata, _TYPES)
    for name in ("seq_len", "num_days", "step_seconds"):
        yield metadata[name] >= 1, name, metadata[name], "1 or more"
    for name in ("lr_shape", "hr_shape"):
        shape = metadata[name]
        sound = len(shape) == 2 and min(shape) >= 1
        yield sound, name, shape, "rows and columns, at least 1"

    for store, names in metadata["variables"].items():
        yield len(set(names)) == len(names), f"variables.{store}", names, "no twin"
    splits = metadata["config"].get("splits", {})
    yield isinstance(splits, dict), "config.splits", splits, "dict"
    yield from _checksums(metadata["checksums"])
    yield from _runs(metadata["splits"], metadata["num_days"])

    if metadata["format"] == "webdataset":
        yield from _entries(metadata, _SHARD_TYPES)
        yield from _samples(metadata)


def _entries(
    content: Mapping[str, Any], hints: Mapping[str, Any], prefix: str = ""
) -> Checks:
    """Compare entries with the types that they must have."""
    for name, hint in hints.items():
        there = name in content or fits(None, hint)
        yield there, prefix + name, "nothing", "the entry as written"
        value = content.get(name)
        expected = str(getattr(hint, "__name__", hint))
        yield fits(value, hint), prefix + name, value, expected


def _checksums(listed: Mapping[str, Any]) -> Checks:
    for name, facts in listed.items():
        path = PurePosixPath(name)
        inside = bool(name) and not path.is_absolute() and ".." not in path.parts
        yield inside and "\0" not in name, "checksums", name, "a file inside"
        sound = _count(facts.get("bytes"), 0) and fits(facts.get("sha256"), str)
        yield sound, f"checksums.{name}", facts, "bytes and sha256"


def _runs(splits: Mapping[str, Any], n_days: int) -> Checks:
    for name, split in splits.items():
        entry, end = f"splits.{name}.days", 0
        runs = split.get("days")
        yield isinstance(runs, list) and bool(runs), entry, runs, "runs of days"
        for run in runs:
            sound = _interval(run, end, n_days)
            yield sound, entry, run, f"days in {end}..{n_days}"
            end = run[1]


def _samples(metadata: Mapping[str, Any]) -> Checks:
    """Check that the shards hold all samples, one after the other."""
    first, count = 0, metadata["num_samples"]
    for shard in metadata["shards"]:
        sound = isinstance(shard.get("name"), str) and _count(shard.get("samples"))
        sound = sound and shard.get("first") == first
        yield sound, "shards", shard, f"name, samples, first = {first}"
        first += shard["samples"]
    yield first == count, "num_samples", count, f"{first}, as in the shards"

    for name, split in metadata["splits"].items():
        samples = split.get("samples", [0, 0])
        # A short split may hold no window.
        empty = isinstance(samples, list) and len(set(map(str, samples))) == 1
        sound = empty or _interval(samples, 0, count)
        yield sound, f"splits.{name}.samples", samples, f"[start, stop] in 0..{count}"


# -- Fitted state ----------------------------------------------------------------------


def check_state(prep: Preprocessor, days: CalendarDays, *, file: Path) -> None:
    """Check that all parts of a fitted preprocessor, and its days, fit together.

    Raises
    ------
    InputError
        If an array has another shape or type than the names and grids ask for.
    """
    grids = (_grid(getattr(prep, name), name) for name in ("lr_grid", "hr_grid"))
    parts = (*grids, _names(prep), _arrays(prep), _days(days))
    _hold(chain.from_iterable(parts), "the fitted preprocessor is", file)


def _grid(grid: Grid, name: str) -> Checks:
    lat, lon = grid.lat, grid.lon
    yield lat.ndim in (1, 2) and lat.ndim == lon.ndim, name, lat.shape, "1-D or 2-D"
    yield lat.size > 0 and lon.size > 0, name, grid.shape, "at least one cell"
    if lat.ndim == 2:
        yield lat.shape == lon.shape, name, (lat.shape, lon.shape), "one shape"
        for axis, length in zip((grid.y, grid.x), grid.shape, strict=True):
            if axis is not None:
                yield axis.shape == (length,), name, axis.shape, f"({length},)"

    finite = bool(np.isfinite(lat).all() and np.isfinite(lon).all())
    yield finite, name, "missing values", "finite coordinates"
    yield grid.y_name != grid.x_name, name, grid.y_name, "two dimension names"


def _names(prep: Preprocessor) -> Checks:
    names = [channel.name for channel in prep.channels]
    targets = [target.name for target in prep.targets]
    for entry, own in (("channels", names), ("targets", targets)):
        sound = fits(own, list[str]) and len(set(own)) == len(own) > 0
        yield sound, entry, own, "different names"
    codec, rooted, most = list(prep.codec.names), prep.lr_root, len(names)
    yield codec == targets, "codec", prep.codec.names, ", ".join(targets)
    sound = all(_count(i, 0) and i < most for i in rooted)
    yield sound, "lr_root", rooted, f"channels below {most}"


def _arrays(prep: Preprocessor) -> Checks:
    n, m = len(prep.channels), len(prep.targets)
    coarse, fine = prep.lr_grid.shape, prep.hr_grid.shape
    for name in ("lr_mean", "lr_std", "lr_fill"):
        yield from _array(name, getattr(prep, name), [(n, 1, 1), (n, *coarse)])
    for name in ("residual_mean", "residual_std"):
        yield from _array(name, getattr(prep, name), [(m, 1, 1), (m, *fine)])
    yield from _array("score_std", prep.score_std, [(m,)])
    yield from _array("static", prep.static, [(len(prep.static_names), *fine)])
    yield from _array("valid", prep.valid, [(m, *fine)], kind="b")


def _array(
    name: str, array: NDArray[Any], shapes: list[tuple[int, ...]], kind: str = "f"
) -> Checks:
    yield array.shape in shapes, name, array.shape, " or ".join(map(str, shapes))
    yield array.dtype.kind == kind, name, str(array.dtype), f"kind {kind!r}"


def _days(days: CalendarDays) -> Checks:
    ordinal, step = days.ordinal, days.step_seconds
    yield isinstance(days.calendar, str), "days.calendar", days.calendar, "str"
    yield _count(step), "days.step_seconds", step, "int"
    yield from _array("days.ordinal", ordinal, [(ordinal.size,)], kind="i")
    yield ordinal.size > 0, "days.ordinal", 0, "at least one day"
    rising = bool((np.diff(ordinal) > 0).all())
    yield rising, "days.ordinal", "another order", "increasing day numbers"

    yield from _array("days.day", days.day, [ordinal.shape], kind="i")
    yield from _array("days.season", days.season, [ordinal.shape])
    if days.second is not None:
        yield from _array("days.second", days.second, [ordinal.shape], kind="i")

    try:
        days.dates()
    except (ValueError, OverflowError) as error:
        yield False, "days.day", str(error), f"dates of {days.calendar}"
