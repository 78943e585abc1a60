"""Blocks of days: how large they are, how many at once, and who computes them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
import psutil

from st_cdgm.data.task.days import DAYS_PER_BLOCK, DayFields, DayReader
from st_cdgm.errors import ConfigError
from st_cdgm.outputs import FileFacts

logger = logging.getLogger(__name__)
Work = Callable[[int], FileFacts]
# Days are computed in parts of at most this size, whatever the budget: the same parts
# give the same bytes.
PART_BYTES = 64 << 20
# Memory for computing a part, in units of its result: raw values, the baseline, the
# encoded and the standardised fields exist side by side, beside the caches of NetCDF.
PART_FACTOR = 6
# A worker process with the libraries loaded and nothing to do.
WORKER_BYTES = 450 << 20
# For what grows slowly: file caches, the journal, the allocator's slack.
SLACK_BYTES = 96 << 20


def days_at_once(bytes_per_day: int) -> int:
    """Return how many days are computed together: a power of two, at most 32."""
    days = DAYS_PER_BLOCK
    while days > 1 and days * bytes_per_day > PART_BYTES:
        days //= 2
    return days


def in_parts(read: DayReader, n_days: int, bytes_per_day: int) -> DayFields:
    """Return prepared fields of any days, computed in fixed parts of the record."""
    # Two are kept: a span of days may begin in one and end in the next.
    days = days_at_once(bytes_per_day)
    return DayFields(read, n_days, days_per_block=days, kept=2)


def block_need(block_bytes: int, bytes_per_day: int) -> int:
    """Return the memory that computing and writing a block takes, bytes.

    ``block_bytes`` of it are kept until they are written.
    """
    part = days_at_once(bytes_per_day) * bytes_per_day
    return block_bytes + PART_FACTOR * part + SLACK_BYTES


def affordable_workers(memory: int, workers: int, need: int) -> int:
    """Return how many of the ``workers`` wished for may work side by side.

    All processes together may use ``memory`` bytes, a block takes ``need`` of them; see
    :func:`block_need`.

    Raises
    ------
    ConfigError
        If not even one block fits.
    """
    if workers < 1:
        raise ConfigError(
            "at least one worker is needed", variable="workers", found=workers
        )
    _give_back()
    here = int(psutil.Process().memory_info().rss)
    if here + need > memory:
        raise ConfigError(
            "the memory does not suffice for one block of days",
            variable="memory",
            found=f"{memory >> 20} MiB",
            expected=f"at least {(here + need) >> 20} MiB: {here >> 20} MiB are in use "
            f"before the first block, which takes {need >> 20} MiB",
            remedy="give more memory, or make blocks smaller (block_size)",
        )

    fitting = max((memory - here) // (WORKER_BYTES + need), 1)
    if fitting < workers:
        logger.warning(
            "%d workers instead of %d: more would not stay within %d MiB of memory",
            fitting,
            workers,
            memory >> 20,
        )
    return min(fitting, workers)


def _give_back() -> None:
    """Return freed memory to the system: fitting statistics leaves much of it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def run_blocks(
    work: Work,
    pending: Sequence[int],
    *,
    done: Callable[[int, FileFacts], None],
    workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Do blocks, here or by dask workers, and report each as soon as it is done.

    ``work`` takes the number of a block and returns the facts of the files it has
    written; ``done`` is called in this process with both. One worker works in this
    process, without dask. Several, or those of the ``scheduler`` at an address such as
    ``tcp://host:8786``, need a ``work`` that can be pickled.

    Raises
    ------
    ImportError
        If ``dask.distributed`` is needed and not installed.
    ConfigError
        If the scheduler does not answer.
    """
    if scheduler is None and (workers == 1 or len(pending) < 2):
        for number in pending:
            done(number, _alone(work, number))
        return

    with _client(min(workers, len(pending)), scheduler) as (client, distributed):
        shared = client.scatter(work, broadcast=True, hash=False)
        futures = client.map(
            _alone, [shared] * len(pending), pending, pure=False, retries=0
        )
        numbers = dict(zip((future.key for future in futures), pending, strict=True))
        for future in distributed.as_completed(futures):
            done(numbers[future.key], future.result())


def _alone(work: Work, number: int) -> FileFacts:
    """Do one block; no threads of dask beside the process."""
    with dask.config.set(scheduler="synchronous"):
        return work(number)


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[tuple[Any, Any]]:
    """Yield a client of new workers or of a running scheduler, and the library."""
    try:
        untyped: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ImportError(
            "several workers need dask.distributed: pip install 'st-cdgm[dist]'"
        ) from error

    # Processes of its own, or those of a scheduler that is running already.
    if scheduler is None:
        with (
            untyped.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.ERROR,
            ) as cluster,
            untyped.Client(cluster) as client,
        ):
            yield client, untyped
        return

    try:
        client = untyped.Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the dask scheduler does not answer",
            variable="scheduler",
            found=scheduler,
            expected="the address of a running scheduler, such as tcp://host:8786",
            remedy="start one (dask scheduler, dask worker), or use workers instead",
        ) from error
    with client:
        yield client, untyped
