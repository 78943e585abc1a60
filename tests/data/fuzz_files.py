"""Damaged files and directories from a seed, and processes that try to read them.

A *case* is a number: it fixes the kind of file, the damage and the function that reads
it. Workers run many cases each, with a limit on memory; a case that takes too long or
brings its worker down is counted and the worker replaced.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[Path, Rng], None]

SECONDS_PER_CASE = 60.0
SECONDS_TO_START = 60.0  # the first case of a worker pays for its imports
MEMORY_BYTES = 4 << 30  # address space of a worker

# -- Sound files to start from ---------------------------------------------------------


def _dataset() -> Any:
    import xarray as xr

    rng = np.random.default_rng(0)
    days = xr.date_range("2001-01-30", periods=6, calendar="noleap", use_cftime=True)
    dims, shape = ("time", "lat", "lon"), (6, 5, 7)
    ds = xr.Dataset(
        {
            "tas": (dims, rng.normal(280, 4, shape).astype("f4"), {"units": "K"}),
            "pr": (dims, rng.random(shape) * 9, {"units": "mm day-1"}),
            "q": (
                ("time", "plev", "lat", "lon"),
                rng.random((6, 2, 5, 7)) * 0.01,
                {"units": "kg kg-1", "standard_name": "specific_humidity"},
            ),
            "lat_bnds": (("lat", "bnds"), np.zeros((5, 2))),
        },
        coords={
            "time": days,
            "plev": ("plev", [85000.0, 50000.0], {"units": "Pa"}),
            "lat": ("lat", np.linspace(50, 40, 5), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(-5, 7, 7), {"units": "degrees_east"}),
        },
    )
    ds.lat.attrs["bounds"] = "lat_bnds"
    return ds


_PACKED = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -1}
_CHUNKED = {"zlib": True, "chunksizes": (2, 5, 7), "fletcher32": True}


def write_seeds(folder: Path) -> dict[str, Path]:
    """One sound file or directory of every kind; ``grid.nc`` serves static fields."""
    ds = _dataset()
    made = {
        "classic": folder / "classic.nc",
        "netcdf4": folder / "netcdf4.nc",
        "packed": folder / "packed.nc",
        "static": folder / "static.nc",
        "zarr2": folder / "v2.zarr",
        "zarr3": folder / "v3.zarr",
    }
    ds.to_netcdf(made["classic"], format="NETCDF3_64BIT", unlimited_dims=["time"])
    ds.to_netcdf(made["netcdf4"], encoding={"tas": _CHUNKED, "pr": _CHUNKED})
    ds.to_netcdf(made["packed"], encoding={"tas": _PACKED}, unlimited_dims=["time"])
    static = ds[["tas"]].isel(time=0, drop=True).rename(tas="orog")
    static.orog.attrs["units"] = "m"
    static.to_netcdf(made["static"])
    ds.to_zarr(made["zarr2"], zarr_format=2, consolidated=True)
    ds.to_zarr(made["zarr3"], zarr_format=3, consolidated=False)
    return made


# -- Damage to bytes -------------------------------------------------------------------


def _bytes_of(path: Path, rng: Rng, change: Callable[[bytearray, Rng], bytes]) -> None:
    """Change one regular file: the path itself or any file below it."""
    files = (
        [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    )
    if files:
        file = files[rng.integers(len(files))]
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
    files = sorted(
        p
        for p in path.rglob("*")
        if p.is_file() and (p.suffix == ".json" or p.name.startswith(".z"))
    )
    if not files:
        return
    file = files[rng.integers(len(files))]
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


def _rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """Read a sound file plainly, change the data set and write it in its place."""
    import xarray as xr

    options = {"decode_cf": False}
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


def wrong_dtypes(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        name = list(ds.variables)[rng.integers(len(ds.variables))]
        dtype = ["S3", "i1", "u8", "f2", "bool", "U4", "i8"][rng.integers(7)]
        if dtype == "f2":
            dtype = "f8"
        with np.errstate(all="ignore"):
            variable = ds[name].astype(dtype).variable
        variable.attrs = dict(ds[name].attrs)
        return ds.drop_vars(name).assign({name: variable})

    _rewritten(path, change)


def swapped_dims(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        names = [n for n, v in ds.data_vars.items() if v.ndim >= 2]
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

    _rewritten(path, change)


def empty_dims(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        dims = list(ds.dims)
        return ds.isel({dims[rng.integers(len(dims))]: slice(0, int(rng.integers(2)))})

    _rewritten(path, change)


def strange_values(path: Path, rng: Rng) -> None:
    """NaN, infinity and huge numbers among coordinates and values."""

    def change(ds: Any) -> Any:
        names = [n for n, v in ds.variables.items() if v.dtype.kind in "fi" and v.size]
        name = names[rng.integers(len(names))]
        values = np.array(ds[name].values, dtype="f8")
        strange = [np.nan, np.inf, -np.inf, 1e300, -1e10, 0.0][rng.integers(6)]
        if rng.random() < 0.3:
            values[...] = strange
        else:
            values.flat[rng.integers(values.size)] = strange
        made = (ds[name].dims, values, ds[name].attrs)
        return ds.drop_vars(name).assign({name: made})

    _rewritten(path, change)


def renamed(path: Path, rng: Rng) -> None:
    def change(ds: Any) -> Any:
        names = [*ds.variables]
        name = names[rng.integers(len(names))]
        new = ["time", "lat", "x", "q_850", "lat_bnds", "été", "a b", "0"][
            rng.integers(8)
        ]
        if new in ds.variables or new in ds.dims:
            return ds.drop_vars(name)
        return ds.rename({name: new})

    _rewritten(path, change)


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
    files = sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        return
    file, other = (files[i] for i in rng.integers(len(files), size=2))
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
    arrays = sorted(path.rglob("*.npy")) if path.is_dir() else []
    tars = sorted(path.rglob("*.tar")) if path.is_dir() else []
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
        (b"False", b"True "),
        (b"\x93NUMPY", b"\x93NUMPX"),
        (b"{", b"("),
    )
    old, new = changes[rng.integers(len(changes))]
    return data.replace(old, new, 1)


def _rewrite_tar(file: Path, rng: Rng) -> None:
    """Write an archive again with one member left out, emptied, damaged or renamed."""
    with tarfile.open(file) as old:
        members = [
            (m.name, source.read())
            for m in old.getmembers()
            if (source := old.extractfile(m)) is not None
        ]
    at, what = int(rng.integers(len(members))), int(rng.integers(5))
    name, data = members[at]
    members[at] = [
        (name, b""),
        (name, _bad_header(data, rng)),
        ("../" + name, data),
        (name, data[: len(data) // 2]),
        (name + ".pkl", data),
    ][what]
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

# -- What reads them -------------------------------------------------------------------

Target = Callable[[Path, Path], object]


def _inspect(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.inspection import inspect_file

    return inspect_file(path)


def _channels(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.readers import read_channels

    return read_channels(path).load()


def _targets(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.readers import read_targets

    return read_targets(path).load()


def _static(path: Path, seeds: Path) -> object:
    from st_cdgm.data.readers import read_static, read_targets

    return read_static(path, grid=read_targets(seeds / "netcdf4.nc").grid)


CLIMATE = ("classic", "netcdf4", "packed", "zarr2", "zarr3")
# name -> (function, kinds of files it is tried on)
TARGETS: dict[str, tuple[Target, tuple[str, ...]]] = {
    "inspect_file": (_inspect, (*CLIMATE, "static")),
    "read_channels": (_channels, CLIMATE),
    "read_targets": (_targets, CLIMATE),
    "read_static": (_static, ("static", "zarr3")),
}

# -- Cases -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case: ``read``, ``refused`` or a failure."""

    case: int
    kind: str
    damage: str
    target: str
    result: str
    detail: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the library did what it should."""
        return self.result in ("read", "refused")


def plan(case: int, seed: int) -> tuple[str, str, str, Rng]:
    """Kind of file, damage, reader and random numbers of a case."""
    rng = np.random.default_rng([seed, case])
    damage = list(DAMAGES)[case % len(DAMAGES)]
    target = list(TARGETS)[rng.integers(len(TARGETS))]
    kinds = TARGETS[target][1]
    return kinds[rng.integers(len(kinds))], damage, target, rng


def damaged_copy(case: int, seed: int, seeds: Path, folder: Path) -> Path:
    """Make the damaged file of a case in an empty folder."""
    kind, damage, _, rng = plan(case, seed)
    source = _seed_path(seeds, kind)
    path = folder / source.name
    _copy(source, path)
    try:
        DAMAGES[damage](path, rng)
    except Exception:  # not every change can be written: flip bits instead
        _copy(source, path)
        flip_bits(path, rng)
    return path


def _copy(source: Path, path: Path) -> None:
    if source.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)


def _seed_path(seeds: Path, kind: str) -> Path:
    return seeds / {
        "zarr2": "v2.zarr",
        "zarr3": "v3.zarr",
    }.get(kind, f"{kind}.nc")


def _listing(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def run_case(case: int, seed: int, seeds: Path, work: Path) -> Outcome:
    """Damage a copy, read it, and say what happened."""
    from st_cdgm.errors import InputError

    kind, damage, target, _ = plan(case, seed)
    folder = work / f"case{case}"
    folder.mkdir(parents=True)
    start = time.perf_counter()
    try:
        path = damaged_copy(case, seed, seeds, folder)
        before = _listing(work)
        try:
            TARGETS[target][0](path, seeds)
            result, detail = "read", ""
        except InputError as error:
            result, detail = "refused", f"{type(error).__name__}: {error.problem}"
        except Exception as error:
            result, detail = "exception", f"{type(error).__name__}: {error}"[:300]
        left = _listing(work) - before
        if left:
            result, detail = "leftover", ", ".join(sorted(left))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        case=case,
        kind=kind,
        damage=damage,
        target=target,
        result=result,
        detail=detail,
        seconds=time.perf_counter() - start,
    )


# -- Workers ---------------------------------------------------------------------------


class Worker:
    """A child process that runs cases one after the other."""

    def __init__(self, seed: int, seeds: Path, work: Path) -> None:
        here = Path(__file__)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(work)}
        self.process = subprocess.Popen(
            [sys.executable, str(here), str(seed), str(seeds), str(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def run(self, case: int, seconds: float) -> Outcome | str:
        """Return the outcome, or how the worker died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{case}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._death()
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            self.process.kill()
            self.process.wait()
            return f"hang: no answer within {seconds:g} s"
        line = self.process.stdout.readline()
        return Outcome(**json.loads(line)) if line else self._death()

    def _death(self) -> str:
        code = self.process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return f"crash: {name}"

    def stop(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def run_cases(
    cases: range, folder: Path, *, seed: int = 0, seconds: float = SECONDS_PER_CASE
) -> Iterator[Outcome]:
    """Run cases in child processes; a worker that dies or hangs is replaced."""
    seeds, work = folder / "seeds", folder / "work"
    seeds.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    write_seeds(seeds)
    worker = Worker(seed, seeds, work)
    first = True
    try:
        for case in cases:
            result = worker.run(case, seconds + (SECONDS_TO_START if first else 0.0))
            first = isinstance(result, str)
            if isinstance(result, Outcome):
                yield result
                continue
            worker.stop()
            shutil.rmtree(work / f"case{case}", ignore_errors=True)
            worker = Worker(seed, seeds, work)
            kind, damage, target, _ = plan(case, seed)
            how, _, detail = result.partition(": ")
            yield Outcome(
                case=case,
                kind=kind,
                damage=damage,
                target=target,
                result=how,
                detail=detail,
                seconds=seconds,
            )
    finally:
        worker.stop()


def _serve(seed: int, seeds: Path, work: Path) -> None:
    import resource
    import warnings

    import st_cdgm.data.inspection
    import st_cdgm.data.readers  # noqa: F401

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out, sys.stdout = sys.stdout, io.StringIO()
    for line in sys.stdin:
        outcome = run_case(int(line), seed, seeds, work)
        out.write(json.dumps(asdict(outcome)) + "\n")
        out.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
