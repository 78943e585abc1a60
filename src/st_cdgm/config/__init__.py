"""One configuration from the layers' settings, presets, files and overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.config.load import config_to_yaml as config_to_yaml
    from st_cdgm.config.load import load_config as load_config
    from st_cdgm.config.load import preset_names as preset_names
    from st_cdgm.config.load import save_config as save_config
    from st_cdgm.config.schema import Config as Config
    from st_cdgm.config.schema import RunConfig as RunConfig
    from st_cdgm.inference.config import InferenceConfig as InferenceConfig

__getattr__, __dir__, __all__ = attach(__name__)
