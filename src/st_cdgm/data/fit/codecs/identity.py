"""Fields as they are."""

from __future__ import annotations

from torch import Tensor

from st_cdgm.data.fit.codecs.contract import Codec
from st_cdgm.registry import register


@register("codec", "identity")
class IdentityCodec(Codec):
    """Leave fields unchanged: wind components, pressure, one temperature alone."""

    plain = True

    def encode(self, fields: Tensor) -> Tensor:
        """Return the fields. Shape ``(..., C, Y, X)``."""
        return fields

    def decode(self, encoded: Tensor) -> Tensor:
        """Return the fields. Shape ``(..., C, Y, X)``."""
        return encoded
