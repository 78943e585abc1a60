"""Fields of tensors, arrays or a decoder's draws, as the metrics take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from st_cdgm.errors import GridMismatchError, InputError
from st_cdgm.typing import Floats


@dataclass(frozen=True)
class FieldPair:
    """An ensemble of fields beside the truth, channel by channel.

    Attributes
    ----------
    forecast : ndarray
        Shape ``(C, B, M, Y, X)``.
    reference : ndarray
        NaN where nothing is counted. Shape ``(C, B, Y, X)``.
    """

    forecast: Floats
    reference: Floats

    @classmethod
    def of(cls, samples: Sequence[Any], target: Any) -> FieldPair:
        """Check and stack.

        Raises
        ------
        GridMismatchError
            A sample has another shape than the target.
        InputError
            No sample, or a field of another rank than 2, 3 or 4.
        """
        if len(samples) == 0:
            raise InputError("There is no sample to score.", found=0, expected=">= 1")
        truth = by_channel(target)
        members = [by_channel(sample) for sample in samples]
        for number, member in enumerate(members):
            if member.shape != truth.shape:
                raise GridMismatchError(
                    f"Sample {number} and target differ in shape.",
                    found=f"(C, B, Y, X) = {member.shape}",
                    expected=truth.shape,
                )
        return cls(np.stack(members, axis=2), truth)

    def channels(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield forecast ``(B, M, Y, X)`` and reference ``(B, Y, X)``."""
        yield from zip(self.forecast, self.reference, strict=True)

    def check_whole(self) -> None:
        """Raise InputError unless every sample is finite where the truth is."""
        counted = np.isfinite(self.reference)[:, :, None]
        holes = counted & ~np.isfinite(self.forecast)
        if holes.any():
            raise InputError(
                "A sample is not finite where the target has values.",
                found=f"{int(holes.sum())} values missing",
                expected="finite samples; NaN in the target leaves cells out",
            )


def by_channel(field: Any) -> Floats:
    """Return a field as ``(C, B, Y, X)``.

    From ``(Y, X)``, ``(C, Y, X)``, ``(B, C, Y, X)``, or from one draw of a decoder: its
    decoded fields, in the order of their names.
    """
    values = array_of(field)
    if values.ndim == 4:
        return np.swapaxes(values, 0, 1)
    if values.ndim not in (2, 3):
        raise InputError(
            "A field has the wrong rank.",
            found=values.shape,
            expected="(Y, X), (C, Y, X) or (B, C, Y, X)",
        )
    return values[None, None] if values.ndim == 2 else values[:, None]


def array_of(field: Any) -> Floats:
    """Return tensors (of any device), arrays and draws in float64, axes as they are."""
    if hasattr(field, "residual"):
        parts = [array_of(part) for part in field.fields.values()]
        return np.stack(parts, axis=-3)
    if hasattr(field, "detach"):
        field = field.detach().cpu().double().numpy()
    return np.asarray(field, dtype=np.float64)


def own_baseline(sample: Any) -> Any | None:
    """Return the baseline that a draw was added to; None where it is not comparable.

    A decoded draw has its baseline in the scale of the residual, not in units.
    """
    if getattr(sample, "baseline", None) is None:
        return None
    added = array_of(sample.residual) + array_of(sample.baseline)
    return sample.baseline if np.allclose(added, array_of(sample), atol=1e-6) else None
