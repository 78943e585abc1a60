"""NetCDF files as tables, and their metadata as text, JSON and CSV.

``python -m st_cdgm.data.netcdf_utils FILE`` shows all about a file and writes both
metadata files beside it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import pandas as pd
import xarray as xr
from dask.diagnostics.progress import ProgressBar

from st_cdgm.data.files.open import resolve_paths
from st_cdgm.data.space.coordinates import check_not_empty, required_coordinates
from st_cdgm.data.tables.frames import Method, check_variables, fields_of, table
from st_cdgm.data.tables.metadata import extract_metadata
from st_cdgm.data.tables.metadata_text import detailed_info, simple_info, variable_rows
from st_cdgm.data.tables.selection import (
    Range,
    cut_period,
    cut_region,
    open_plain,
    plain_dates,
    pooled,
    statistics_of,
)
from st_cdgm.errors import InputError, check_choice
from st_cdgm.outputs import to_json, write_table, write_text

__all__ = ["NetCDFToDataFrame", "export_metadata", "process_netcdf_file"]

logger = logging.getLogger(__name__)
EXAMPLE = "./NorESM2-MM_histupdated_compressed.nc"


class NetCDFToDataFrame:
    """A NetCDF file to cut, normalise, tabulate and describe.

    Opened lazily: what is cut away is never read. Closes its file as a context manager
    or through :meth:`close`. All ``select_*``, :meth:`format_time` and
    :meth:`normalize_variables` change :attr:`dataset` in place and return None.

    Parameters
    ----------
    filepath : str or Path
        A NetCDF file, an HDF5 file or a Zarr directory.
    chunks : int, dict or "auto", optional
        Dask chunks, as in :func:`xarray.open_dataset`.
    load_in_memory : bool
        Read everything at once, with a progress bar on standard error.

    Attributes
    ----------
    filepath, chunks
        As given, the file as a Path.
    dataset : xarray.Dataset
        Its present content.

    Raises
    ------
    MissingFileError
        (a FileNotFoundError) If the file does not exist.
    InputError
        (a ValueError) If it cannot be read.
    """

    def __init__(
        self,
        filepath: str | Path,
        chunks: Any = None,
        load_in_memory: bool = False,
    ) -> None:
        files = resolve_paths(filepath, role="inspected")
        if len(files) != 1:
            first = f" files, the first {files[0].name}" if files else " local files"
            raise InputError(
                "one local file is expected",
                file=str(filepath),
                found=f"{len(files)}{first}",
                remedy="name one file; download one that lies behind a URL",
            )

        self.filepath = files[0]
        self.chunks = chunks
        self.dataset = open_plain(self.filepath, chunks)
        self._opened = self.dataset
        if load_in_memory:
            with ProgressBar(out=sys.stderr):  # type: ignore[no-untyped-call]
                self.dataset = self.dataset.chunk("auto").load()

    def __enter__(self) -> NetCDFToDataFrame:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; tables and metadata made before stay valid."""
        self.dataset.close()
        self._opened.close()

    # -- Cut and normalise -------------------------------------------------------------

    def format_time(self) -> None:
        """Turn the time axis into pandas dates, hours and minutes included.

        A calendar with dates that pandas does not have (360_day, all_leap) keeps its
        own cftime dates. Without a time axis nothing happens.
        """
        self.dataset = plain_dates(self.dataset, file=self.filepath)

    def select_region(
        self,
        lat_slice: slice | None = None,
        lon_slice: slice | None = None,
        lat_range: Range | None = None,
        lon_range: Range | None = None,
    ) -> None:
        """Cut a box in degrees north and east; ranges override slices.

        Coordinates may have any name, latitudes either order, longitudes either
        convention; the box may cross the seam of the file. West comes before east:
        ``lon_range=(350, 10)`` is 20 degrees wide. On 2-D coordinates the cells outside
        become NaN and rows and columns without any cell inside are dropped.

        Raises
        ------
        MissingVariableError
            If the file has no latitude and longitude.
        InputError
            If no cell lies in the box.
        """
        lat_range = lat_range or self._bounds(lat_slice, 0)
        lon_range = lon_range or self._bounds(lon_slice, 1)
        if lat_range is None and lon_range is None:
            return
        self.dataset = cut_region(
            self.dataset, lat_range=lat_range, lon_range=lon_range, file=self.filepath
        )

    def _bounds(self, part: slice | None, which: int) -> Range | None:
        """Return both ends of a slice, open ones taken from the coordinate."""
        if part is None or (part.start is None and part.stop is None):
            return None
        names = required_coordinates(self.dataset, file=self.filepath, variable=None)
        check_not_empty(self.dataset, names, file=self.filepath)
        values = self.dataset[names[which]].values
        start = values.min() if part.start is None else part.start
        stop = values.max() if part.stop is None else part.stop
        return float(start), float(stop)

    def select_time_period(
        self,
        time_slice: slice | tuple[Any, Any] | None = None,
        start_date: Any = None,
        end_date: Any = None,
    ) -> None:
        """Keep a period, both ends included; dates override the slice.

        Ends are ``YYYY``, ``YYYY-MM-DD`` or date objects; None leaves one open.

        Raises
        ------
        InputError
            If an end is not a date, or the file has no stamp in the period.
        """
        if isinstance(time_slice, slice):
            time_slice = (time_slice.start, time_slice.stop)
        start, end = time_slice or (None, None)
        start = start if start_date is None else start_date
        end = end if end_date is None else end_date
        if start is not None or end is not None:
            self.dataset = cut_period(self.dataset, start, end, file=self.filepath)

    def normalize_variables(
        self,
        variable_names: Sequence[str],
        means_dataset: xr.Dataset | None = None,
        stds_dataset: xr.Dataset | None = None,
        means_filepath: str | Path | None = None,
        stds_filepath: str | Path | None = None,
    ) -> None:
        """Standardise variables with one mean and one standard deviation each.

        Statistics that are maps are pooled: the mean of the means, and the root of the
        mean variance plus the variance of the means. A standard deviation of 0 counts
        as 1. Variables that the file does not have are skipped with a warning.

        Raises
        ------
        InputError
            If means or standard deviations are not given.
        MissingVariableError
            (a KeyError) If a variable has no statistics.
        """
        means = statistics_of(means_filepath, means_dataset, "means", self.filepath)
        stds = statistics_of(stds_filepath, stds_dataset, "stds", self.filepath)
        names = [variable_names] if isinstance(variable_names, str) else variable_names
        for name in names:
            if name not in self.dataset.data_vars:
                logger.warning("%s has no %s to normalise", self.filepath, name)
                continue

            mean, std = pooled(name, means, stds, file=self.filepath)
            da = self.dataset[name]
            made = ((da - mean) / std).assign_attrs(da.attrs | {"units": "1"})
            self.dataset = self.dataset.assign({name: made})

    # -- Tables ------------------------------------------------------------------------

    def to_dataframe(
        self,
        variable_name: str | None = None,
        method: Method = "point",
        drop_na: bool = True,
    ) -> pd.DataFrame:
        """Make a table of one variable, or of all fields.

        Parameters
        ----------
        variable_name : str, optional
            All fields if None.
        method : {"point", "stacked", "mean"}
            ``point``: wide, one row per time step and one column per grid point,
            columns ``(variable, lat, lon)``; a variable with levels gives one name per
            level, ``ta_850``. ``stacked``: long, columns ``time, lat, lon`` and the
            variables, rows in this order. ``mean``: columns ``time`` and the
            variables, averaged over the grid with the cell areas, missing cells left
            out. Coordinates have the names of the file.
        drop_na : bool
            Leave out rows (``point``: also columns) without any value.

        Raises
        ------
        MissingVariableError
            (a KeyError) If the variable is unknown; the message lists those there are.
        InputError
            (a ValueError) If there is no variable, or the method is unknown.
        """
        every = fields_of(self.dataset)
        wanted = every if variable_name is None else [variable_name]
        names = check_variables(self.dataset, wanted, file=self.filepath)
        return table(self.dataset, names, method, drop_na=drop_na, file=self.filepath)

    def to_dataframe_multiple_vars(
        self, variable_names: Sequence[str], method: Method = "stacked"
    ) -> pd.DataFrame:
        """Make one table of several variables, missing values kept.

        Variables without time or level are repeated along it.

        Raises
        ------
        MissingVariableError
            (a KeyError) If a variable is unknown.
        InputError
            (a ValueError) If the list is empty, or the method is unknown.
        """
        names = check_variables(self.dataset, list(variable_names), file=self.filepath)
        return table(self.dataset, names, method, drop_na=False, file=self.filepath)

    # -- Metadata ----------------------------------------------------------------------

    def extract_all_metadata(self, *, statistics: bool = True) -> dict[str, Any]:
        """Describe the file in ten sections of plain types.

        See :func:`st_cdgm.data.tables.metadata.extract_metadata`;
        ``statistics=False`` leaves the values unread.
        """
        return extract_metadata(self.dataset, self.filepath, statistics=statistics)

    def get_info(self, detailed: bool = True, *, file: TextIO | None = None) -> None:
        """Write what is known about the file to ``file`` (standard output)."""
        stream = sys.stdout if file is None else file
        if detailed:
            text = detailed_info(self.extract_all_metadata())
        else:
            text = simple_info(self.dataset, self.filepath)
        stream.write(text + "\n")

    def export_metadata_to_json(
        self, output_file: str | Path | None = None, *, statistics: bool = True
    ) -> str:
        """Write the metadata as strict JSON; return the path.

        ``<stem>.metadata.json`` beside the file if no other is named; ``statistics``:
        whether to read the values.

        Raises
        ------
        OutputError
            If nothing can be written there.
        """
        path = output_file or self.filepath.with_suffix(".metadata.json")
        metadata = self.extract_all_metadata(statistics=statistics)
        return str(write_text(path, to_json(metadata) + "\n"))

    def export_metadata_to_csv(
        self, output_file: str | Path | None = None, *, statistics: bool = True
    ) -> str:
        """Write one row per variable, nested values as JSON text; return the path.

        Parameters and errors as for :meth:`export_metadata_to_json`; the default is
        ``<stem>.metadata.csv``.
        """
        path = output_file or self.filepath.with_suffix(".metadata.csv")
        metadata = self.extract_all_metadata(statistics=statistics)
        return str(write_table(path, variable_rows(metadata)))


def export_metadata(
    path: str | Path,
    output_file: str | Path | None = None,
    *,
    kind: Literal["json", "csv"] = "json",
    statistics: bool = True,
) -> str:
    """Write the metadata of a file (of the first one, if several); return the path.

    ``json`` has all sections, ``csv`` one row per variable; see
    :meth:`NetCDFToDataFrame.export_metadata_to_json`. Errors besides: MissingFileError
    if the file does not exist.
    """
    check_choice("kind", kind, ("json", "csv"), section="")
    files = resolve_paths(path, role="inspected")
    if len(files) > 1:
        text = "%d files match %s; the metadata are those of %s"
        logger.warning(text, len(files), path, files[0])
    with NetCDFToDataFrame(files[0] if files else path) as opened:
        if kind == "json":
            return opened.export_metadata_to_json(output_file, statistics=statistics)
        return opened.export_metadata_to_csv(output_file, statistics=statistics)


def process_netcdf_file(
    filepath: str | Path,
    variable_name: str | None = None,
    variable_names: Sequence[str] | None = None,
    lat_range: Range | None = None,
    lon_range: Range | None = None,
    time_slice: slice | tuple[Any, Any] | None = None,
    normalize: bool = False,
    means_filepath: str | Path | None = None,
    stds_filepath: str | Path | None = None,
    method: Method = "stacked",
    chunks: Any = None,
) -> pd.DataFrame:
    """Open a file, cut it, normalise it and return a table.

    Parameters
    ----------
    filepath, chunks
        See :class:`NetCDFToDataFrame`.
    variable_name, variable_names : str, sequence of str
        What to take; several win over one, neither means all fields.
    lat_range, lon_range, time_slice
        See the methods ``select_region`` and ``select_time_period``.
    normalize : bool
        Standardise with the statistics in ``means_filepath`` and ``stds_filepath``.
    method : {"point", "stacked", "mean"}
        See :meth:`NetCDFToDataFrame.to_dataframe`.

    Raises
    ------
    MissingFileError, MissingVariableError, InputError
        As the methods that do the work; :class:`~st_cdgm.errors.InputError` also if
        ``normalize`` comes without statistics.
    """
    with NetCDFToDataFrame(filepath, chunks) as file:
        file.format_time()
        file.select_region(lat_range=lat_range, lon_range=lon_range)
        file.select_time_period(time_slice)
        names = list(variable_names or ([variable_name] if variable_name else []))
        if normalize:
            file.normalize_variables(
                names or fields_of(file.dataset),
                means_filepath=means_filepath,
                stds_filepath=stds_filepath,
            )
        if variable_names:
            return file.to_dataframe_multiple_vars(names, method=method)
        return file.to_dataframe(variable_name, method=method)


# -- Script ---------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Show all about a file and write both metadata files; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with NetCDFToDataFrame(given[0] if given else EXAMPLE) as file:
            file.get_info()
            written = [file.export_metadata_to_json(), file.export_metadata_to_csv()]
    except InputError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    sys.stdout.write("".join(f"written: {path}\n" for path in written))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
