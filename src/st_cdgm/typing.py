"""Array types that many modules name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FloatArray = NDArray[np.float32]
Indices = NDArray[np.int64]
# What a fitted part keeps: settings as JSON types, and arrays by name.
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]
