"""Prepare a task from NetCDF files and write its windows as WebDataset shards.

The same as `st-cdgm preprocess --format webdataset`, with the original's options.
"""

from __future__ import annotations

import sys

from _options import parser, pipeline_options
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.store.preprocess import create_shards
from st_cdgm.runs.console import run_tool
from st_cdgm.runs.preparation import written_lines


def main() -> None:
    """Run the command line."""
    options = parser(__doc__.split("\n")[0])
    options.add_argument("--stride", type=int, default=1, help="days between windows")
    options.add_argument("--shard_size", type=int, default=1000, help="windows a shard")
    given = options.parse_args()
    pipeline = NetCDFDataPipeline(
        given.lr_path, given.hr_path, given.static_path, **pipeline_options(given)
    )
    made = create_shards(
        pipeline,
        given.output_dir,
        given.seq_len,
        shard_size=given.shard_size,
        stride=given.stride,
        overwrite=given.overwrite,
    )
    sys.stdout.write("\n".join(written_lines(made)) + "\n")


if __name__ == "__main__":
    run_tool(main)
