"""Prepared fields read back from their Zarr stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from st_cdgm.data.files.lazy import on_dask
from st_cdgm.data.store.manifest_check import REMEDY
from st_cdgm.data.store.zarr_store import STORES
from st_cdgm.errors import InputError


def open_store(path: Path, names: Sequence[str]) -> xr.Dataset:
    """Open a store lazily, with its variables in this order.

    Raises
    ------
    InputError
        If the store is damaged; from reading values also with the variable.
    """
    try:
        opened: xr.Dataset = xr.open_zarr(
            path,
            consolidated=False,
            zarr_format=3,
            decode_coords="all",
            decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
            chunks=None,
        )
        return on_dask(opened[list(names)], path)
    except InputError:
        raise
    except Exception as error:  # xarray, Zarr and every codec have their own
        raise _unreadable(path, error) from error


class ZarrReader:
    """Read prepared fields of days from the stores; may be sent to other processes.

    Parameters
    ----------
    root : str or Path
        Directory of the stores.
    variables : mapping
        Store to its variables, in channel order.
    shapes : mapping
        Store to the days, rows and columns that each of its variables must have.
    """

    def __init__(
        self,
        root: str | Path,
        variables: Mapping[str, list[str]],
        shapes: Mapping[str, tuple[int, int, int]],
    ) -> None:
        self.root = str(root)
        self.variables = {store: list(variables[store]) for store in STORES}
        self.shapes = {store: tuple(shapes[store]) for store in STORES}
        self._arrays: dict[tuple[str, str], Any] = {}

    def __call__(self, start: int, stop: int) -> dict[str, NDArray[np.float32]]:
        """Return the days ``start:stop``; see :class:`PreparedReader`.

        Raises
        ------
        InputError
            If an array is damaged or not the one of the metadata.
        """
        fields: dict[str, NDArray[np.float32]] = {}
        for store, names in self.variables.items():
            shape = (stop - start, len(names), *self.shapes[store][1:])
            fields[store] = np.empty(shape, np.float32)

            for c, name in enumerate(names):
                path = Path(self.root) / f"{store}.zarr"
                try:
                    fields[store][:, c] = self._array(path, store, name)[start:stop]
                except InputError:
                    raise
                except Exception as error:  # Zarr and every codec have their own
                    raise _unreadable(path, error, name) from error
        return fields

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def _array(self, path: Path, store: str, name: str) -> Any:
        if (store, name) not in self._arrays:
            opened: Any = zarr.open_array(path, path=name, mode="r", zarr_format=3)
            _check_array(opened, self.shapes[store], path, name)
            self._arrays[store, name] = opened
        return self._arrays[store, name]


def _check_array(array: Any, shape: tuple[int, ...], path: Path, name: str) -> None:
    """Refuse another shape or type than was written, and chunks beyond the array."""
    chunks = tuple(getattr(array, "chunks", ()))
    cut = len(chunks) == len(shape)
    cut = cut and all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))
    if tuple(array.shape) == shape and array.dtype == np.float32 and cut:
        return
    raise InputError(
        "an array is not the one of the metadata",
        file=path,
        variable=name,
        found=f"{array.dtype} {tuple(array.shape)} in chunks of {chunks}",
        expected=f"float32 {shape} in chunks within it",
        remedy=REMEDY,
    )


def _unreadable(path: Path, error: Exception, name: str | None = None) -> InputError:
    return InputError(
        "a prepared field cannot be read",
        file=path,
        variable=name,
        found=f"{type(error).__name__}: {error}",
        expected="the store as written",
        remedy=f"{REMEDY}; st-cdgm preprocess --verify DIR tells what is damaged",
    )
