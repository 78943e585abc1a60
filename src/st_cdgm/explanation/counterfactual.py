"""Ensembles of fine fields as they were drawn, and as they would have been.

The coarse fields of the other world come from the world model, baseline and derived
predictors from these, and the generator has the same random numbers for the same
(seed, member, day) in both worlds: what differs between them is the effect of the edit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from st_cdgm.checkpoint.directory import Checkpoint
from st_cdgm.data.files.open import Paths
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.readers import labelled
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.task.predictor_check import open_predictors
from st_cdgm.data.time.calendar import key_text
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.discovery.statistics import q_values
from st_cdgm.errors import ConfigError, InputError, check_least
from st_cdgm.explanation.certificate import CERTIFIED
from st_cdgm.explanation.coarse import CoarseRecord, CoarseWorlds
from st_cdgm.explanation.edits import Edit, box_pattern, file_pattern
from st_cdgm.explanation.graph import TestedGraph
from st_cdgm.inference.downscale import EnsemblePlan, plan_ensemble
from st_cdgm.inference.writer import ensemble_dataset
from st_cdgm.models.sampling import AS_CONFIGURED, Sampling
from st_cdgm.outputs import write_atomically
from st_cdgm.typing import FloatArray, Floats

logger = logging.getLogger(__name__)

TOTAL = "total effect in the learned lagged model"
DIRECT = (
    "controlled direct effect in the learned lagged model: the other levels are held "
    "at their record"
)
WORLDS = ("factual", "counterfactual", "response")
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is changed, when, where, and what is asked of it.

    Attributes
    ----------
    do : tuple of str
        Edits, ``NODE.CHANNEL (=|+=) NUMBER (sd|UNIT)``.
    start : str
        First day of the edit, ISO date: lead 0.
    days : int
        Days of the answer, lead 0 included.
    edit_days : int
        Days that the edit is made on.
    box : str, optional
        ``LAT0,LAT1,LON0,LON1``, degrees: the edit is made there alone.
    pattern : Path, optional
        File of a field on the coarse grid that the number is multiplied by.
    hold_others : bool
        Whether the levels that are not edited keep their record.
    allow_uncertified : bool
        Whether edges without certificate may be taken.
    """

    do: tuple[str, ...]
    start: str
    days: int = 1
    edit_days: int = 1
    box: str | None = None
    pattern: Path | None = None
    hold_others: bool = False
    allow_uncertified: bool = False

    def check(self) -> None:
        """Raise ConfigError for a question that cannot be asked."""
        for name in ("days", "edit_days"):
            check_least(name, getattr(self, name), 1)
        if not self.do:
            raise ConfigError("nothing is changed", variable="do", expected="an edit")
        if self.box is not None and self.pattern is not None:
            raise ConfigError(
                "an edit has a box or a pattern, not both", variable="box, pattern"
            )

    def area(self, grid: Grid) -> Floats:
        """Return what the number is multiplied by; NaN where nothing is done."""
        if self.box is not None:
            return box_pattern(self.box, grid)
        if self.pattern is not None:
            return file_pattern(self.pattern, grid)
        return np.ones(grid.shape)


def ask(
    checkpoint: Checkpoint,
    lr: Paths,
    question: Question,
    graph: TestedGraph,
    *,
    members: int = 20,
    seed: int = 0,
    regrid: str = "auto",
    sampling: Sampling = AS_CONFIGURED,
) -> xr.Dataset:
    """Answer a question about fine fields.

    Parameters
    ----------
    checkpoint : Checkpoint
        A trained model.
    lr : path, paths or Dataset
        Predictors: the days asked about, and training days for the world model.
    question : Question
        What is changed.
    graph : TestedGraph
        The edges that effects take.
    members, seed, regrid, sampling
        As of :func:`st_cdgm.inference.downscale.downscale`.

    Returns
    -------
    Dataset
        ``<var>_factual``, ``<var>_counterfactual`` and ``<var>_response``
        ``(time, realization, y, x)``, ``<var>_p_value`` and ``<var>_significant``
        ``(time, y, x)``, coordinate ``lead`` in days. The attributes name estimand,
        graph and edit.

    Raises
    ------
    InputError
        What cannot be used, with the facts: uncertified edges, unknown nodes or
        channels, days that are not in the file, another model's graph.
    """
    question.check()
    preprocessor = checkpoint.preprocessor
    edits = [Edit.parse(text, preprocessor.channels) for text in question.do]
    used = graph.used({e.node for e in edits}, hold_others=question.hold_others)
    if not question.allow_uncertified:
        graph.check_certified(used)
    pattern = question.area(preprocessor.lr_grid)

    # The coarse fields of both worlds.
    cube = open_predictors(preprocessor, lr, regrid=regrid).cube
    worlds = CoarseRecord(cube, preprocessor, graph).worlds(
        question.start,
        question.days,
        edits,
        pattern,
        edit_days=question.edit_days,
        hold_others=question.hold_others,
    )
    for name, found in worlds.outside.items():
        logger.warning("the edit takes %s out of training: %s", name, _times(found))

    # The fine fields of both, with the same random numbers.
    days = [key_text(cube.days.key[at]) for at in (worlds.index[0], worlds.index[-1])]
    plan = plan_ensemble(
        checkpoint,
        lr,
        members=members,
        seed=seed,
        start=days[0],
        end=days[1],
        regrid=regrid,
        sampling=sampling,
    )
    other = _edited(plan, cube, worlds.changed(preprocessor))
    factual, counterfactual = (
        np.concatenate([fields for _, fields in one.batches()]) for one in (plan, other)
    )
    attrs = plan.attrs | _attributes(question, graph, edits, used, worlds)
    return _dataset(plan, factual, counterfactual, attrs)


def write_answer(answer: xr.Dataset, path: Path) -> Path:
    """Write the dataset of :func:`ask`; the file appears when it is complete.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    return write_atomically(path, lambda part: answer.to_netcdf(part, engine="netcdf4"))


def _edited(plan: EnsemblePlan, cube: ChannelCube, change: FloatArray) -> EnsemblePlan:
    """Return the plan of the other world: baseline and predictors made anew."""
    preprocessor, found = plan.checkpoint.preprocessor, plan.predictors
    if found.cube.names != cube.names:
        raise InputError(
            "the networks of the pool have different predictors",
            found=", ".join(found.cube.names),
            expected=", ".join(cube.names),
            remedy="ask one of its networks: CHECKPOINT/networks/1",
        )

    # History first; it stays as it is.
    raw = preprocessor.fill_lr(cube.load(found.index))
    raw[found.first :] += change
    edited = replace(
        cube,
        days=cube.days.select(found.index),
        values=labelled(raw, "channel", cube.names),
    )
    return replace(
        plan,
        predictors=replace(found, cube=edited, index=np.arange(len(raw)), _kept={}),
        others=tuple(_edited(one, cube, change) for one in plan.others),
    )


def _attributes(
    question: Question,
    graph: TestedGraph,
    edits: Sequence[Edit],
    used: Sequence[tuple[str, str]],
    worlds: CoarseWorlds,
) -> dict[str, Any]:
    """Return what the answer is about, and how far it may be trusted."""
    edited = {edit.node for edit in edits}
    reached = {k for _, k in used}
    where = f" in the box {question.box}" if question.box else ""
    where += f" times the pattern {question.pattern.name}" if question.pattern else ""
    until = f", {question.edit_days} days" if question.edit_days > 1 else ""
    open_edges = [pair for pair in used if graph.verdicts[pair] != CERTIFIED]

    # Links within a day have no direction: what they do at lead 0 is not known.
    within = [pair for pair in graph.same_step if edited & set(pair)]
    pairs = ", ".join(f"{i} and {k}" for i, k in within)
    unreached = [name for name in graph.targets if name not in reached]
    outside = [f"{name} {_times(found)}" for name, found in worlds.outside.items()]
    return {
        "title": "Factual and counterfactual ensemble",
        "estimand": DIRECT if question.hold_others else TOTAL,
        "intervention": "; ".join(edit.text for edit in edits)
        + f" from {question.start}{until}{where}",
        "graph": graph.described(used),
        "certificate": f"not certified: {graph.described(open_edges)}"
        if open_edges
        else "all edges certified",
        "valid_leads": f">= 1, for {pairs} act on each other within a day"
        if within
        else ">= 0",
        "targets_without_path": ", ".join(unreached) or "none",
        "outside_training_range": "; ".join(outside) or "no",
    }


def _times(found: float) -> str:
    return f"{found:.2f} times the largest distance of training days"


def _dataset(
    plan: EnsemblePlan,
    factual: NDArray[np.float32],
    counterfactual: NDArray[np.float32],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Return both worlds, their difference and its significance as CF variables."""
    response = counterfactual - factual
    targets = plan.checkpoint.preprocessor.targets
    named = [_renamed(target, world) for world in WORLDS for target in targets]
    contents = plan.contents | {"targets": named, "attrs": attrs}
    fields = np.concatenate([factual, counterfactual, response], axis=2)
    ds = ensemble_dataset(fields, day=plan.predictors.days.key, **contents)

    # Of the mean response, member by member, over the cells of a day.
    grid = plan.checkpoint.preprocessor.hr_grid
    dims = ("time", grid.y_name, grid.x_name)
    for c, target in enumerate(targets):
        p = paired_p_values(response[:, :, c])
        text = f"mean response of {target.name} over members"
        ds[f"{target.name}_p_value"] = (
            dims,
            p.astype(np.float32),
            {"long_name": f"p-value of the {text}, paired t test", "units": "1"},
        )
        ds[f"{target.name}_significant"] = (
            dims,
            _significant(p),
            {"long_name": f"{text}: false discovery rate per day below {LEVEL}"},
        )

    lead = np.arange(len(response), dtype=np.int32)
    return ds.assign_coords(
        lead=("time", lead, {"long_name": "days since the edit began", "units": "days"})
    )


def _renamed(target: TargetVariable, world: str) -> TargetVariable:
    """Return a target as one of the worlds, or as the difference between them."""
    long_name = f"{target.long_name or target.name}, {world}"
    if world != "response":
        return replace(target, name=f"{target.name}_{world}", long_name=long_name)
    return replace(
        target,
        name=f"{target.name}_{world}",
        units="K" if target.units == "degC" else target.units,
        standard_name=None,
        long_name=f"{target.long_name or target.name}, counterfactual - factual",
    )


def paired_p_values(response: NDArray[np.floating]) -> Floats:
    """Test the mean of responses ``(T, M, ...)`` over members against 0, two-sided.

    1 where nothing changes; NaN for a single member and where there are no values.
    Shape ``(T, ...)``.
    """
    members = response.shape[1]
    if members < 2:
        return np.full((len(response), *response.shape[2:]), np.nan)
    mean = response.mean(axis=1, dtype=np.float64)
    error = response.std(axis=1, ddof=1, dtype=np.float64) / np.sqrt(members)

    # Members that all answer alike, to the bit, leave no doubt.
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)
    p = 2.0 * stats.t.sf(t, members - 1)
    return np.where(np.isnan(mean), np.nan, p)


def _significant(p: Floats) -> NDArray[np.int8]:
    """Mark the cells of each day whose false discovery rate is below the level."""
    out = np.zeros(p.shape, np.int8)
    for day, values in enumerate(p):
        there = np.isfinite(values)
        if there.any():
            out[day][there] = q_values(values[there]) < LEVEL
    return out
