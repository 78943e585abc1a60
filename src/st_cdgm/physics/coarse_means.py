"""Ensembles whose block means are those of the coarse model, exactly.

A variable that is learned as it is (temperatures, wind) is held to them inside the
sampler, at every estimate of the clean field, so that the draw comes from the
distribution given the block means (`st_cdgm.physics.constraints`). Encodings that
are not linear (precipitation, steps between ordered temperatures) are held to them
after decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.space.grid import Grid, nearest_index
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import ConfigError, check_choice
from st_cdgm.physics.blocks import Blocks, complete_blocks
from st_cdgm.physics.constraints import BlockMeanProjection, match_block_means


@dataclass(frozen=True)
class Counterpart:
    """A target that also exists on the coarse grid, as a predictor channel.

    ``factor`` and ``offset`` lead from the channel's canonical units to the target's.
    """

    target: int
    channel: int
    factor: float
    offset: float


@dataclass(frozen=True)
class CoarseMeans:
    """Which targets have which coarse means.

    The ``blocks`` are the fine cells with training truth of every coarse cell that they
    fill by half at least.
    """

    preprocessor: Preprocessor
    parts: list[Counterpart]
    blocks: Blocks

    @classmethod
    def of(
        cls, preprocessor: Preprocessor, names: Mapping[str, str], *, section: str = ""
    ) -> CoarseMeans:
        """Find the variables named, each target with a predictor of the same quantity.

        ``section`` is put before ``block_means`` in messages.

        Raises
        ------
        ConfigError
            An unknown target or predictor, units that do not convert, or an ordered
            temperature without the colder ones.
        """
        variable = f"{section}block_means"
        targets = {t.name: i for i, t in enumerate(preprocessor.targets)}
        predictors = {c.name: i for i, c in enumerate(preprocessor.channels)}
        parts = []
        for target, source in names.items():
            check_choice(f"target of {variable}", target, tuple(targets), section="")
            check_choice(
                f"predictor of {variable}", source, tuple(predictors), section=""
            )

            t, c = targets[target], predictors[source]
            units = preprocessor.channels[c].units, preprocessor.targets[t].units
            factor = units_factor(*units)
            if factor is None:
                raise ConfigError(
                    f"{source} is no coarse counterpart of {target}",
                    variable=variable,
                    found=f"{units[0]} and {units[1]}",
                    expected="units that convert",
                )

            parts.append(Counterpart(t, c, *factor))

        # Cells that never have a truth (the sea) belong to no block.
        _check_order(preprocessor.codec, {part.target for part in parts}, variable)
        blocks = coarse_blocks(
            preprocessor.lr_grid,
            preprocessor.hr_grid,
            valid=torch.from_numpy(np.asarray(preprocessor.valid).all(axis=0)),
        )
        return cls(preprocessor, parts, blocks)

    def values(self, lr: Tensor) -> Tensor:
        """Return the coarse means in target units, NaN where free.

        Of standardised predictors ``(B, C_lr, y, x)``: ``(B, C, K)``, float64.
        """
        fields = self.preprocessor.physical_lr(lr.cpu().numpy())
        shape = (len(fields), len(self.preprocessor.targets), self.blocks.count)
        coarse = np.full(shape, np.nan)
        for part in self.parts:
            values = fields[:, part.channel].reshape(len(fields), -1)
            coarse[:, part.target] = values * part.factor + part.offset
        amounts = list(self.preprocessor.codec.nonnegative)
        coarse[:, amounts] = np.maximum(coarse[:, amounts], 0.0)
        return torch.from_numpy(coarse).to(lr.device)

    def projection(
        self, coarse: Tensor, baseline: Tensor
    ) -> BlockMeanProjection | None:
        """Return what holds the linear channels to their means inside the sampler.

        ``coarse`` is from :meth:`values`; the encoded baseline is ``(B, C, Y, X)``.
        """
        codec, prep = self.preprocessor.codec, self.preprocessor
        linear = {part.target for part in self.parts} & set(codec.unchanged)
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
            wet_threshold=codec.wet_thresholds,
        )


def coarse_blocks(coarse: Grid, fine: Grid, *, valid: Tensor | None = None) -> Blocks:
    """Return the fine cells nearest to each coarse cell; see `complete_blocks`."""
    return complete_blocks(
        torch.from_numpy(nearest_index(coarse, fine)),
        fine.shape,
        coarse.shape[0] * coarse.shape[1],
        area=torch.from_numpy(np.array(fine.area_weights())),
        valid=valid,
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
