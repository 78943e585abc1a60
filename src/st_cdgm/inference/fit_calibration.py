"""Bias and spread of a trained model, from days that it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.checkpoint.directory import Checkpoint
from st_cdgm.data.fit.preprocessor import Preprocessor, as_tensor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.errors import InputError
from st_cdgm.inference.calibration import YEARS_BEYOND, Bands, Calibration, year_of
from st_cdgm.inference.members import batches, draw_residuals
from st_cdgm.inference.memory import spells
from st_cdgm.models.sampling import Sampling
from st_cdgm.typing import Floats

logger = logging.getLogger(__name__)

ROUNDS = 4  # precipitation is cut off at 0, so that one round does not suffice
FACTORS = (0.5, 2.0)
# What members may take; of large fields fewer days are drawn, but so many at least.
MEMBER_BYTES, FEWEST_DAYS = 128 * 2**20, 20
# A trend needs so many years, and to be so many standard errors away from 0.
TREND_YEARS, TREND_ERRORS = 8, 2.0
# Years with less than this share of the days of the longest do not count.
_FULL_YEAR = 0.8


def fit_calibration(
    networks: Sequence[Checkpoint],
    validation: Sequence[FieldArrays],
    *,
    bias: bool = True,
    spread: bool = True,
    trend: Calibration | None = None,
    members: int = 8,
    days: int = 120,
    batch_days: int = 16,
    seed: int = 0,
) -> Calibration:
    """Find what puts bias and spread of a network, or of a pool as a whole, right.

    The shift of a target is the mean error of the ensemble mean over validation days.
    The factor of each length scale makes the variance of members as large as that of
    the errors at this scale, both less what the finite ensemble adds. The networks of a
    pool err unlike: what their means differ by is spread already.

    Precipitation is compared as the root of its amount, all else as encoded.

    Parameters
    ----------
    networks : sequence of Checkpoint
        One, or all networks of a pool, of one codec; they are left as they are.
    validation : sequence of FieldArrays
        The same days with truth, as each network sees them.
    bias, spread : bool
        What to find.
    trend : Calibration, optional
        What :func:`find_trend` found; the shift is then that of the validation years.
    members, days, batch_days, seed : int
        Members of each network; how many days, in spells spread over the record; how
        they are drawn.

    Raises
    ------
    InputError
        No truth, or no cell with truth on all these days.
    """
    # Encoded members on some validation days, of every network.
    prep = networks[0].preprocessor
    a_day = 4 * members * len(networks) * prep.valid.size
    days = min(days, max(FEWEST_DAYS, MEMBER_BYTES // a_day))
    chosen = [spells(arrays, days) for arrays in validation]
    truth = chosen[0].hr
    if truth is None:
        raise InputError("bias and spread are found on days with truth")

    drawn = [
        _Drawn.of(network, arrays, members=members, batch_days=batch_days, seed=seed)
        for network, arrays in zip(networks, chosen, strict=True)
    ]

    valid = prep.valid & np.isfinite(truth).all(axis=0)
    if not valid.any(axis=(1, 2)).all():
        raise InputError(
            "no cell has truth on all validation days that the spread is fitted on",
            variable=", ".join(t.name for t in prep.targets),
        )

    # Round after round, from what the ones before left over.
    bands = Bands.of(prep, valid)
    goal = measured(prep, prep.codec.encode(as_tensor(np.nan_to_num(truth))))
    shift = torch.zeros(len(valid))
    factors = torch.ones(len(valid), bands.count)
    for _ in range(ROUNDS):
        made = [one.put_right(shift, factors) for one in drawn]
        mean = torch.stack([fields.mean(dim=1) for fields in made]).mean(dim=0)
        cells = bands.valid.sum(dim=(1, 2))

        error = (goal - mean) * bands.valid
        level = error.sum(dim=(2, 3)).mean(dim=0) / cells  # (C,)
        if bias:
            shift = shift + level
            error = error - level[:, None, None]
        if spread:
            ratio = _spread_ratio(bands, made, mean, error)
            factors = (factors * ratio).clamp(*FACTORS)

    years = year_of(chosen[0].day)
    names = [target.name for target in prep.targets]
    found = Calibration(
        factors=dict(zip(names, _rounded(factors), strict=True)) if spread else {},
        shift=dict(zip(names, _rounded(shift), strict=True)) if bias else {},
        trend=trend.trend if trend is not None and bias else {},
        year=float(years.mean()),
        years=trend.years if trend is not None else (0.0, 0.0),
    )
    logger.info("calibration on %d days: %s", len(years), found.to_meta())
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """Members of one network on validation days, encoded: (T, M, C, Y, X)."""

    preprocessor: Preprocessor
    members: Tensor
    bands: Bands

    @classmethod
    def of(cls, network: Checkpoint, arrays: FieldArrays, **options: Any) -> _Drawn:
        prep, blind = network.preprocessor, replace(arrays, hr=None)
        made = []
        size, seed = options["batch_days"], options["seed"]
        for _, batch in batches(network, blind, size=size):
            residual = draw_residuals(
                network.model,
                prep,
                batch,
                members=range(options["members"]),
                seed=seed,
                sampling=Sampling(calibrate=False),
            )
            made.append(prep.encoded(residual, batch.baseline[:, -1][:, None]).cpu())
        return cls(preprocessor=prep, members=torch.cat(made), bands=Bands.of(prep))

    def put_right(self, shift: Tensor, factors: Tensor) -> Tensor:
        """Return the fields to compare with these factors and shifts."""
        mean = self.members.mean(dim=1, keepdim=True)
        right = mean + self.bands.scaled(self.members - mean, factors)
        return measured(self.preprocessor, right + shift[:, None, None])


def measured(preprocessor: Preprocessor, encoded: Tensor) -> Tensor:
    """Return fields in which spread and errors are compared. ``(..., C, Y, X)``.

    Encoded ones, but roots of the amounts of what is never negative: a member far below
    0 is as dry as one just below.
    """
    out = encoded.clone()
    channels = list(preprocessor.codec.nonnegative)
    if channels:
        amounts = preprocessor.codec.decode(encoded)[..., channels, :, :]
        out[..., channels, :, :] = amounts.clamp(min=0).sqrt()
    return out


def _spread_ratio(
    bands: Bands, made: list[Tensor], mean: Tensor, error: Tensor
) -> Tensor:
    """Return by how much deviations are too small, per target and part. ``(C, parts)``.

    ``made`` are the members of each network, ``mean`` is that of all.
    """
    networks, members = len(made), made[0].shape[1]
    within = torch.zeros(error.shape[1], bands.count)
    between = torch.zeros_like(within)
    for fields in made:
        own = fields.mean(dim=1, keepdim=True)
        power = _power(bands, fields - own) * members / (members - 1)
        within += power / networks
        between += _power(bands, own[:, 0] - mean) / networks

    # The means of few members differ by chance alone.
    between -= within / members * (1 - 1 / networks)
    wanted = _power(bands, error) - within / (members * networks)
    ratio = (wanted - between.clamp(min=0)) / within.clamp(min=1e-12)
    return ratio.clamp(min=0.05).sqrt()


def _power(bands: Bands, fields: Tensor) -> Tensor:
    """Return the mean square of each part over days, members and cells. (C, parts)."""
    cells = bands.valid.sum(dim=(1, 2))
    squares = [part.square().sum(dim=(-2, -1)) for part in bands.split(fields)]
    means = [one.reshape(-1, one.shape[-1]).mean(dim=0) / cells for one in squares]
    return torch.stack(means, dim=1)


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().numpy(), 4).tolist()


# -- Trend -----------------------------------------------------------------------------


def find_trend(pipeline: PipelineViews) -> Calibration:
    """Return the linear trend of the baseline's errors over training and validation.

    Of a cross-fitted baseline alone: others fit the training years they are judged on.
    A target gets one where there are eight years and the slope is more than two
    standard errors away from 0.
    """
    names = [target.name for target in pipeline.preprocessor.targets]
    if not pipeline.preprocessor.baseline.cross_fitted:
        logger.info("no trend: the baseline of training days has seen their year")
        return Calibration()

    # Mean error of each year, encoded.
    sums: dict[int, Floats] = {}
    for split in ("train", "validation"):
        years, start = year_of(pipeline.days.key[pipeline.indices[split]]), 0
        for part in pipeline.blocks(split):
            error = _mean_errors(part["hr"] - part["baseline"])
            for year, row in zip(years[start:], error, strict=False):
                if np.isfinite(row).all():
                    total = sums.setdefault(int(year), np.zeros(len(names) + 1))
                    total += [*row, 1.0]
            start += len(error)

    most = max((total[-1] for total in sums.values()), default=0.0)
    kept = {y: t[:-1] / t[-1] for y, t in sums.items() if t[-1] >= _FULL_YEAR * most}
    years = np.array(sorted(kept), dtype=np.float64)
    if len(years) < TREND_YEARS:
        logger.info("no trend: %d full years, %d are needed", len(years), TREND_YEARS)
        return Calibration()

    slope, error = _slopes(years, np.stack([kept[int(y)] for y in years]))
    sure = np.abs(slope) > TREND_ERRORS * error
    found = {n: float(b) for n, b, s in zip(names, slope, sure, strict=True) if s}
    logger.info("trend of errors per year: %s", found or "none")
    last = float(years[-1]) + YEARS_BEYOND
    return Calibration(trend=found, years=(float(years[0]), last))


def _mean_errors(error: NDArray[np.float32]) -> Floats:
    """Return the mean over cells with truth of each day, NaN without. ``(T, C)``."""
    known = np.isfinite(error)
    total = np.where(known, error, 0.0).sum(axis=(2, 3), dtype=np.float64)
    count = known.sum(axis=(2, 3))
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _slopes(years: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return slopes and their standard errors, each ``(C,)``, of values ``(n, C)``."""
    away = years - years.mean()
    square = float((away**2).sum())
    slope = away @ values / square
    left = values - values.mean(axis=0) - away[:, None] * slope
    variance = (left**2).sum(axis=0) / (len(years) - 2)
    return slope, np.sqrt(variance / square)
