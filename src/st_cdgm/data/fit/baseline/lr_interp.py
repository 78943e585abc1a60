"""Baseline: a coarse counterpart of each target, interpolated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from st_cdgm.data.fit.baseline.contract import Baseline, BaselineTask
from st_cdgm.data.space.grid import Interpolation, interpolation
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import InputError, MissingVariableError
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, State


@register("baseline", "lr_interp")
@dataclass(frozen=True, eq=False)
class LrInterpBaseline(Baseline):
    """Interpolate a coarse counterpart of each target by coordinates.

    Attributes
    ----------
    source : tuple of int
        Predictor channel of each target.
    convert : tuple of (float, float)
        Factor and offset from the channel's units: (1, -273.15) from K to degC.
    to_fine : Interpolation
        From the coarse to the fine grid.
    """

    source: tuple[int, ...]
    convert: tuple[tuple[float, ...], ...]
    to_fine: Interpolation

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Interpolate the counterparts of all targets.

        Raises
        ------
        MissingVariableError
            If a target has none.
        InputError
            If the units of a target and its counterpart differ in an unknown way.
        """
        missing = [t.name for t in task.targets if t.name not in task.found]
        if missing:
            raise MissingVariableError(
                "no coarse counterpart for a target",
                variable=", ".join(missing),
                found=", ".join(c.name for c in task.channels),
                expected="a predictor channel for each target",
                remedy="name one in data.baseline_map, or use baseline_strategy auto",
            )

        source = tuple(task.found[target.name] for target in task.targets)
        pairs = zip(source, task.targets, strict=True)
        convert = tuple(_conversion(task.channels[c], target) for c, target in pairs)
        return cls(source, convert, interpolation(task.lr_grid, task.hr_grid))

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the interpolated counterparts; see :meth:`Baseline.predict`."""
        del season, truth
        used = sorted(set(self.source))
        order = [used.index(i) for i in self.source]
        fine = self.to_fine.apply(lr[:, used])
        factor, offset = np.asarray(self.convert, dtype=np.float32).T[..., None, None]
        return np.asarray(fine[:, order] * factor + offset, dtype=np.float32)

    def to_state(self) -> State:
        """Return facts and arrays."""
        meta = {
            "source": list(self.source),
            "convert": [list(pair) for pair in self.convert],
            "target_shape": list(self.to_fine.target_shape),
        }
        return meta, {"index": self.to_fine.index, "weight": self.to_fine.weight}

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild it."""
        rows, columns = meta["target_shape"]
        to_fine = Interpolation(
            index=arrays["index"], weight=arrays["weight"], target_shape=(rows, columns)
        )
        return cls(tuple(meta["source"]), tuple(map(tuple, meta["convert"])), to_fine)


def _conversion(channel: Channel, target: TargetVariable) -> tuple[float, float]:
    """Return factor and offset from a channel's units to a target's."""
    found = units_factor(channel.units, target.units)
    if found is None:
        raise InputError(
            "a target and its coarse counterpart have units that do not convert",
            variable=f"{target.name} from {channel.name}",
            found=f"{channel.units} for {target.units}",
            expected="units of the same kind",
            remedy="map another channel in data.baseline_map or use climatology",
        )
    return found
