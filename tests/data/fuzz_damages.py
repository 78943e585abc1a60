"""Damage of every kind to files and directories of climate data.

Each damage takes a path and random numbers and changes what lies there: bytes, what a
sound file says, directory trees, arrays in archives.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[Path, Rng], None]


def one_file(path: Path, rng: Rng, suffixes: tuple[str, ...] = ()) -> Path | None:
    """Return the file itself or one below it; half of the time one at the top."""
    if path.is_file():
        return path
    found = sorted(p for p in path.rglob("*") if p.is_file())
    if suffixes:
        found = [p for p in found if p.suffix in suffixes or p.name.startswith(".z")]
    top = [p for p in found if p.parent == path]
    chosen = top if top and rng.random() < 0.5 else found
    return chosen[rng.integers(len(chosen))] if chosen else None


# -- Damage to bytes -------------------------------------------------------------------


def _bytes_of(path: Path, rng: Rng, change: Callable[[bytearray, Rng], bytes]) -> None:
    """Change one regular file: the path itself or any file below it."""
    file = one_file(path, rng)
    if file is not None:
        file.write_bytes(change(bytearray(file.read_bytes()), rng))


def flip_bits(path: Path, rng: Rng) -> None:
    def change(data: bytearray, rng: Rng) -> bytes:
        # The beginning holds most of the structure: half of the flips go there.
        end = max(1, min(len(data), 4096) if rng.random() < 0.5 else len(data))
        for at in rng.integers(end, size=int(2 ** rng.integers(0, 7))):
            if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
        return bytes(data)

    _bytes_of(path, rng, change)


def truncate(path: Path, rng: Rng) -> None:
    _bytes_of(path, rng, lambda data, rng: bytes(data[: rng.integers(len(data) + 1)]))


def zero_a_block(path: Path, rng: Rng) -> None:
    def change(data: bytearray, rng: Rng) -> bytes:
        start = int(rng.integers(len(data) + 1))
        stop = min(len(data), start + int(2 ** rng.integers(0, 14)))
        data[start:stop] = bytes(stop - start)
        return bytes(data)

    _bytes_of(path, rng, change)


def swap_blocks(path: Path, rng: Rng) -> None:
    def change(data: bytearray, rng: Rng) -> bytes:
        size = int(2 ** rng.integers(0, 12))
        if len(data) < 2 * size:
            return bytes(data[::-1])
        a, b = sorted(int(x) for x in rng.integers(len(data) - size + 1, size=2))
        if b - a >= size:
            data[a : a + size], data[b : b + size] = (
                data[b : b + size],
                data[a : a + size],
            )
        return bytes(data)

    _bytes_of(path, rng, change)


def write_noise(path: Path, rng: Rng) -> None:
    def change(data: bytearray, rng: Rng) -> bytes:
        start = int(rng.integers(len(data) + 1))
        noise = rng.bytes(int(2 ** rng.integers(0, 10)))
        data[start : start + len(noise)] = noise
        return bytes(data)

    _bytes_of(path, rng, change)


def write_extreme_numbers(path: Path, rng: Rng) -> None:
    """Sizes and offsets of headers become huge, negative or zero."""

    def change(data: bytearray, rng: Rng) -> bytes:
        number = [0, 1, -1, 2**31 - 1, -(2**31), 2**62][rng.integers(6)]
        form = [">q", "<q", ">i", "<i"][rng.integers(4)]
        kept = number if form[1] == "q" else max(min(number, 2**31 - 1), -(2**31))
        raw = struct.pack(form, kept)
        at = 4 * int(rng.integers(max(1, min(len(data), 8192) // 4)))
        data[at : at + len(raw)] = raw
        return bytes(data)

    _bytes_of(path, rng, change)


# -- Damage to what a sound NetCDF file says -------------------------------------------

GARBAGE: tuple[Any, ...] = (
    *("", "garbage", "\x00", "days since", "days since 0000-00-00", "m s-1 K kg"),
    *("hours since 1e30", "1e999", "nan", "%", "degrees_east", "tas", "time lat lon"),
    *(0, -1, 2**31 - 1, 0.0, float("nan"), float("inf"), 1e300),
)
_ATTRIBUTES = (
    *("units", "calendar", "scale_factor", "add_offset", "missing_value", "bounds"),
    *("coordinates", "grid_mapping", "standard_name", "cell_methods", "axis"),
    *("valid_range", "_Unsigned", "positive", "dtype", "formula_terms"),
)


def _garbage(rng: Rng) -> Any:
    chosen = GARBAGE[rng.integers(len(GARBAGE))]
    return (
        np.array([chosen] * 3)
        if rng.random() < 0.1 and not isinstance(chosen, str)
        else chosen
    )


def garbage_attributes(path: Path, rng: Rng) -> None:
    import netCDF4

    if path.is_dir():
        return _garbage_in_json(path, rng)
    with netCDF4.Dataset(path, "a") as file:
        names = [*file.variables]
        for _ in range(rng.integers(1, 4)):
            variable = file[names[rng.integers(len(names))]]
            key = _ATTRIBUTES[rng.integers(len(_ATTRIBUTES))]
            with contextlib.suppress(Exception):  # the library refuses some itself
                variable.setncattr(key, _garbage(rng))
    return None


def _garbage_in_json(path: Path, rng: Rng) -> None:
    """Put garbage somewhere into one JSON document below a directory."""
    file = one_file(path, rng, (".json",))
    if file is None:
        return
    document = json.loads(file.read_text())
    places = list(_places(document))
    for _ in range(rng.integers(1, 3)):
        if places:
            holder, key = places[rng.integers(len(places))]
            with contextlib.suppress(IndexError, KeyError, TypeError):
                if rng.random() < 0.2:
                    del holder[key]
                else:
                    holder[key] = _json_garbage(rng)
    text = json.dumps(document)
    if rng.random() < 0.15:
        text = text[: rng.integers(len(text))]
    file.write_text(text)


def _json_garbage(rng: Rng) -> Any:
    more = (
        [],
        {},
        None,
        True,
        [-1],
        [2**40, 2**40],
        [[1], 2],
        "<f8",
        ">i2",
        "|O",
        "blosc",
    )
    every = (*GARBAGE, *more)
    return every[rng.integers(len(every))]


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = node if isinstance(node, dict) else range(len(node))
    for key in list(keys):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def _rewritten(path: Path, rng: Rng, change: Callable[[Any], Any]) -> None:
    """Read a sound file plainly, change the data set and write it in its place.

    A change draws from sorted names: a Zarr store lists its arrays in any order.
    """
    import xarray as xr

    options = {"decode_cf": False}
    if (path / "metadata.json").is_file():  # a preprocessed directory: one of its parts
        stores, tars = sorted(path.rglob("*.zarr")), sorted(path.glob("*.tar"))
        if tars:
            return _rewrite_tar(tars[rng.integers(len(tars))], rng, _other_array)
        path = stores[rng.integers(len(stores))]
    if path.is_dir():
        with xr.open_zarr(path, consolidated=False, **options) as ds:
            ds.load()
        shutil.rmtree(path)
    else:
        with xr.open_dataset(path, engine="netcdf4", **options) as ds:
            ds.load()
        path.unlink()
    ds = change(ds)
    for variable in ds.variables.values():
        variable.encoding = {}
    if path.suffix == ".zarr":
        ds.to_zarr(path, zarr_format=3, consolidated=False)
    else:
        ds.to_netcdf(path)
    return None


def wrong_dtypes(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        name = sorted(ds.variables)[rng.integers(len(ds.variables))]
        dtype = ["S3", "i1", "u8", "f2", "bool", "U4", "i8"][rng.integers(7)]
        if dtype == "f2":
            dtype = "f8"
        with np.errstate(all="ignore"):
            variable = ds[name].astype(dtype).variable
        variable.attrs = dict(ds[name].attrs)
        return ds.drop_vars(name).assign({name: variable})

    _rewritten(path, rng, change)


def swapped_dims(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        names = sorted(n for n, v in ds.data_vars.items() if v.ndim >= 2)
        if not names:
            return ds
        name = names[rng.integers(len(names))]
        variable = ds[name].variable
        order = [str(d) for d in rng.permutation(list(variable.dims))]
        if rng.random() < 0.5:
            return ds.assign({name: variable.transpose(*order)})
        # The labels change and the sizes stay: nothing fits any more.
        fresh = [
            d if ds.sizes[d] == n else f"{d}_{n}"
            for d, n in zip(order, variable.shape, strict=True)
        ]
        return ds.drop_vars(name).assign(
            {name: (fresh, variable.values, variable.attrs)}
        )

    _rewritten(path, rng, change)


def empty_dims(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        dims = sorted(ds.dims)
        return ds.isel({dims[rng.integers(len(dims))]: slice(0, int(rng.integers(2)))})

    _rewritten(path, rng, change)


def strange_values(path: Path, rng: Rng) -> None:
    """NaN, infinity and huge numbers among coordinates and values."""

    def change(ds: Any) -> Any:
        names = sorted(
            n for n, v in ds.variables.items() if v.dtype.kind in "fi" and v.size
        )
        name = names[rng.integers(len(names))]
        values = np.array(ds[name].values, dtype="f8")
        strange = [np.nan, np.inf, -np.inf, 1e300, -1e10, 0.0][rng.integers(6)]
        if rng.random() < 0.3:
            values[...] = strange
        else:
            values.flat[rng.integers(values.size)] = strange
        made = (ds[name].dims, values, ds[name].attrs)
        return ds.drop_vars(name).assign({name: made})

    _rewritten(path, rng, change)


def renamed(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        names = sorted(ds.variables)
        name = names[rng.integers(len(names))]
        new = ["time", "lat", "x", "q_850", "lat_bnds", "été", "a b", "0"][
            rng.integers(8)
        ]
        if new in ds.variables or new in ds.dims:
            return ds.drop_vars(name)
        return ds.rename({name: new})

    _rewritten(path, rng, change)


# -- Damage to directories -------------------------------------------------------------


def broken_tree(path: Path, rng: Rng) -> None:
    """Delete, empty, exchange or link files of a directory; a file becomes one."""
    if path.is_file():
        if rng.random() < 0.5:
            path.unlink()
            path.symlink_to(path.name)  # a loop of one
        else:
            path.unlink()
            path.mkdir()
            (path / "inside.nc").write_bytes(b"CDF\x01")
        return
    file, other = one_file(path, rng), one_file(path, rng)
    if file is None or other is None:
        return
    what = rng.integers(6)
    if what == 0:
        file.unlink()
    elif what == 1:
        file.write_bytes(b"")
    elif what == 2:
        file.write_bytes(other.read_bytes())
    elif what == 3:
        file.unlink()
        file.symlink_to(file.name)
    elif what == 4:
        file.unlink()
        file.mkdir()
    else:
        shutil.rmtree(file.parent) if file.parent != path else file.unlink()


def broken_members(path: Path, rng: Rng) -> None:
    """Damage ``.npy`` headers and tar members where there are any, else the tree."""
    inside = sorted(path.rglob("*")) if path.is_dir() else []
    arrays = [p for p in inside if p.suffix == ".npy"]
    tars = [p for p in inside if p.suffix == ".tar"]
    if arrays and rng.random() < 0.5:
        file = arrays[rng.integers(len(arrays))]
        file.write_bytes(_bad_header(file.read_bytes(), rng))
    elif tars:
        _rewrite_tar(tars[rng.integers(len(tars))], rng)
    else:
        broken_tree(path, rng)


def _bad_header(data: bytes, rng: Rng) -> bytes:
    changes = (
        (b"'shape': (", b"'shape': (99999999999, "),
        (b"'descr': '<f4'", b"'descr': '|O'"),
        (b"'descr': '<f4'", b"'descr': '<f8'"),
        (b"'shape': (", b"'shape': (-1, "),
        (b"False", b"True "),
        (b"\x93NUMPY", b"\x93NUMPX"),
        (b"{", b"("),
    )
    old, new = changes[rng.integers(len(changes))]
    return data.replace(old, new, 1)


def _other_member(name: str, data: bytes, rng: Rng) -> tuple[str, bytes]:
    """One member emptied, damaged, cut off or renamed."""
    choices = (
        (name, b""),
        (name, _bad_header(data, rng)),
        ("../" + name, data),
        (name, data[: len(data) // 2]),
        (name + ".pkl", data),
        (name.replace(".npy", ".pkl"), pickle.dumps(Unpickled())),
    )
    return choices[rng.integers(len(choices))]


def _other_array(name: str, data: bytes, rng: Rng) -> tuple[str, bytes]:
    """One array with other values, axes, sizes or types, or under another name."""
    if not name.endswith(".npy"):
        return name, json.dumps(_json_garbage(rng)).encode()
    array = np.load(io.BytesIO(data))
    choices = (
        lambda: array.astype(["f8", "i4", ">f4", "S4", "bool"][rng.integers(5)]),
        lambda: np.ascontiguousarray(array.transpose(rng.permutation(array.ndim))),
        lambda: array[:0],
        lambda: array[..., :-1],
        lambda: array.reshape(-1),
        lambda: np.full_like(array, [np.nan, np.inf, 1e30][rng.integers(3)]),
        lambda: array.astype(object),
    )
    changed = io.BytesIO()
    np.save(changed, choices[rng.integers(len(choices))]())
    if rng.random() < 0.2:
        name = name.replace(".hr.", ".lr.")
    return name, changed.getvalue()


class Unpickled:
    """Leaves a file behind where it is unpickled, which nothing may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


Change = Callable[[str, bytes, Rng], tuple[str, bytes]]


def _rewrite_tar(file: Path, rng: Rng, change: Change = _other_member) -> None:
    """Write an archive again with one member changed, sometimes left out."""
    with tarfile.open(file) as old:
        members = [
            (m.name, source.read())
            for m in old.getmembers()
            if (source := old.extractfile(m)) is not None
        ]
    at = int(rng.integers(len(members)))
    members[at] = change(*members[at], rng)
    if rng.random() < 0.2:
        del members[at]
    with tarfile.open(file, "w") as new:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))


DAMAGES: dict[str, Damage] = {
    "bit flips": flip_bits,
    "truncation": truncate,
    "zeroed block": zero_a_block,
    "swapped blocks": swap_blocks,
    "noise": write_noise,
    "extreme numbers": write_extreme_numbers,
    "garbage attributes": garbage_attributes,
    "wrong dtypes": wrong_dtypes,
    "swapped dims": swapped_dims,
    "empty dims": empty_dims,
    "strange values": strange_values,
    "renamed": renamed,
    "broken tree": broken_tree,
    "broken members": broken_members,
}
