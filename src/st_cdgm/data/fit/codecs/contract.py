"""What a codec is: how some target variables are encoded for the model, and decoded.

A codec of one's own is a class in one file::

    @register("codec", "gust")
    class GustCodec(Codec):
        nonnegative = True

        def encode(self, fields):
            return torch.log1p(fields.clamp(min=0.0))

        def decode(self, encoded):
            return torch.expm1(encoded.clamp(0.0, 6.0))

and is chosen by ``data.codecs: {wsgsmax: gust}``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from torch import Tensor

from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.typing import FloatArray


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """What a codec may be made with.

    Attributes
    ----------
    wet_threshold : float
        Smallest amount of precipitation that is not dry, mm day-1.
    delta : float
        Offset of ``log1p``, mm day-1.
    truth : callable, optional
        Gives an iterator over blocks of training days of the codec's own targets, anew
        at each call: target units, NaN where missing, ``(T, C, Y, X)``. None where
        there are no training days.
    """

    wet_threshold: float = 0.1
    delta: float = 0.01
    truth: Callable[[], Iterator[FloatArray]] | None = None


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """Encode and decode the fields of the targets that use it.

    ``decode`` makes what the codec promises true by construction, whatever numbers the
    model gives; ``decode(encode(x))`` is ``x`` for admissible fields. NaN stays NaN.
    Both are differentiable. A subclass with fields of its own is a frozen dataclass.

    Attributes
    ----------
    names : tuple of str
        Its targets, in channel order.
    nonnegative : bool
        Whether decoded fields are never below 0.
    differentiable : bool
        Whether there is a gradient.
    plain : bool
        Whether fields are encoded as they are.
    """

    names: tuple[str, ...]
    nonnegative: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    plain: ClassVar[bool] = False

    @classmethod
    def fit(cls, targets: Sequence[TargetVariable], options: CodecOptions) -> Self:
        """Make the codec of some targets, with the options that it has fields for.

        Raises
        ------
        ConfigError
            If it cannot encode them.
        """
        own = {field.name for field in fields(cls)} & {"wet_threshold", "delta"}
        chosen = {key: float(getattr(options, key)) for key in own}
        return cls(names=tuple(target.name for target in targets), **chosen)

    @abstractmethod
    def encode(self, fields: Tensor) -> Tensor:
        """Return encoded fields, of about unit size and spread where it can.

        Parameters
        ----------
        fields : Tensor
            Target units, NaN where missing. Shape ``(..., C, Y, X)``.
        """

    @abstractmethod
    def decode(self, encoded: Tensor) -> Tensor:
        """Return fields in target units from any numbers. Shape ``(..., C, Y, X)``."""

    def scored(self, encoded: Tensor) -> Tensor:
        """Return the fields in the scale in which they are scored while training.

        The decoded fields, unless these have a gradient of 0 somewhere or a long tail.
        """
        return self.decode(encoded)

    def guarantees(self) -> list[str]:
        """Return, in words, what every decoded field satisfies."""
        return [f"{name} >= 0" for name in self.names] if self.nonnegative else []

    def ordered(self) -> tuple[int, ...]:
        """Return the places in ``names`` of fields in order, smallest first."""
        return ()

    def unchanged(self) -> tuple[int, ...]:
        """Return the places in ``names`` of fields that are encoded as they are."""
        return tuple(range(len(self.names))) if self.plain else ()

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` needs, as JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild a codec from :meth:`to_dict`."""
        return cls(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in state.items()
            }
        )
