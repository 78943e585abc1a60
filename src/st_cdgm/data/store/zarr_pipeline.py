"""A prepared task read back from Zarr, with all that the NetCDF pipeline offers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr
from numpy.typing import NDArray

from st_cdgm.data.files.lazy import on_dask
from st_cdgm.data.store.manifest import (
    METADATA,
    check_files,
    read_config,
    read_metadata,
    read_preprocessor,
)
from st_cdgm.data.store.manifest_check import REMEDY
from st_cdgm.data.store.zarr_store import STORES
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.days import DayFields, FieldArrays, memory_bytes
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.errors import InputError


class ZarrDataPipeline(PipelineViews):
    """Prepared fields on disk; the same accessors and windows as from NetCDF (D19).

    Model input is what :class:`NetCDFDataPipeline` computes, to the last bit. Physical
    fields come from decoding: ``decode(encode(x))`` keeps the codec's guarantees
    (temperatures in order, no negative precipitation, exact zeros below the wet
    threshold), so amounts below that threshold are 0 here.

    Parameters
    ----------
    zarr_dir : str or Path
        Directory written by ``st-cdgm preprocess --format zarr``.
    memory : str or int
        What may stay in memory, ``"4 GiB"`` or bytes; a longer record is read again and
        again, in blocks of days.
    verify : bool
        Compare the SHA-256 of every file with the metadata first; without it their
        presence and sizes.

    Attributes
    ----------
    metadata : dict
        Content of ``metadata.json``. Others: :class:`PipelineViews`.

    Raises
    ------
    MissingFileError
        If the directory or its metadata do not exist.
    InputError
        If it is of another format or version, or files are missing or damaged.
    """

    def __init__(
        self, zarr_dir: str | Path, *, memory: str | int = "4 GiB", verify: bool = False
    ) -> None:
        self.zarr_dir = Path(zarr_dir).expanduser()
        self.metadata = read_metadata(self.zarr_dir, kind="zarr")
        check_files(self.zarr_dir, self.metadata, contents=verify)
        self.preprocessor, self.days = read_preprocessor(self.zarr_dir)
        self._check_state()

        # What was configured then, but the memory of now.
        self.config = read_config(self.metadata, file=self.zarr_dir / METADATA)
        self.config.memory = str(memory)
        self.lr_path = _sources(self.config, self.config.lr_path)
        self.hr_path = _sources(self.config, self.config.hr_path)
        static = self.config.static_path
        self.static_path = _sources(self.config, static) if static else None

        self.seq_len = int(self.metadata["seq_len"])
        self.indices = {
            name: _indices(split["days"])
            for name, split in self.metadata["splits"].items()
        }
        self.target_transform = self.metadata["target_transform"]
        self.transform_epsilon = float(self.metadata["transform_epsilon"])
        self.fields = DayFields(
            self.prepared_reader(),
            len(self.days),
            bytes_per_day=self.preprocessor.bytes_per_day,
            memory=memory_bytes(memory),
        )
        self._arrays = {}

    @property
    def lr_dataset_raw(self) -> xr.Dataset:
        """Predictors in canonical units; missing ones are filled."""
        standardised = self.fields.window(0, len(self.days))["lr"]
        return self._coarse(self.preprocessor.physical_lr(standardised), physical=True)

    @property
    def hr_dataset_raw(self) -> xr.Dataset:
        """Targets in target units."""
        return self._fine(self.arrays(None).hr, physical=True)

    def prepared_reader(self) -> ZarrReader:
        """Return what reads :meth:`prepared`; it can be sent to other processes."""
        prep, count = self.preprocessor, len(self.days)
        shapes = dict.fromkeys(STORES, (count, *prep.hr_grid.shape))
        shapes["lr"] = (count, *prep.lr_grid.shape)
        return ZarrReader(self.zarr_dir, self.metadata["variables"], shapes)

    def _physical(self, index: NDArray[np.int64]) -> FieldArrays:
        fields = self.fields.window(int(index[0]), int(index[-1]) + 1)
        own = index - index[0]
        return FieldArrays(
            days=self.days.select(index),
            lr=fields["lr"][own],
            baseline=self._decoded(fields["baseline"][own]),
            hr=self._decoded(fields["hr"][own]),
        )

    def _view(self, key: str) -> xr.Dataset:
        """Return one kind of prepared fields of all days, lazily."""
        names = self.metadata["variables"][key]
        return _open_store(self.zarr_dir / f"{key}.zarr", names)

    def _decoded(self, encoded: NDArray[np.float32]) -> NDArray[np.float32]:
        codec = self.preprocessor.codec
        values = torch.from_numpy(np.ascontiguousarray(encoded))
        decoded: NDArray[np.float32] = codec.decode(values).numpy()
        return decoded

    def _check_state(self) -> None:
        """Check that stores and preprocessor belong together."""
        prep, variables = self.preprocessor, self.metadata["variables"]
        own = {
            "lr": [channel.name for channel in prep.channels],
            **dict.fromkeys(STORES[1:], [target.name for target in prep.targets]),
        }
        found = {store: variables.get(store) for store in STORES}
        if found != own or self.metadata["num_days"] != len(self.days):
            raise InputError(
                "metadata and fitted preprocessor do not belong together",
                file=self.zarr_dir,
                found=f"{found}, {self.metadata['num_days']} days",
                expected=f"{own}, {len(self.days)} days",
                remedy="preprocess again",
            )


def _sources(config: DataConfig, text: str) -> str | list[str]:
    """Return the files that the store was made from; they need not be there."""
    if not text:
        return text  # data that were in memory
    paths = [config.resolve(path) for path in text.split(", ")]
    return paths if len(paths) > 1 else paths[0]


def _indices(runs: list[list[int]]) -> NDArray[np.int64]:
    days = [day for start, stop in runs for day in range(start, stop)]
    return np.array(days, np.int64)


# -- Reading the stores ----------------------------------------------------------------


def _open_store(path: Path, names: list[str]) -> xr.Dataset:
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
        return on_dask(opened[names], path)
    except InputError:
        raise
    except Exception as error:  # xarray, Zarr and every codec have their own
        raise _unreadable(path, error) from error


class ZarrReader:
    """Read prepared fields of days from the stores; may be sent to other processes.

    ``variables`` are those of each store, in channel order, ``shapes`` the days, rows
    and columns that each of them must have.
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
