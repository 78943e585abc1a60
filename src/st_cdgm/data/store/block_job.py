"""One preprocessing job: blocks, budget, resuming, metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_cdgm.data.store.manifest import (
    FORMAT_VERSION,
    input_facts,
    preprocessor_mark,
    write_preprocessor,
)
from st_cdgm.data.store.resumable import ResumableOutput
from st_cdgm.data.store.work import Work, affordable_workers, run_blocks
from st_cdgm.data.task.days import memory_bytes
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.errors import InputError
from st_cdgm.outputs import FileFacts

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Who works, with how much memory, and who is told.

    Attributes
    ----------
    memory : str or int
        What may be resident, in all processes together.
    workers : int
        Processes on this machine; fewer are used where memory does not suffice.
    scheduler : str, optional
        Address of a dask scheduler to use instead. Its workers must see the inputs and
        the output under the same paths.
    overwrite : bool
        Whether an existing output is replaced.
    progress : callable, optional
        Called with the blocks finished and the number of all blocks.
    """

    memory: str | int = "2 GiB"
    workers: int = 1
    scheduler: str | None = None
    overwrite: bool = False
    progress: Progress | None = None


def write_blocks(
    pipeline: PipelineViews,
    output_dir: str | Path,
    resources: Resources,
    *,
    facts: Mapping[str, Any],
    work: Callable[..., Work],
    count: int,
    need: int,
    begin: Callable[[Path], None],
    metadata: Callable[[], dict[str, Any]],
) -> Path:
    """Run the blocks that are not done yet, then publish the directory.

    ``facts`` are what beside inputs and preprocessor decides the bytes. ``work`` takes
    the directory as ``root`` and returns what writes one of the ``count`` blocks, for
    which ``need`` bytes of memory suffice; ``begin`` writes what comes before them.
    """
    budget = memory_bytes(resources.memory, variable="memory")
    all_facts = {
        "format_version": FORMAT_VERSION,
        "inputs": input_facts(pipeline),
        "preprocessor": preprocessor_mark(pipeline.preprocessor),
        **facts,
    }

    # Once begun, a run goes on behind its last block, also after a kill.
    with ResumableOutput(
        output_dir, all_facts, overwrite=resources.overwrite
    ) as output:
        try:
            workers = resources.workers
            if resources.scheduler is None:
                workers = affordable_workers(budget, workers, need)
            if not output.begun:
                begin(output.root)
                write_preprocessor(output.root, pipeline.preprocessor, pipeline.days)
                output.begin()

            def done(number: int, files: FileFacts) -> None:
                output.record(number, files)
                if resources.progress is not None:
                    resources.progress(len(output.done), count)

            run_blocks(
                work(root=str(output.root.absolute())),
                [number for number in range(count) if number not in output.done],
                done=done,
                workers=workers,
                scheduler=resources.scheduler,
            )
            return output.publish(metadata())
        except OSError as error:
            if isinstance(error, InputError):
                raise
            raise output.failure(error) from error
