"""The physical losses of a trained task: which channels, on which grid, in which units.

Both are made dimensionless, so that their weights mean the same for every task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from st_cdgm.data.fit.baseline.combined import CombinedBaseline, counterparts
from st_cdgm.data.fit.baseline.lr_interp import LrInterpBaseline
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import ConfigError
from st_cdgm.physics.blocks import loss_block_mean
from st_cdgm.physics.coarse_means import Counterpart, coarse_blocks
from st_cdgm.physics.derivatives import WindDerivatives
from st_cdgm.physics.wind import loss_physical, wind_pairs

# Components along the rows and columns of whatever grid they are on.
_ALONG_GRID = {"x_wind", "grid_eastward_wind"}


@dataclass(frozen=True)
class WindTerm:
    """MSE of divergence and vorticity of all wind pairs among the targets.

    ``pairs`` are the channels of eastward and northward components, ``scales`` the
    factor of each pair's residuals, broadcastable to ``(2, Y, X)``.
    """

    pairs: list[tuple[int, int]]
    scales: list[Tensor]
    derivatives: WindDerivatives

    @classmethod
    def of(cls, preprocessor: Preprocessor) -> WindTerm:
        """Make the term of a trained task.

        In grid cells and standard deviations: the wind is divided by the mean
        ``score_std`` of the pair, lengths by the mean distance of rows.

        Raises
        ------
        ConfigError
            No pair of wind components, or components that do not follow the grid.
        """
        targets = preprocessor.targets
        pairs = wind_pairs(targets)
        if not pairs:
            raise ConfigError(
                "the physical loss needs wind among the targets",
                variable="loss.lambda_phy",
                found=", ".join(t.name for t in targets),
                expected="a pair such as uas and vas, or 0",
                remedy="set loss.lambda_phy: 0",
            )

        grid = preprocessor.hr_grid
        if not grid.regular and any(
            targets[u].standard_name not in _ALONG_GRID for u, _ in pairs
        ):
            raise ConfigError(
                "the wind does not follow the rows and columns of its grid",
                variable="loss.lambda_phy",
                found=f"{targets[pairs[0][0]].name} on a {grid.kind} grid",
                expected="a regular grid, or " + " | ".join(sorted(_ALONG_GRID)),
                remedy="set loss.lambda_phy: 0",
            )

        # Standardised residuals back to wind, in the pair's mean score_std.
        std = torch.as_tensor(preprocessor.residual_std)
        score = preprocessor.score_std
        scales = [std[[u, v]] / float(score[[u, v]].mean()) for u, v in pairs]
        return cls(pairs, scales, _derivatives_in_cells(grid))

    def __call__(self, members: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Return the loss of standardised residuals; see :func:`wind_loss`."""
        terms = [
            wind_loss(
                members[:, :, pair] * scale.to(members),
                target[:, pair] * scale.to(target),
                valid[:, pair],
                self.derivatives,
            )
            for pair, scale in zip(map(list, self.pairs), self.scales, strict=True)
        ]
        return torch.stack(terms).mean()


def wind_loss(
    members: Tensor, target: Tensor, valid: Tensor, derivatives: WindDerivatives
) -> Tensor:
    """MSE of divergence and vorticity of the ensemble mean, fair for any M.

    The error of a mean of M members contains a share 1/M of their variance, which would
    be pulled to 0; it is estimated from the members and taken off. Shapes ``(B, M, 2,
    Y, X)`` of the members, ``(B, 2, Y, X)`` of target and valid cells.
    """
    b, m = members.shape[:2]
    mean = members.mean(dim=1)
    loss = loss_physical(mean, target, valid=valid, derivatives=derivatives)
    if m == 1:
        return loss
    spread = loss_physical(
        members.flatten(0, 1),
        mean.repeat_interleave(m, dim=0),
        valid=valid.repeat_interleave(m, dim=0),
        derivatives=derivatives,
    )
    return loss - spread / (m - 1)


class BlockTerm:
    """MSE of the members' block means against the coarse counterparts.

    In variances of the counterparts, averaged over them.

    Raises
    ------
    ConfigError
        No target has a counterpart, or the codec has no gradient.
    """

    def __init__(self, preprocessor: Preprocessor) -> None:
        self.preprocessor = preprocessor
        self.counterparts = coarse_counterparts(preprocessor)
        if not preprocessor.codec.differentiable:
            raise ConfigError(
                "a target transform given as a function has no gradient",
                variable="loss.lambda_block",
                expected="0, or data.precipitation_codec",
            )
        if not self.counterparts:
            raise ConfigError(
                "no target has a coarse counterpart",
                variable="loss.lambda_block",
                found=", ".join(t.name for t in preprocessor.targets),
                expected="a surface predictor of the same quantity, or 0",
                remedy="name it in data.baseline_map, or set loss.lambda_block: 0",
            )

        self.blocks = coarse_blocks(preprocessor.lr_grid, preprocessor.hr_grid)

    def __call__(
        self, members: Tensor, baseline: Tensor, lr: Tensor, valid: Tensor
    ) -> Tensor:
        """Return the loss of standardised residuals ``(B, M, C, Y, X)``.

        With the encoded baseline and the cells that count, ``(B, C, Y, X)``, and the
        standardised predictors of the day, ``(B, C_lr, y, x)``.
        """
        fields = self.preprocessor.decode(members, baseline[:, None])
        terms = []
        for part in self.counterparts:
            coarse, variance = self._coarse(part, lr)
            loss = loss_block_mean(
                fields[:, :, part.target],
                coarse[:, None],
                self.blocks,
                valid=valid[:, None, part.target],
            )
            terms.append(loss / variance)
        return torch.stack(terms).mean()

    def _coarse(self, part: Counterpart, lr: Tensor) -> tuple[Tensor, float]:
        """Return a counterpart in target units, and its typical variance."""
        prep, c = self.preprocessor, part.channel
        mean, std = (torch.as_tensor(x[c]).to(lr) for x in (prep.lr_mean, prep.lr_std))
        values = lr[:, c] * std + mean
        variance = float((std**2).mean())
        if c in prep.lr_root:
            values = values.clamp(min=0) ** 2
            # Of the square of a Gaussian: 4 m^2 s^2 + 2 s^4.
            variance = 4 * float((mean**2).mean()) * variance + 2 * variance**2
        variance *= part.factor**2
        return values * part.factor + part.offset, max(variance, 1e-12)


def coarse_counterparts(preprocessor: Preprocessor) -> list[Counterpart]:
    """Find the targets that the coarse model has too.

    Those that the baseline interpolates; without such a baseline, the surface channels
    of the same name or standard name whose units convert.
    """
    baseline = preprocessor.baseline
    found = []
    for part, targets in getattr(baseline, "parts", ()):
        if isinstance(part, LrInterpBaseline):
            sources = zip(targets, part.source, part.convert, strict=True)
            found += [Counterpart(t, c, *convert) for t, c, convert in sources]
    if found or not isinstance(baseline, CombinedBaseline):
        return found

    names = counterparts(preprocessor.targets, preprocessor.channels)
    for i, target in enumerate(preprocessor.targets):
        channel = names.get(target.name)
        if channel is not None:
            given = preprocessor.channels[channel].units
            convert = units_factor(given, target.units)
            if convert is not None:
                found.append(Counterpart(i, channel, *convert))

    return found


def _derivatives_in_cells(grid: Grid) -> WindDerivatives:
    """Return the operator with the mean distance of rows as unit of length."""
    y, x = (grid.lat, grid.lon) if grid.regular else (grid.y, grid.x)
    if y is None or x is None:
        raise ConfigError(
            "the fine grid has no coordinates along its rows and columns",
            variable="loss.lambda_phy",
            found=f"a {grid.kind} grid",
            expected="a regular, rotated or projected grid, or 0",
        )

    step = np.abs(np.diff(y)).mean()
    if grid.regular or grid.kind == "rotated_latitude_longitude":
        return WindDerivatives.spherical(y, x, radius=1 / np.deg2rad(step))
    shape = (len(y), len(x))
    return WindDerivatives.planar(
        shape, float(np.diff(x).mean() / step), float(np.diff(y).mean() / step)
    )
