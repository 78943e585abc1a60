"""Is this machine ready, and what to do where it is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
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


@dataclass(frozen=True, kw_only=True)
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
    yield from check_threads()
    yield check_memory()
    yield check_disk(Path.cwd())
    yield _guarded("GPU", check_gpu)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python 3.11 or newer."""
    found = ".".join(map(str, version))
    if tuple(version) >= (3, 11):
        return Check(name="Python", found=found)
    return Check(
        name="Python",
        found=found,
        status=Status.FAIL,
        remedy="install Python 3.11 or newer and make a new environment with it",
    )


def check_library(distribution: str, module: str) -> Check:
    """Report whether the library is there, new enough, and can be imported."""
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name=distribution, found="missing", status=Status.FAIL, remedy=INSTALL
        )

    # The version that this package declares.
    wanted = _wanted(distribution)
    if wanted and not _satisfies(version, wanted):
        return Check(
            name=distribution,
            found=f"{version}, needed {wanted}",
            status=Status.FAIL,
            remedy=f'pip install "{distribution}{wanted}"',
        )

    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        return Check(
            name=distribution,
            found=f"{version} cannot be imported: {type(error).__name__}: {error}",
            status=Status.FAIL,
            remedy=INSTALL,
        )
    return Check(name=distribution, found=version)


def _wanted(distribution: str) -> str:
    """Return the version range that this package declares for a library."""
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("st-cdgm") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    for requirement in map(Requirement, declared):
        if requirement.name.lower() == distribution.lower() and not requirement.marker:
            return str(requirement.specifier)
    return ""


def _satisfies(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def check_unwanted(distribution: str, reason: str) -> Check:
    """Report a library that is known to break others."""
    if importlib.util.find_spec(distribution) is None:
        return Check(name=f"no {distribution}", found="not installed")
    try:
        importlib.import_module(distribution)
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        found, status = f"installed and broken: {error}", Status.FAIL
    else:
        found, status = "installed", Status.WARN
    return Check(
        name=f"no {distribution}",
        found=f"{found} ({reason})",
        status=status,
        remedy=f"pip uninstall {distribution}",
    )


def check_threads() -> Iterator[Check]:
    """Report OpenMP's settings: more threads than cores, or spinning ones, are slow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    cores = cores or os.cpu_count() or 1
    text = os.environ.get("OMP_NUM_THREADS", "")
    if text.isdigit() and int(text) > cores:
        yield Check(
            name="OMP_NUM_THREADS",
            found=f"{text} threads on {cores} cores",
            status=Status.WARN,
            remedy=f"export OMP_NUM_THREADS={cores}",
        )
    else:
        yield Check(name="OMP_NUM_THREADS", found=f"{text or 'unset'}, {cores} cores")

    policy = os.environ.get("OMP_WAIT_POLICY", "unset")
    passive = policy.upper() == "PASSIVE"
    yield Check(
        name="OMP_WAIT_POLICY",
        found=policy,
        status=Status.OK if passive else Status.WARN,
        remedy="" if passive else "export OMP_WAIT_POLICY=PASSIVE",
    )


def check_memory(needed_gib: float = 2.0) -> Check:
    """Report the memory that is free now."""
    import psutil

    free = psutil.virtual_memory().available / GIB
    enough = free >= needed_gib
    return Check(
        name="memory",
        found=f"{free:.1f} GiB free",
        status=Status.OK if enough else Status.WARN,
        remedy=""
        if enough
        else "close other programs, or lower training.batch_size and members",
    )


def check_disk(directory: Path, needed_gib: float = 2.0) -> Check:
    """Report the free disk space where runs are written."""
    free = shutil.disk_usage(directory).free / GIB
    enough = free >= needed_gib
    return Check(
        name="disk",
        found=f"{free:.1f} GiB free in {directory}",
        status=Status.OK if enough else Status.WARN,
        remedy="" if enough else "free some space, or set run.dir to another disk",
    )


def check_gpu() -> Check:
    """Report the accelerator that torch sees; none is fine."""
    import torch

    if not torch.cuda.is_available():
        return Check(name="GPU", found="none: the CPU is used")
    name = torch.cuda.get_device_name(0)
    memory = torch.cuda.get_device_properties(0).total_memory / GIB
    return Check(
        name="GPU",
        found=f"{name}, {memory:.0f} GiB; use it with training.accelerator=gpu",
    )


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Turn an exception inside a check into a finding."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - any failure is the finding
        return Check(
            name=name,
            found=f"cannot be checked: {error}",
            status=Status.WARN,
            remedy="see the failed lines above",
        )
