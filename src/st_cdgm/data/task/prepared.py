"""The prepared data of a pipeline as labelled xarray data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array
import numpy as np
import torch
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from st_cdgm.data.files.open import Paths, resolve_sources
from st_cdgm.data.netcdf_utils import export_metadata
from st_cdgm.data.task.datasets import (
    PreparedDays,
    ResDiffIterableDataset,
    WindowDataset,
)
from st_cdgm.data.task.labels import GridMetadata, labelled
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.time.splits import SPLITS
from st_cdgm.errors import ConfigError, InputError, check_choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from st_cdgm.data.fit.codecs.function import DatasetFunction
    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.task.config import DataConfig
    from st_cdgm.data.task.days import DayFields, DayReader, FieldArrays, Fields


class PipelineViews:
    """Data sets, accessors and exports that a pipeline offers beside its arrays.

    Attributes
    ----------
    preprocessor : Preprocessor
        Fitted; all that inference needs.
    days : CalendarDays
        The days of the record, which predictors and targets share.
    indices : dict
        Split to the indices of its days.
    """

    preprocessor: Preprocessor
    days: CalendarDays
    indices: dict[str, NDArray[np.int64]]
    seq_len: int
    config: DataConfig
    fields: DayFields
    lr_path: Paths
    hr_path: Paths
    static_path: Paths | None
    means_path: str | Path | None = None
    stds_path: str | Path | None = None
    target_transform: str | Mapping[str, str | None] | DatasetFunction | None = None
    target_inverse_transform: str | DatasetFunction | None = None
    transform_epsilon: float = 1e-6
    _arrays: dict[str | None, FieldArrays]

    def arrays(self, split: str | None = None) -> FieldArrays:
        """Return the physical days of a split in memory, all days for None.

        Raises
        ------
        ConfigError
            If there is no such split.
        """
        if split not in self._arrays:
            self._arrays[split] = self._physical(self._index(split))
        return self._arrays[split]

    def _physical(self, index: NDArray[np.int64]) -> FieldArrays:
        raise NotImplementedError

    def prepared_reader(self) -> DayReader:
        """Return what computes :meth:`prepared`; it can be sent to other processes."""
        raise NotImplementedError

    @property
    def baseline_strategy(self) -> str:
        """Configured baseline."""
        return self.config.baseline_strategy

    @property
    def baseline_factor(self) -> int:
        """Block side of ``hr_smoothing``, cells."""
        return self.config.baseline_factor

    @property
    def normalize(self) -> bool:
        """Whether predictors are standardised."""
        return self.config.normalize

    @property
    def baseline_raw(self) -> xr.Dataset:
        """Baseline in target units; its attribute says whether it is an oracle."""
        baseline = self.preprocessor.baseline
        fields = self._fine(self.arrays(None).baseline, physical=True)
        return fields.assign_attrs(
            baseline=baseline.strategy, oracle=str(baseline.oracle).lower()
        )

    @property
    def dims(self) -> GridMetadata:
        """Dimension names of the data sets."""
        lr, hr = self.preprocessor.lr_grid, self.preprocessor.hr_grid
        return GridMetadata("time", lr.y_name, lr.x_name, hr.y_name, hr.x_name)

    @property
    def lr_dataset_normalised(self) -> xr.Dataset:
        """Standardised predictors without NaN."""
        return self._view("lr")

    @property
    def lr_dataset(self) -> xr.Dataset:
        """Predictors as the model gets them."""
        return self.lr_dataset_normalised

    @property
    def hr_prepared(self) -> xr.Dataset:
        """Encoded targets, NaN where there is no truth."""
        return self._view("hr")

    @property
    def hr_dataset(self) -> xr.Dataset:
        """Encoded targets."""
        return self.hr_prepared

    @property
    def baseline_prepared(self) -> xr.Dataset:
        """Encoded baseline."""
        return self._view("baseline")

    @property
    def residual_dataset(self) -> xr.Dataset:
        """Standardised residual, NaN where there is no truth.

        ``hr_prepared = baseline_prepared + residual * residual_std + residual_mean``,
        with the statistics of the preprocessor.
        """
        return self._view("residual")

    @property
    def lr_stats(self) -> dict[str, xr.Dataset]:
        """Predictor ``mean`` and ``std``; empty where predictors stay as they are."""
        prep = self.preprocessor
        if (prep.lr_std == 1).all() and (prep.lr_mean == 0).all():
            return {}
        shape = (len(prep.channels), *prep.lr_grid.shape)
        names = [c.name for c in prep.channels]
        attrs = [{"units": c.units} for c in prep.channels]
        return {
            key: labelled(np.broadcast_to(value, shape), names, attrs, prep.lr_grid)
            for key, value in (("mean", prep.lr_mean), ("std", prep.lr_std))
        }

    @property
    def static_dataset(self) -> xr.Dataset | None:
        """Standardised static fields, or None."""
        prep = self.preprocessor
        if not prep.static_names:
            return None
        return labelled(prep.static, prep.static_names, {"units": "1"}, prep.hr_grid)

    @property
    def static_tensor_np(self) -> NDArray[np.float32] | None:
        """Standardised static fields, or None. Shape ``(C_s, Y, X)``."""
        return self.preprocessor.static if len(self.preprocessor.static) else None

    @property
    def static_tensor_torch(self) -> torch.Tensor | None:
        """Standardised static fields, or None. Shape ``(C_s, Y, X)``."""
        static = self.static_tensor_np
        return None if static is None else torch.from_numpy(static)

    def get_lr_dataset(self) -> xr.Dataset:
        """Return the predictors as the model gets them."""
        return self.lr_dataset

    def get_lr_stats(self) -> dict[str, xr.Dataset]:
        """Return the predictor statistics."""
        return self.lr_stats

    def get_hr_dataset(self) -> xr.Dataset:
        """Return the encoded targets."""
        return self.hr_prepared

    def get_baseline_dataset(self) -> xr.Dataset:
        """Return the encoded baseline."""
        return self.baseline_prepared

    def get_residual_dataset(self) -> xr.Dataset:
        """Return the standardised residual."""
        return self.residual_dataset

    def get_static_dataset(self) -> xr.Dataset | None:
        """Return the static fields, or None."""
        return self.static_dataset

    def get_target_inverse_transform(self) -> DatasetFunction:
        """Return the function from encoded to physical targets."""
        codec, names = self.preprocessor.codec, list(self.preprocessor.codec.names)

        def inverse(encoded: xr.Dataset) -> xr.Dataset:
            dims = encoded[names[0]].dims
            fields = [encoded[name].transpose(*dims).values for name in names]
            stacked = torch.from_numpy(np.stack(fields, axis=-3).astype(np.float32))
            decoded = codec.decode(stacked).numpy()
            return encoded.assign(
                {name: (dims, decoded[..., c, :, :]) for c, name in enumerate(names)}
            )

        return inverse

    def export_lr_metadata_to_json(self, output_file: str | Path | None = None) -> str:
        """Write the predictor file's metadata as JSON; return the path."""
        return export_metadata(_one_file(self.lr_path), output_file, kind="json")

    def export_lr_metadata_to_csv(self, output_file: str | Path | None = None) -> str:
        """Write the predictor file's variables as CSV; return the path."""
        return export_metadata(_one_file(self.lr_path), output_file, kind="csv")

    def export_hr_metadata_to_json(self, output_file: str | Path | None = None) -> str:
        """Write the target file's metadata as JSON; return the path."""
        return export_metadata(_one_file(self.hr_path), output_file, kind="json")

    def export_hr_metadata_to_csv(self, output_file: str | Path | None = None) -> str:
        """Write the target file's variables as CSV; return the path."""
        return export_metadata(_one_file(self.hr_path), output_file, kind="csv")

    def prepared(self, start: int, stop: int) -> Fields:
        """Return what the model learns from for the days ``start:stop``.

        Returns
        -------
        dict
            ``lr``, standardised predictors without NaN, shape ``(T, C_lr, y, x)``;
            ``baseline``, encoded baseline; ``residual``, standardised; ``hr``,
            encoded truth, shape ``(T, C, Y, X)``, NaN where there is no truth. May be
            views into memory: copy before writing.
        """
        return self.fields.window(start, stop)

    def blocks(self, split: str | None = None) -> Iterator[Fields]:
        """Yield the prepared days of a split, some at a time, in time order."""
        index, size = self._index(split), self.fields.days_per_block
        for run in np.split(index, np.flatnonzero(np.diff(index) != 1) + 1):
            end = int(run[-1]) + 1
            for start in range(int(run[0]), end, size):
                yield self.prepared(start, min(start + size, end))

    def build_sequence_dataset(
        self,
        *,
        seq_len: int | None = None,
        stride: int = 1,
        drop_last: bool = True,
        as_torch: bool = True,
        split: str | None = None,
        shuffle: bool = False,
        seed: int = 0,
    ) -> ResDiffIterableDataset:
        """Return windows as dictionaries; see :class:`ResDiffIterableDataset`.

        ``split`` restricts them to one period.
        """
        return ResDiffIterableDataset.of_days(
            self._days(split),
            dims=self.dims,
            seq_len=self.seq_len if seq_len is None else seq_len,
            stride=stride,
            drop_last=drop_last,
            as_torch=as_torch,
            shuffle=shuffle,
            seed=seed,
        )

    def windows(
        self,
        split: str | None = None,
        *,
        stride: int | None = None,
        pad_start: bool = False,
        more_days: int = 0,
    ) -> WindowDataset:
        """Return the windows of a split; none crosses a gap or the split's border.

        ``stride`` None takes the configured one; ``pad_start`` gives every day a
        window, see :class:`WindowDataset`; ``more_days`` makes windows longer.
        """
        return WindowDataset(
            self._days(split),
            seq_len=self.seq_len + more_days,
            stride=self.config.stride if stride is None else stride,
            pad_start=pad_start,
        )

    def _days(self, split: str | None) -> PreparedDays:
        index = self._index(split)
        return PreparedDays(
            fields=self.fields,
            days=self.days.select(index),
            index=index,
            preprocessor=self.preprocessor,
        )

    def _index(self, split: str | None) -> NDArray[np.int64]:
        if split is None:
            return np.arange(len(self.days), dtype=np.int64)
        check_choice("split", split, SPLITS)
        index = self.indices.get(split, np.empty(0, dtype=np.int64))
        if not len(index):
            raise ConfigError(
                f"there is no {split} period",
                variable=f"data.splits.{split}",
                found=", ".join(name for name, i in self.indices.items() if len(i)),
                expected="[start, end]",
            )
        return index

    def _view(self, key: str) -> xr.Dataset:
        """Return one kind of prepared fields of all days."""
        values = self._values(key)
        return self._coarse(values) if key == "lr" else self._fine(values)

    def _values(self, key: str) -> Any:
        """Return one prepared array of all days, lazily where memory is short."""
        fields, count = self.fields, len(self.days)
        if fields.in_memory:
            return fields.window(0, count)[key]

        array: Any = dask.array  # its stubs leave these untyped
        prep, size = self.preprocessor, fields.days_per_block
        coarse = (len(prep.channels), *prep.lr_grid.shape)
        shape = coarse if key == "lr" else prep.valid.shape
        read = delayed(lambda start, stop: fields.read(start, stop)[key])
        return array.concatenate(
            [
                array.from_delayed(
                    read(start, min(start + size, count)),
                    (min(size, count - start), *shape),
                    np.float32,
                )
                for start in range(0, count, size)
            ]
        )

    def _coarse(self, values: Any, *, physical: bool = False) -> xr.Dataset:
        channels = self.preprocessor.channels
        attrs = [{"units": c.units if physical else "1"} for c in channels]
        names = [c.name for c in channels]
        return labelled(values, names, attrs, self.preprocessor.lr_grid, self.days)

    def _fine(self, values: Any, *, physical: bool = False) -> xr.Dataset:
        targets = self.preprocessor.targets
        attrs = [t.attrs() if physical else {} for t in targets]
        names = [t.name for t in targets]
        return labelled(values, names, attrs, self.preprocessor.hr_grid, self.days)


def _one_file(path: Paths) -> str | Path:
    """Return the path of a file, of the first one if there are several."""
    if isinstance(path, xr.Dataset) or not path:
        raise InputError(
            "a data set in memory has no file whose metadata could be exported",
            remedy="write it to a file first (xarray: to_netcdf)",
        )
    return resolve_sources(path)[0]
