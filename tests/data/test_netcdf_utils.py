from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import cftime
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from st_cdgm.data.netcdf_utils import (
    NetCDFToDataFrame,
    export_metadata,
    main,
    process_netcdf_file,
)
from st_cdgm.errors import InputError, MissingFileError, MissingVariableError
from st_cdgm.outputs import native, to_json

SECTIONS = (
    *("file_info", "dimensions", "coordinates", "data_variables", "global_attributes"),
    *("cf_standard_attributes", "encoding", "file_structure", "statistics"),
    "cf_conventions",
)
LAT, LON = np.array([45.0, 42.5, 40.0]), np.array([0.0, 2.5, 355.0, 357.5])


def small(*, lat=LAT, lon=LON, names=("lat", "lon"), freq="D", calendar="standard"):
    """Three stamps on 3 x 4 cells; one sea cell is missing throughout."""
    rows, columns = names
    time = xr.date_range(
        "2001-02-27", periods=3, freq=freq, calendar=calendar, use_cftime=True
    )
    values = np.arange(3 * lat.size * lon.size, dtype=np.float32)
    tas = values.reshape(3, lat.size, lon.size) + 270
    tas[:, 0, 0] = np.nan
    return xr.Dataset(
        {
            "tas": (("time", rows, columns), tas, {"units": "K"}),
            "pr": (("time", rows, columns), 2 * tas - 500, {"units": "mm day-1"}),
            "orog": ((rows, columns), np.nan_to_num(tas[0]), {"units": "m"}),
        },
        coords={
            "time": time,
            rows: (rows, lat, {"units": "degrees_north"}),
            columns: (columns, lon, {"units": "degrees_east"}),
        },
        attrs={"title": "Essai é", "source": "test", "Conventions": "CF-1.8"},
    )


@pytest.fixture
def path(tmp_path):
    small().to_netcdf(tmp_path / "a.nc")
    return tmp_path / "a.nc"


def opened(tmp_path, ds, **kwargs):
    ds.to_netcdf(tmp_path / "b.nc", **kwargs)
    return NetCDFToDataFrame(tmp_path / "b.nc")


# -- Opening ---------------------------------------------------------------------------


def test_files_are_closed(path):
    """D30: the context manager lets go of the file."""
    with NetCDFToDataFrame(path) as file:
        assert file.filepath == path
        assert file.chunks is None
        array = file.dataset["tas"]
    path.unlink()
    with pytest.raises(InputError, match="values cannot be read"):
        array.load()


def test_loading_at_once_and_in_chunks(path, capsys):
    file = NetCDFToDataFrame(path, load_in_memory=True)
    file.close()
    assert np.isfinite(file.dataset.orog.values).all()
    assert capsys.readouterr().out == ""
    with NetCDFToDataFrame(path, {"time": 1}) as chunked:
        assert chunked.dataset.tas.chunks[0] == (1, 1, 1)


def test_what_cannot_be_opened(tmp_path, path):
    with pytest.raises(FileNotFoundError):
        NetCDFToDataFrame(tmp_path / "none.nc")
    with pytest.raises(MissingFileError):
        process_netcdf_file(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("no data")
    with pytest.raises(InputError, match="cannot be read"):
        NetCDFToDataFrame(tmp_path / "text.nc")
    (tmp_path / "text.nc").unlink()
    path.with_name("b.nc").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="2 files, the first a.nc"):
        NetCDFToDataFrame(tmp_path)
    with pytest.raises(InputError, match="0 local files"):
        export_metadata("https://example.invalid/a.nc")


def test_time_that_is_no_date_is_left_as_numbers(tmp_path, caplog):
    ds = small().assign_coords(time=("time", [0, 1, 2], {"units": "months since then"}))
    with opened(tmp_path, ds) as file:
        file.format_time()
        assert file.dataset.time.values.tolist() == [0, 1, 2]
        with pytest.raises(InputError, match="numbers instead of dates"):
            file.select_time_period(start_date="2001")
    assert "cannot be decoded" in caplog.text
    assert "do not make dates" in caplog.text


def test_zarr(tmp_path):
    small().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    with NetCDFToDataFrame(tmp_path / "a.zarr") as file:
        metadata = file.extract_all_metadata()
    assert metadata["file_info"]["file_format"] == "Zarr"
    assert metadata["data_variables"]["orog"]["statistics"]["min"] == 0.0


# -- Time ------------------------------------------------------------------------------


def test_hours_are_kept(tmp_path):
    """D24: sub-daily stamps stay apart."""
    with opened(tmp_path, small(freq="6h", calendar="noleap")) as file:
        assert isinstance(file.dataset.time.values[0], cftime.DatetimeNoLeap)
        file.format_time()
        stamps = pd.DatetimeIndex(file.dataset.time.values)
        frame = file.to_dataframe("tas", "mean")
    expected = pd.date_range("2001-02-27", periods=3, freq="6h")
    assert stamps.equals(expected)
    assert list(frame.time) == list(expected)


@pytest.mark.parametrize("calendar", ["360_day", "all_leap"])
def test_calendars_that_pandas_lacks_are_kept(tmp_path, calendar):
    """D24, D12: 30 February neither fails nor disappears."""
    with opened(tmp_path, small(freq="2D", calendar=calendar)) as file:
        before = file.dataset.time.values.tolist()
        file.format_time()
        assert file.dataset.time.values.tolist() == before
        file.select_time_period(end_date="2001-02-30")
        assert len(file.to_dataframe("tas", "mean")) == 2


def test_format_time_without_time(tmp_path):
    with opened(tmp_path, small()[["orog"]]) as file:
        file.format_time()
        assert "time" not in file.dataset.dims


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "julian"])
@pytest.mark.parametrize(
    ("given", "days"),
    [
        ({"start_date": "2001-02-28"}, [28, 29]),
        ({"end_date": "2001-02-28"}, [27, 28]),
        ({"time_slice": slice("2001-02-28", "2001-02-28")}, [28]),
        ({"time_slice": ("2001", None)}, [27, 28, 29]),
        ({"time_slice": slice("1990", "1991"), "start_date": "2001"}, None),
        ({"start_date": "2001", "end_date": "2001"}, [27, 28, 29]),
        ({"start_date": "2001-02-28T12:00"}, [None]),
        ({}, [27, 28, 29]),
    ],
)
def test_periods(tmp_path, calendar, given, days):
    with opened(tmp_path, small(calendar=calendar)) as file:
        if days is None:  # starts in 2001, ends in 1991
            with pytest.raises(InputError, match="no time stamp"):
                file.select_time_period(**given)
            return
        file.select_time_period(**given)
        assert file.dataset.sizes["time"] == len(days)
        assert days[0] in (int(file.dataset.time.dt.day[0]), None)


def test_date_objects_and_bad_dates(path):
    with NetCDFToDataFrame(path) as file:
        file.select_time_period(start_date=np.datetime64("2001-02-28"))
        file.select_time_period(end_date=pd.Timestamp("2001-02-28"))
        assert file.dataset.sizes["time"] == 1
        with pytest.raises(InputError, match="not a date"):
            file.select_time_period(start_date="28.2.2001")


# -- Region ----------------------------------------------------------------------------


@pytest.mark.parametrize("lat", [LAT, LAT[::-1]])
@pytest.mark.parametrize("order", [(41, 46), (46, 41)])
def test_latitude_order_does_not_matter(tmp_path, lat, order):
    """D25: descending latitudes were cut to nothing."""
    for given in ({"lat_range": order}, {"lat_slice": slice(*order)}):
        with opened(tmp_path, small(lat=lat)) as file:
            file.select_region(**given)
            assert sorted(file.dataset.lat.values) == [42.5, 45.0]


@pytest.mark.parametrize(
    ("lon_range", "expected"),
    [
        ((-6, 1), [-5.0, -2.5, 0.0]),
        ((354, 1), [-5.0, -2.5, 0.0]),
        ((-6, -1), [355.0, 357.5]),
        ((2, 3), [2.5]),
        ((0, 360), LON.tolist()),
    ],
)
def test_longitude_conventions_and_the_seam(tmp_path, lon_range, expected):
    """D25: 0..360 against -180..180, and boxes across the Greenwich meridian."""
    with opened(tmp_path, small(names=("nav_lat", "nav_lon"))) as file:
        file.select_region(lon_range=lon_range)
        got = file.dataset.nav_lon.values.tolist()
        assert sorted(g % 360 for g in got) == sorted(e % 360 for e in expected)
        if len(expected) == 3:
            assert got == expected
            first = file.to_dataframe("orog", "stacked").iloc[0]
    if len(expected) == 3:
        assert first.orog == 272.0  # the column at 355 degrees comes first


def test_ranges_override_slices_and_open_ends(path):
    with NetCDFToDataFrame(path) as file:
        file.select_region()
        assert file.dataset.sizes["lat"] == 3
        file.select_region(lat_slice=slice(None, 42.5), lon_slice=slice(None, None))
        assert file.dataset.lat.values.tolist() == [42.5, 40.0]
        file.select_region(slice(0, 1), None, (40, 41))
        assert file.dataset.lat.values.tolist() == [40.0]
        with pytest.raises(InputError, match="no cell"):
            file.select_region(lat_range=(0, 10))


def curvilinear():
    ds = small(names=("y", "x")).drop_vars(["y", "x"])
    y, x = np.meshgrid(np.arange(3.0), np.arange(4.0), indexing="ij")
    return ds.assign_coords(
        lat=(("y", "x"), 40 + 2 * y + x, {"units": "degrees_north"}),
        lon=(("y", "x"), 359 + x - y, {"units": "degrees_east"}),
    )


def test_two_dimensional_coordinates_are_masked(tmp_path):
    """D25: on a curvilinear grid cells outside the box are NaN, empty rows go."""
    with opened(tmp_path, curvilinear()) as file:
        file.select_region(lat_range=(43, 44), lon_range=(-1, 1))
        # lat 40+2y+x in 43..44 and lon -1+x-y in -1..1: (1,1), (1,2).
        assert dict(file.dataset.orog.sizes) == {"y": 1, "x": 2}
        frame = file.to_dataframe("orog", "stacked")
    assert frame[["lat", "lon"]].to_numpy().tolist() == [[43.0, 359.0], [44.0, 360.0]]
    assert list(frame.columns) == ["y", "x", "lat", "lon", "orog"]
    with opened(tmp_path, curvilinear()) as file:
        file.select_region(lat_range=(42, 43))
        values = file.dataset.orog.values  # (0,2) (0,3) (1,0) (1,1)
        assert np.isfinite(values).tolist() == [
            [False, False, True, True],
            [True, True, False, False],
        ]
        assert file.dataset.orog.attrs == {"units": "m"}
        assert np.isfinite(file.dataset.lat.values).all()


def test_region_without_coordinates(tmp_path):
    ds = curvilinear().drop_vars(["lat", "lon"])
    with opened(tmp_path, ds) as file, pytest.raises(KeyError, match="no latitude"):
        file.select_region(lat_range=(0, 1))


# -- Normalisation ---------------------------------------------------------------------


def test_normalisation_pools_the_statistics(path):
    """D26: standard deviations are pooled, not averaged, and 0 counts as 1."""
    means = xr.Dataset({"tas": ("lat", [1.0, 3.0]), "pr": 4.0})
    stds = xr.Dataset({"tas": ("lat", [3.0, 1.0]), "pr": 0.0})
    with NetCDFToDataFrame(path) as file:
        raw = file.dataset.load().copy()
        file.normalize_variables(["tas", "pr", "none"], means, stds)
        got = file.dataset
    # Mean variance (9 + 1) / 2 plus variance of the means 1.
    np.testing.assert_allclose(got.tas, (raw.tas - 2.0) / np.sqrt(6.0), rtol=1e-6)
    np.testing.assert_allclose(got.pr, raw.pr - 4.0, rtol=1e-6)
    assert got.tas.attrs["units"] == "1"


def test_normalisation_of_a_shuffled_record_is_standard(tmp_path):
    """Per-cell statistics give unit variance over all cells and days."""
    rng = np.random.default_rng(0)
    ds = small()
    ds["tas"] = ds.tas.copy(data=rng.normal(ds.orog.values, 2.0, ds.tas.shape))
    with opened(tmp_path, ds) as file:
        file.normalize_variables(["tas"], ds.mean("time"), ds.std("time"))
        values = file.dataset.tas.values
    assert values.mean() == pytest.approx(0.0, abs=1e-6)
    assert values.std() == pytest.approx(1.0, abs=1e-6)


def test_normalisation_without_statistics_is_an_error(tmp_path, path):
    """D26: it was a silent no-op."""
    ds = small()
    with NetCDFToDataFrame(path) as file:
        with pytest.raises(InputError, match="needs statistics"):
            file.normalize_variables(["tas"])
        with pytest.raises(InputError, match="needs statistics"):
            file.normalize_variables(["tas"], means_dataset=ds.mean("time"))
        with pytest.raises(KeyError, match="lack a variable"):
            file.normalize_variables(["tas"], ds.mean(), ds[["pr"]].std())
        with pytest.raises(InputError, match="no values"):
            file.normalize_variables(["tas"], ds.mean() * np.nan, ds.std())
    with pytest.raises(InputError, match="needs statistics"):
        process_netcdf_file(path, "tas", normalize=True)


def test_statistics_files_override_datasets(tmp_path, path):
    ds = small()
    ds.mean().to_netcdf(tmp_path / "mean.nc")
    ds.std().to_netcdf(tmp_path / "std.nc")
    with NetCDFToDataFrame(path) as file:
        file.normalize_variables(
            ["tas"],
            ds * 0,
            ds * 0,
            means_filepath=tmp_path / "mean.nc",
            stds_filepath=tmp_path / "std.nc",
        )
        assert float(file.dataset.tas.std()) == pytest.approx(1.0, rel=1e-5)
    frame = process_netcdf_file(
        path,
        normalize=True,
        means_filepath=tmp_path / "mean.nc",
        stds_filepath=tmp_path / "std.nc",
    )
    assert frame.pr.std(ddof=0) == pytest.approx(1.0, rel=1e-5)


# -- Tables ----------------------------------------------------------------------------


def test_stacked_is_the_table_of_xarray(path):
    with NetCDFToDataFrame(path) as file:
        frame = file.to_dataframe("tas", "stacked", drop_na=False)
        expected = file.dataset[["tas"]].to_dataframe().reset_index()
        pd.testing.assert_frame_equal(frame, expected)
        dropped = file.to_dataframe("tas", "stacked")
    assert list(frame.columns) == ["time", "lat", "lon", "tas"]
    assert (len(frame), len(dropped)) == (36, 33)
    assert dropped.tas.notna().all()


def test_point_has_one_column_per_grid_point(path):
    """D27: it equalled the stacked table."""
    with NetCDFToDataFrame(path) as file:
        file.format_time()
        frame = file.to_dataframe("tas")
        whole = file.to_dataframe("tas", drop_na=False)
        orog = file.to_dataframe("orog")
    assert frame.shape == (3, 11)
    assert whole.shape == (3, 12)
    assert frame.columns.names == ["variable", "lat", "lon"]
    assert frame.index.equals(pd.date_range("2001-02-27", periods=3))
    assert frame.index.name == "time"
    assert frame["tas", 42.5, 355.0].tolist() == [276.0, 288.0, 300.0]
    assert orog["orog", 40.0, 357.5].tolist() == [281.0]


@pytest.mark.parametrize("method", ["point", "stacked", "mean"])
def test_no_name_means_all_variables(path, method):
    """D27: only the first one was taken."""
    with NetCDFToDataFrame(path) as file:
        frame = file.to_dataframe(method=method)
    names = (
        frame.columns.get_level_values("variable")
        if method == "point"
        else frame.columns
    )
    assert {"tas", "pr", "orog"} <= set(names)
    assert len(frame) == {"point": 3, "stacked": 36, "mean": 3}[method]


def test_levels_become_names_or_rows(tmp_path):
    ds = small()
    ds["ta"] = ds.tas.expand_dims(plev=[85000.0, 50000.0], axis=1)
    ds.plev.attrs = {"units": "Pa", "axis": "Z"}
    with opened(tmp_path, ds) as file:
        wide = file.to_dataframe("ta")
        tall = file.to_dataframe("ta", "stacked")
        mean = file.to_dataframe("ta", "mean")
    assert set(wide.columns.get_level_values(0)) == {"ta_850", "ta_500"}
    assert list(tall.columns) == ["time", "plev", "lat", "lon", "ta"]
    assert list(mean.columns) == ["time", "plev", "ta"]


def test_mean_is_weighted_by_area(tmp_path):
    """D28: cells near the pole counted as much as those at the equator."""
    ds = small(lat=np.array([0.0, 60.0]))
    ds["tas"] = (ds.lat / 60.0).broadcast_like(ds.tas).transpose("time", "lat", "lon")
    with opened(tmp_path, ds) as file:
        frame = file.to_dataframe("tas", "mean")
    assert list(frame.columns) == ["time", "tas"]
    np.testing.assert_allclose(frame.tas, 0.5 / 1.5, rtol=1e-6)  # cos 60 = 1/2


def test_mean_leaves_missing_cells_and_rows_out(tmp_path):
    """D28: drop_na was ignored."""
    ds = small(lat=np.array([10.0, -10.0]))
    ds["tas"] = ds.tas.where(ds.time != ds.time[1])
    with opened(tmp_path, ds) as file:
        kept = file.to_dataframe("tas", "mean", drop_na=False)
        frame = file.to_dataframe("tas", "mean")
    assert (len(kept), len(frame)) == (3, 2)
    # Seven of eight cells, 271..277.
    assert frame.tas[0] == pytest.approx(274.0)


def test_several_variables(path):
    """D28: method mean failed on the missing key lat; unknown names were dropped."""
    with NetCDFToDataFrame(path) as file:
        both = file.to_dataframe_multiple_vars(["tas", "pr"])
        mean = file.to_dataframe_multiple_vars(("pr", "tas"), method="mean")
        wide = file.to_dataframe_multiple_vars(["tas", "pr"], method="point")
        with pytest.raises(KeyError, match="none") as caught:
            file.to_dataframe_multiple_vars(["tas", "none"])
        with pytest.raises(ValueError, match="no variable"):
            file.to_dataframe_multiple_vars([])
    assert list(both.columns) == ["time", "lat", "lon", "tas", "pr"]
    assert len(both) == 36
    assert both.tas.isna().sum() == 3
    assert list(mean.columns) == ["time", "pr", "tas"]
    assert wide.shape == (3, 24)
    assert "tas, pr, orog" in str(caught.value)


def test_bad_names_and_methods(tmp_path, path):
    with NetCDFToDataFrame(path) as file:
        with pytest.raises(KeyError, match="tas, pr, orog"):
            file.to_dataframe("psl")
        with pytest.raises(ValueError, match="point, stacked, mean"):
            file.to_dataframe("tas", method="median")
    with (
        opened(tmp_path, small()[[]]) as file,
        pytest.raises(ValueError, match="no variable"),
    ):
        file.to_dataframe()
    with opened(tmp_path, curvilinear().drop_vars(["lat", "lon"])) as file:
        assert list(file.to_dataframe("orog", "stacked").columns) == ["y", "x", "orog"]
        with pytest.raises(MissingVariableError):
            file.to_dataframe("orog", "mean")


def test_process_does_it_all(path):
    frame = process_netcdf_file(
        path,
        variable_names=["tas", "pr"],
        variable_name="orog",
        lat_range=(40, 43),
        lon_range=(-6, 0),
        time_slice=slice("2001-02-28", None),
    )
    assert list(frame.columns) == ["time", "lat", "lon", "tas", "pr"]
    assert len(frame) == 2 * 2 * 3
    assert frame.time.dtype.kind == "M"
    one = process_netcdf_file(path, "orog", chunks={}, method="mean")
    assert list(one.columns) == ["orog"]
    assert len(process_netcdf_file(path).columns) == 6


# -- Metadata --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["NETCDF4", "NETCDF4_CLASSIC", "NETCDF3_CLASSIC", "NETCDF3_64BIT"]
)
def test_real_file_format(tmp_path, kind):
    """D23: it was the path."""
    with opened(tmp_path, small()[["tas"]], format=kind, engine="netcdf4") as file:
        info = file.extract_all_metadata(statistics=False)["file_info"]
    assert info["file_format"] == kind + ("_OFFSET" if kind.endswith("BIT") else "")
    assert info["filename"] == "b.nc"
    assert info["file_extension"] == ".nc"
    assert info["file_size_bytes"] == (tmp_path / "b.nc").stat().st_size
    assert info["file_size_mb"] == round(info["file_size_bytes"] / 1024**2, 2)


def test_plain_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.ones((2, 3))
    with NetCDFToDataFrame(tmp_path / "a.h5") as opened_file:
        metadata = opened_file.extract_all_metadata()
    assert metadata["file_info"]["file_format"] == "HDF5"
    assert metadata["file_structure"]["is_valid_netcdf"] is False
    assert metadata["data_variables"]["a"]["statistics"]["mean"] == 1.0


def test_sections_and_dates(path):
    """D29: ISO dates, no empty statistics, no attribute in two CF sections."""
    with NetCDFToDataFrame(path) as file:
        metadata = file.extract_all_metadata()
    assert tuple(metadata) == SECTIONS
    time = metadata["dimensions"]["time"]
    assert time["values_sample"] == ["2001-02-27", "2001-02-28", "2001-03-01"]
    assert (time["min_value"], time["max_value"]) == ("2001-02-27", "2001-03-01")
    assert time["size"] == 3
    assert metadata["dimensions"]["lat"]["mean_value"] == 42.5
    assert metadata["dimensions"]["lat"]["netcdf4_id"] == 1
    assert metadata["cf_standard_attributes"] == {
        "title": "Essai é",
        "Conventions": "CF-1.8",
    }
    assert metadata["cf_conventions"] == {"source": "test"}
    assert metadata["global_attributes"]["source"] == "test"
    assert metadata["statistics"] == {
        "computed": True,
        "variables": ["tas", "pr", "orog"],
        "values": 84,
        "missing_values": 6,
    }
    structure = metadata["file_structure"]
    assert structure["is_valid_netcdf"] is True
    assert structure["number_of_data_variables"] == 3


def test_sections_are_there_for_an_empty_file(tmp_path):
    with opened(tmp_path, xr.Dataset()) as file:
        metadata = file.extract_all_metadata()
    assert tuple(metadata) == SECTIONS
    assert metadata["cf_standard_attributes"] == {}
    assert metadata["cf_conventions"] == {}


def test_statistics_by_hand(tmp_path):
    ds = xr.Dataset({"a": ("x", np.array([1, 2, np.nan, 6], np.float32))})
    ds["n"] = ("x", np.array([1, 2, 3, 4], np.int16))
    with opened(tmp_path, ds) as file:
        variables = file.extract_all_metadata()["data_variables"]
    assert variables["a"]["statistics"] == {
        "min": 1.0,
        "max": 6.0,
        "mean": 3.0,
        "std": pytest.approx(np.sqrt(14 / 3)),
        "has_nan": True,
        "nan_count": 1,
    }
    assert (variables["n"]["statistics"]["min"], variables["n"]["nbytes"]) == (1, 8)
    assert isinstance(variables["n"]["statistics"]["max"], int)


def test_statistics_are_optional_and_leave_the_values_unread(path, monkeypatch):
    """D29: scanning all data was the only way."""
    monkeypatch.setattr("st_cdgm.data.tables.metadata.compute", None)
    with NetCDFToDataFrame(path) as file:
        metadata = file.extract_all_metadata(statistics=False)
        assert "statistics" not in metadata["data_variables"]["tas"]
        assert metadata["statistics"]["computed"] is False
        assert json.loads(
            (path.parent / file.export_metadata_to_json(statistics=False)).read_text()
        )


def test_dates_and_text_among_the_variables(tmp_path):
    ds = xr.Dataset({"t": ("x", np.array(["2001-01-01", "2001-01-03"], "M8[ns]"))})
    ds["s"] = ("x", np.array(["a", "b"]))
    ds["h"] = ((), 2.0)
    ds = ds.assign_coords(label=("x", ["u", "v"]))
    with opened(tmp_path, ds) as file:
        metadata = file.extract_all_metadata()
    assert metadata["data_variables"]["t"]["statistics"] == {
        "min_raw": "2001-01-01",
        "max_raw": "2001-01-03",
        "mean_raw": "2001-01-02",
        "has_nan": False,
        "nan_count": 0,
    }
    assert "no statistics of" in metadata["data_variables"]["s"]["statistics_error"]
    assert "mean_value_error" in metadata["coordinates"]["label"]


@pytest.fixture
def typed(tmp_path):
    """A file with groups and user-defined types."""
    path = tmp_path / "typed.nc"
    with netCDF4.Dataset(path, "w") as ds:
        ds.createDimension("time", None)
        cloud = ds.createEnumType(np.uint8, "cloud_t", {"clear": 0, "cloudy": 1})
        ds.createCompoundType(np.dtype([("u", "f4"), ("v", "i2")]), "wind_t")
        ds.createVLType(np.int32, "ragged_t")
        ds.createVariable("cloud", cloud, ("time",))[:] = [0, 1]
        ds.createVariable("x", "f4", ("time",), zlib=True)[:] = [1, 2]
        ds.createVariable("word", str, ("time",))[:] = np.array(["a", "b"], object)
        group = ds.createGroup("forecast")
        group.createDimension("member", 2)
        group.createVariable("y", "i4", ("member",))
        group.createGroup("deep").createVLType(np.float64, "inner_t")
    return path


def test_groups_and_types(typed):
    """D29: found through cmptypes, enumtypes and vltypes."""
    with NetCDFToDataFrame(typed) as file:
        metadata = file.extract_all_metadata()
    structure = metadata["file_structure"]
    assert structure["has_groups"] is True
    assert structure["groups"] == ["forecast", "forecast/deep"]
    assert structure["groups_detail"]["forecast"] == {
        "variables": ["y"],
        "dimensions": ["member"],
        "groups": ["deep"],
    }
    kinds = {kind["name"]: kind for kind in structure["datatypes"]}
    assert set(kinds) == {"wind_t", "cloud_t", "ragged_t", "inner_t"}
    assert kinds["wind_t"]["fields"] == [
        {"name": "u", "dtype": "float32"},
        {"name": "v", "dtype": "int16"},
    ]
    assert kinds["wind_t"]["is_compound"] is True
    assert kinds["cloud_t"]["values"] == {"clear": 0, "cloudy": 1}
    assert kinds["ragged_t"]["is_vlen"] is True
    assert structure["unlimited_dimensions"] == ["time"]
    info = {n: v["netcdf4_info"] for n, v in metadata["data_variables"].items()}
    assert info["cloud"]["datatype"]["is_enum"] is True
    assert info["word"]["datatype"] == {
        "name": "string",
        "is_compound": False,
        "is_enum": False,
        "is_vlen": True,
        "is_opaque": False,
    }
    assert info["x"]["compression"]["is_compressed"] is True
    assert info["x"]["storage"] == "chunked"


def test_metadata_of_a_file_that_netcdf4_cannot_read(path, monkeypatch):
    def fail(*_):
        raise OSError("gone")

    with NetCDFToDataFrame(path) as file:
        monkeypatch.setattr("st_cdgm.data.tables.metadata.netCDF4.Dataset", fail)
        metadata = file.extract_all_metadata()
    assert metadata["netcdf4_extraction_error"] == "OSError: gone"
    assert metadata["file_info"]["file_format"] == "unknown"
    assert metadata["file_structure"]["is_valid_netcdf"] is False


# -- Export ----------------------------------------------------------------------------


def test_native_types():
    """D30: integers stay integers, truth values stay truth values, no NaN."""
    given = {
        "i": np.int64(3),
        "b": np.bool_(True),
        "f": np.float32(0.1),
        "nan": np.nan,
        "inf": -np.inf,
        "bytes": b"\xc3\xa9",
        "array": np.array([[1, 2]], np.int16),
        "cf": cftime.Datetime360Day(2001, 2, 30),
        "date": np.datetime64("2001-01-01"),
        "nat": np.datetime64("NaT"),
        "masked": np.ma.masked,
        "zero": np.array(2.5),
        "record": np.array([(1.0, 2)], [("u", "f4"), ("v", "i2")])[0],
        "tuple": (1, None),
        4: np.dtype("f4"),
    }
    assert json.loads(to_json(given)) == {
        "i": 3,
        "b": True,
        "f": 0.1,
        "nan": None,
        "inf": "-inf",
        "bytes": "é",
        "array": [[1, 2]],
        "cf": "2001-02-30T00:00:00",
        "date": "2001-01-01",
        "nat": None,
        "masked": None,
        "zero": 2.5,
        "record": {"u": 1.0, "v": 2},
        "tuple": [1, None],
        "4": "float32",
    }
    assert type(native(np.int8(1))) is int
    assert type(native(True)) is bool


def strict(text):
    def refuse(token):
        raise AssertionError(token)

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict(tmp_path):
    """D30: a fill value NaN, an attribute inf and an empty field are valid JSON."""
    ds = small()
    ds["tas"] = ds.tas * np.nan
    ds.tas.attrs = {"valid_range": np.array([1, 2], np.int16), "limit": np.inf}
    ds.tas.encoding["_FillValue"] = np.float32("nan")
    with opened(tmp_path, ds) as file:
        path = file.export_metadata_to_json()
    assert path == str(tmp_path / "b.metadata.json")
    text = (tmp_path / "b.metadata.json").read_text("utf-8")
    metadata = strict(text)
    assert "Essai é" in text
    assert text.startswith('{\n  "file_info"')
    tas = metadata["data_variables"]["tas"]
    assert tas["statistics"]["min"] is None
    assert tas["statistics"]["nan_count"] == 36
    assert tas["fill_value"] is None
    assert tas["cf_conventions_attributes"]["valid_range"] == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.metadata.json", "b.nc"]


def test_csv_has_one_row_per_variable(path):
    """D30: what netCDF4 tells was dropped."""
    written = export_metadata(path, kind="csv")
    assert written == str(path.with_name("a.metadata.csv"))
    rows = list(csv.DictReader(io.StringIO(Path(written).read_text("utf-8"))))
    assert [row["variable_name"] for row in rows] == ["tas", "pr", "orog"]
    first = rows[0]
    assert list(first)[:6] == [
        *("variable_name", "dims", "shape", "dtype", "size", "nbytes")
    ]
    assert json.loads(first["dims"]) == ["time", "lat", "lon"]
    assert first["stat_nan_count"] == "3"
    assert first["attr_units"] == "K"
    assert first["netcdf4_storage"] == "contiguous"
    assert json.loads(first["netcdf4_datatype"])["name"] == "float32"


def test_export_where_nothing_can_be_written(tmp_path, path):
    with pytest.raises(OSError, match="does not exist"):
        export_metadata(path, tmp_path / "none" / "a.json")
    with pytest.raises(InputError, match="json, csv"):
        export_metadata(path, kind="xml")


def test_export_of_several_files_takes_the_first(tmp_path, path, caplog):
    small().to_netcdf(tmp_path / "b.nc")
    written = export_metadata(str(tmp_path / "*.nc"), tmp_path / "out.json")
    assert strict(Path(written).read_text("utf-8"))["file_info"]["filename"] == ("a.nc")
    assert "2 files" in caplog.text


# -- Info and script -------------------------------------------------------------------


def test_info(path, capsys):
    stream = io.StringIO()
    with NetCDFToDataFrame(path) as file:
        file.dataset.attrs["long"] = "x" * 1000
        file.get_info(file=stream)
        file.get_info(detailed=False)
    text, short = stream.getvalue(), capsys.readouterr().out
    for word in ("NetCDF file: a.nc", "Dimensions", "Data variables", "Structure"):
        assert word in text
    assert "x" * 197 + "..." in text
    assert "x" * 198 not in text
    assert "time range: 2001-02-27 to 2001-03-01" in short
    assert "latitude range: 40 to 45" in short
    assert len(short.splitlines()) == 8


def test_script(path, capsys):
    assert main([str(path)]) == 0
    assert "written: " in capsys.readouterr().out
    assert strict(path.with_name("a.metadata.json").read_text("utf-8"))
    assert path.with_name("a.metadata.csv").exists()
    assert main([str(path.with_name("none.nc"))]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_script_looks_for_the_documented_default(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "st_cdgm.data.netcdf_utils"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "NorESM2-MM_histupdated_compressed.nc" in done.stderr


# -- Real files ------------------------------------------------------------------------


def test_every_real_file(real_data, tmp_path):
    for file in sorted(real_data.glob("edge_cases/*.nc")):
        out = tmp_path / f"{file.stem}.json"
        metadata = strict(Path(export_metadata(file, out)).read_text("utf-8"))
        assert tuple(metadata) == SECTIONS
        with NetCDFToDataFrame(file) as opened_file:
            opened_file.format_time()
            frame = opened_file.to_dataframe(method="mean")
        assert len(frame) >= 1
        assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()


def test_real_period_and_region(real_data):
    frame = process_netcdf_file(
        real_data / "iberia" / "targets_eobs_050.nc",
        "pr",
        lat_range=(42, 40),
        lon_range=(355, 358),
        time_slice=("2003-02-01", "2003-02-03"),
    )
    assert len(frame) == 3 * 4 * 6
    assert frame.lon.min() == -4.75


def test_a_level_whose_name_is_that_of_an_axis(tmp_path):
    """``q`` at 850 hPa on an axis called ``q_850``."""
    ds = xr.Dataset(
        {"q": (("q_850", "plev", "lat", "lon"), np.arange(8.0).reshape(2, 1, 2, 2))},
        coords={
            "q_850": ("q_850", [0, 1], {"units": "days since 2001-01-01"}),
            "plev": ("plev", [85000.0], {"units": "Pa"}),
            "lat": ("lat", [45.0, 40.0], {"units": "degrees_north"}),
            "lon": ("lon", [0.0, 5.0], {"units": "degrees_east"}),
        },
    )
    ds.to_netcdf(tmp_path / "a.nc")
    frame = NetCDFToDataFrame(tmp_path / "a.nc").to_dataframe("q", "point")
    np.testing.assert_array_equal(frame["q_850"], np.arange(8.0).reshape(2, 4))


def test_a_region_of_a_file_without_cells(tmp_path):
    empty = xr.Dataset(
        {"tas": (("lat", "lon"), np.empty((0, 2)))},
        coords={"lat": ("lat", np.empty(0)), "lon": ("lon", [0.0, 5.0])},
    )
    empty.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(InputError, match="a coordinate is empty"):
        process_netcdf_file(tmp_path / "a.nc", lat_range=(40, 50))
    file = NetCDFToDataFrame(tmp_path / "a.nc")
    text = io.StringIO()
    file.get_info(detailed=False, file=text)
    assert "longitude range: 0 to 5" in text.getvalue()
    assert "latitude range" not in text.getvalue()
    with pytest.raises(InputError, match="a coordinate is empty"):
        file.select_region(lat_slice=slice(None, 50))


def test_values_that_cannot_be_read_name_file_and_variable(tmp_path):
    """A damaged chunk of NetCDF 4 is noticed by its checksum while reading."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {"tas": (("time", "lat", "lon"), rng.random((4, 20, 30)))},
        coords={"lat": np.arange(20.0), "lon": np.arange(30.0)},
    )
    file = tmp_path / "a.nc"
    ds.to_netcdf(file, encoding={"tas": {"zlib": True, "fletcher32": True}})
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(InputError, match="the values cannot be read") as caught:
        process_netcdf_file(file)
    assert caught.value.facts["variable"] == "tas"
    assert caught.value.facts["file"] == str(file)
