"""From files to arrays, windows and the fitted preprocessor of one task."""

from __future__ import annotations

import importlib
import logging
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.files.open import Paths
from st_cdgm.data.fit.baseline.combined import build_baseline
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.function import DatasetFunction, FunctionCodec
from st_cdgm.data.fit.codecs.logarithm import transform_codecs
from st_cdgm.data.fit.codecs.target import CodecPart, TargetCodec
from st_cdgm.data.fit.moments import Blocks, FillStrategy, Scope
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.fit.statistics import fit_preprocessor, with_given_statistics
from st_cdgm.data.read.channels import as_list
from st_cdgm.data.read.derived.appending import read_with_derived
from st_cdgm.data.read.readers import read_static, read_targets
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.days import DayFields, FieldArrays, memory_bytes
from st_cdgm.data.task.labels import GridMetadata
from st_cdgm.data.task.paired_days import PreparedReader, pair_days
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.data.time.periods import described_periods
from st_cdgm.data.time.splits import split_days
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError

_LOGGER = logging.getLogger(__name__)
__all__ = ["DataConfig", "GridMetadata", "NetCDFDataPipeline"]

# Documented as names of this module; they live in modules of their own.
_ELSEWHERE = {
    "ResDiffIterableDataset": "task.datasets",
    "WebDatasetIterableDataset": "store.shard_dataset",
    "ZarrDataPipeline": "store.zarr_pipeline",
    "_dataset_to_numpy": "tables.stacking",
    "_ensure_callable_transform": "tables.stacking",
    "_infer_dim": "tables.stacking",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        module = importlib.import_module(f"st_cdgm.data.{_ELSEWHERE[name]}")
        return getattr(module, name.lstrip("_"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class NetCDFDataPipeline(PipelineViews):
    """Read, align, split and prepare one downscaling task.

    All statistics (predictors, residuals, climatology) come from the training split;
    without ``splits`` from the whole record, which a warning says. What it offers
    beside: :class:`PipelineViews`.

    Parameters
    ----------
    lr_path, hr_path : str, Path, sequence of these, or xarray.Dataset
        Coarse predictors and fine targets: files, URLs or patterns, or data in memory;
        see :func:`st_cdgm.data.files.open.open_dataset`.
    static_path : str, Path, sequence of these, or xarray.Dataset, optional
        Fine fields without time.
    target_transform : {"log", "log1p"}, mapping or callable, optional
        ``log`` is ``ln(x + transform_epsilon)``, ``log1p`` ``ln(1 + x)``, of all
        targets that have a logarithm, or of those that a mapping names; the inverse
        follows by itself. A function from data set to data set encodes all targets.
    target_inverse_transform : callable, optional
        Needed with a function, and only then.
    means_path, stds_path : str or Path, optional
        Predictor statistics from files, one variable per channel; both or none.
    chunks : dict, optional
        Dask chunks while reading.
    transform_epsilon : float
        See ``target_transform``.
    **others
        As the attributes of the same names of :class:`DataConfig`.

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
        lr_path: Paths,
        hr_path: Paths,
        static_path: Paths | None = None,
        *,
        seq_len: int = 10,
        baseline_strategy: str = "auto",
        baseline_factor: int = 4,
        target_transform: str
        | Mapping[str, str | None]
        | DatasetFunction
        | None = None,
        target_inverse_transform: str | DatasetFunction | None = None,
        normalize: bool = False,
        lr_variables: Sequence[str] | None = None,
        hr_variables: Sequence[str] | None = None,
        static_variables: Sequence[str] | None = None,
        means_path: str | Path | None = None,
        stds_path: str | Path | None = None,
        chunks: Mapping[str, int] | None = None,
        transform_epsilon: float = 1e-6,
        **others: Any,
    ) -> None:
        self.lr_path, self.hr_path, self.static_path = lr_path, hr_path, static_path
        self.means_path, self.stds_path = means_path, stds_path
        self.transform_epsilon = transform_epsilon
        self.target_transform = target_transform
        self.target_inverse_transform = target_inverse_transform

        # In the plain forms that a configuration file could hold.
        plain = {k: v for k, v in others.items() if v is not None}
        plain |= {k: kind(plain[k]) for k, kind in _PLAIN.items() if k in plain}
        named = None if callable(target_transform) else target_transform
        config = DataConfig(
            root=None,  # paths are meant as they are
            target_transform=dict(named) if isinstance(named, Mapping) else named,
            transform_epsilon=float(transform_epsilon),
            lr_path=_label(lr_path),
            hr_path=_label(hr_path),
            static_path=None if static_path is None else _label(static_path),
            lr_variables=_names(lr_variables),
            hr_variables=_names(hr_variables),
            static_variables=_names(static_variables),
            seq_len=int(seq_len),
            baseline_strategy=baseline_strategy,
            baseline_factor=baseline_factor,
            normalize=bool(normalize),
            **plain,
        )
        if means_path is not None and normalize:
            config.lr_precipitation_root = False
        self._setup(config, chunks)

    @classmethod
    def from_config(cls, config: DataConfig) -> NetCDFDataPipeline:
        """Build the pipeline from its configuration; see :class:`DataConfig`."""
        made = cls.__new__(cls)
        static = config.static_path
        made.lr_path = config.resolve(config.lr_path)
        made.hr_path = config.resolve(config.hr_path)
        made.static_path = config.resolve(static) if static else None
        made.target_transform = config.target_transform
        made.transform_epsilon = config.transform_epsilon
        made._setup(config, None)
        return made

    def _setup(self, config: DataConfig, chunks: Mapping[str, int] | None) -> None:
        """Open, align, split, fit."""
        factor = max(_integer("baseline_factor", config.baseline_factor), 1)
        self.config = config = replace(config, baseline_factor=factor)
        self.seq_len = config.seq_len
        config.check()
        memory = memory_bytes(config.memory)
        self.source = pair_days(
            read_with_derived(
                self.lr_path,
                variables=config.lr_variables,
                derived=config.lr_derived,
                coarsen=config.lr_coarsen,
                role="lr",
                time_step=config.time_step,
            ),
            read_targets(
                self.hr_path,
                variables=config.hr_variables,
                time_step=config.time_step,
            ),
            # Beside the raw values there will be the prepared ones.
            memory=memory // 2,
            chunks=chunks,
            calendar_align=config.calendar_align,
        )
        self.days = self.source.days
        self._split()
        self.preprocessor = self._fit()
        self.fields = DayFields(
            self.prepared_reader(),
            len(self.days),
            bytes_per_day=self.preprocessor.bytes_per_day,
            memory=memory // 2,
        )
        self._arrays = {}

    @property
    def lr_dataset_raw(self) -> xr.Dataset:
        """Predictors in canonical units, lazily where memory is short."""
        raw, of_lr = self.source.raw, self.source.of_lr
        values = self.source.lr.values.data[of_lr] if raw is None else raw
        return self._coarse(values, physical=True)

    @property
    def hr_dataset_raw(self) -> xr.Dataset:
        """Targets in target units, lazily where memory is short."""
        truth, of_hr = self.source.truth, self.source.of_hr
        values = self.source.hr.values.data[of_hr] if truth is None else truth
        return self._fine(values, physical=True)

    def prepared_reader(self) -> PreparedReader:
        """Return what computes :meth:`prepared`; it can be sent to other processes."""
        return PreparedReader(source=self.source, preprocessor=self.preprocessor)

    def _physical(self, index: NDArray[np.int64]) -> FieldArrays:
        return self.prepared_reader().physical(index)

    def _codec(self, targets: Sequence[TargetVariable], blocks: Blocks) -> TargetCodec:
        if not callable(self.target_transform):
            return build_codec(
                targets,
                precipitation=self.config.precipitation_codec,
                precipitation_delta=self.config.precipitation_delta,
                wet_threshold=self.config.wet_threshold,
                codecs=self.config.codecs,
                transforms=transform_codecs(
                    targets,
                    self.config.target_transform,
                    epsilon=self.config.transform_epsilon,
                ),
                blocks=blocks,
            )
        if not callable(self.target_inverse_transform):
            raise ConfigError(
                "a transform given as a function needs its inverse",
                variable="target_inverse_transform",
                found=self.target_inverse_transform,
                expected="a function from data set to data set",
            )

        # One codec for all targets.
        names = tuple(target.name for target in targets)
        codec = FunctionCodec(
            names=names,
            forward=self.target_transform,
            inverse=self.target_inverse_transform,
        )
        part = CodecPart(tuple(range(len(names))), codec)
        return TargetCodec(names=names, parts=(part,))

    def _split(self) -> None:
        splits = self.config.splits
        if splits.given():
            self.indices = split_days(self.days, splits, file=self.source.file)
            self._periods = (
                splits.periods()
                if splits.kind() == "periods"
                else described_periods(self.days, self.indices)
            )
            return

        warnings.warn(
            "no splits given: statistics come from the whole record, so no day is left "
            "that the model has not seen",
            UserWarning,
            stacklevel=4,
        )
        self.indices = {"train": np.arange(len(self.days), dtype=np.int64)}
        self._periods = {"train": self.days.period().split("..")}

    def _fit(self) -> Preprocessor:
        """Fit baseline and statistics to the training days."""
        config, lr, hr = self.config, self.source.lr, self.source.hr
        blocks = self.source.blocks(self.indices["train"])
        names: tuple[str, ...] = ()
        static = np.empty((0, *hr.grid.shape), dtype=np.float32)
        if self.static_path is not None:
            names, static = read_static(
                self.static_path, variables=config.static_variables, grid=hr.grid
            )

        # The codec comes first: the baseline is fitted to encoded targets.
        task: dict[str, Any] = {
            "blocks": blocks,
            "channels": lr.channels,
            "targets": hr.targets,
            "lr_grid": lr.grid,
            "hr_grid": hr.grid,
            "codec": self._codec(hr.targets, blocks),
            "days": self.days.select(self.indices["train"]),
        }
        baseline = build_baseline(
            config.baseline_strategy,
            mapping=config.baseline_map,
            factor=config.baseline_factor,
            sources=config.baseline_sources,
            **task,
        )
        fitted = fit_preprocessor(
            **task,
            baseline=baseline,
            static=static,
            static_names=names,
            calendar=self.days.calendar,
            seq_len=self.seq_len,
            periods=self._periods,
            time_step=config.time_step,
            step_seconds=self.days.step_seconds,
            nan_fill=cast("FillStrategy", config.nan_fill_strategy),
            normalization=cast("Scope", config.normalization),
            normalize=config.normalize,
            residual_scaling=cast("Scope", config.residual_scaling),
            robust=config.robust,
            lr_root=config.lr_precipitation_root,
            lr_coarsen=config.lr_coarsen,
            file=self.source.file,
        )
        given = with_given_statistics(fitted, self.means_path, self.stds_path)
        if given is not fitted and not config.normalize:
            _LOGGER.warning("predictors are not standardised: normalize is false")
            return fitted
        return given


def _names(variables: Sequence[str] | None) -> list[str] | None:
    """Return names as a list, whatever sequence they came in (D13)."""
    return None if variables is None else as_list(variables)


def _label(path: Any) -> str:
    """Return a path, or several, as text; a data set in memory has none."""
    if isinstance(path, xr.Dataset):
        return ""
    return ", ".join(map(str, path)) if isinstance(path, list | tuple) else str(path)


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ConfigError(
            f"{name} must be a whole number", variable=f"data.{name}", found=value
        ) from error


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "calendar_align": str,
    "baseline_map": dict,
    "baseline_sources": dict,
    "codecs": dict,
    "lr_derived": as_list,
    "lr_coarsen": partial(_integer, "lr_coarsen"),
    "memory": str,
    "precipitation_delta": float,
    "wet_threshold": float,
}
