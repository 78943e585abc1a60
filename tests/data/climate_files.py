"""Small climate data sets for the tests of the reading layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

LAT, LON = np.array([40.0, 42.5, 45.0]), np.array([-5.0, -2.5, 0.0, 2.5])


def times(count: int, *, calendar: str = "standard", start: str = "2001-01-01"):
    return xr.date_range(start, periods=count, calendar=calendar, use_cftime=True)


def field(
    low: float,
    high: float,
    *,
    days: int = 4,
    lat=LAT,
    lon=LON,
    dims=("time", "lat", "lon"),
    **attrs: str,
) -> xr.DataArray:
    """A field that rises from ``low`` to ``high`` over its values."""
    shape = (days, len(lat), len(lon))
    values = np.linspace(low, high, int(np.prod(shape)), dtype=np.float32)
    return xr.DataArray(values.reshape(shape), dims=dims, attrs=attrs)


def dataset(fields: dict[str, xr.DataArray], *, lat=LAT, lon=LON, time=None):
    days = next(iter(fields.values())).sizes["time"]
    ds = xr.Dataset(fields)
    return ds.assign_coords(
        time=times(days) if time is None else time,
        lat=("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        lon=("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    )


def predictors(days: int = 4, **kwargs) -> xr.Dataset:
    """Temperature on two levels and precipitation."""
    return dataset(
        {
            "t_850": field(270.0, 290.0, days=days, units="K"),
            "t_500": field(240.0, 260.0, days=days, units="K"),
            "pr": field(0.0, 3e-4, days=days, units="kg m-2 s-1"),
        },
        **kwargs,
    )


def on_levels(values, units: str | None, *, name: str = "plev") -> xr.Dataset:
    """Humidity with a vertical axis; the value is the number of the level."""
    levels = np.asarray(values)
    shape = (2, len(levels), len(LAT), len(LON))
    q = np.broadcast_to(np.arange(len(levels))[None, :, None, None] * 1e-3, shape)
    ds = dataset({"psl": field(1e5, 1.02e5, days=2, units="Pa")})
    ds["hus"] = (
        ("time", name, "lat", "lon"),
        q.astype(np.float32),
        {"standard_name": "specific_humidity", "units": "1"},
    )
    return ds.assign_coords(
        {name: (name, levels, {} if units is None else {"units": units})}
    )


def write(ds: xr.Dataset, path: Path) -> Path:
    ds.to_netcdf(path)
    return path
