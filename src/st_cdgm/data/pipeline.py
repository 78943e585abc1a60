"""From files to arrays, windows and the fitted preprocessor of one task."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.baselines import build_baseline
from st_cdgm.data.calendars import CalendarDays
from st_cdgm.data.data_config import DataConfig
from st_cdgm.data.datasets import WindowDataset
from st_cdgm.data.fields import FieldArrays, TargetVariable
from st_cdgm.data.fitting import fit_preprocessor, with_given_statistics
from st_cdgm.data.grids import Grid
from st_cdgm.data.normalization import FillStrategy, Scope, check_choice
from st_cdgm.data.preprocessor import Preprocessor
from st_cdgm.data.readers import (
    ChannelCube,
    TargetCube,
    read_channels,
    read_static,
    read_targets,
)
from st_cdgm.data.splits import SPLITS, SplitConfig, split_days
from st_cdgm.data.transforms import (
    DatasetFunction,
    FunctionCodec,
    TargetCodec,
    build_codec,
)
from st_cdgm.data.views import GridMetadata, PipelineViews
from st_cdgm.errors import ConfigError, InputError

__all__ = ["DataConfig", "GridMetadata", "NetCDFDataPipeline"]

_LOGGER = logging.getLogger(__name__)


class NetCDFDataPipeline(PipelineViews):
    """Read, align, split and prepare one downscaling task.

    All statistics (predictors, residuals, climatology) come from the training split;
    without ``splits`` from the whole record, which a warning says.

    Parameters
    ----------
    lr_path, hr_path : str or Path
        Coarse predictors and fine targets.
    static_path : str or Path, optional
        Fine fields without time.
    seq_len : int
        Days per window.
    baseline_strategy : {"auto", "lr_interp", "climatology", "hr_smoothing"}
        The first guess. ``hr_smoothing`` needs the truth and is an oracle.
    baseline_factor : int
        Block side of ``hr_smoothing``; values below 1 count as 1.
    target_transform : {"log", "log1p"} or callable, optional
        Another way to choose the codec of precipitation: ``log1p`` with offset 1, or
        ``log`` with offset ``transform_epsilon``; the inverse follows by itself. A
        function from data set to data set encodes all targets instead of the codec.
    target_inverse_transform : callable, optional
        Needed with a function, and only then.
    normalize : bool
        Whether predictors are standardised.
    lr_variables, hr_variables, static_variables : sequence of str, optional
        What to read; all if None.
    means_path, stds_path : str or Path, optional
        Predictor statistics from files, one variable per channel; both or none.
    chunks : dict, optional
        Dask chunks while reading.
    transform_epsilon : float
        See ``target_transform``.
    splits : SplitConfig, optional
        Training, validation and test period.
    baseline_map : mapping, optional
        Target name to predictor channel.
    normalization, residual_scaling : {"per_variable", "per_gridpoint"}
        Scope of statistics.
    precipitation_codec, precipitation_delta, wet_threshold
        See :func:`st_cdgm.data.transforms.build_codec`.
    lr_precipitation_root : bool
        Whether precipitation predictors enter as their square root.
    nan_fill_strategy : {"zero", "mean", "interpolate"}
        How missing predictors and static values are filled.

    Attributes
    ----------
    preprocessor : Preprocessor
        Fitted; all that inference needs.
    days : CalendarDays
        The days that predictors and targets share.
    dims : GridMetadata
        Dimension names of the data sets below.
    lr_dataset_raw, hr_dataset_raw, baseline_raw : xarray.Dataset
        Physical fields.
    lr_dataset_normalised, hr_prepared, baseline_prepared, residual_dataset
        Standardised predictors, encoded targets and first guess, standardised residual
        (NaN where there is no truth).

    Raises
    ------
    InputError
        If calendars differ, no day is shared, or a file cannot be used; its subclasses
        are also FileNotFoundError and KeyError.
    ConfigError
        If an option is out of range.
    """

    def __init__(
        self,
        lr_path: str | Path,
        hr_path: str | Path,
        static_path: str | Path | None = None,
        *,
        seq_len: int = 10,
        baseline_strategy: str = "auto",
        baseline_factor: int = 4,
        target_transform: str | DatasetFunction | None = None,
        target_inverse_transform: str | DatasetFunction | None = None,
        normalize: bool = False,
        lr_variables: Sequence[str] | None = None,
        hr_variables: Sequence[str] | None = None,
        static_variables: Sequence[str] | None = None,
        means_path: str | Path | None = None,
        stds_path: str | Path | None = None,
        chunks: Mapping[str, int] | None = None,
        transform_epsilon: float = 1e-6,
        splits: SplitConfig | None = None,
        baseline_map: Mapping[str, str] | None = None,
        normalization: str = "per_variable",
        residual_scaling: str = "per_gridpoint",
        precipitation_codec: str = "sqrt",
        precipitation_delta: float = 0.01,
        wet_threshold: float = 0.1,
        lr_precipitation_root: bool = True,
        nan_fill_strategy: str = "zero",
    ) -> None:
        self.lr_path, self.hr_path, self.static_path = lr_path, hr_path, static_path
        self.means_path, self.stds_path = means_path, stds_path
        self.transform_epsilon, self.target_transform = (
            transform_epsilon,
            target_transform,
        )
        self.seq_len, self.splits = int(seq_len), splits
        self.config = DataConfig(
            lr_path=str(lr_path),
            hr_path=str(hr_path),
            static_path=None if static_path is None else str(static_path),
            lr_variables=_names(lr_variables),
            hr_variables=_names(hr_variables),
            static_variables=_names(static_variables),
            seq_len=int(seq_len),
            baseline_strategy=baseline_strategy,
            baseline_map=dict(baseline_map or {}),
            baseline_factor=max(_integer("baseline_factor", baseline_factor), 1),
            normalize=bool(normalize),
            normalization=normalization,
            residual_scaling=residual_scaling,
            precipitation_codec=precipitation_codec,
            precipitation_delta=float(precipitation_delta),
            wet_threshold=float(wet_threshold),
            lr_precipitation_root=lr_precipitation_root and means_path is None,
            nan_fill_strategy=nan_fill_strategy,
            splits=splits or SplitConfig(),
        )
        self.target_inverse_transform = target_inverse_transform
        self._apply_target_transform()
        self.config.check()
        lr = read_channels(lr_path, variables=self.config.lr_variables, role="lr")
        hr = read_targets(hr_path, variables=self.config.hr_variables)
        self._align(lr, hr, chunks)
        self._split()
        self.preprocessor = self._fit(lr, hr)
        self._arrays: dict[str | None, FieldArrays] = {}

    @classmethod
    def from_config(cls, config: DataConfig) -> NetCDFDataPipeline:
        """Build the pipeline from its configuration; see :class:`DataConfig`."""
        static = config.static_path
        made = cls(
            config.resolve(config.lr_path),
            config.resolve(config.hr_path),
            config.resolve(static) if static else None,
            seq_len=config.seq_len,
            baseline_strategy=config.baseline_strategy,
            baseline_factor=config.baseline_factor,
            normalize=config.normalize,
            lr_variables=config.lr_variables,
            hr_variables=config.hr_variables,
            static_variables=config.static_variables,
            splits=config.splits if config.splits.periods() else None,
            baseline_map=config.baseline_map,
            normalization=config.normalization,
            residual_scaling=config.residual_scaling,
            precipitation_codec=config.precipitation_codec,
            precipitation_delta=config.precipitation_delta,
            wet_threshold=config.wet_threshold,
            lr_precipitation_root=config.lr_precipitation_root,
            nan_fill_strategy=config.nan_fill_strategy,
        )
        made.config.stride = config.stride
        return made

    @property
    def baseline_strategy(self) -> str:
        """Configured first guess."""
        return self.config.baseline_strategy

    @property
    def baseline_factor(self) -> int:
        """Block side of ``hr_smoothing``, cells."""
        return self.config.baseline_factor

    @property
    def normalize(self) -> bool:
        """Whether predictors are standardised."""
        return self.config.normalize

    def arrays(self, split: str | None = None) -> FieldArrays:
        """Return the days of a split in memory, all days for None.

        Raises
        ------
        ConfigError
            If there is no such split.
        """
        if split not in self._arrays:
            index = self._index(split)
            raw, truth = self._lr_values[index], self._hr_values[index]
            days = self.days.select(index)
            self._arrays[split] = FieldArrays(
                day=days.day,
                ordinal=days.ordinal,
                season=days.season,
                lr=self.preprocessor.standardise_lr(raw),
                baseline=self.preprocessor.predict_baseline(raw, days.season, truth),
                hr=truth,
                calendar=days.calendar,
            )
        return self._arrays[split]

    def windows(
        self,
        split: str | None = None,
        *,
        stride: int | None = None,
        pad_start: bool = False,
    ) -> WindowDataset:
        """Return the windows of a split; none crosses a gap or the split's border.

        ``stride`` None takes the configured one; ``pad_start`` gives every day a
        window, see :class:`WindowDataset`.
        """
        return WindowDataset(
            self.arrays(split),
            self.preprocessor,
            seq_len=self.seq_len,
            stride=self.config.stride if stride is None else stride,
            pad_start=pad_start,
        )

    def _index(self, split: str | None) -> NDArray[np.int64]:
        if split is None:
            return np.arange(len(self.days), dtype=np.int64)
        check_choice("split", split, SPLITS)
        index = self._indices.get(split, np.empty(0, dtype=np.int64))
        if not len(index):
            raise ConfigError(
                f"there is no {split} period",
                variable=f"data.splits.{split}",
                found=", ".join(name for name, i in self._indices.items() if len(i)),
                expected="[start, end]",
            )
        return index

    def _apply_target_transform(self) -> None:
        """Turn named transforms into codec options."""
        options = {
            "log": self.transform_epsilon,
            "logarithm": self.transform_epsilon,
            "log1p": 1.0,
        }
        transform = self.target_transform
        if transform is None or callable(transform):
            return
        if transform not in options:
            raise ConfigError(
                "unknown target transform",
                variable="target_transform",
                found=transform,
                expected="log, log1p or a function",
                remedy="choose precipitation_codec instead; it brings its inverse",
            )
        self.config.precipitation_codec = "log1p"
        self.config.precipitation_delta = options[transform]

    def _codec(self, targets: Sequence[TargetVariable]) -> TargetCodec:
        if not callable(self.target_transform):
            return build_codec(
                targets,
                precipitation=self.config.precipitation_codec,
                precipitation_delta=self.config.precipitation_delta,
                wet_threshold=self.config.wet_threshold,
            )
        if not callable(self.target_inverse_transform):
            raise ConfigError(
                "a transform given as a function needs its inverse",
                variable="target_inverse_transform",
                found=self.target_inverse_transform,
                expected="a function from data set to data set",
            )
        return FunctionCodec(
            names=tuple(target.name for target in targets),
            forward=self.target_transform,
            inverse=self.target_inverse_transform,
        )

    def _align(
        self, lr: ChannelCube, hr: TargetCube, chunks: Mapping[str, int] | None
    ) -> None:
        """Read the days that predictors and targets share."""
        _check_calendars(lr, hr)
        _, of_lr, of_hr = np.intersect1d(
            lr.days.day, hr.days.day, assume_unique=True, return_indices=True
        )
        if not len(of_lr):
            raise InputError(
                "predictors and targets share no day",
                file=f"{lr.file}, {hr.file}",
                found=f"{lr.days.period()} and {hr.days.period()}",
                expected="overlapping periods",
                remedy="give files of the same period",
            )
        if not lr.grid.contains(hr.grid, _half_cell(lr.grid)):
            _LOGGER.warning(
                "the coarse grid (%s) does not enclose the fine grid (%s): "
                "its edge values are used beyond",
                lr.grid,
                hr.grid,
            )
        self.days: CalendarDays = hr.days.select(of_hr)
        self._lr_values = _chunked(lr, chunks).load(of_lr)
        truth = _chunked(hr, chunks).load(of_hr)
        self._hr_values = np.where(np.isfinite(truth), truth, np.nan)

    def _split(self) -> None:
        if self.splits is not None:
            file = f"{self.config.lr_path}, {self.config.hr_path}"
            self._indices = split_days(self.days, self.splits, file=file)
            self._periods = self.splits.periods()
            return
        warnings.warn(
            "no splits given: statistics come from the whole record, so no day is left "
            "that the model has not seen",
            UserWarning,
            stacklevel=3,
        )
        self._indices = {"train": np.arange(len(self.days), dtype=np.int64)}
        self._periods = {"train": self.days.period().split("..")}

    def _fit(self, lr: ChannelCube, hr: TargetCube) -> Preprocessor:
        """Fit baseline and statistics to the training days."""
        config, index = self.config, self._indices["train"]
        raw, truth = self._lr_values[index], self._hr_values[index]
        season = self.days.season[index]
        names: tuple[str, ...] = ()
        static = np.empty((0, *hr.grid.shape), dtype=np.float32)
        if self.static_path is not None:
            names, static = read_static(
                self.static_path, variables=config.static_variables, grid=hr.grid
            )
        fitted = fit_preprocessor(
            raw=raw,
            season=season,
            truth=truth,
            channels=lr.channels,
            targets=hr.targets,
            lr_grid=lr.grid,
            hr_grid=hr.grid,
            static=static,
            static_names=names,
            codec=self._codec(hr.targets),
            baseline=build_baseline(
                config.baseline_strategy,
                targets=hr.targets,
                channels=lr.channels,
                lr_grid=lr.grid,
                hr_grid=hr.grid,
                truth=truth,
                season=season,
                mapping=config.baseline_map,
                factor=config.baseline_factor,
            ),
            calendar=self.days.calendar,
            seq_len=self.seq_len,
            periods=self._periods,
            nan_fill=cast(FillStrategy, config.nan_fill_strategy),
            normalization=cast(Scope, config.normalization),
            normalize=config.normalize,
            residual_scaling=cast(Scope, config.residual_scaling),
            lr_root=config.lr_precipitation_root,
            file=f"{lr.file}, {hr.file}",
        )
        return with_given_statistics(fitted, self.means_path, self.stds_path)


def _names(variables: Sequence[str] | None) -> list[str] | None:
    """Return names as a list, whatever sequence they came in (D13)."""
    if variables is None:
        return None
    return [variables] if isinstance(variables, str) else [str(v) for v in variables]


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(
            f"{name} must be a whole number", variable=f"data.{name}", found=value
        ) from error


def _chunked(cube: Any, chunks: Mapping[str, int] | None) -> Any:
    """Return the cube with dask chunks along time as asked for."""
    if not chunks or "time" not in chunks:
        return cube
    return replace(cube, values=cube.values.chunk({"time": int(chunks["time"])}))


def _half_cell(grid: Grid) -> float:
    """Return how far a regular grid's outermost cells reach beyond their centres."""
    if not grid.regular:
        return 0.0
    steps = [
        float(np.abs(np.diff(axis)).max(initial=0.0)) for axis in (grid.lat, grid.lon)
    ]
    return 0.5 * max(steps)


def _check_calendars(lr: ChannelCube, hr: TargetCube) -> None:
    if lr.days.calendar != hr.days.calendar:
        raise InputError(
            "predictors and targets have different calendars",
            file=f"{lr.file}, {hr.file}",
            found=f"{lr.days.calendar} and {hr.days.calendar}",
            expected="one calendar, since days are paired",
            remedy="convert one file (xarray: Dataset.convert_calendar)",
        )
