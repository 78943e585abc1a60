"""Whether metadata and fitted state are what a sound directory has, before use.

Files are copied, cut off and edited. What is read from them decides sizes of arrays and
names of files, so types, ranges and shapes are checked where they come in.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import InputError

if TYPE_CHECKING:
    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.space.grid import Grid
    from st_cdgm.data.time.calendar import CalendarDays

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
    "target_transform": str | None,
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
    with _damaged("the metadata are", file):
        _check_entries(metadata, _TYPES)
        for name in ("seq_len", "num_days", "step_seconds"):
            _require(metadata[name] >= 1, name, metadata[name], "1 or more")
        _check_lists(metadata)
        _check_checksums(metadata["checksums"])
        _check_splits(metadata["splits"], metadata["num_days"])

        if metadata["format"] == "webdataset":
            _check_entries(metadata, _SHARD_TYPES)
            _check_shards(metadata["shards"], metadata["num_samples"])
            _check_samples(metadata["splits"], metadata["num_samples"])


class _Wrong(Exception):  # noqa: N818
    """An entry that cannot be; becomes an InputError with the name of the file."""

    def __init__(self, entry: str, found: Any, expected: str) -> None:
        super().__init__(entry)
        text = repr(found)
        self.facts = {
            "variable": entry,
            "found": text if len(text) <= 80 else f"{text[:77]}...",
            "expected": expected,
        }


@contextmanager
def _damaged(what: str, file: str | Path | None) -> Iterator[None]:
    """Name the file in which an entry is wrong."""
    try:
        yield
    except _Wrong as wrong:
        raise InputError(
            f"{what} damaged", file=file, remedy=REMEDY, **wrong.facts
        ) from None


def _require(sound: bool, entry: str, found: Any, expected: str) -> None:
    if not sound:
        raise _Wrong(entry, found, expected)


def _check_entries(
    content: Mapping[str, Any], hints: Mapping[str, Any], prefix: str = ""
) -> None:
    """Compare entries with the types that they must have."""
    for name, hint in hints.items():
        if name not in content and not fits(None, hint):
            raise _Wrong(prefix + name, "nothing", "the entry as written")
        value = content.get(name)
        expected = str(getattr(hint, "__name__", hint))
        _require(fits(value, hint), prefix + name, value, expected)


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


def _check_lists(metadata: Mapping[str, Any]) -> None:
    for name in ("lr_shape", "hr_shape"):
        shape = metadata[name]
        sound = len(shape) == 2 and all(_count(n) for n in shape)
        _require(sound, name, shape, "rows and columns, at least 1")
    for store, names in metadata["variables"].items():
        _require(len(set(names)) == len(names), f"variables.{store}", names, "no twin")
    splits = metadata["config"].get("splits", {})
    _require(isinstance(splits, dict), "config.splits", splits, "dict")


def _count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_checksums(listed: Mapping[str, Any]) -> None:
    for name, facts in listed.items():
        path = PurePosixPath(name)
        inside = name and not path.is_absolute() and ".." not in path.parts
        _require(bool(inside) and "\0" not in name, "checksums", name, "a file inside")
        sound = _count(facts.get("bytes"), 0) and fits(facts.get("sha256"), str)
        _require(sound, f"checksums.{name}", facts, "bytes and sha256")


def _check_splits(splits: Mapping[str, Any], n_days: int) -> None:
    for name, split in splits.items():
        entry = f"splits.{name}.days"
        runs = split.get("days")
        _require(isinstance(runs, list) and bool(runs), entry, runs, "runs of days")
        end = 0
        for run in runs or []:
            _require(
                _interval(run, end, n_days), entry, run, f"days in {end}..{n_days}"
            )
            end = run[1]


def _interval(run: Any, first: int, last: int) -> bool:
    """Whether this is ``[start, stop)`` of at least one, within the limits."""
    if not isinstance(run, list) or len(run) != 2 or not all(_count(n, 0) for n in run):
        return False
    return bool(first <= run[0] < run[1] <= last)


def _check_shards(shards: Sequence[dict[str, Any]], n_samples: int) -> None:
    """Check that the shards hold all samples, one after the other."""
    first = 0
    for shard in shards:
        sound = isinstance(shard.get("name"), str) and _count(shard.get("samples"))
        sound = sound and shard.get("first") == first
        _require(sound, "shards", shard, f"name, samples, first = {first}")
        first += shard["samples"]
    _require(first == n_samples, "num_samples", n_samples, f"{first}, as in the shards")


def _check_samples(splits: Mapping[str, Any], n_samples: int) -> None:
    for name, split in splits.items():
        samples = split.get("samples", [0, 0])
        # A short split may hold no window.
        sound = samples == [0, 0] or _interval(samples, 0, n_samples)
        empty = isinstance(samples, list) and len(set(map(str, samples))) == 1
        entry = f"splits.{name}.samples"
        _require(sound or empty, entry, samples, f"[start, stop] in 0..{n_samples}")


# -- Configuration ---------------------------------------------------------------------


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
    with _damaged("the metadata are", file):
        _check_entries(stored, {name: hints[name] for name in stored}, "config.")


# -- Fitted state ----------------------------------------------------------------------


def check_state(prep: Preprocessor, days: CalendarDays, *, file: Path) -> None:
    """Check that all parts of a fitted preprocessor, and its days, fit together.

    Raises
    ------
    InputError
        If an array has another shape or type than the names and grids ask for.
    """
    with _damaged("the fitted preprocessor is", file):
        for name in ("lr_grid", "hr_grid"):
            _check_grid(getattr(prep, name), name)
        _check_names(prep)
        _check_arrays(prep)
        _check_days(days)


def _check_grid(grid: Grid, name: str) -> None:
    lat, lon = grid.lat, grid.lon
    _require(lat.ndim in (1, 2) and lat.ndim == lon.ndim, name, lat.shape, "1-D or 2-D")
    _require(lat.size > 0 and lon.size > 0, name, grid.shape, "at least one cell")
    if lat.ndim == 2:
        _require(lat.shape == lon.shape, name, (lat.shape, lon.shape), "one shape")
        for axis, length in ((grid.y, grid.shape[0]), (grid.x, grid.shape[1])):
            if axis is not None:
                _require(axis.shape == (length,), name, axis.shape, f"({length},)")

    finite = bool(np.isfinite(lat).all() and np.isfinite(lon).all())
    _require(finite, name, "missing values", "finite coordinates")
    _require(grid.y_name != grid.x_name, name, grid.y_name, "two dimension names")


def _check_names(prep: Preprocessor) -> None:
    names = [channel.name for channel in prep.channels]
    targets = [target.name for target in prep.targets]
    for entry, own in (("channels", names), ("targets", targets)):
        sound = bool(own) and all(isinstance(name, str) for name in own)
        _require(sound and len(set(own)) == len(own), entry, own, "different names")
    codec = prep.codec
    _require(list(codec.names) == targets, "codec", codec.names, ", ".join(targets))
    rooted, most = prep.lr_root, len(names)
    sound = all(_count(i, 0) and i < most for i in rooted)
    _require(sound, "lr_root", rooted, f"channels below {most}")


def _check_arrays(prep: Preprocessor) -> None:
    n, m = len(prep.channels), len(prep.targets)
    coarse, fine = prep.lr_grid.shape, prep.hr_grid.shape
    for name in ("lr_mean", "lr_std", "lr_fill"):
        _check_array(name, getattr(prep, name), [(n, 1, 1), (n, *coarse)])
    for name in ("residual_mean", "residual_std"):
        _check_array(name, getattr(prep, name), [(m, 1, 1), (m, *fine)])
    _check_array("score_std", prep.score_std, [(m,)])
    _check_array("static", prep.static, [(len(prep.static_names), *fine)])
    _check_array("valid", prep.valid, [(m, *fine)], kind="b")


def _check_array(
    name: str, array: NDArray[Any], shapes: list[tuple[int, ...]], kind: str = "f"
) -> None:
    expected = " or ".join(map(str, shapes))
    _require(array.shape in shapes, name, array.shape, expected)
    _require(array.dtype.kind == kind, name, str(array.dtype), f"kind {kind!r}")


def _check_days(days: CalendarDays) -> None:
    _require(isinstance(days.calendar, str), "days.calendar", days.calendar, "str")
    _require(_count(days.step_seconds), "days.step_seconds", days.step_seconds, "int")
    _check_array("days.ordinal", days.ordinal, [(days.ordinal.size,)], kind="i")
    _require(days.ordinal.size > 0, "days.ordinal", 0, "at least one day")
    rising = bool((np.diff(days.ordinal) > 0).all())
    _require(rising, "days.ordinal", "another order", "increasing day numbers")

    shape = days.ordinal.shape
    _check_array("days.day", days.day, [shape], kind="i")
    _check_array("days.season", days.season, [shape])
    if days.second is not None:
        _check_array("days.second", days.second, [shape], kind="i")

    try:
        days.dates()
    except (ValueError, OverflowError) as error:
        raise _Wrong("days.day", str(error), f"dates of {days.calendar}") from None
