"""Which format a file has, told from its first bytes, and what to do about others."""

from __future__ import annotations

from pathlib import Path

from st_cdgm.errors import InputError

__all__ = [
    "HEAD_BYTES",
    "ZARR_MARKS",
    "is_hdf5",
    "is_netcdf3",
    "is_zarr",
    "unreadable",
]

HEAD_BYTES = 64
ZARR_MARKS = ("zarr.json", ".zmetadata", ".zgroup")

_FOREIGN = {
    b"GRIB": ("GRIB", "convert it: cdo -f nc4 copy in.grib out.nc"),
    b"PK\x03\x04": ("a ZIP archive", "unpack it first"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first (gunzip)"),
    b"<": ("a web page", "download it again: the server sent a page, not the data"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the data: git lfs pull"),
}


def is_hdf5(head: bytes) -> bool:
    """Whether a file that begins so is HDF5, as every NetCDF 4 file is."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def is_netcdf3(head: bytes) -> bool:
    """Whether a file that begins so is NetCDF 3 (classic, 64-bit offset or data)."""
    return head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02", b"\x05")


def is_zarr(path: Path) -> bool:
    """Whether a local directory is, or calls itself, a Zarr store."""
    return path.suffix == ".zarr" or any((path / mark).exists() for mark in ZARR_MARKS)


def unreadable(
    file: str | Path, *, role: str, error: Exception, head: bytes | None = None
) -> InputError:
    """Make the error for a file that is no data or is damaged.

    Parameters
    ----------
    file : str or Path
        Path or URL.
    role : str
        What the data were for.
    error : Exception
        What the reading library said.
    head : bytes, optional
        First bytes of the file, if there is one.
    """
    found = f"{type(error).__name__}: {error}"
    remedy = "check or download the file again"
    if head is not None:
        if not head:
            found = "an empty file (0 bytes)"
        for signature, (kind, way_out) in _FOREIGN.items():
            if head.lstrip().startswith(signature):
                found, remedy = kind, way_out
    return InputError(
        f"the {role} file cannot be read",
        file=file,
        found=found,
        expected="a complete NetCDF 3/4 file or Zarr directory",
        remedy=remedy,
    )
