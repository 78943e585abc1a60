"""The configuration of the data layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from st_cdgm import registry
from st_cdgm.data.files.open import is_url
from st_cdgm.data.fit.baseline.combined import strategies
from st_cdgm.data.fit.codecs.amounts import check_precipitation_options
from st_cdgm.data.fit.codecs.logarithm import check_transform
from st_cdgm.data.fit.moments import FillStrategy, Scope
from st_cdgm.data.task.days import memory_bytes
from st_cdgm.data.time.alignment import ALIGNMENTS
from st_cdgm.data.time.axis import TimeStep
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import check_choice, check_least


@dataclass(kw_only=True)
class DataConfig:
    """What to read and how to prepare it.

    Attributes
    ----------
    root : str, optional
        Directory, or URL of one, against which relative paths are resolved.
    lr_path, hr_path : str
        Coarse predictors and fine targets: NetCDF or Zarr, a path or a URL; a glob
        joins files in time.
    static_path : str, optional
        Fine fields without time.
    lr_variables, hr_variables, static_variables : list of str, optional
        What to read; all if None. ``q`` is every level of q, ``q_850`` is one.
    seq_len, stride : int
        Days per window and from one window to the next.
    baseline_strategy : str
        ``auto``, ``lr_interp``, ``climatology``, ``regression`` (ridge from principal
        components), ``ridge`` (per fine cell from the weather of the day and the day
        before; of training days by a fit without their year), ``hr_smoothing`` (an
        oracle), or one that a plugin registers.
    baseline_map : dict
        Target name to the predictor channel it is interpolated from.
    baseline_sources : dict
        Target name to the predictors that may enter its baseline, of ``ridge`` and
        ``regression``: node types (``SURF``, ``GP850``) or levels (``850``). Targets
        that are not named see all.
    baseline_factor : int
        Block side of ``hr_smoothing``, cells.
    normalize : bool
        Whether predictors are standardised.
    normalization : str
        Scope of predictor statistics: ``per_variable`` or ``per_gridpoint``.
    residual_scaling : str
        Scope of residual statistics: ``per_gridpoint`` or ``per_variable``.
    precipitation_codec : str
        ``sqrt``, ``log1p``, ``quantile`` or ``identity``.
    codecs : dict
        Target name to the codec it is encoded with, one that the package or a plugin
        registers; others are chosen by what the target is.
    precipitation_delta : float
        Offset of ``log1p``, mm day-1.
    wet_threshold : float
        Amounts below it are decoded to exactly 0, mm day-1.
    lr_precipitation_root : bool
        Whether precipitation predictors enter as their square root.
    nan_fill_strategy : str
        ``zero`` (training mean), ``mean`` (of the day), ``interpolate`` (nearest cell).
    splits : SplitConfig
        Training, validation and test period.
    memory : str
        What may stay in memory while training, such as ``4 GiB``; a longer record is
        read again and again, in blocks of days.
    time_step : str
        ``daily`` makes days of shorter steps, by their cell_methods; ``native`` keeps
        them.
    store : str, optional
        Directory that ``st-cdgm preprocess --format zarr`` made with the same settings:
        training reads it instead of the files.
    robust : bool
        Whether predictors are standardised by median and interquartile range instead of
        mean and standard deviation.
    lr_derived : list of str
        Predictors derived from others: ``ug_850``, ``vg_850`` (geostrophic wind),
        ``ws_850`` (wind speed), ``hur_850`` (relative humidity),
        ``thickness_1000_500``; without level at all levels.
    lr_coarsen : int
        Block side over which predictors are averaged, for a perfect-model study in
        which a fine model is its own coarse counterpart; 1 leaves them as they are.
    target_transform : str or dict, optional
        ``log`` (``ln(x + transform_epsilon)``) or ``log1p`` (``ln(1 + x)``): of all
        targets that have a logarithm, or one for each target: ``{pr: log1p}``.
    transform_epsilon : float
        Offset of ``log``, in the units of the target.
    calendar_align : str, optional
        How records of a calendar with and one without leap days are paired:
        ``drop_leap_day`` (29 February is left out) or ``day_of_year`` (the same day of
        the year; the last of a leap year is left out). None: they are refused.
    """

    root: str | None = None
    lr_path: str = ""
    hr_path: str = ""
    static_path: str | None = None
    lr_variables: list[str] | None = None
    hr_variables: list[str] | None = None
    static_variables: list[str] | None = None
    seq_len: int = 6
    stride: int = 1
    baseline_strategy: str = "auto"
    baseline_map: dict[str, str] = field(default_factory=dict)
    baseline_sources: dict[str, list[Any]] = field(default_factory=dict)
    baseline_factor: int = 4
    normalize: bool = True
    normalization: str = "per_variable"
    residual_scaling: str = "per_gridpoint"
    precipitation_codec: str = "sqrt"
    codecs: dict[str, str] = field(default_factory=dict)
    precipitation_delta: float = 0.01
    wet_threshold: float = 0.1
    lr_precipitation_root: bool = True
    nan_fill_strategy: str = "zero"
    splits: SplitConfig = field(default_factory=SplitConfig)
    memory: str = "4 GiB"
    time_step: str = "daily"
    store: str | None = None
    robust: bool = False
    lr_derived: list[str] = field(default_factory=list)
    lr_coarsen: int = 1
    target_transform: Any = None
    transform_epsilon: float = 1e-6
    calendar_align: str | None = None

    def check(self) -> None:
        """Raise ConfigError unless every option is in its range."""
        check_choice("baseline_strategy", self.baseline_strategy, strategies())
        check_choice("normalization", self.normalization, get_args(Scope))
        check_choice("residual_scaling", self.residual_scaling, get_args(Scope))
        check_choice(
            "nan_fill_strategy", self.nan_fill_strategy, get_args(FillStrategy)
        )
        check_precipitation_options(
            self.precipitation_codec, self.precipitation_delta, self.wet_threshold
        )
        for codec in self.codecs.values():
            registry.get("codec", codec)

        for name in ("seq_len", "stride", "lr_coarsen"):
            check_least(name, getattr(self, name), 1, section="data.")
        check_transform(self.target_transform)
        if self.calendar_align is not None:
            check_choice("calendar_align", self.calendar_align, ALIGNMENTS)
        memory_bytes(self.memory)
        check_choice("time_step", self.time_step, get_args(TimeStep))
        if self.splits.given():
            self.splits.check()

    def resolve(self, path: str) -> str:
        """Return a path, relative ones under ``root``; URLs stay as they are.

        ``root`` itself may be a URL, such as ``s3://bucket/folder``.
        """
        if not self.root or is_url(path):
            return path
        if not is_url(self.root):
            return str(Path(self.root).expanduser() / Path(path).expanduser())
        absolute = Path(path).expanduser().is_absolute()
        return path if absolute else f"{self.root.rstrip('/')}/{path}"
