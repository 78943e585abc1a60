"""Which source drives which, tested on years held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.discovery.network import DiscoveryConfig
    from st_cdgm.discovery.search import discover_edges, judge_model

__all__ = ["DiscoveryConfig", "discover_edges", "judge_model"]

_HOME = {
    "DiscoveryConfig": "st_cdgm.discovery.network",
    "discover_edges": "st_cdgm.discovery.search",
    "judge_model": "st_cdgm.discovery.search",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
