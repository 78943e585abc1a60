"""Which source drives which, tested on years held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.discovery.network import DiscoveryConfig as DiscoveryConfig
    from st_cdgm.discovery.search import discover_edges as discover_edges
    from st_cdgm.discovery.search import judge_model as judge_model

__getattr__, __dir__, __all__ = attach(__name__)
