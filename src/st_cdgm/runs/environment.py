"""Is this machine ready, and what to do where it is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

# Import names, in the order in which a broken one is best noticed.
LIBRARIES = {
    "numpy": "numpy",
    "torch": "torch",
    "torch-geometric": "torch_geometric",
    "pytorch-lightning": "pytorch_lightning",
    "diffusers": "diffusers",
    "xarray": "xarray",
    "netCDF4": "netCDF4",
    "zarr": "zarr",
    "hydra-core": "hydra",
    "safetensors": "safetensors",
    "scoringrules": "scoringrules",
    "matplotlib": "matplotlib",
}
UNWANTED = {
    "torchvision": "a build that does not match torch breaks the training library",
    "litdata": "it brings a torchvision of its own",
}
INSTALL = "install the package again: make install, or pip install st-cdgm"
GIB = 2**30


class Status(StrEnum):
    """Outcome of a check; only FAIL makes the command fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    name: str
    found: str
    status: Status = Status.OK
    remedy: str = ""


def run_checks() -> Iterator[Check]:
    """Yield every check, cheap ones first."""
    yield check_python()
    for distribution, module in LIBRARIES.items():
        yield check_library(distribution, module)
    for distribution, reason in UNWANTED.items():
        yield check_unwanted(distribution, reason)
    yield check_pyg_lib()
    yield from check_threads()
    yield check_memory()
    yield check_disk(Path.cwd())
    yield check_gpu()


def _judged(
    name: str, found: str, remedy: str, *, good: bool, else_: Status = Status.WARN
) -> Check:
    """Return a check that is well, or of status ``else_`` with a remedy."""
    return Check(name, found) if good else Check(name, found, else_, remedy)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.11 or newer."""
    return _judged(
        "Python",
        ".".join(map(str, version)),
        "install Python 3.11 or newer and make a new environment with it",
        good=tuple(version) >= (3, 11),
        else_=Status.FAIL,
    )


def check_library(distribution: str, module: str) -> Check:
    """Report whether the library is there, new enough, and can be imported."""
    from packaging.specifiers import SpecifierSet

    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Check(distribution, "missing", Status.FAIL, INSTALL)

    # The version that this package declares.
    wanted = _wanted(distribution)
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        remedy = f'pip install "{distribution}{wanted}"'
        found = f"{version}, needed {wanted}"
        return Check(distribution, found, Status.FAIL, remedy)

    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        found = f"{version} cannot be imported: {type(error).__name__}: {error}"
        return Check(distribution, found, Status.FAIL, INSTALL)
    return Check(distribution, version)


def _wanted(distribution: str) -> str:
    """Return the version range that this package declares for a library."""
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("st-cdgm") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    ours = (one for one in map(Requirement, declared) if not one.marker)
    name = distribution.lower()
    return next((str(one.specifier) for one in ours if one.name.lower() == name), "")


def check_unwanted(distribution: str, reason: str) -> Check:
    """Report a library that is known to break others."""
    name, remedy = f"no {distribution}", f"pip uninstall {distribution}"
    if importlib.util.find_spec(distribution) is None:
        return Check(name, "not installed")
    try:
        importlib.import_module(distribution)
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        found = f"installed and broken: {error} ({reason})"
        return Check(name, found, Status.FAIL, remedy)
    return Check(name, f"installed ({reason})", Status.WARN, remedy)


def check_pyg_lib() -> Check:
    """Report whether graph convolutions have pyg-lib's kernels; none is needed."""
    try:
        version = importlib.metadata.version("pyg-lib")
    except importlib.metadata.PackageNotFoundError:
        return Check("pyg-lib", "not installed: torch's own kernels are used")
    try:
        from torch_geometric import typing as geometric
    except Exception as error:  # noqa: BLE001 - the line of torch-geometric says more
        return Check("pyg-lib", f"{version}, torch-geometric fails: {error}")

    used = bool(getattr(geometric, "WITH_PYG_LIB", False))
    return _judged(
        "pyg-lib",
        f"{version}, {'used' if used else 'installed and not used'}",
        "install the build for this version of torch (data.pyg.org), or remove it",
        good=used,
    )


def check_threads() -> Iterator[Check]:
    """Report OpenMP's settings: more threads than cores, or spinning ones, are slow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = cores or os.cpu_count() or 1
    text = os.environ.get("OMP_NUM_THREADS", "")
    many = text.isdigit() and int(text) > cores
    found = f"{text} threads on" if many else f"{text or 'unset'},"
    remedy = f"export OMP_NUM_THREADS={cores}"
    yield _judged("OMP_NUM_THREADS", f"{found} {cores} cores", remedy, good=not many)

    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    passive, remedy = policy.upper() == "PASSIVE", "export OMP_WAIT_POLICY=PASSIVE"
    yield _judged("OMP_WAIT_POLICY", policy, remedy, good=passive)


def check_memory(needed_gib: float = 2.0) -> Check:
    """Report the memory that is free now."""
    import psutil

    free = psutil.virtual_memory().available / GIB
    remedy = "close other programs, or lower training.batch_size and members"
    return _judged("memory", f"{free:.1f} GiB free", remedy, good=free >= needed_gib)


def check_disk(directory: Path, needed_gib: float = 2.0) -> Check:
    """Report the free disk space where runs are written."""
    free = shutil.disk_usage(directory).free / GIB
    found = f"{free:.1f} GiB free in {directory}"
    remedy = "free some space, or set run.dir to another disk"
    return _judged("disk", found, remedy, good=free >= needed_gib)


def check_gpu() -> Check:
    """Report the accelerator that torch sees; none is fine."""
    try:
        import torch

        if not torch.cuda.is_available():
            return Check("GPU", "none: the CPU is used")
        name = torch.cuda.get_device_name(0)
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        found, remedy = f"cannot be checked: {error}", "see the failed lines above"
        return Check("GPU", found, Status.WARN, remedy)
    found = f"{name}, {memory:.0f} GiB; use it with training.accelerator=gpu"
    return Check("GPU", found)
