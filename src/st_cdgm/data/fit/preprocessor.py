"""All that turns raw fields into model input and model output into fields.

The preprocessor is fitted on training days, travels inside the checkpoint, and is all
that inference needs beside new predictors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.fit.baseline.combined import CombinedBaseline
from st_cdgm.data.fit.baseline.contract import Baseline, BaselineDays, filed
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.moments import FillStrategy, fill_missing, rooted
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import DAY
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.errors import InputError
from st_cdgm.typing import FloatArray, Indices, State

FORMAT_VERSION = 1
# What is saved as it is; of the facts, older versions lack the last three.
_FACTS = (
    *("nan_fill", "calendar", "seq_len", "periods"),
    *("time_step", "step_seconds", "lr_coarsen"),
)
_ARRAYS = (
    *("static", "lr_mean", "lr_std", "lr_fill"),
    *("residual_mean", "residual_std", "score_std", "valid"),
)
_STATES: dict[str, Any] = {
    "lr_grid": Grid,
    "hr_grid": Grid,
    "baseline": CombinedBaseline,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessor:
    """Names, grids, statistics, codec and baseline of one trained task.

    Attributes
    ----------
    channels : tuple of Channel
        Predictors in channel order.
    targets : tuple of TargetVariable
        Targets in channel order.
    lr_grid, hr_grid : Grid
        Coarse and fine grid.
    static : ndarray
        Standardised fine fields without NaN. Shape ``(C_s, Y, X)``, float32.
    static_names : tuple of str
        Their names.
    lr_mean, lr_std : ndarray
        Training statistics of the predictors, after the root of precipitation.
        Shape ``(C_lr, 1|y, 1|x)``, float32.
    lr_fill : ndarray
        Raw value that replaces a missing predictor. Shape ``(C_lr, 1|y, 1|x)``.
    lr_root : tuple of int
        Predictor channels that enter as their square root: precipitation, whose tail
        would otherwise lie tens of standard deviations out.
    nan_fill : {"zero", "mean", "interpolate"}
        How missing predictors are filled.
    codec : TargetCodec
        Between fields and encoded fields.
    baseline : Baseline
        Between predictors and fields, without the generator.
    residual_mean, residual_std : ndarray
        Training statistics of the encoded residual. Shape ``(C, 1|Y, 1|X)``, float32.
    score_std : ndarray
        Spread over training of scored truth minus scored baseline, the yardstick that
        makes losses of different variables comparable. Shape ``(C,)``, float32.
    valid : ndarray
        Cells with training truth. Shape ``(C, Y, X)``, bool.
    calendar : str
        CF calendar of the training data.
    seq_len : int
        Days per window T.
    periods : dict
        ``[start, end]`` of every split, ISO dates; several pairs where a split has
        several pieces.
    time_step : str
        ``daily``, or ``native`` where steps shorter than a day are kept.
    step_seconds : int
        Length of a step, s; 86400 for days.
    lr_coarsen : int
        Block side over which the predictors' own grid was averaged.
    """

    channels: tuple[Channel, ...]
    targets: tuple[TargetVariable, ...]
    lr_grid: Grid
    hr_grid: Grid
    static: FloatArray
    static_names: tuple[str, ...]
    lr_mean: FloatArray
    lr_std: FloatArray
    lr_fill: FloatArray
    lr_root: tuple[int, ...] = ()
    nan_fill: FillStrategy = "zero"
    codec: TargetCodec
    baseline: Baseline
    residual_mean: FloatArray
    residual_std: FloatArray
    score_std: FloatArray
    valid: NDArray[np.bool_]
    calendar: str
    seq_len: int
    periods: dict[str, list[str]] = field(default_factory=dict)
    time_step: str = "daily"
    step_seconds: int = DAY
    lr_coarsen: int = 1

    def fill_lr(self, raw: FloatArray) -> FloatArray:
        """Return raw predictors without NaN. Shape ``(T, C_lr, y, x)``."""
        return fill_missing(raw, self.lr_fill, self.nan_fill)

    def standardise_lr(self, raw: FloatArray) -> FloatArray:
        """Return raw predictors standardised and without NaN, float32.

        Canonical units, NaN where missing. Shape ``(T, C_lr, y, x)``.
        """
        values = rooted(self.fill_lr(raw), self.lr_root)
        return ((values - self.lr_mean) / self.lr_std).astype(np.float32)

    def physical_lr(self, standardised: FloatArray) -> FloatArray:
        """Return standardised predictors in canonical units again."""
        out = (standardised * self.lr_std + self.lr_mean).astype(np.float32)
        for channel in self.lr_root:
            out[:, channel] = np.square(np.maximum(out[:, channel], 0.0))
        return out

    def predict_baseline(
        self,
        raw: FloatArray,
        season: FloatArray,
        truth: FloatArray | None = None,
        *,
        before: FloatArray | None = None,
        key: Indices | None = None,
    ) -> FloatArray:
        """Return the baseline in target units, without NaN.

        See :class:`st_cdgm.data.fit.baseline.contract.BaselineDays`; ``raw`` and
        ``before`` may be NaN where missing.
        """
        days = BaselineDays(
            lr=self.fill_lr(raw),
            season=season,
            truth=truth,
            before=None if before is None else self.fill_lr(before),
            key=key,
        )
        return self.baseline.predict_days(days)

    @property
    def history(self) -> int:
        """Days of predictors that a day needs, itself included."""
        return max(self.seq_len, self.baseline.history)

    def encode_baseline(self, baseline: FloatArray | Tensor) -> Tensor:
        """Encode baselines in target units. Shape ``(..., C, Y, X)``."""
        return self.codec.encode(as_tensor(baseline))

    def residual(self, truth: Tensor, baseline: Tensor) -> Tensor:
        """Return the standardised residual of an encoded truth, NaN where it is."""
        mean, std = self._scale(truth.device)
        return (truth - baseline - mean) / std

    def prepare(
        self, lr: FloatArray, baseline: FloatArray, hr: FloatArray
    ) -> dict[str, FloatArray]:
        """Return all that a model learns from, encoded.

        Of standardised predictors, ``(T, C_lr, y, x)``, and baseline and truth in
        target units, ``(T, C, Y, X)``: ``lr`` as given; ``baseline`` and ``hr``
        encoded; ``residual`` standardised; NaN where there is no truth.
        """
        encoded = self.encode_baseline(baseline)
        truth = self.codec.encode(as_tensor(hr))
        residual = self.residual(truth, encoded)
        residual.masked_fill_(~torch.isfinite(residual), torch.nan)
        fields = {"baseline": encoded, "residual": residual, "hr": truth}
        return {"lr": lr} | {key: value.numpy() for key, value in fields.items()}

    def decode(self, residual: Tensor, encoded_baseline: Tensor) -> Tensor:
        """Return fields in target units that keep the codec's guarantees.

        Of standardised residuals, ``(..., C, Y, X)``; the baseline is broadcastable to
        them, e.g. ``(B, 1, C, Y, X)`` for members.
        """
        return self.codec.decode(self.encoded(residual, encoded_baseline))

    def scored(self, residual: Tensor, encoded_baseline: Tensor) -> Tensor:
        """Return the fields in the scale of training scores; see the codec."""
        return self.codec.scored(self.encoded(residual, encoded_baseline))

    @property
    def bytes_per_day(self) -> int:
        """Memory of one day as :meth:`prepare` returns it."""
        coarse = len(self.channels) * int(np.prod(self.lr_grid.shape))
        return 4 * (coarse + 3 * int(self.valid.size))

    def to_state(self) -> State:
        """Return JSON-able facts and arrays, from which :meth:`from_state` rebuilds."""
        arrays: dict[str, NDArray[Any]] = {
            key: np.ascontiguousarray(getattr(self, key)) for key in _ARRAYS
        }
        meta: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "channels": [asdict(channel) for channel in self.channels],
            "targets": [asdict(target) for target in self.targets],
            "static_names": list(self.static_names),
            "lr_root": list(self.lr_root),
            "codec": self.codec.to_dict(),
            **{key: getattr(self, key) for key in _FACTS},
        }
        for key in _STATES:
            facts, fields = getattr(self, key).to_state()
            meta[key] = facts
            arrays |= {f"{key}.{name}": value for name, value in fields.items()}

        return meta, arrays

    @classmethod
    def from_state(
        cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> Preprocessor:
        """Rebuild the preprocessor written by :meth:`to_state`.

        Raises
        ------
        InputError
            If another version of the format wrote it.
        """
        if meta.get("format_version") != FORMAT_VERSION:
            raise InputError(
                "a preprocessor of another format version",
                found=meta.get("format_version"),
                expected=FORMAT_VERSION,
                remedy="use the version of the package that wrote it, or train again",
            )

        return cls(
            channels=tuple(Channel(**channel) for channel in meta["channels"]),
            targets=tuple(TargetVariable(**target) for target in meta["targets"]),
            static_names=tuple(meta["static_names"]),
            lr_root=tuple(meta["lr_root"]),
            codec=TargetCodec.from_dict(meta["codec"]),
            **{
                key: kind.from_state(meta[key], filed(arrays, key))
                for key, kind in _STATES.items()
            },
            **cast("Any", {key: meta[key] for key in _FACTS if key in meta}),
            **cast("Any", {key: np.asarray(arrays[key]) for key in _ARRAYS}),
        )

    def encoded(self, residual: Tensor, encoded_baseline: Tensor) -> Tensor:
        """Return encoded fields of standardised residuals; see :meth:`decode`."""
        mean, std = self._scale(residual.device)
        return encoded_baseline + residual * std + mean

    def _scale(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return residual mean and std on a device, kept there between calls."""
        kept: dict[torch.device, tuple[Tensor, Tensor]]
        kept = self.__dict__.setdefault("_scales", {})
        if device not in kept:
            both = (self.residual_mean, self.residual_std)
            mean, std = (torch.as_tensor(x, device=device) for x in both)
            kept[device] = mean, std
        return kept[device]


def as_tensor(values: FloatArray | Tensor) -> Tensor:
    """Return an array as a float32 tensor; a tensor passes as it is."""
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
