"""Whether files of predictors fit a trained model: all that does not, at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from st_cdgm.data.files.open import Paths, file_label, open_dataset
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.derived.appending import read_with_derived, required_inputs
from st_cdgm.data.read.readers import read_channels
from st_cdgm.data.read.regrid import check_method, coarsen_cube, is_much_finer, on_grid
from st_cdgm.data.space.matching import same_cells_order
from st_cdgm.data.time.calendar import duration
from st_cdgm.errors import InputError, MissingVariableError

ADVICE = (
    "the file is much finer than the model's grid: conservative regridding takes the "
    "mean of each cell in place of values at its centre"
)

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictors:
    """Predictors of new files on the coarse grid of a model, not yet read.

    The ``cube`` has the channels of the model, in its order, units and time step;
    ``regridding`` says how the file's grid became the model's, None if it was, and
    ``advice`` what would be better.
    """

    cube: ChannelCube
    regridding: str | None = None
    advice: str | None = None


@dataclass(frozen=True, kw_only=True)
class PredictorReport:
    """Whether files can be downscaled by a model.

    ``problems`` are all that speaks against it; else there are ``days`` that could be
    downscaled, of the ``period`` from the first to the last of them. ``regridding``
    says what would be done about another grid, ``advice`` what would be better.
    """

    file: str
    problems: tuple[str, ...] = ()
    days: int = 0
    period: str | None = None
    regridding: str | None = None
    advice: str | None = None

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return asdict(self) | {"usable": self.usable}


def open_predictors(
    preprocessor: Preprocessor, paths: Paths, *, regrid: str = "auto"
) -> Predictors:
    """Open predictor files for a trained model; nothing big is read.

    ``regrid`` says what to do with another grid, ``auto``, ``bilinear``,
    ``conservative`` or ``none``; see :func:`st_cdgm.data.read.regrid.on_grid`.

    Raises
    ------
    InputError
        Variables, levels, units, grid or time step do not fit; all of that is listed.
        One problem alone keeps its own kind of error.
    """
    opened = _opened(preprocessor, paths, regrid)
    if not isinstance(opened, Predictors):
        raise opened[0] if len(opened) == 1 else _together(opened)

    if opened.regridding is not None:
        _LOGGER.warning("%s is regridded: %s", opened.cube.file, opened.regridding)
    if opened.advice is not None:
        _LOGGER.warning("%s: %s", opened.cube.file, opened.advice)
    return opened


def check_predictors(
    preprocessor: Preprocessor, paths: Paths, *, regrid: str = "auto"
) -> PredictorReport:
    """Say whether files can be downscaled, as :func:`open_predictors` would find."""
    file = file_label(open_dataset(paths, role="lr"))
    opened = _opened(preprocessor, paths, regrid)
    if not isinstance(opened, Predictors):
        return PredictorReport(file=file, problems=tuple(map(_line, opened)))
    days = opened.cube.days
    return PredictorReport(
        file=file,
        days=len(days),
        period=days.period(),
        regridding=opened.regridding,
        advice=opened.advice,
    )


def _opened(
    preprocessor: Preprocessor, paths: Paths, regrid: str
) -> Predictors | list[InputError]:
    """Return the predictors, or all that does not fit."""
    check_no_oracle(preprocessor)
    check_method(regrid)
    how: list[tuple[str | None, bool]] = []

    def place(cube: ChannelCube) -> ChannelCube:
        placed, text = _placed(preprocessor, cube, regrid)
        how.append((text, is_much_finer(cube.grid, preprocessor.lr_grid)))
        return placed

    # Read as a whole first; what is wrong is looked for channel by channel.
    try:
        cube = read_with_derived(
            paths,
            variables=[c.name for c in preprocessor.channels if not c.derived],
            derived=[c.name for c in preprocessor.channels if c.derived],
            place=place,
            role="lr",
            time_step=preprocessor.time_step,
        )
        for known, new in zip(preprocessor.channels, cube.channels, strict=True):
            _check_unit(cube, new.name, new.units, known.units)
        _check_steps(preprocessor, cube)
    except InputError as first:
        return _mismatches(preprocessor, paths, regrid) or [first]

    text, finer = how[0]
    pointwise = finer and str(text).startswith("bilinear")
    return Predictors(cube=cube, regridding=text, advice=ADVICE if pointwise else None)


def _placed(
    preprocessor: Preprocessor, cube: ChannelCube, regrid: str
) -> tuple[ChannelCube, str | None]:
    """Bring fields to the coarse grid, by the block means of training if they fit."""
    grid = preprocessor.lr_grid
    coarse = coarsen_cube(cube, preprocessor.lr_coarsen)
    if regrid != "none" and same_cells_order(grid, coarse.grid) is None:
        return on_grid(cube, grid, method=regrid)
    return on_grid(coarse, grid, method=regrid)


# -- All that does not fit -------------------------------------------------------------


def _mismatches(
    preprocessor: Preprocessor, paths: Paths, regrid: str
) -> list[InputError]:
    """Look at every channel by itself; return what is wrong, each thing once."""
    try:
        ds = open_dataset(paths, role="lr")
    except InputError as error:
        return [error]
    names = [c.name for c in preprocessor.channels if not c.derived]
    names += required_inputs([c.name for c in preprocessor.channels if c.derived])
    units = {channel.name: channel.units for channel in preprocessor.channels}

    found: dict[str, InputError] = {}
    absent: list[MissingVariableError] = []
    for name in dict.fromkeys(names):
        for one in _of_channel(preprocessor, ds, name, units.get(name), regrid):
            if isinstance(one, MissingVariableError) and one.facts["variable"] == name:
                absent.append(one)
            else:
                found.setdefault(str(one), one)
    return [*_as_one(absent, file_label(ds)), *found.values()]


def _of_channel(
    preprocessor: Preprocessor, ds: Any, name: str, units: str | None, regrid: str
) -> Iterator[InputError]:
    """Yield what is wrong with one channel, and with its grid and time step."""
    step = preprocessor.time_step
    try:
        cube = read_channels(ds, variables=[name], role="lr", time_step=step)
    except InputError as error:
        yield error
        return

    checks: list[Callable[[], object]] = [
        lambda: _check_unit(cube, name, cube.channels[0].units, units),
        lambda: _placed(preprocessor, cube, regrid),
        lambda: _check_steps(preprocessor, cube),
    ]
    for check in checks:
        try:
            check()
        except InputError as error:
            yield error


def _as_one(absent: list[MissingVariableError], file: str) -> list[InputError]:
    """Return one error about all absent channels."""
    if len(absent) < 2:
        return list(absent)
    names = ", ".join(dict.fromkeys(str(error.facts["variable"]) for error in absent))
    first = absent[0]
    return [
        MissingVariableError(
            first.problem,
            file=file,
            variable=names,
            found=first.facts["found"],
            expected=names,
            remedy=_remedies(absent),
        )
    ]


def _together(errors: list[InputError]) -> InputError:
    """Return one error that lists several."""
    lines = "".join(f"\n    - {_line(error)}" for error in errors)
    return InputError(
        f"the predictors do not fit the model in {len(errors)} ways",
        file=str(errors[0].facts["file"]),
        found=lines,
        expected="the variables, levels, units, grid and time step of training",
        remedy=_remedies(errors),
    )


def _remedies(errors: Sequence[InputError]) -> str | None:
    """Return what can be done about several errors, each thing once."""
    every = dict.fromkeys(
        str(error.facts["remedy"]) for error in errors if error.facts["remedy"]
    )
    return "; ".join(every) or None


def _line(error: InputError) -> str:
    """Return problem, variable, what was found and what was expected, in one line."""
    keys = ("variable", "found", "expected")
    facts = [f"{key} {error.facts[key]}" for key in keys if error.facts[key]]
    return f"{error.problem} ({'; '.join(facts)})" if facts else error.problem


# -- Single checks ---------------------------------------------------------------------


def check_no_oracle(preprocessor: Preprocessor) -> None:
    """Raise InputError where the baseline needs a truth that inference cannot have."""
    if preprocessor.baseline.oracle:
        raise InputError(
            "this model's baseline is made from the fine truth",
            found=f"baseline_strategy {preprocessor.baseline.strategy}, an oracle",
            expected="lr_interp, climatology or regression",
            remedy="train again with baseline_strategy auto to predict without truth",
        )


def _check_unit(cube: ChannelCube, name: str, found: str, known: str | None) -> None:
    if known is not None and found != known:
        raise InputError(
            "a predictor has other units than in training",
            file=cube.file,
            variable=name,
            found=found,
            expected=known,
            remedy="convert the file, or correct its units attribute",
        )


def _check_steps(preprocessor: Preprocessor, cube: ChannelCube) -> None:
    known, new = preprocessor.step_seconds, cube.days.step_seconds
    if known != new:
        raise InputError(
            "the predictors have another time step than in training",
            file=cube.file,
            variable="time",
            found=duration(new),
            expected=duration(known),
            remedy="aggregate or interpolate the file to the step of training",
        )
