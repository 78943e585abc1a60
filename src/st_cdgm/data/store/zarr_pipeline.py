"""A prepared task read back from Zarr, with all that the NetCDF pipeline offers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.store.manifest import (
    METADATA,
    check_files,
    read_config,
    read_metadata,
    read_preprocessor,
)
from st_cdgm.data.store.zarr_reading import ZarrReader, open_store
from st_cdgm.data.store.zarr_store import STORES
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.days import DayFields, FieldArrays, memory_bytes
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.errors import InputError

logger = logging.getLogger(__name__)


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
        return open_store(self.zarr_dir / f"{key}.zarr", names)

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
    parts: list[Any] = [np.arange(start, stop, dtype=np.int64) for start, stop in runs]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
