"""The prepared data of a pipeline as labelled xarray data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cftime
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.calendars import CalendarDays
from st_cdgm.data.datasets import ResDiffIterableDataset
from st_cdgm.data.grids import Grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from st_cdgm.data.fields import FieldArrays
    from st_cdgm.data.preprocessor import Preprocessor

__all__ = ["GridMetadata", "PipelineViews", "labelled"]


@dataclass
class GridMetadata:
    """Dimension names of the prepared data sets."""

    time: str
    lr_lat: str
    lr_lon: str
    hr_lat: str
    hr_lon: str


def labelled(
    values: NDArray[Any],
    names: Sequence[str],
    attrs: Sequence[dict[str, Any]],
    grid: Grid,
    days: CalendarDays | None = None,
) -> xr.Dataset:
    """Return arrays as a data set with coordinates.

    Parameters
    ----------
    values : ndarray
        Shape ``(T, C, Y, X)``, or ``(C, Y, X)`` without ``days``.
    names : sequence of str
        Variable names, C of them.
    attrs : sequence of dict
        Their attributes.
    grid : Grid
        Horizontal coordinates.
    days : CalendarDays, optional
        Time coordinate.
    """
    dims: tuple[str, ...] = (grid.y_name, grid.x_name)
    coords: dict[str, Any] = dict(grid.coords())
    if days is not None:
        dims = ("time", *dims)
        coords["time"] = ("time", _stamps(days))
    fields = {
        name: (dims, values[:, c] if days is not None else values[c], attrs[c])
        for c, name in enumerate(names)
    }
    return xr.Dataset(fields, coords=coords)


class PipelineViews:
    """Data sets, accessors and exports that a pipeline offers beside its arrays."""

    preprocessor: Preprocessor
    days: CalendarDays
    lr_path: str | Path
    hr_path: str | Path
    seq_len: int
    _lr_values: NDArray[np.float32]
    _hr_values: NDArray[np.float32]
    arrays: Callable[..., FieldArrays]

    @property
    def dims(self) -> GridMetadata:
        """Dimension names of the data sets."""
        lr, hr = self.preprocessor.lr_grid, self.preprocessor.hr_grid
        return GridMetadata("time", lr.y_name, lr.x_name, hr.y_name, hr.x_name)

    @property
    def lr_dataset_raw(self) -> xr.Dataset:
        """Predictors in canonical units."""
        attrs = [{"units": c.units} for c in self.preprocessor.channels]
        return self._coarse(self._lr_values, attrs)

    @cached_property
    def lr_dataset_normalised(self) -> xr.Dataset:
        """Standardised predictors without NaN."""
        attrs = [{"units": "1"} for _ in self.preprocessor.channels]
        return self._coarse(self.arrays(None).lr, attrs)

    @property
    def lr_dataset(self) -> xr.Dataset:
        """Predictors as the model gets them."""
        return self.lr_dataset_normalised

    @property
    def hr_dataset_raw(self) -> xr.Dataset:
        """Targets in target units."""
        return self._fine(self._hr_values, physical=True)

    @property
    def baseline_raw(self) -> xr.Dataset:
        """First guess in target units; its attribute says whether it is an oracle."""
        return self._fine(self.arrays(None).baseline, physical=True).assign_attrs(
            baseline=self.preprocessor.baseline.strategy,
            oracle=str(self.preprocessor.baseline.oracle).lower(),
        )

    @cached_property
    def hr_prepared(self) -> xr.Dataset:
        """Encoded targets."""
        encoded = self.preprocessor.codec.encode(torch.from_numpy(self._hr_values))
        return self._fine(encoded.numpy())

    @property
    def hr_dataset(self) -> xr.Dataset:
        """Encoded targets."""
        return self.hr_prepared

    @cached_property
    def baseline_prepared(self) -> xr.Dataset:
        """Encoded first guess."""
        encoded = self.preprocessor.encode_baseline(self.arrays(None).baseline)
        return self._fine(encoded.numpy())

    @cached_property
    def residual_dataset(self) -> xr.Dataset:
        """Standardised residual, NaN where there is no truth.

        ``hr_prepared = baseline_prepared + residual * residual_std + residual_mean``,
        with the statistics of the preprocessor.
        """
        arrays = self.arrays(None)
        encoded = self.preprocessor.encode_baseline(arrays.baseline)
        target, valid = self.preprocessor.encode_target(self._hr_values, encoded)
        return self._fine(torch.where(valid, target, torch.nan).numpy())

    @property
    def lr_stats(self) -> dict[str, xr.Dataset]:
        """Predictor ``mean`` and ``std``; empty where predictors stay as they are."""
        prep = self.preprocessor
        if (prep.lr_std == 1).all() and (prep.lr_mean == 0).all():
            return {}
        shape = (len(prep.channels), *prep.lr_grid.shape)
        names = [c.name for c in prep.channels]
        attrs: list[dict[str, Any]] = [{"units": c.units} for c in prep.channels]
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
        attrs: list[dict[str, Any]] = [{"units": "1"} for _ in prep.static_names]
        return labelled(prep.static, prep.static_names, attrs, prep.hr_grid)

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
        """Return the encoded first guess."""
        return self.baseline_prepared

    def get_residual_dataset(self) -> xr.Dataset:
        """Return the standardised residual."""
        return self.residual_dataset

    def get_static_dataset(self) -> xr.Dataset | None:
        """Return the static fields, or None."""
        return self.static_dataset

    def get_target_inverse_transform(self) -> Callable[[xr.Dataset], xr.Dataset]:
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

    def build_sequence_dataset(
        self,
        *,
        seq_len: int | None = None,
        stride: int = 1,
        drop_last: bool = True,
        as_torch: bool = True,
        split: str | None = None,
    ) -> ResDiffIterableDataset:
        """Return windows as dictionaries; see :class:`ResDiffIterableDataset`.

        ``split`` restricts them to one period.
        """
        index = {"time": self._index(split)}
        return ResDiffIterableDataset(
            lr_dataset=self.lr_dataset.isel(index),
            baseline_dataset=self.baseline_prepared.isel(index),
            residual_dataset=self.residual_dataset.isel(index),
            hr_dataset=self.hr_prepared.isel(index),
            static_tensor_np=self.static_tensor_np,
            static_tensor_torch=self.static_tensor_torch,
            dims=self.dims,
            seq_len=self.seq_len if seq_len is None else seq_len,
            stride=max(int(stride), 1),
            drop_last=drop_last,
            as_torch=as_torch,
        )

    def _index(self, split: str | None) -> NDArray[np.int64]:
        raise NotImplementedError

    def _coarse(
        self, values: NDArray[np.float32], attrs: Sequence[dict[str, Any]]
    ) -> xr.Dataset:
        names = [c.name for c in self.preprocessor.channels]
        return labelled(values, names, attrs, self.preprocessor.lr_grid, self.days)

    def _fine(
        self, values: NDArray[np.float32], *, physical: bool = False
    ) -> xr.Dataset:
        targets = self.preprocessor.targets
        attrs = [t.attrs() if physical else {} for t in targets]
        names = [t.name for t in targets]
        return labelled(values, names, attrs, self.preprocessor.hr_grid, self.days)


def _stamps(days: CalendarDays) -> list[Any]:
    """Return days as cftime stamps at 00:00."""
    return [
        cftime.datetime(d // 10000, d // 100 % 100, d % 100, calendar=days.calendar)
        for d in days.day.tolist()
    ]
