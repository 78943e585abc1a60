"""Targets as the codec has them, on the cells that have any truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.days import mask_invalid
from st_cdgm.typing import FloatArray

BLOCK_BYTES = 64 * 2**20


class EncodedCells:
    """Encoded targets of the P fine cells with training truth in any variable.

    A temperature is encoded as a step from its colder neighbour: where a cell has truth
    in one variable, all are needed, and the baseline stands in for the others.

    Parameters
    ----------
    preprocessor : Preprocessor
        Codec and valid cells.
    """

    def __init__(self, preprocessor: Preprocessor) -> None:
        self.preprocessor = preprocessor
        self.cells = np.flatnonzero(preprocessor.valid.any(axis=0))
        # Of these, the ones with truth in each variable. Shape ``(C, P)``.
        flat = preprocessor.valid.reshape(len(preprocessor.valid), -1)
        self.valid = flat[:, self.cells]

    def encode(self, days: FieldArrays, truth: FloatArray) -> FloatArray:
        """Return complete fields ``(T, C, Y, X)`` encoded. Shape ``(T, C, P)``."""
        whole = np.where(self.preprocessor.valid, truth, days.baseline)
        encoded = self.preprocessor.codec.encode(torch.from_numpy(whole)).numpy()
        flat = encoded.reshape(*encoded.shape[:2], -1)
        return np.ascontiguousarray(flat[:, :, self.cells])

    def decode(
        self, days: int, members: int, made: Callable[[slice], FloatArray]
    ) -> NDArray[np.float32]:
        """Return fields in target units, NaN on cells that never had training truth.

        ``made`` returns the encoded members of some of the days, shape ``(t, M, C,
        P)``; it is asked for a few at a time. Shape ``(T, M, C, Y, X)``.
        """
        valid, codec = self.preprocessor.valid, self.preprocessor.codec
        channels, *fine = valid.shape
        out = np.empty((days, members, *valid.shape), dtype=np.float32)
        step = max(1, BLOCK_BYTES // (4 * members * valid.size))

        for start in range(0, days, step):
            part = slice(start, start + step)
            shape = (*out[part].shape[:2], channels, int(np.prod(fine)))
            encoded = np.zeros(shape, dtype=np.float32)
            encoded[..., self.cells] = made(part)
            fields = torch.from_numpy(encoded.reshape(out[part].shape))
            out[part] = codec.decode(fields).numpy()

        return mask_invalid(out, self.preprocessor)
