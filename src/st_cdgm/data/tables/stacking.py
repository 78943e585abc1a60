"""Helpers around data sets for users' own scripts: names, transforms, arrays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.space.coordinates import locate

SAMPLE = "sample"  # what xbatcher calls flattened dimensions
_KINDS = {"lat": 0, "latitude": 0, "lon": 1, "longitude": 1}


def infer_dim(dataset: xr.Dataset, keyword: str) -> str:
    """Return the dimension of ``time``, ``lat`` or ``lon``.

    By the CF conventions first; else the first dimension, then the first
    one-dimensional coordinate, whose name contains the keyword. Without any, a
    ValueError lists the dimensions.
    """
    word, located = keyword.lower(), locate(dataset)
    if word == "time" and located.times:
        return located.times[0]
    pair = located.pair() if word in _KINDS else None
    if pair is not None and dataset[pair[_KINDS[word]]].ndim == 1:
        return str(dataset[pair[_KINDS[word]]].dims[0])

    lines = [name for name, c in dataset.coords.items() if c.ndim == 1]
    for one in (*dataset.sizes, *lines):
        if word in str(one).lower():
            return str(one)
    raise ValueError(
        f"no dimension for {keyword!r} among {', '.join(map(str, dataset.sizes))}"
    )


def ensure_callable_transform(
    transform: str | Callable[[Any], Any] | None, epsilon: float
) -> Callable[[Any], Any] | None:
    """Return a transform as a function from data to data that keeps attributes.

    ``log`` or ``logarithm`` is ``ln(x + epsilon)``, ``log1p`` is ``ln(1 + x)``; a
    function, and None, pass. Another name is a ValueError, anything else a TypeError.
    """
    if transform is None or callable(transform):
        return transform
    if not isinstance(transform, str):
        raise TypeError(
            f"a transform is a name, a function or None, not {type(transform).__name__}"
        )
    if transform not in ("log", "logarithm", "log1p"):
        raise ValueError(f"unknown transform {transform!r}: choose log or log1p")

    def logarithm(data: Any) -> Any:
        with xr.set_options(keep_attrs=True):  # type: ignore[no-untyped-call]
            return np.log1p(data) if transform == "log1p" else np.log(data + epsilon)

    return logarithm


def dataset_to_numpy(
    dataset: xr.Dataset,
    time_dim: str,
    lat_dim: str,
    lon_dim: str,
    spatial_shape: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Stack the variables of a data set.

    They are on time and two spatial dimensions. These may be flattened into ``sample``,
    which needs their rows and columns ``spatial_shape``; two dimensions of other names
    count as latitude and longitude. Any further dimension, such as levels, gives one
    channel per entry (D10). Shape ``(T, C, Y, X)``, float32.

    Raises
    ------
    ValueError
        If a variable does not have that shape.
    """
    planes = [
        _planes(variable, (time_dim, lat_dim, lon_dim), spatial_shape)
        for variable in dataset.data_vars.values()
    ]
    if not planes:
        raise ValueError("the data set has no variables")
    if len({plane.shape[2:] for plane in planes}) > 1:
        shapes = {str(n): v.shape for n, v in dataset.data_vars.items()}
        raise ValueError(f"the variables have different shapes: {shapes}")
    return np.concatenate(planes, axis=1)


def _planes(
    da: xr.DataArray, dims: tuple[str, str, str], shape: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Return one variable with the shape ``(T, C, Y, X)``."""
    time, row, column = dims
    if time not in da.dims:
        raise ValueError(f"{da.name} has no dimension {time!r} but {da.dims}")

    # Which dimensions are horizontal.
    space: tuple[Hashable, ...] = (row, column)
    if SAMPLE in da.dims and {row, column}.isdisjoint(da.dims):
        if shape is None or da.sizes[SAMPLE] != shape[0] * shape[1]:
            raise ValueError(
                f"{da.name} has {da.sizes[SAMPLE]} flattened cells; spatial_shape "
                f"{shape} does not say how to lay them out"
            )
        space = (SAMPLE,)
    elif not {row, column} <= set(da.dims):
        space = tuple(d for d in da.dims if d != time)
        if len(space) != 2:
            raise ValueError(f"{da.name} has dimensions {da.dims}, not {dims}")

    others = [d for d in da.dims if d not in (time, *space)]
    values = da.transpose(time, *others, *space).values.astype(np.float32)
    size = shape if space == (SAMPLE,) else values.shape[-2:]
    return values.reshape(len(values), -1, *cast("tuple[int, int]", size))
