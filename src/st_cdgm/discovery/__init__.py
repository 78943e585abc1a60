"""Which variable drives which, tested on parts of the record that no fit has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.discovery.config import DiscoveryConfig as DiscoveryConfig
    from st_cdgm.discovery.plain import discover_series as discover_series
    from st_cdgm.discovery.search import discover_edges as discover_edges

__getattr__, __dir__, __all__ = attach(__name__)
