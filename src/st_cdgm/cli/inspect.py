"""``st-cdgm inspect``: what is in data files, whether they are usable, and why."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_cdgm.cli._options import session
from st_cdgm.runs.console import console, start_logging

if TYPE_CHECKING:
    from rich.table import Table

    from st_cdgm.data.inspect.fields import VariableReport
    from st_cdgm.data.inspect.files import FileReport
    from st_cdgm.data.inspect.pairs import PairReport
    from st_cdgm.data.task.predictor_check import PredictorReport

SHOWN_GAPS = 3
SHOWN_LEVELS = 4
EXIT_UNUSABLE = 2
ROLES = {"lr": "LR", "hr": "HR", "static": "static"}


def inspect(
    ctx: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="NetCDF files or Zarr stores."),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--pair",
            metavar="LR HR",
            help="Check whether predictors and targets belong together.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Check whether a trained model can downscale the files, together.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write JSON to a file."),
    ] = None,
) -> None:
    """Show what data files hold, what is wrong, and what they can be used for.

    Exit code 2: a file cannot be read, a pair is not usable, or the files do not fit
    the model.

    Examples: st-cdgm inspect predictors.nc targets.nc
    st-cdgm inspect --pair predictors.nc targets.nc
    st-cdgm inspect --checkpoint RUN/checkpoints/best new_predictors.nc
    """
    if not files and (pair is None or checkpoint is not None):
        raise typer.BadParameter("name at least one file, or --pair LR HR")
    from st_cdgm.data.inspect import files as inspection  # late: --help must stay quick
    from st_cdgm.outputs import to_json, write_text

    start_logging(session(ctx))
    reports = {file: inspection.inspect_file(file) for file in files or []}
    content: dict[str, Any] = {f: report.to_dict() for f, report in reports.items()}
    paired = None
    if pair is not None:
        from st_cdgm.data.inspect.pairs import inspect_pair

        paired = inspect_pair(*pair)
        content["pair"] = paired.to_dict()

    fit = None
    if checkpoint is not None and files:
        from st_cdgm.runs.predictor_files import predictor_report

        fit = predictor_report(checkpoint, files)
        content["checkpoint"] = fit.to_dict()

    # The file first, whatever is then said.
    if output is not None:
        write_text(output, to_json(content) + "\n")
    if as_json:
        typer.echo(to_json(content))
    else:
        for report in reports.values():
            _show_file(report)
        if paired is not None:
            _show_pair(paired)
        if fit is not None:
            _show_fit(fit, checkpoint)

    if (paired is not None and not paired.usable) or (fit is not None and fit.problems):
        raise typer.Exit(EXIT_UNUSABLE)


# -- A file ----------------------------------------------------------------------------


def _show_file(report: FileReport) -> None:
    lines = [report.file, f"  {report.format}, {_size(report.size_bytes)}"]
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
    problems = [f"    - {problem}" for problem in report.problems]
    _print(["  problems:", *problems] if problems else [])
    notes = [f"    - {note}" for note in report.notes]
    _print(["  notes:", *notes] if notes else [])
    _print([*_verdict_lines(report), ""])


def _time_lines(report: FileReport) -> list[str]:
    time = report.time
    if time is None:
        return []
    stamps = " to ".join(dict.fromkeys([_date(time.first), _date(time.last)]))
    steps = "1 step" if time.steps == 1 else f"{time.steps} steps"
    if time.step_hours is not None:
        steps += f" of {_duration(time.step_hours)}"
    lines = [f"  time: {stamps}", f"    {steps}, calendar {time.calendar}"]
    if time.gaps:
        gaps = [f"{a} to {b}" for a, b in time.gaps[:SHOWN_GAPS]]
        more = ["..."] if len(time.gaps) > SHOWN_GAPS else []
        lines.append(f"    gaps: {len(time.gaps)} ({', '.join([*gaps, *more])})")
        lines.append(f"    missing in the gaps: {time.missing_steps} steps")
    return lines


def _verdict_lines(report: FileReport) -> list[str]:
    """One line per role; remedies only where no role is left."""
    lines = []
    useless = not any(verdict.usable for verdict in report.verdicts)
    for verdict in report.verdicts:
        word = "usable" if verdict.usable else "not usable"
        lines.append(f"  {word} as {ROLES[verdict.role]} because {verdict.because}")
        if useless and verdict.remedy:
            lines.append(f"    remedy: {verdict.remedy}")
    return lines


def _variables(variables: tuple[VariableReport, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("  variable", "levels", "units"):
        table.add_column(title, overflow="fold")
    for title in ("min", "max", "missing", "rough"):
        table.add_column(title, justify="right", no_wrap=True)
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} TB"


def _duration(hours: float) -> str:
    from st_cdgm.data.time.calendar import duration

    return duration(round(3600.0 * hours))


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


# -- Files and a model -----------------------------------------------------------------


def _show_fit(report: PredictorReport, checkpoint: Path | None) -> None:
    if report.problems:
        problems = [f"    - {problem}" for problem in report.problems]
        _print([f"not usable with {checkpoint} because", *problems])
        return
    _print([f"usable with {checkpoint}: {report.days} days ({report.period})"])
    if report.regridding is not None:
        _print([f"  will be regridded: {report.regridding}"])
    if report.advice is not None:
        _print([f"  note: {report.advice}"])


# -- A pair ----------------------------------------------------------------------------


def _show_pair(report: PairReport) -> None:
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
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("  target", "predictor"):
        table.add_column(title, overflow="fold")
    for title in ("means", "day -1", "same day", "day +1", "patterns"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in report.counterparts:
        middle = len(one.lag_correlations) // 2
        near = one.lag_correlations[middle - 1 : middle + 2]
        means = f"{_number(one.target_mean)} / {_number(one.channel_mean)}"
        target = f"  {one.target} ({one.target_units})"
        cells = [target, one.channel, means if one.same_quantity else "-"]
        cells += [_correlation(r) for r in (*near, one.pattern)]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
