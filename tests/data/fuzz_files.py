"""Damaged files and directories from a seed, and processes that try to read them.

A *case* is a number: it fixes the kind of file, the damage and the function that reads
it. Workers run many cases each, with a limit on memory; a case that takes too long or
brings its worker down is counted and the worker replaced.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fuzz_damages import DAMAGES, Rng, flip_bits
from fuzz_seeds import copy, forge, seed_path, write_seeds
from fuzz_targets import TARGETS

SECONDS_PER_CASE = 60.0
SECONDS_TO_START = 60.0  # the first case of a worker pays for its imports
MEMORY_BYTES = 4 << 30  # address space of a worker

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
    source = seed_path(seeds, kind)
    path = folder / source.name
    copy(source, path)
    try:
        DAMAGES[damage](path, rng)
    except Exception:  # not every change can be written: flip bits instead
        if path.is_dir():  # what was written until then differs from run to run
            shutil.rmtree(path)
        copy(source, path)
        flip_bits(path, rng)
    if path.is_dir() and rng.random() < 0.5:
        forge(path)  # where there are checksums, they agree with the damage
    return path


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
            where = traceback.extract_tb(error.__traceback__)[-4:]
            trace = " < ".join(
                f"{Path(f.filename).name}:{f.lineno}" for f in where[::-1]
            )
            said = f"{type(error).__name__}: {error}"[:300]
            result, detail = "exception", f"{said} ({trace})"
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
    cases: Sequence[int],
    folder: Path,
    *,
    seed: int = 0,
    seconds: float = SECONDS_PER_CASE,
    seeds: Path | None = None,
) -> Iterator[Outcome]:
    """Run cases in child processes; a worker that dies or hangs is replaced.

    ``seeds`` holds the sound files; without it they are written first.
    """
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    if seeds is None:
        seeds = folder / "seeds"
        seeds.mkdir()
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

    import st_cdgm.data.netcdf_utils
    import st_cdgm.data.pipeline
    import st_cdgm.data.store.preprocess
    import st_cdgm.data.store.shard_dataset
    import st_cdgm.data.store.zarr_pipeline  # noqa: F401

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out, sys.stdout = sys.stdout, io.StringIO()
    for line in sys.stdin:
        outcome = run_case(int(line), seed, seeds, work)
        out.write(json.dumps(asdict(outcome)) + "\n")
        out.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
