"""CF-1.8 ensemble output: tensors become xarray here, or a NetCDF file day by day.

`st_cdgm.inference.cf_layout` says how the file looks. While it is written it has a
hidden temporary name in the output directory. It takes its name (fsync, then an atomic
rename) when all days are there; on any error it is removed, and a previous output of
that name stays as it was.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import OutputError
from st_cdgm.inference.cf_layout import (
    FILL_VALUE,
    check_days,
    check_fields,
    day_bounds,
    encode_days,
    encoding,
    layout,
)
from st_cdgm.outputs import (
    check_output_path,
    not_written,
    remove_leftovers,
    sync,
    temporary_name,
)

logger = logging.getLogger(__name__)


def ensemble_dataset(
    fields: NDArray[np.floating],
    *,
    day: NDArray[np.integer],
    calendar: str,
    targets: Sequence[TargetVariable],
    grid: Grid,
    members: Sequence[int] | range,
    attrs: Mapping[str, Any] | None = None,
    networks: int = 1,
) -> xr.Dataset:
    """Return fields as a dataset, as a file of `EnsembleWriter` would be read back.

    Parameters
    ----------
    fields : ndarray
        Values in the units of ``targets``, NaN where there are none; a dask array stays
        lazy and is not checked. Shape ``(T, M, C, Y, X)``.
    day, calendar : ndarray, str
        YYYYMMDD, strictly increasing, shape ``(T,)``; their CF calendar.
    targets, grid, members : sequence of TargetVariable, Grid, range
        The C variables, the (Y, X) grid, the M member numbers.
    attrs : mapping, optional
        Global attributes, e.g. ``title``, ``institution``, ``history``. None values are
        left out.
    networks : int
        Networks K of a pool, member m made by network m modulo K: noted as coordinate
        ``network``, so that scores treat the members as a mixture.

    Returns
    -------
    Dataset
        Variables ``(time, realization, y, x)``, float32; decoded (cftime days, bounds
        and grid mapping as coordinates) and ready for ``to_netcdf``.

    Raises
    ------
    InputError
        Shapes, days or names that do not fit together; infinite values.
    """
    day = np.asarray(day)
    lazy = hasattr(fields, "dask")
    check_days(day)
    if not lazy:
        fields = np.asarray(fields)
        shape = (len(day), len(members), len(targets), *grid.shape)
        check_fields(fields, shape, targets)

    stored = layout(
        fields,
        encode_days(day, calendar),
        calendar=calendar,
        targets=targets,
        grid=grid,
        members=members,
        attrs=attrs,
        networks=networks,
    )
    # As a reader of the file sees it.
    decoded = xr.decode_cf(
        stored,
        decode_coords="all",
        decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
    )
    if not lazy:
        decoded = decoded.load()
    for name, chosen in encoding(stored, len(day)).items():
        decoded[name].encoding.update(chosen)
    return decoded


def check_netcdf_name(path: str | Path) -> None:
    """Raise OutputError for the name of a Zarr store: what is written is NetCDF."""
    path = Path(path)
    if ".zarr" in (suffix.lower() for suffix in path.suffixes):
        raise OutputError(
            "Zarr output is not written yet.",
            file=path,
            found="the name of a Zarr store",
            expected="the name of a NetCDF file, such as "
            f"{path.name[: path.name.lower().rindex('.zarr')]}.nc",
            remedy="choose a name that ends in .nc; xarray turns the file into a "
            "store: xarray.open_dataset(FILE, chunks={}).to_zarr(STORE)",
        )


class EnsembleWriter:
    """Write an ensemble to NetCDF day by day, in constant memory.

    A context manager: the file appears under its name when the block ends well, and
    nothing is left behind when it does not.

    Parameters
    ----------
    path : str or Path
        The output file; an existing one is replaced at the end.
    targets, grid, calendar, members, attrs, networks
        As in `ensemble_dataset`.
    total_days : int, optional
        How many days will come; a file with fewer or more is an error.

    Attributes
    ----------
    days_written : int
        Days appended so far.

    Raises
    ------
    OutputError
        The output cannot be written (found at once where possible), or is incomplete.
    InputError
        Names or members that do not fit together.

    Examples
    --------
    ::

        with EnsembleWriter(
            "out.nc", targets=targets, grid=grid, calendar="noleap", members=range(4)
        ) as writer:
            for day, fields in blocks:
                writer.append(day, fields)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        targets: Sequence[TargetVariable],
        grid: Grid,
        calendar: str,
        members: Sequence[int] | range,
        attrs: Mapping[str, Any] | None = None,
        total_days: int | None = None,
        networks: int = 1,
    ) -> None:
        check_netcdf_name(path)
        self.path = check_output_path(path)
        self.targets = tuple(targets)
        self.calendar = calendar
        self.total_days = total_days
        self.days_written = 0
        self._shape = (len(members), len(self.targets), *grid.shape)

        self._stored = layout(
            np.zeros((0, *self._shape), dtype=np.float32),
            encode_days(np.zeros(0, dtype=np.int64), calendar),
            calendar=calendar,
            targets=self.targets,
            grid=grid,
            members=members,
            attrs=attrs,
            networks=networks,
        )
        self._temporary = temporary_name(self.path)
        self._file: netCDF4.Dataset | None = None
        self._last_day: int | None = None
        self._broken = False

    def __enter__(self) -> EnsembleWriter:
        remove_leftovers(self.path)
        with self._guarded("created"):
            self._stored.to_netcdf(
                self._temporary,
                engine="netcdf4",
                format="NETCDF4",
                unlimited_dims=["time"],
                encoding=encoding(self._stored, self.total_days),
            )
            self._file = netCDF4.Dataset(self._temporary, "a")
            self._file.set_auto_maskandscale(False)
        return self

    def append(self, day: NDArray[np.integer], fields: NDArray[np.floating]) -> None:
        """Write the next days.

        Parameters
        ----------
        day : ndarray
            YYYYMMDD, increasing, after all days written before. Shape ``(T,)``.
        fields : ndarray
            NaN where there are no values. Shape ``(T, M, C, Y, X)``.

        Raises
        ------
        InputError
            Days or shapes that do not fit; infinite values. Nothing was written.
        OutputError
            Writing failed (a full disk, for example); the file is given up.
        """
        if self._file is None:
            msg = "append is for the inside of the writer's with block"
            raise RuntimeError(msg)
        day, fields = np.asarray(day), np.asarray(fields)
        check_days(day, last=self._last_day)
        check_fields(fields, (len(day), *self._shape), self.targets)
        number = encode_days(day, self.calendar)
        if not len(day):
            return

        rows = slice(self.days_written, self.days_written + len(day))
        with self._guarded("written", discard=False, needed=4 * fields.size):
            self._file["time"][rows] = number
            if "time_bnds" in self._stored:
                self._file["time_bnds"][rows] = day_bounds(number)
            for c, target in enumerate(self.targets):
                values = fields[:, :, c].astype(np.float32)
                values[np.isnan(values)] = FILL_VALUE
                self._file[target.name][rows] = values

        self.days_written = rows.stop
        self._last_day = int(day[-1])

    def note(self, name: str, text: str) -> None:
        """Add a global attribute that is known only after the days."""
        if self._file is None:
            msg = "note is for the inside of the writer's with block"
            raise RuntimeError(msg)
        with self._guarded("written", discard=False):
            self._file.setncattr(name, text)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._discard()
            return
        with self._guarded("finished"):
            self._check_complete()
            self._publish()
        logger.debug("%d days written to %s", self.days_written, self.path)

    def _check_complete(self) -> None:
        """Refuse to publish a file that is not what was asked for."""
        expected = "at least 1" if self.total_days is None else self.total_days
        complete = self.total_days in (None, self.days_written)
        if self._broken or not complete or not self.days_written:
            raise OutputError(
                "The output is incomplete and was removed.",
                file=self.path,
                found=f"{self.days_written} days written",
                expected=f"{expected} days",
            )

    def _publish(self) -> None:
        """Close, bring to disk, rename."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
        sync(self._temporary)
        self._temporary.replace(self.path)
        with contextlib.suppress(OSError):  # some file systems refuse it
            sync(self.path.parent)

    def _discard(self) -> None:
        """Close and remove the temporary file, whatever state it is in."""
        file, self._file = self._file, None
        with contextlib.suppress(OSError, RuntimeError):
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _guarded(
        self, what: str, *, discard: bool = True, needed: int = 0
    ) -> Iterator[None]:
        """Give the file up on any error, and name the cause of one of the system.

        ``needed`` are the bytes to write: NetCDF does not say that a disk is full.
        """
        try:
            yield
        except BaseException as error:
            self._broken = True
            # The space that is left, before the file gives its own back.
            failure = not_written(self.path, error, what=what, needed=needed)
            if discard:
                self._discard()
            ours = isinstance(error, OutputError)
            if ours or not isinstance(error, OSError | RuntimeError):
                raise
            raise failure from error
