"""The figures of a report by section, and as files of their own."""

from __future__ import annotations

import base64
from pathlib import Path

from st_cdgm.evaluation.report.figures import (
    Picture,
    day_pictures,
    graph_pictures,
    quantile_pictures,
    rank_pictures,
    scale_rank_pictures,
    spectrum_pictures,
    training_picture,
    variogram_pictures,
)
from st_cdgm.evaluation.report.inputs import RunFiles, read_run
from st_cdgm.outputs import write_bytes

_SUFFIX = {"image/png": "png", "image/svg+xml": "svg"}


def section_pictures(files: RunFiles) -> dict[str, list[Picture]]:
    """Return the figures of a run; sections without their files are left out."""
    found: dict[str, list[Picture]] = {}
    if (shown := files.diagnostics) is not None:
        found["maps"] = [p for c in shown.cases for p in day_pictures(c, shown.grid)]
        found["spectra"] = spectrum_pictures(shown) + variogram_pictures(shown)
        found["ranks"] = rank_pictures(shown) + scale_rank_pictures(shown)
        found["quantiles"] = quantile_pictures(shown)

    if files.graph is not None:
        found["graph"] = graph_pictures(files.graph)
    if files.training is not None:
        found["training"] = [training_picture(files.training)]
    return found


def write_figures(directory: str | Path, folder: str = "figures") -> list[Path]:
    """Write the figures of a run, or of an evaluation, as image files.

    Parameters
    ----------
    directory : str or Path
        What :func:`~st_cdgm.evaluation.report.build.build_report` reads.
    folder : str
        Folder in it. Figures of an earlier evaluation there are replaced.

    Returns
    -------
    list of Path
        ``maps-1.png``, ``spectra-1.svg`` ..., in the order of the report.

    Raises
    ------
    MissingFileError, InputError
        No such directory; nothing in it to draw.
    OutputError
        A figure cannot be written.
    """
    target = Path(directory) / folder
    written = []
    for section, pictures in section_pictures(read_run(Path(directory))).items():
        for old in target.glob(f"{section}-*.*"):
            old.unlink()
        for number, picture in enumerate(pictures, start=1):
            kind, content = picture.uri.removeprefix("data:").split(";base64,")
            path = target / f"{section}-{number}.{_SUFFIX[kind]}"
            written.append(write_bytes(path, base64.b64decode(content)))
    return written
