"""The toolkit from Python: load a model, downscale, run, evaluate, inspect, look.

    model = st_cdgm.load("runs/iberia/checkpoints/best")
    ensemble = model.downscale("coarse.nc", members=20, seed=1)

Everything the command line does is done by the same functions, and gives the same
numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from st_cdgm._version import __version__
from st_cdgm.checkpoint.directory import META, WEIGHTS, Checkpoint, load_checkpoint
from st_cdgm.errors import ConfigError, InputError, MissingFileError
from st_cdgm.inference.downscale import EnsemblePlan, chosen_device, plan_ensemble
from st_cdgm.models.sampling import Sampling

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from st_cdgm.config.schema import Config
    from st_cdgm.data.inspect.files import FileReport
    from st_cdgm.evaluation.report.figures import Picture
    from st_cdgm.evaluation.report.inputs import LearnedGraph, RunFiles
    from st_cdgm.evaluation.scorecard import Scorecard

# Above this an ensemble is computed when its values are asked for.
LAZY_BYTES = 2**30
CARD = "README.md"
HF_CONFIG = "config.json"


class Downscaler:
    """A trained model with what it must know of its training data.

    Made by :func:`load` or :meth:`from_pretrained`.

    Attributes
    ----------
    checkpoint : Checkpoint
        ``model`` (an ``STCDGM``), ``preprocessor`` and ``meta``.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._lock = Lock()

    # -- Files -------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str = "auto", revision: str | None = None
    ) -> Downscaler:
        """Load a checkpoint directory, or a repository of the Hugging Face hub.

        Parameters
        ----------
        source : str or Path
            A directory written by a training or by :meth:`save_pretrained`; or
            ``"owner/name"``, fetched from the hub where no such directory exists.
        device : str
            ``"auto"`` (CUDA if there is one), or any name that torch knows.
        revision : str, optional
            Branch, tag or commit on the hub.

        Raises
        ------
        MissingFileError
            There is no such directory, and it cannot be fetched.
        InputError
            It holds no checkpoint, or a damaged one.
        """
        path = Path(source).expanduser()
        if not path.exists() and _is_hub_name(str(source)):
            path = _fetched(str(source), revision)

        return cls(load_checkpoint(path, device=chosen_device(device)))

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the model as a folder that can be shared; return its path.

        Beside the checkpoint's own two files it holds ``config.json`` and a model card,
        as the Hugging Face hub expects them.

        Raises
        ------
        OutputError
            The directory cannot be written, or holds something else.
        """
        from st_cdgm.checkpoint.directory import NETWORKS, save_checkpoint

        folder = Path(directory).expanduser()
        kept = {"format_version", "package_version", "model", "data", "variables"}
        meta = self.checkpoint.meta
        save_checkpoint(
            folder,
            self.model,
            self.preprocessor,
            extra={key: value for key, value in meta.items() if key not in kept},
        )

        # Further networks of a pool, and what the hub shows.
        for number, other in enumerate(self.checkpoint.others, start=1):
            save_checkpoint(
                folder / NETWORKS / str(number), other.model, other.preprocessor
            )

        config = {
            "model_type": "st_cdgm",
            "architectures": ["STCDGM"],
            "library_name": "st-cdgm",
            "st_cdgm_version": __version__,
            "targets": {t.name: t.units for t in self.preprocessor.targets},
            "predictors": {c.name: c.units for c in self.preprocessor.channels},
        }
        text = json.dumps(config, indent=2) + "\n"
        (folder / HF_CONFIG).write_text(text, encoding="utf-8")
        (folder / CARD).write_text(self._card(), encoding="utf-8")
        return folder

    # -- What it is --------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The network."""
        return self.checkpoint.model

    @property
    def preprocessor(self) -> Any:
        """Grids, statistics, codec and baseline of the training period."""
        return self.checkpoint.preprocessor

    def __repr__(self) -> str:
        prep = self.preprocessor
        rows = [
            ("targets", ", ".join(f"{t.name} ({t.units})" for t in prep.targets)),
            ("predictors", ", ".join(c.name for c in prep.channels)),
            ("grids", f"{_shape(prep.lr_grid.shape)} to {_shape(prep.hr_grid.shape)}"),
            ("history", f"{prep.seq_len} days"),
            ("baseline", prep.baseline.strategy),
            ("networks", str(len(self.checkpoint.networks))),
            ("generator", self.model.config.diffusion.scheduler_type),
            ("device", str(self.model.baseline_mean.device)),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:{width}}  {value}" for name, value in rows]
        return "\n".join(["<st_cdgm.Downscaler>", *lines])

    def _repr_html_(self) -> str:
        return _preformatted(repr(self))

    def _card(self) -> str:
        """Return the model card: what the model is and how it is used."""
        periods = self.preprocessor.periods
        training = " to ".join(map(str, periods.get("train", ("?", "?"))))
        return "\n".join(
            [
                *("---", "library_name: st-cdgm", "tags: [climate, downscaling]"),
                *("---", "", "# Downscaling model", "", "```", repr(self), "```", ""),
                f"Trained on {training}.",
                "",
                *("```python", "import st_cdgm", ""),
                'model = st_cdgm.load("THIS_FOLDER")',
                'ensemble = model.downscale("coarse.nc", members=20, seed=1)',
                *("```", ""),
            ]
        )

    # -- What it does ------------------------------------------------------------------

    def downscale(
        self,
        predictors: xr.Dataset | str | Path | Sequence[str | Path],
        *,
        members: int = 20,
        seed: int = 0,
        start: str | None = None,
        end: str | None = None,
        batch_days: int = 16,
        lazy: bool | None = None,
        regrid: str = "auto",
        on_invalid: str = "error",
        **sampling: Any,
    ) -> xr.Dataset:
        """Return an ensemble of fine fields for new coarse predictors.

        The values are those of the file that ``st-cdgm downscale`` writes with the same
        options.

        Parameters
        ----------
        predictors : Dataset, path or paths
            The training channels; never a truth.
        members, seed : int
            Ensemble size and seed.
        start, end : str, optional
            First and last day, ISO dates; default all days.
        batch_days : int
            Days generated together.
        lazy : bool, optional
            Compute blocks of days when they are asked for (dask). By default where the
            ensemble takes more than 1 GiB.
        regrid : {"auto", "bilinear", "conservative", "none"}
            What to do with predictors on another grid.
        on_invalid : {"error", "mask"}
            What to do with values that are not finite or physically impossible.
        **sampling
            ``sampler``, ``steps``, ``guidance_scale``, ``block_means``: see
            :class:`st_cdgm.models.sampling.Sampling`.

        Returns
        -------
        Dataset
            Variables ``(time, realization, y, x)``, float32, in the training target's
            units; NaN on cells without training truth.

        Raises
        ------
        InputError, ConfigError
            As :func:`st_cdgm.inference.downscale.downscale`.
        """
        plan = plan_ensemble(
            self.checkpoint,
            predictors,
            members=members,
            seed=seed,
            start=start,
            end=end,
            batch_days=batch_days,
            regrid=regrid,
            on_invalid=on_invalid,
            sampling=Sampling(**sampling),
        )
        large = 4 * math.prod(plan.shape) > LAZY_BYTES
        if large if lazy is None else lazy:
            return plan.dataset(_delayed(plan, self._lock))

        return plan.dataset(np.concatenate([fields for _, fields in plan.batches()]))

    def plot_day(
        self, ensemble: xr.Dataset, day: str, variable: str | None = None
    ) -> Figure:
        """Draw one day of an ensemble: mean, members and spread.

        Parameters
        ----------
        ensemble : Dataset
            From :meth:`downscale`, or opened from a file.
        day : str
            ISO date.
        variable : str, optional
            The first one by default.

        Raises
        ------
        InputError
            There is no such day or variable.
        """
        return _plot_day(ensemble, day, variable, grid=self.preprocessor.hr_grid)


def load(checkpoint: str | Path, *, device: str = "auto") -> Downscaler:
    """Load a model from a checkpoint directory, a run directory or the hub.

    ``RUN/checkpoints/best``, or ``RUN`` itself, whose best checkpoint is taken.

    Raises
    ------
    MissingFileError, InputError
        See :meth:`Downscaler.from_pretrained`.
    """
    path = Path(checkpoint).expanduser()
    best = path / "checkpoints" / "best"
    found = best if not (path / META).is_file() and best.is_dir() else checkpoint
    return Downscaler.from_pretrained(found, device=device)


def run(
    config: str | Path | Config,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train, downscale the test period, evaluate and write the report.

    Parameters
    ----------
    config : str, Path or Config
        A packaged preset (``"iberia"``), a YAML file, or settings made in Python.
    overrides : sequence of str
        ``"data.root=..."`` and the like, as on the command line.
    resume, overwrite : bool
        What to do where the run directory holds a run; else that is an error.

    Raises
    ------
    ConfigError, InputError
        What is wrong with the settings or the data, before the long part.
    """
    from st_cdgm.config.load import load_config
    from st_cdgm.runs.console import Session
    from st_cdgm.runs.workflow import run_workflow

    if isinstance(config, str | Path):
        settings = load_config(str(config), list(overrides))
    elif overrides:
        raise ConfigError(
            "overrides belong to a configuration that is loaded",
            variable="overrides",
            found=", ".join(overrides),
            remedy="set the values on the Config itself",
        )
    else:
        settings = config

    run_workflow(settings, Session(announce=False), resume=resume, overwrite=overwrite)
    return Run(Path(settings.run.dir))


def evaluate(
    prediction: xr.Dataset | str | Path,
    truth: xr.Dataset | str | Path,
    references: Mapping[str, xr.Dataset | str | Path] | None = None,
    *,
    mask: str = "common",
    metrics: Sequence[str] = (),
    output: str | Path | None = None,
) -> Scorecard:
    """Score an ensemble, or a deterministic field, against the truth.

    Parameters
    ----------
    prediction, truth : Dataset or path
        Ensemble or single forecast, and the fine-grid truth.
    references : mapping, optional
        Other forecasts by name, scored on the same cells and days.
    mask : {"common", "truth", "strict"}
        Score the variables, cells and days that all have; demand a forecast wherever
        there is truth; demand, besides, a truth wherever there is a forecast.
    metrics : sequence of str
        Metrics beside the standard ones; ``st-cdgm plugins --kind metric`` lists all.
    output : path, optional
        Directory for scorecard.json, scorecard.csv and diagnostics.nc.

    Raises
    ------
    InputError
        Nothing in common, or a difference that ``mask`` does not allow.
    ConfigError
        There is no metric of a name.
    """
    from st_cdgm.evaluation.scorecard import evaluate_files

    folder = None if output is None else Path(output)
    return evaluate_files(
        prediction,
        truth,
        references=references,
        mask=mask,
        metrics=metrics,
        output=folder,
    )


def counterfactual(
    checkpoint: str | Path,
    lr: xr.Dataset | str | Path | Sequence[str | Path],
    do: str | Sequence[str],
    *,
    start: str,
    days: int = 4,
    edit_days: int = 1,
    box: str | None = None,
    pattern: str | Path | None = None,
    hold_others: bool = False,
    allow_uncertified: bool = False,
    graph: str | Path | None = None,
    members: int = 20,
    seed: int = 0,
    regrid: str = "auto",
    device: str = "auto",
    output: str | Path | None = None,
    attrs: Mapping[str, Any] | None = None,
    **sampling: Any,
) -> xr.Dataset:
    """Return fine fields as they were drawn, and as they would have been.

    Parameters
    ----------
    checkpoint : str or Path
        A checkpoint directory, or a run directory, whose best one is taken.
    lr : Dataset, path or paths
        Predictors: the days asked about and those of training, of which the world model
        is made.
    do : str or sequence of str
        Edits such as ``"GP850.q += 1 sd"``: ``NODE.CHANNEL (=|+=) NUMBER (sd|UNIT)``.
    start, days : str, int
        First day of the edit, ISO date, and how many days to answer for.
    edit_days : int
        Days that the edit is made on.
    box, pattern : str, str or Path, optional
        Where: ``"LAT0,LAT1,LON0,LON1"``, or a file with a factor for each coarse cell.
    hold_others : bool
        Let the other levels keep their record: a controlled direct effect.
    allow_uncertified : bool
        Take edges without certificate too.
    graph : str or Path, optional
        The tested graph; by default ``dag.json`` of the checkpoint's run.
    members, seed, regrid, device, **sampling
        As of :meth:`Downscaler.downscale`.
    output : str or Path, optional
        NetCDF file to write as well.
    attrs : mapping, optional
        Further attributes.

    Returns
    -------
    Dataset
        See :func:`st_cdgm.explanation.counterfactual.ask`.

    Raises
    ------
    InputError, ConfigError
        What cannot be asked; see there.
    """
    from st_cdgm.explanation.counterfactual import Question, ask, write_answer
    from st_cdgm.explanation.graph import TestedGraph, find_graph
    from st_cdgm.inference.downscale import check_inputs
    from st_cdgm.inference.writer import check_netcdf_name
    from st_cdgm.outputs import check_output_path

    if output is not None:
        check_netcdf_name(output)
        check_output_path(output)
        check_inputs(lr, Path(output))
    question = Question(
        do=(do,) if isinstance(do, str) else tuple(do),
        start=start,
        days=days,
        edit_days=edit_days,
        box=box,
        pattern=None if pattern is None else Path(pattern),
        hold_others=hold_others,
        allow_uncertified=allow_uncertified,
    )

    # The model, and the graph of the run that it lies in.
    model = load(checkpoint, device=device).checkpoint
    file = find_graph(Path(checkpoint)) if graph is None else Path(graph)
    answer = ask(
        model,
        lr,
        question,
        TestedGraph.read(file),
        members=members,
        seed=seed,
        regrid=regrid,
        sampling=Sampling(**sampling),
    )
    answer.attrs.update(attrs or {})
    if output is not None:
        write_answer(answer, Path(output))
    return answer


def inspect(path: str | Path) -> FileReport:
    """Say what a climate file holds and what it can be used for.

    Raises
    ------
    InputError
        It cannot be read.
    """
    from st_cdgm.data.inspect.files import inspect_file

    return inspect_file(path)


def open_run(directory: str | Path) -> Run:
    """Open a finished run.

    Raises
    ------
    MissingFileError, InputError
        There is no such directory, or nothing of a run in it.
    """
    return Run(Path(directory).expanduser())


class Run:
    """What a run directory holds, as objects.

    Parameters
    ----------
    directory : Path
        Written by ``st-cdgm run`` or :func:`run`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files  # noqa: B018 - refused now rather than at the first question

    @cached_property
    def _files(self) -> RunFiles:
        from st_cdgm.evaluation.report.inputs import read_run

        return read_run(self.directory)

    @cached_property
    def config(self) -> Config:
        """The resolved configuration; a plugin it names must have been loaded."""
        from st_cdgm.config.load import load_config

        return load_config(str(self._path("config.yaml")), trusted=False)

    @property
    def scorecard(self) -> Scorecard:
        """All scores, and the protocol under which they were made."""
        return cast("Scorecard", self._part("scorecard", "scorecard.json"))

    @property
    def graph(self) -> LearnedGraph:
        """The learned graph: variables, matrix, edges kept and cut."""
        return cast("LearnedGraph", self._part("graph", "dag.json"))

    @property
    def verdicts(self) -> pd.DataFrame:
        """The tested links, one a row: source, target, held-out gain, verdict."""
        import pandas as pd

        return pd.DataFrame(self._part("edges", "edges.json")["pairs"])

    @property
    def losses(self) -> pd.DataFrame:
        """Training curves, one epoch a row."""
        import pandas as pd

        log = self._part("training", "logs/metrics.csv")
        return pd.DataFrame(log.curves, index=pd.Index(log.epoch, name="epoch"))

    @cached_property
    def ensemble(self) -> xr.Dataset:
        """The downscaled test period, read lazily."""
        return self._opened("downscaled.nc")

    @cached_property
    def references(self) -> dict[str, xr.Dataset]:
        """The reference forecasts by name, read lazily."""
        folder = self.directory / "references"
        files = sorted(folder.glob("*.nc"))
        return {file.stem: self._opened(f"references/{file.name}") for file in files}

    @cached_property
    def model(self) -> Downscaler:
        """The best checkpoint."""
        return load(self.directory)

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self._path("report.html")

    @cached_property
    def figures(self) -> dict[str, list[Picture]]:
        """The figures of the report by section; a notebook shows each one."""
        from st_cdgm.evaluation.report.export import section_pictures

        return section_pictures(self._files)

    def __repr__(self) -> str:
        parts = ", ".join(sorted(_present(self._files)))
        return f"<st_cdgm.Run {self.directory}: {parts}>"

    def _repr_html_(self) -> str:
        html = f"<p><b>{escape(str(self.directory))}</b></p>"
        if self._files.scorecard is not None:
            html += self._files.scorecard._repr_html_()
        report = self.directory / "report.html"
        if report.is_file():
            html += f'<p><a href="{escape(report.resolve().as_uri())}">Report</a></p>'
        return html

    def _part(self, name: str, file: str) -> Any:
        found = getattr(self._files, name)
        if found is None:
            raise MissingFileError(
                "the run does not have this part",
                file=self.directory / file,
                found=self._files.missing.get(file, "no such file"),
                expected="a run that went to its end",
                remedy="run it again with --resume, or use another run directory",
            )
        return found

    def _path(self, name: str) -> Path:
        path = self.directory / name
        if not path.is_file():
            raise MissingFileError("the run does not have this file", file=path)
        return path

    def _opened(self, name: str) -> xr.Dataset:
        import xarray as xr

        coder = xr.coders.CFDatetimeCoder(use_cftime=True)
        return xr.open_dataset(self._path(name), decode_times=coder, chunks={})


# -- Details ---------------------------------------------------------------------------


def _is_hub_name(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~"))


def _fetched(name: str, revision: str | None) -> Path:
    """Fetch a repository of the hub into its cache."""
    from huggingface_hub import snapshot_download

    wanted = [WEIGHTS, META, HF_CONFIG, CARD]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:
        raise MissingFileError(
            "there is no such directory, and the hub does not give it either",
            file=name,
            found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            expected="a checkpoint directory, or owner/name of a repository",
            remedy="check the spelling and the connection",
        ) from error


def _delayed(plan: EnsemblePlan, lock: Lock) -> Any:
    """Return the ensemble as a dask array, one block per batch of days."""
    import dask.array
    from dask.delayed import delayed

    def block(start: int, stop: int) -> Any:
        with lock:  # one network, one forward pass at a time
            return np.concatenate(
                [made for _, made in plan.part(start, stop).batches()]
            )

    days, *rest = plan.shape
    array: Any = dask.array  # its stubs leave these untyped
    starts = range(0, days, plan.batch_days)
    sizes = [min(plan.batch_days, days - start) for start in starts]
    return array.concatenate(
        [
            array.from_delayed(delayed(block)(a, a + n), (n, *rest), np.float32)
            for a, n in zip(starts, sizes, strict=True)
        ]
    )


def _plot_day(
    ensemble: xr.Dataset, day: str, variable: str | None, *, grid: Any
) -> Figure:
    from st_cdgm.evaluation.report.maps import DayMaps, MapGrid, plot_day_maps

    # Which variable and day.
    names = [str(n) for n, v in ensemble.data_vars.items() if "realization" in v.dims]
    name = names[0] if variable is None and names else variable
    if name not in names:
        raise InputError(
            "the ensemble does not have this variable",
            variable=str(variable),
            found=", ".join(names),
        )
    stamps = [str(stamp)[:10] for stamp in ensemble["time"].values]
    if day not in stamps:
        raise InputError(
            "the ensemble does not have this day",
            found=f"{stamps[0]} to {stamps[-1]}" if stamps else "no day",
            expected=day,
        )

    fields = ensemble[name].isel(time=stamps.index(day)).values  # (M, Y, X)
    return plot_day_maps(
        DayMaps(
            variable=name,
            units=str(ensemble[name].attrs.get("units", "1")),
            day=day,
            truth=None,
            baseline=None,
            mean=fields.mean(axis=0),
            members=fields,
            spread=fields.std(axis=0, ddof=1) if len(fields) > 1 else None,
        ),
        MapGrid(lat=grid.lat2d, lon=grid.lon2d),
    )


def _present(files: RunFiles) -> Iterator[str]:
    for name in ("scorecard", "diagnostics", "graph", "training", "config", "edges"):
        if getattr(files, name):
            yield name


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"
