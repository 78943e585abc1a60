"""What the model must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.references.base import Reference as Reference
    from st_cdgm.references.base import build_reference as build_reference
    from st_cdgm.references.base import fit_reference as fit_reference

__getattr__, __dir__, __all__ = attach(__name__)
