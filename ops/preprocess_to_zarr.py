"""Prepare a task from NetCDF files and write it as Zarr stores.

The same as `st-cdgm preprocess --format zarr`, with the original's options.
"""

from __future__ import annotations

import sys

from _options import parser, pipeline_options
from st_cdgm.data.store.preprocess import convert_netcdf_to_zarr
from st_cdgm.runs.console import run_tool
from st_cdgm.runs.preparation import written_lines


def main() -> None:
    """Run the command line."""
    options = parser(__doc__.split("\n")[0])
    for axis in ("time", "lat", "lon"):
        options.add_argument(f"--chunk_size_{axis}", type=int, metavar="CELLS")
    given = options.parse_args()
    made = convert_netcdf_to_zarr(
        given.lr_path,
        given.hr_path,
        given.output_dir,
        static_path=given.static_path,
        chunk_size_time=given.chunk_size_time,
        chunk_size_lat=given.chunk_size_lat,
        chunk_size_lon=given.chunk_size_lon,
        overwrite=given.overwrite,
        **pipeline_options(given),
    )
    sys.stdout.write("\n".join(written_lines(made)) + "\n")


if __name__ == "__main__":
    run_tool(main)
