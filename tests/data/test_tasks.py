"""The tasks of the README: what a pipeline makes of them, and of small twins of them.

Every task goes through the same checks. Dates are counted with pandas, straight from
the files, so that nothing here relies on the code that makes the windows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tests.data import twins
from torch.utils.data import DataLoader

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.read.readers import read_channels
from st_cdgm.data.space.blocks import block_mean
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import GridMismatchError

DAY = pd.Timedelta(days=1)
LEVELS = ("1000", "850", "500")
NCEP = {
    **{f"q_{level}": "kg kg-1" for level in LEVELS},
    **{f"t_{level}": "K" for level in LEVELS},
    **{f"z_{level}": "m2 s-2" for level in LEVELS},
    "psl": "Pa",
    "tas": "K",
    "pr": "mm day-1",
}
RAIN_AND_WARMTH = {"tas": "degC", "pr": "mm day-1"}
RACMO = {"pr": "mm day-1", "tas": "K"}


@dataclass(kw_only=True)
class Task:
    """A task and what is known of it beforehand; number of windows of each split."""

    files: tuple[str, str]
    splits: dict[str, list[str]]
    windows: dict[str, int]
    coarse: tuple[int, int]
    fine: tuple[int, int]
    channels: dict[str, str]
    targets: dict[str, str]
    static: str | None = None
    embargo_days: int = 0
    step: pd.Timedelta = DAY
    options: dict[str, Any] = field(default_factory=dict)
    write: Callable[[Path], Path] | None = None
    real: str | None = None
    root: Path = Path()

    @cached_property
    def pipeline(self) -> NetCDFDataPipeline:
        splits = SplitConfig(**self.splits, embargo_days=self.embargo_days)
        return NetCDFDataPipeline.from_config(
            DataConfig(
                root=str(self.root),
                lr_path=self.files[0],
                hr_path=self.files[1],
                static_path=self.static,
                splits=splits,
                **self.options,
            )
        )

    @cached_property
    def dates(self) -> dict[str, pd.DatetimeIndex]:
        """The dates of each split, without the embargo, as pandas sees the files."""
        stamps = []
        for file in self.files:
            with xr.open_dataset(self.root / file) as ds:
                stamps.append(pd.DatetimeIndex(ds.time.values))
        shared = stamps[0].intersection(stamps[1])
        record = pd.Series(np.arange(len(shared)), index=shared)
        found = {n: record.loc[p[0] : p[1]].index for n, p in self.splits.items()}
        for name, other in (("train", "validation"), ("validation", "test")):
            if self.embargo_days and name in found and other in found:
                limit = found[other][0] - self.embargo_days * DAY
                found[name] = found[name][found[name] < limit]
        return found


TASKS = {
    "A": Task(
        real="iberia",
        files=("predictors_ncep_r1.nc", "targets_eobs_050.nc"),
        static="static_050.nc",
        splits={
            "train": ["1991-01-01", "1999-12-21"],
            "validation": ["2001-01-11", "2002-12-21"],
            "test": ["2003-01-01", "2005-12-31"],
        },
        embargo_days=10,
        windows={"train": 3272, "validation": 705, "test": 1091},
        coarse=(6, 9),
        fine=(16, 28),
        channels=NCEP,
        targets={"pr": "mm day-1", "tasmin": "degC", "tasmax": "degC"},
        options={"baseline_map": {"tasmin": "tas", "tasmax": "tas"}},
    ),
    "B": Task(
        real="iberia_winter_025",
        files=("predictors_ncep_r1.nc", "targets_eobs_025.nc"),
        static="static_025.nc",
        splits={
            "train": ["1991-01", "1997-02"],
            "validation": ["1997-12", "1998-02"],
            "test": ["1998-12", "1999-12"],
        },
        embargo_days=30,
        windows={"train": 566, "validation": 85, "test": 111},
        coarse=(6, 9),
        fine=(41, 61),
        channels=NCEP,
        targets=RAIN_AND_WARMTH,
    ),
    "C": Task(
        real="cordex_iberia",
        files=("racmo22e_winter.nc", "racmo22e_winter.nc"),
        splits={
            "train": ["1982-12", "1997-02"],
            "validation": ["1997-12", "1999-02"],
            "test": ["1999-12", "2002-02"],
        },
        embargo_days=30,
        windows={"train": 1279, "validation": 170, "test": 256},
        coarse=(7, 8),
        fine=(28, 30),
        channels=RACMO,
        targets=RAIN_AND_WARMTH,
        options={"lr_coarsen": 4},
    ),
    "D": Task(
        real="radar_nl_20100826",
        files=("pr_5min_1km.nc", "pr_5min_1km.nc"),
        splits={
            "train": ["2010-08-26T00:00", "2010-08-26T05:55"],
            "validation": ["2010-08-26T06:30", "2010-08-26T23:55"],
        },
        windows={"train": 67, "validation": 9},
        coarse=(32, 32),
        fine=(256, 256),
        channels={"pr": "mm day-1"},
        targets={"pr": "mm day-1"},
        step=pd.Timedelta(minutes=5),
        options={"lr_coarsen": 8, "time_step": "native"},
    ),
    "twin of B": Task(
        write=twins.write_winters,
        files=("lr.nc", "hr.nc"),
        splits={
            "train": ["2001-01", "2003-02"],
            "validation": ["2003-12", "2004-02"],
            "test": ["2004-12", "2006-02"],
        },
        embargo_days=30,
        # Runs of 59, 90, 90; 91; 90, 90 days (1 January to 28 February is the first).
        windows={"train": 224, "validation": 86, "test": 170},
        coarse=(6, 9),
        fine=(11, 13),
        channels={"q_850": "kg kg-1", "tas": "K", "pr": "mm day-1"},
        targets=RAIN_AND_WARMTH,
    ),
    "twin of C": Task(
        write=twins.write_rotated,
        files=("model.nc", "model.nc"),
        splits={
            "train": ["1990-12", "1993-01-10"],
            "validation": ["1993-01-11", "1994-02"],
        },
        embargo_days=10,
        # 90, 91, 31 days (1 December to 31 December: the embargo); 49, 90 days.
        windows={"train": 197, "validation": 129},
        coarse=(4, 4),
        fine=(14, 15),
        channels=RACMO,
        targets=RAIN_AND_WARMTH,
        options={"lr_coarsen": 4},
    ),
    "twin of D": Task(
        write=twins.write_radar,
        files=("radar.nc", "radar.nc"),
        splits={
            "train": ["2010-08-26T00:00", "2010-08-26T03:10"],
            "validation": ["2010-08-26T03:20", "2010-08-26T23:55"],
        },
        # Frames 0-19 and 22-38; 40-59.
        windows={"train": 27, "validation": 15},
        coarse=(6, 6),
        fine=(24, 24),
        channels={"pr": "mm day-1"},
        targets={"pr": "mm day-1"},
        step=pd.Timedelta(minutes=5),
        options={"lr_coarsen": 4, "time_step": "native"},
    ),
}


@pytest.fixture(scope="module", params=list(TASKS))
def task(request, tmp_path_factory):
    made = TASKS[request.param]
    if made.write is not None:
        return replace(made, root=made.write(tmp_path_factory.mktemp("task")))
    return replace(made, root=request.getfixturevalue("real_data") / str(made.real))


def stamps(times: Any) -> pd.DatetimeIndex:
    """Return the keys of a batch, or ISO texts, as dates."""
    if isinstance(times, torch.Tensor):
        times = [str(int(t)) for t in times.flatten()]
    width = len(times[0])
    formats = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S", 10: "%Y-%m-%d", 19: "%Y-%m-%dT%H:%M:%S"}
    return pd.to_datetime(list(times), format=formats[width])


def test_shapes_units_and_finite_values(task):
    prep, days = task.pipeline.preprocessor, len(task.pipeline.days)
    assert {c.name: c.units for c in prep.channels} == task.channels
    assert {t.name: t.units for t in prep.targets} == task.targets
    fields = task.pipeline.prepared(0, days)
    fine = (days, len(task.targets), *task.fine)
    assert fields["lr"].shape == (days, len(task.channels), *task.coarse)
    for key in ("baseline", "residual", "hr"):
        assert fields[key].shape == fine
        assert fields[key].dtype == np.float32
    assert np.isfinite(fields["lr"]).all()
    assert np.isfinite(fields["baseline"]).all()
    truth = np.isfinite(task.pipeline.source.read(slice(None))[1])
    assert np.array_equal(np.isfinite(fields["hr"]), truth)
    assert np.array_equal(np.isfinite(fields["residual"]), truth)
    seen = truth[task.pipeline.indices["train"]].any(axis=0)
    assert np.array_equal(prep.valid, seen)
    assert not prep.baseline.oracle


def test_predictors_are_standardised_on_the_training_days(task):
    train = task.pipeline.indices["train"]
    lr = task.pipeline.prepared(0, len(task.pipeline.days))["lr"][train]
    wide = lr.astype(np.float64)
    np.testing.assert_allclose(wide.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(wide.std(axis=(0, 2, 3)), 1, atol=1e-4)


def test_residuals_are_standardised_on_the_training_days(task):
    made = task.pipeline
    residual = made.prepared(0, len(made.days))["residual"][made.indices["train"]]
    for c, name in enumerate(made.preprocessor.codec.names):
        values = residual[:, c]
        known = values[np.isfinite(values)].astype(np.float64)
        assert abs(known.mean()) < 1e-4, name
        assert abs(known.std() - 1) < 1e-4, name


def test_windows_are_consecutive_steps_of_their_split(task):
    found = {}
    for split, dates in task.dates.items():
        windows = task.pipeline.windows(split)
        parts = torch.arange(len(windows)).split(16)
        keys = torch.cat([windows.batch(part).time for part in parts])  # (W, T)
        times = stamps(keys).values.reshape(keys.shape)
        assert (np.diff(times, axis=1) == task.step).all()
        assert set(times.ravel()) <= set(dates.values)
        runs = np.split(dates, np.flatnonzero(np.diff(dates) != task.step) + 1)
        expected = [run[i] for run in runs for i in range(len(run) - keys.shape[1] + 1)]
        assert list(times[:, 0]) == [np.datetime64(date) for date in expected]
        found[split] = len(windows)
    assert found == task.windows


def test_no_window_crosses_a_winter_gap(task):
    """A window that spans two winters would hold February and December."""
    for split in task.splits:
        for sample in task.pipeline.build_sequence_dataset(split=split, as_torch=False):
            months = stamps(sample["time"]).month
            assert not {2, 12} <= set(months)
            assert 12 not in months or months[-1] in (12, 1)


def test_splits_are_disjoint_and_an_embargo_apart(task):
    iso, indices = task.pipeline.days.iso(), task.pipeline.indices
    own = {n: stamps([iso[day] for day in i]) for n, i in indices.items() if len(i)}
    assert set(own) == set(task.splits)
    for name, dates in own.items():
        assert list(dates) == list(task.dates[name])
        for other, others in own.items():
            if other != name:
                gap = np.abs(dates.values[:, None] - others.values[None, :]).min()
                assert gap > task.embargo_days * DAY


def test_decoding_gives_the_truth_back(task):
    """To 1e-3 K and 1e-4 of an amount; where the truth cannot be, the nearest to it."""
    made = task.pipeline
    prep, truth = made.preprocessor, made.source.read(slice(None))[1]
    fields = made.prepared(0, len(made.days))
    decoded = prep.decode(
        torch.from_numpy(fields["residual"].copy()),
        torch.from_numpy(fields["baseline"]),
    ).numpy()
    known = np.isfinite(truth)
    for c, name in enumerate(prep.codec.names):
        got, expected = decoded[:, c], truth[:, c].copy()
        if name == "pr":
            near = np.abs(expected - 0.1) < 1e-3  # decodes to 0 or to 0.1
            expected[expected < 0.1] = 0
            assert (got[known[:, c]] >= 0).all()
            assert set(np.unique(got[known[:, c] & (truth[:, c] < 0.099)])) <= {0.0}
            np.testing.assert_allclose(got[near], truth[:, c][near], atol=0.11)
            got, expected = got[~near], expected[~near]
            tolerance = {"rtol": 1e-4, "atol": 0}
        else:
            if name == "tasmax":
                lower = truth[:, prep.codec.names.index("tasmin")]
                expected = np.maximum(expected, lower + np.float32(0.01))
            tolerance = {"rtol": 0, "atol": 1e-3}
        np.testing.assert_allclose(got, expected, equal_nan=True, **tolerance)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_loaders_give_every_window_once(task, workers):
    dataset = task.pipeline.build_sequence_dataset(split="validation", stride=3)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    found = sorted(sample["time"][0] for sample in loader)
    assert len(set(found)) == len(found) == len(dataset) > 0
    dates, steps = task.dates["validation"], task.pipeline.seq_len
    runs = np.split(dates, np.flatnonzero(np.diff(dates) != task.step) + 1)
    expected = [run[i] for run in runs for i in range(0, len(run) - steps + 1, 3)]
    assert list(stamps(found)) == expected


# -- What is particular to one task ----------------------------------------------------


def test_iberia_orders_temperatures_that_observations_cross(real_data):
    made = replace(TASKS["A"], root=real_data / "iberia").pipeline
    prep, truth = made.preprocessor, made.source.read(slice(None))[1]
    crossed = truth[:, 2] < truth[:, 1]
    assert crossed.sum() == 285
    assert prep.codec.guarantees()[0] == "tasmin <= tasmax"
    fields = made.prepared(0, len(made.days))
    baseline = torch.from_numpy(fields["baseline"])
    decoded = prep.decode(torch.from_numpy(fields["residual"].copy()), baseline).numpy()
    assert (decoded[:, 2] >= decoded[:, 1])[np.isfinite(truth[:, 2])].all()
    torch.manual_seed(0)
    anything = prep.decode(3 * torch.randn(50, *prep.valid.shape), baseline[:50])
    assert (anything[:, 2] >= anything[:, 1]).all()


def test_coarse_fields_are_the_block_means_of_the_fine_ones(tmp_path):
    twins.write_rotated(tmp_path)
    made = replace(TASKS["twin of C"], root=tmp_path).pipeline
    with xr.open_dataset(tmp_path / "model.nc") as ds:
        plain = block_mean(ds.tas.values, 4) + 273.15
    coarse = made.lr_dataset_raw.tas.values
    assert coarse.shape[1:] == (4, 4)
    # Cells of a block differ in area by less than 1 %.
    np.testing.assert_allclose(coarse, plain, atol=0.05)
    assert made.preprocessor.lr_grid.kind == "rotated_latitude_longitude"
    lat = made.preprocessor.hr_grid.lat
    first = made.preprocessor.lr_grid.lat[0, 0]
    assert lat[:4, :4].min() < first < lat[:4, :4].max()


def test_a_radar_plane_without_positions_is_given_one(tmp_path, caplog):
    twins.write_radar(tmp_path)
    with caplog.at_level(logging.WARNING):
        made = replace(TASKS["twin of D"], root=tmp_path).pipeline
    assert "taken to lie at 0 N, 0 E" in caplog.text
    with xr.open_dataset(tmp_path / "radar.nc") as ds:
        rate = ds.pr.values * 288  # 5-minute amounts as mm day-1
    np.testing.assert_allclose(made.hr_dataset_raw.pr.values, rate, rtol=1e-5)
    assert made.days.gaps() == [("2010-08-26T01:35:00", "2010-08-26T01:50:00")]
    batch = made.windows("train").batch([0])
    assert batch.time[0].tolist() == [20100826000000 + 500 * i for i in range(6)]


# -- A global model as predictors ------------------------------------------------------

SHARED = ["t_850", "q_850", "psl", "tas", "pr"]
MODEL = "cmip5_iberia/cnrm_cm5_winter.nc"


@pytest.fixture(scope="module")
def winter_model(real_data):
    """Preprocessor of the winter task, of the channels that the global model has."""
    task = TASKS["B"]
    return NetCDFDataPipeline.from_config(
        DataConfig(
            root=str(real_data / str(task.real)),
            lr_path=task.files[0],
            hr_path=task.files[1],
            lr_variables=SHARED,
            splits=SplitConfig(**task.splits),
        )
    ).preprocessor


def test_a_global_model_opens_as_predictors_in_canonical_units(real_data):
    cube = read_channels(real_data / MODEL, variables=SHARED)
    units = dict(zip(cube.names, [c.units for c in cube.channels], strict=True))
    assert units == {
        "t_850": "K",
        "q_850": "kg kg-1",
        "psl": "Pa",
        "tas": "K",
        "pr": "mm day-1",
    }
    assert (len(cube.days), cube.grid.shape) == (1805, (8, 11))
    assert len(cube.days.gaps()) == 19
    with xr.open_dataset(real_data / MODEL) as ds:
        flux = ds.pr.values  # kg m-2 s-1
    np.testing.assert_allclose(cube.load()[:, 4], flux * 86400, rtol=1e-5, atol=1e-6)


def test_a_global_model_on_another_grid_is_refused_with_the_remedy(
    real_data, winter_model
):
    with pytest.raises(GridMismatchError) as caught:
        load_predictors(winter_model, real_data / MODEL)
    assert "8 x 11" in caught.value.facts["found"]
    assert "6 x 9" in caught.value.facts["expected"]
    assert "emap" in caught.value.facts["remedy"] or "regrid" in str(caught.value)


def test_a_global_model_on_the_training_grid_is_taken(real_data, winter_model):
    grid = winter_model.lr_grid
    with xr.open_dataset(real_data / MODEL) as ds:
        near = ds.interp(
            lat=grid.lat, lon=grid.lon, kwargs={"fill_value": "extrapolate"}
        ).load()
    for name in ds.data_vars:
        near[name].attrs = ds[name].attrs
    for name in ("lat", "lon"):
        near[name].attrs = ds[name].attrs
    near["pr"] = near.pr.clip(min=0)
    arrays, first = load_predictors(winter_model, near, start="1990-12", end="1991-02")
    assert (len(arrays), first) == (90, 0)
    assert np.isfinite(arrays.lr).all()
    assert np.isfinite(arrays.baseline).all()
    # Another climate than the training one, but not of another kind.
    assert np.abs(arrays.lr.mean(axis=(0, 2, 3))).max() < 2
    assert arrays.lr.std(axis=(0, 2, 3)).min() > 0.3
