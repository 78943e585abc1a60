"""What is in data files, whether they are usable and why, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.errors import InputError
from st_cdgm.runs.console import Session, byte_size, console, show, show_failure

if TYPE_CHECKING:
    from rich.table import Table

    from st_cdgm.data.inspect.fields import VariableReport
    from st_cdgm.data.inspect.files import FileReport
    from st_cdgm.data.inspect.pairs import PairReport
    from st_cdgm.data.task.predictor_check import PredictorReport

SHOWN_GAPS = 3
SHOWN_LEVELS = 4


def inspect_files(
    files: Sequence[str], session: Session, *, shown: bool = True
) -> tuple[dict[str, Any], int]:
    """Inspect files, patterns or URLs; a bad one does not hide the others.

    With ``shown`` each is printed as soon as it was read.

    Returns
    -------
    content : dict
        File -> report as JSON can hold it; of a file that cannot be read its ``error``.
    code : int
        0; 2 if a file cannot be read; 1 if reading one failed unexpectedly.
    """
    from st_cdgm.data.inspect import files as inspection

    content: dict[str, Any] = {}
    failed: list[Exception] = []

    for file in files:
        try:
            report = inspection.inspect_file(file)
        except Exception as error:  # noqa: BLE001 - the next file may be good
            content[file] = {"error": str(error)}
            show_failure(session, error)
            failed.append(error)
            continue

        content[file] = report.to_dict()
        if shown:
            show_file(report)

    if len(files) > 1 and failed:
        show("Summary", f"{len(failed)} of {len(files)} files could not be read")
    known = all(isinstance(error, InputError) for error in failed)
    return content, 0 if not failed else 2 if known else 1


# -- A file ----------------------------------------------------------------------------


def show_file(report: FileReport) -> None:
    """Print what a file holds and what it can be used for."""
    lines = [report.file, f"  {report.format}, {byte_size(report.size_bytes)}"]
    grid = report.grid
    if grid is not None:
        lines.append(
            f"  grid: {grid.shape[0]} x {grid.shape[1]} {grid.kind}, "
            f"cells of {grid.cell_width:.3g} degrees"
        )
        lines.append(
            f"    lat {grid.lat[0]:.6g} to {grid.lat[1]:.6g} ({grid.latitude_order}), "
            f"lon {grid.lon[0]:.6g} to {grid.lon[1]:.6g}"
        )
    _print([*lines, *_time_lines(report)])

    if report.variables:
        console().print(_variables(report.variables), soft_wrap=False)
        if any(one.missing == "in changing cells" for one in report.variables):
            _print(["  * not always the same cells"])

    _print([*report.findings(), ""])


def _time_lines(report: FileReport) -> list[str]:
    from st_cdgm.data.time.calendar import duration

    time = report.time
    if time is None:
        return []
    stamps = " to ".join(dict.fromkeys([_date(time.first), _date(time.last)]))
    steps = "1 step" if time.steps == 1 else f"{time.steps} steps"
    if time.step_hours is not None:
        steps += f" of {duration(round(3600.0 * time.step_hours))}"
    lines = [f"  time: {stamps}", f"    {steps}, calendar {time.calendar}"]

    if time.gaps:
        gaps = [f"{a} to {b}" for a, b in time.gaps[:SHOWN_GAPS]]
        more = ["..."] if len(time.gaps) > SHOWN_GAPS else []
        lines.append(f"    gaps: {len(time.gaps)} ({', '.join([*gaps, *more])})")
        lines.append(f"    missing in the gaps: {time.missing_steps} steps")
    return lines


def _variables(variables: tuple[VariableReport, ...]) -> Table:
    from rich.text import Text

    table = _table(
        ("  variable", "levels", "units"), ("min", "max", "missing", "rough")
    )
    for one in variables:
        levels = [f"{level:g}" for level in one.levels[:SHOWN_LEVELS]]
        more = [f"({len(one.levels)})"] if len(one.levels) > SHOWN_LEVELS else []
        mark = "*" if one.missing == "in changing cells" else ""
        cells = (
            f"  {one.name}",
            " ".join([*levels, *more]),
            one.units or "none",
            _number(one.minimum),
            _number(one.maximum),
            f"{one.nan_share:.1%}{mark}" if one.nan_share else "0",
            _number(one.roughness),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return a table without lines; columns of words fold, those of numbers do not."""
    from rich.table import Column, Table

    columns = [Column(title, overflow="fold") for title in words]
    columns += [Column(title, justify="right", no_wrap=True) for title in numbers]
    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _number(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else f"{value:{form}}"


def _date(stamp: str) -> str:
    return stamp.removesuffix("T00:00:00")


def _print(lines: list[str]) -> None:
    """Print lines, folded to the width of a terminal, whole into a file or pipe.

    Rich's markup is off: paths and messages may look like it.
    """
    out = console()
    for line in lines:
        pad = " " * (len(line) - len(line.lstrip()) + 2)
        if out.is_terminal and len(line) > out.width:
            line = textwrap.fill(
                line, out.width, subsequent_indent=pad, break_on_hyphens=False
            )
        out.print(line, markup=False)


# -- A pair ----------------------------------------------------------------------------


def show_pair(report: PairReport) -> None:
    """Print whether predictors and targets belong together."""
    lines = [
        f"predictors: {report.lr}",
        f"targets: {report.hr}",
        f"  shared days: {report.shared_days}"
        + (f" ({report.period})" if report.period else ""),
        f"  only in one: {report.lr_only_days} in the predictors, "
        f"{report.hr_only_days} in the targets",
        f"  calendars: {', '.join(dict.fromkeys(report.calendars))}",
        f"  cells: the coarse ones are {report.cell_ratio:.3g} times as wide",
        f"  region: {_region(report)}",
    ]
    if report.best_lag is not None:
        lines.append(
            f"  best lag: {report.best_lag} days ({report.days_compared} read)"
        )
    _print(lines)

    # What was correlated, what is remarkable, and the verdict.
    if report.counterparts:
        _print(["  correlations of anomalies: area means by lag, patterns in space"])
        console().print(_counterparts(report), soft_wrap=False)
    _print(["  notes:", *(f"    - {n}" for n in report.notes)] if report.notes else [])

    if report.usable:
        _print(["  usable as a pair because days, region and weather fit"])
    for finding in report.findings:
        _print([f"  not usable because {finding.problem}"])
        _print([f"    remedy: {finding.remedy}"])


def _region(report: PairReport) -> str:
    sides = [f"{by:.3g} degrees {side}" for side, by in report.short_deg.items() if by]
    if not report.outside_share:
        return "the coarse grid encloses the fine one"
    return f"{report.outside_share:.0%} of the fine cells outside, {', '.join(sides)}"


def _counterparts(report: PairReport) -> Table:
    from rich.text import Text

    numbers = ("means", "day -1", "same day", "day +1", "patterns")
    table = _table(("  target", "predictor"), numbers)
    for one in report.counterparts:
        middle = len(one.lag_correlations) // 2
        near = one.lag_correlations[middle - 1 : middle + 2]

        means = f"{_number(one.target_mean)} / {_number(one.channel_mean)}"
        target = f"  {one.target} ({one.target_units})"
        cells = [target, one.channel, means if one.same_quantity else "-"]
        cells += [_number(r, ".2f") for r in (*near, one.pattern)]
        table.add_row(*(Text(cell) for cell in cells))
    return table


# -- Files and a model -----------------------------------------------------------------


def predictor_report(checkpoint: Path, files: Sequence[str]) -> PredictorReport:
    """Return what `st-cdgm downscale` would say of files, taken together.

    Raises
    ------
    InputError
        The checkpoint or a file cannot be read.
    """
    from st_cdgm.checkpoint.directory import load_checkpoint
    from st_cdgm.data.task.predictor_check import check_predictors

    return check_predictors(load_checkpoint(checkpoint).preprocessor, list(files))


def show_fit(report: PredictorReport, checkpoint: Path | None) -> None:
    """Print whether a model can downscale the files, and how."""
    if report.problems:
        problems = [f"    - {problem}" for problem in report.problems]
        _print([f"not usable with {checkpoint} because", *problems])
        return

    _print([f"usable with {checkpoint}: {report.days} days ({report.period})"])
    if report.regridding is not None:
        _print([f"  will be regridded: {report.regridding}"])
    if report.advice is not None:
        _print([f"  note: {report.advice}"])
