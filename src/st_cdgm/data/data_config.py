"""The configuration of the data layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from st_cdgm.data.baselines import STRATEGIES
from st_cdgm.data.normalization import FillStrategy, Scope, check_choice
from st_cdgm.data.splits import SplitConfig
from st_cdgm.data.transforms import check_precipitation_options
from st_cdgm.errors import ConfigError

__all__ = ["DataConfig"]


@dataclass(kw_only=True)
class DataConfig:
    """What to read and how to prepare it.

    Attributes
    ----------
    root : str, optional
        Directory against which relative paths are resolved.
    lr_path, hr_path : str
        Coarse predictors and fine targets (NetCDF or Zarr; a glob joins files in time).
    static_path : str, optional
        Fine fields without time.
    lr_variables, hr_variables, static_variables : list of str, optional
        What to read; all if None. ``q`` is every level of q, ``q_850`` is one.
    seq_len, stride : int
        Days per window and from one window to the next.
    baseline_strategy : str
        ``auto``, ``lr_interp``, ``climatology`` or ``hr_smoothing`` (an oracle).
    baseline_map : dict
        Target name to the predictor channel it is interpolated from.
    baseline_factor : int
        Block side of ``hr_smoothing``, cells.
    normalize : bool
        Whether predictors are standardised.
    normalization : str
        Scope of predictor statistics: ``per_variable`` or ``per_gridpoint``.
    residual_scaling : str
        Scope of residual statistics: ``per_gridpoint`` or ``per_variable``.
    precipitation_codec : str
        ``sqrt``, ``log1p`` or ``identity``.
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
    baseline_factor: int = 4
    normalize: bool = True
    normalization: str = "per_variable"
    residual_scaling: str = "per_gridpoint"
    precipitation_codec: str = "sqrt"
    precipitation_delta: float = 0.01
    wet_threshold: float = 0.1
    lr_precipitation_root: bool = True
    nan_fill_strategy: str = "zero"
    splits: SplitConfig = field(default_factory=SplitConfig)

    def check(self) -> None:
        """Raise ConfigError unless every option is in its range."""
        check_choice("baseline_strategy", self.baseline_strategy, STRATEGIES)
        check_choice("normalization", self.normalization, get_args(Scope))
        check_choice("residual_scaling", self.residual_scaling, get_args(Scope))
        check_choice(
            "nan_fill_strategy", self.nan_fill_strategy, get_args(FillStrategy)
        )
        check_precipitation_options(
            self.precipitation_codec, self.precipitation_delta, self.wet_threshold
        )
        for name in ("seq_len", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1",
                    variable=f"data.{name}",
                    found=getattr(self, name),
                )
        if self.splits.periods():
            self.splits.check()

    def resolve(self, path: str) -> str:
        """Return a path, relative ones under ``root``."""
        return str(Path(self.root).expanduser() / path) if self.root else path
