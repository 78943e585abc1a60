"""One configuration from the layers' settings, presets, files and overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.config.load import (
        config_to_yaml,
        load_config,
        preset_names,
        save_config,
    )
    from st_cdgm.config.schema import Config, RunConfig
    from st_cdgm.inference.config import InferenceConfig

__all__ = [
    "Config",
    "InferenceConfig",
    "RunConfig",
    "config_to_yaml",
    "load_config",
    "preset_names",
    "save_config",
]

_HOME = {
    "Config": "st_cdgm.config.schema",
    "InferenceConfig": "st_cdgm.inference.config",
    "RunConfig": "st_cdgm.config.schema",
    "config_to_yaml": "st_cdgm.config.load",
    "load_config": "st_cdgm.config.load",
    "preset_names": "st_cdgm.config.load",
    "save_config": "st_cdgm.config.load",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
