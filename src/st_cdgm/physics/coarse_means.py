"""Ensembles whose block means are those of the coarse model, exactly.

A variable that is learned as it is (temperatures, wind) is held to them inside the
sampler, at every estimate of the clean field, so that the draw comes from the
distribution given the block means (`st_cdgm.physics.blocks`). Encodings that are
not linear (precipitation, steps between ordered temperatures) are held to them after
decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.space.grid import nearest_index
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import ConfigError
from st_cdgm.physics.blocks import (
    BlockMeanProjection,
    Blocks,
    complete_blocks,
    match_block_means,
)


@dataclass(frozen=True)
class CoarseMeans:
    """Which targets have which coarse means.

    Attributes
    ----------
    preprocessor : Preprocessor
        Targets, predictors, grids and codec.
    channels : dict of int to int
        Target channel -> predictor channel.
    convert : dict of int to tuple of float
        Target channel -> factor and offset from the predictor's units to its own.
    blocks : Blocks
        Fine cells with training truth of every coarse cell that they fill by half at
        least.
    """

    preprocessor: Preprocessor
    channels: dict[int, int]
    convert: dict[int, tuple[float, float]]
    blocks: Blocks

    @classmethod
    def of(
        cls, preprocessor: Preprocessor, names: Mapping[str, str], *, section: str = ""
    ) -> CoarseMeans:
        """Find the variables named.

        Parameters
        ----------
        preprocessor : Preprocessor
            Of the model that is sampled.
        names : mapping of str to str
            Target -> predictor of the same quantity.
        section : str
            Put before ``block_means`` in messages, ``inference.`` for instance.

        Raises
        ------
        ConfigError
            An unknown target or predictor, units that do not convert, or an ordered
            temperature without the colder ones.
        """
        variable = f"{section}block_means"
        targets = [t.name for t in preprocessor.targets]
        predictors = [c.name for c in preprocessor.channels]
        channels, convert = {}, {}
        for target, source in names.items():
            for name, known, what in (
                (target, targets, "target"),
                (source, predictors, "predictor"),
            ):
                if name not in known:
                    raise ConfigError(
                        f"block means of an unknown {what}",
                        variable=variable,
                        found=f"{target}: {source}",
                        expected=f"{what}s " + ", ".join(known),
                    )
            t, c = targets.index(target), predictors.index(source)
            units = preprocessor.channels[c].units, preprocessor.targets[t].units
            factor = units_factor(*units)
            if factor is None:
                raise ConfigError(
                    f"{source} is no coarse counterpart of {target}",
                    variable=variable,
                    found=f"{units[0]} and {units[1]}",
                    expected="units that convert",
                )
            channels[t], convert[t] = c, factor
        _check_order(preprocessor.codec, set(channels), variable)
        lr, hr = preprocessor.lr_grid, preprocessor.hr_grid
        blocks = complete_blocks(
            torch.from_numpy(nearest_index(lr, hr)),
            hr.shape,
            lr.shape[0] * lr.shape[1],
            area=torch.from_numpy(np.array(hr.area_weights())),
            valid=torch.from_numpy(np.asarray(preprocessor.valid).all(axis=0)),
        )
        return cls(preprocessor, channels, convert, blocks)

    def values(self, lr: Tensor) -> Tensor:
        """Return the coarse means in target units, NaN where free.

        Parameters
        ----------
        lr : Tensor
            Standardised predictors of the days. Shape ``(B, C_lr, y, x)``.

        Returns
        -------
        Tensor
            Shape ``(B, C, K)``, float64.
        """
        fields = self.preprocessor.physical_lr(lr.cpu().numpy())
        shape = (len(fields), len(self.preprocessor.targets), self.blocks.count)
        coarse = np.full(shape, np.nan)
        for target, channel in self.channels.items():
            factor, offset = self.convert[target]
            coarse[:, target] = (
                fields[:, channel].reshape(len(fields), -1) * factor + offset
            )
            if target in self.preprocessor.codec.nonnegative:
                coarse[:, target] = np.maximum(coarse[:, target], 0.0)
        return torch.from_numpy(coarse).to(lr.device)

    def projection(
        self, coarse: Tensor, baseline: Tensor
    ) -> BlockMeanProjection | None:
        """Return what holds the linear channels to their means inside the sampler.

        Parameters
        ----------
        coarse : Tensor
            From :meth:`values`.
        baseline : Tensor
            Encoded first guess. Shape ``(B, C, Y, X)``.
        """
        codec, prep = self.preprocessor.codec, self.preprocessor
        linear = set(self.channels) & set(codec.unchanged)
        if not linear:
            return None
        free = [c for c in range(coarse.shape[1]) if c not in linear]
        bound = coarse.clone()
        bound[:, free] = torch.nan
        mean = torch.as_tensor(prep.residual_mean, device=baseline.device)
        return BlockMeanProjection(
            self.blocks, bound, baseline + mean, torch.as_tensor(prep.residual_std)
        )

    def match(self, fields: Tensor, coarse: Tensor) -> Tensor:
        """Hold decoded fields ``(B, M, C, Y, X)`` to all their means."""
        codec = self.preprocessor.codec
        return match_block_means(
            fields,
            coarse[:, None].expand(-1, fields.shape[1], -1, -1),
            self.blocks,
            ordered=codec.ordered,
            nonnegative=codec.nonnegative,
            wet_threshold=codec.wet_threshold,
        )


def _check_order(codec: TargetCodec, chosen: set[int], variable: str) -> None:
    """Raise unless the colder temperatures that a held one lies above are held too."""
    for place, channel in enumerate(codec.ordered):
        missing = [codec.names[c] for c in codec.ordered[:place] if c not in chosen]
        if channel in chosen and missing:
            raise ConfigError(
                f"{codec.names[channel]} lies a step above {', '.join(missing)}, whose "
                "means are free",
                variable=variable,
                found=codec.names[channel],
                expected=f"also {', '.join(missing)}, or neither",
            )
