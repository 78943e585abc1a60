"""Prepared fields read back from their Zarr stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from st_cdgm.data.zarr_store import STORES

__all__ = ["ZarrReader", "open_store"]


def open_store(path: Path, names: Sequence[str]) -> xr.Dataset:
    """Open a store lazily, with its variables in this order."""
    opened: xr.Dataset = xr.open_zarr(
        path,
        consolidated=False,
        zarr_format=3,
        decode_coords="all",
        decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
    )
    return opened[list(names)]


class ZarrReader:
    """Read prepared fields of days from the stores; may be sent to other processes.

    Parameters
    ----------
    root : str or Path
        Directory of the stores.
    variables : mapping
        Store to its variables, in channel order.
    """

    def __init__(self, root: str | Path, variables: Mapping[str, list[str]]) -> None:
        self.root = str(root)
        self.variables = {store: list(variables[store]) for store in STORES}
        self._arrays: dict[tuple[str, str], Any] = {}

    def __call__(self, start: int, stop: int) -> dict[str, NDArray[np.float32]]:
        """Return the days ``start:stop``; see :class:`PreparedReader`."""
        fields: dict[str, NDArray[np.float32]] = {}
        for store, names in self.variables.items():
            arrays = [self._array(store, name) for name in names]
            shape = (stop - start, len(names), *arrays[0].shape[1:])
            fields[store] = np.empty(shape, np.float32)
            for c, array in enumerate(arrays):
                fields[store][:, c] = array[start:stop]
        return fields

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def _array(self, store: str, name: str) -> Any:
        if (store, name) not in self._arrays:
            path = Path(self.root) / f"{store}.zarr"
            opened: Any = zarr.open_array(path, path=name, mode="r", zarr_format=3)
            self._arrays[store, name] = opened
        return self._arrays[store, name]
