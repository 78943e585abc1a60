"""``st-cdgm inspect``: what is in data files, whether they are usable, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import logged
from st_cdgm.runs.inspection import inspect_files, predictor_report, show_fit, show_pair

EXIT_UNUSABLE = 2


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

    A file that cannot be read does not keep the others from being shown. Exit code 2:
    there was one, a pair is not usable, or the files do not fit the model.

    Examples: st-cdgm inspect predictors.nc targets.nc
    st-cdgm inspect --pair predictors.nc targets.nc
    st-cdgm inspect --checkpoint RUN/checkpoints/best new_predictors.nc
    """
    if not files and (pair is None or checkpoint is not None):
        raise typer.BadParameter("name at least one file, or --pair LR HR")
    from st_cdgm.outputs import to_json, write_text

    current = logged(ctx)
    shown = not as_json
    content, code = inspect_files(files or [], current, shown=shown)

    if pair is not None:
        from st_cdgm.data.inspect.pairs import inspect_pair

        paired = inspect_pair(*pair)
        content["pair"] = paired.to_dict()
        code = code or (0 if paired.usable else EXIT_UNUSABLE)
        if shown:
            show_pair(paired)

    # Only of files that could be read.
    if checkpoint is not None and files and not code:
        fit = predictor_report(checkpoint, files)
        content["checkpoint"] = fit.to_dict()
        code = EXIT_UNUSABLE if fit.problems else 0
        if shown:
            show_fit(fit, checkpoint)

    if output is not None:
        write_text(output, to_json(content) + "\n")
    if as_json:
        typer.echo(to_json(content))
    if code:
        raise typer.Exit(code)
