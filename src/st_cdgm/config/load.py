"""From a preset or a YAML file, and KEY=VALUE overrides, to one checked ``Config``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from st_cdgm.config.keys import closest_key, type_name
from st_cdgm.config.schema import Config
from st_cdgm.errors import ConfigError, InputError, MissingFileError
from st_cdgm.outputs import flat, write_bytes
from st_cdgm.registry import load_plugins, naming, plugins

logger = logging.getLogger(__name__)

PRESETS = "st_cdgm.config.presets"
SCHEMA = "base"
ORIGINAL = "st_cdgm_default"  # what the original calls it
USER = "user_configuration"
for _name in (SCHEMA, ORIGINAL):
    ConfigStore.instance().store(name=_name, node=Config)
LIST = "`st-cdgm train --config NAME --dry-run` lists every key and its value"

# Hydra's errors are several unrelated families; none of them may reach the user.
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError, AttributeError)


def preset_names() -> list[str]:
    """Return the names of the packaged configurations."""
    files = resources.files(PRESETS).iterdir()
    return sorted(Path(f.name).stem for f in files if f.name.endswith(".yaml"))


def load_config(
    name_or_path: str | Path, overrides: Sequence[str] = (), *, trusted: bool = True
) -> Config:
    """Compose, check and return a configuration.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a packaged preset, or a YAML file. A file may build on a preset
        (``defaults: [iberia, _self_]``) or on a file beside it; without a defaults
        list it builds on `base`, the default values of every section.
    overrides : sequence of str
        ``KEY=VALUE`` in Hydra's grammar, applied last.
    trusted : bool
        Whether the plugins that it names may be imported, which runs their code. If
        not, one that was not imported before is an error.

    Returns
    -------
    Config
        Every value resolved and of its declared type, ``check`` passed. ``plugins``
        also lists those that were named elsewhere, such as on the command line.

    Raises
    ------
    ConfigError
        Unknown key (with the closest valid one), value of the wrong type or out of
        range, missing value, override that cannot be parsed, plugin that cannot be
        imported.
    MissingFileError
        Neither a preset nor a readable file.
    """
    with _named_source(name_or_path) as (name, search):
        probe = OmegaConf.structured(Config) if overrides else None
        changes = [_checked_override(text, probe) for text in overrides]
        composed = _compose(name, [*search, *changes], source=str(name_or_path))
    config = _instantiate(composed, source=str(name_or_path))
    _load_plugins(config, trusted=trusted, source=str(name_or_path))
    config.check()
    return config


def _load_plugins(config: Config, *, trusted: bool, source: str) -> None:
    """Import what the configuration names; note in it what others have named."""
    missing = [name for name in config.plugins if name not in plugins()]
    if missing and not trusted:
        raise ConfigError(
            "the configuration names plugins that are not loaded",
            file=source,
            variable="plugins",
            found=", ".join(missing),
            remedy=naming(missing),
        )
    load_plugins(config.plugins)
    config.plugins = list(dict.fromkeys([*config.plugins, *plugins(named=True)]))


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy with other values for some dotted keys, checked.

    Raises
    ------
    ConfigError
        Unknown key, or a value of the wrong type or out of range.
    """
    node = OmegaConf.structured(config)
    for key, value in changes.items():
        try:
            OmegaConf.update(node, key, value, merge=True)
        except OmegaConfBaseException as error:
            raise ConfigError(
                "a key cannot be changed so",
                variable=key,
                found=value,
                expected=f"a key and a value as {LIST}",
            ) from error

    copy = OmegaConf.to_object(node)
    assert isinstance(copy, Config)
    copy.check()
    return copy


def config_to_yaml(config: Config) -> str:
    """Return a configuration as YAML with every key, default values included."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def save_config(config: Config, path: str | Path) -> None:
    """Write a configuration that :func:`load_config` reads back unchanged."""
    write_bytes(path, config_to_yaml(config).encode())


def differences(there: Config, here: Config) -> list[tuple[str, Any, Any]]:
    """Return the dotted keys whose values differ, with both values, in their order."""
    first, second = (
        dict(flat(yaml.safe_load(config_to_yaml(one)))) for one in (there, here)
    )
    return [
        (key, first.get(key), second.get(key))
        for key in dict.fromkeys([*second, *first])
        if first.get(key) != second.get(key)
    ]


@contextmanager
def _named_source(name_or_path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name under which Hydra finds the source, and its search override."""
    text = str(name_or_path)
    if text in (*preset_names(), SCHEMA, ORIGINAL):
        yield text, []
        return

    path = Path(text).expanduser()
    if not path.is_file():
        raise MissingFileError(
            "the configuration is neither a packaged preset nor a file",
            found=text,
            expected=" | ".join(preset_names()) + " | a YAML file",
            remedy="check the spelling, or give the path of your own YAML file",
        )

    store = ConfigStore.instance()
    store.store(name=USER, node=_user_node(path))
    directory = str(path.resolve().parent).replace("'", r"\'")
    try:
        yield USER, [f"hydra.searchpath=['file://{directory}']"]
    finally:
        store.repo.pop(f"{USER}.yaml", None)


def _user_node(path: Path) -> DictConfig:
    """Read a user's file; its keys and types are checked here, with its name."""
    try:
        node = OmegaConf.load(path)
    except UnicodeDecodeError as error:
        raise ConfigError(
            "the configuration is not a text file",
            file=path,
            expected=" | ".join(preset_names()) + " | a YAML file",
            remedy="give the configuration here; data files belong in data.lr_path ...",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            "the configuration is not valid YAML",
            file=path,
            found=" ".join(str(error).split()),
            remedy="mend the line named above",
        ) from error
    if not isinstance(node, DictConfig):
        raise ConfigError(
            "the configuration is not a mapping of keys to values",
            file=path,
            expected="sections such as `data:` and `training:`",
        )

    # Without a defaults list the file builds on the default values of every section.
    named = node.pop("defaults", [])
    defaults = [named] if isinstance(named, str) else list(named)
    _check_sections(node, file=path)

    if "_self_" not in defaults:
        defaults.append("_self_")
    if defaults == ["_self_"]:
        defaults.insert(0, SCHEMA)
    complete: DictConfig = OmegaConf.create({"defaults": defaults, **node})
    return complete


def _check_sections(node: DictConfig, *, file: Path) -> None:
    schema = OmegaConf.structured(Config)
    for section, value in node.items():
        # One section at a time: a merge error at the root does not name its key.
        try:
            OmegaConf.merge(schema, {section: value})
        except HYDRA_ERRORS as error:
            raise _explained(error, key=str(section), file=file) from error


def _checked_override(text: str, probe: Any) -> str:
    """Try an override on ``probe``; return it as Hydra needs it."""
    override = _parsed(text)
    text = str(override.input_line)
    key = override.key_or_group
    if override.is_delete() or override.is_sweep_override() or override.package:
        raise ConfigError(
            f"this form of override is not supported: {text}",
            variable=key,
            expected="KEY=VALUE; a list is written KEY=[a,b]",
        )
    try:
        OmegaConf.update(probe, key, override.value(), merge=True)
    except HYDRA_ERRORS as error:
        raise _explained(error, key=key, file=None) from error
    # The key is known to be valid; `++` also lets Hydra add one to a dictionary.
    return f"++{text.lstrip('+')}"


def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    parse = OverridesParser.create().parse_override
    try:
        if not equals or not key.strip("+"):
            raise ValueError(text)  # noqa: TRY301 - same message as a parse failure
        return parse(text)
    except HYDRA_ERRORS as error:
        if equals and type_name(key.lstrip("+")) == "str":
            # A path with blanks or accents; the shell took the user's quotes away.
            with suppress(*HYDRA_ERRORS):
                return parse("{}='{}'".format(key, value.replace("'", r"\'")))
        raise ConfigError(
            f"cannot read the override: {text}",
            expected="KEY=VALUE, such as training.epochs=5",
            remedy=f"quote the value: \"{key}='{value}'\"" if equals else None,
        ) from error


def _compose(name: str, overrides: list[str], *, source: str) -> Any:
    try:
        with initialize_config_module(PRESETS, version_base="1.3"):
            return compose(name, overrides=overrides)
    except MissingConfigException as error:
        raise ConfigError(
            "the defaults list names a configuration that does not exist",
            file=source,
            found=error.missing_cfg_file,
            expected=" | ".join(preset_names()) + " | a YAML file beside this one",
        ) from error
    except HYDRA_ERRORS as error:
        raise _explained(error, key=None, file=source) from error


def _instantiate(composed: Any, *, source: str) -> Config:
    """Turn the composed tree into dataclasses, so that their checks run."""
    try:
        if OmegaConf.get_type(composed) is not Config:  # no preset and not `base`
            composed = OmegaConf.merge(OmegaConf.structured(Config), composed)
        OmegaConf.resolve(composed)
        config = OmegaConf.to_object(composed)
    except InputError:
        raise  # a dataclass refused a value and said why
    except HYDRA_ERRORS as error:
        raise _explained(error, key=None, file=source) from error
    assert isinstance(config, Config)
    return config


def _explained(
    error: BaseException, *, key: str | None, file: str | Path | None
) -> ConfigError:
    """Return one readable error for whatever Hydra or OmegaConf raised."""
    cause = _omegaconf_cause(error)
    key = _full_key(cause, key)
    facts: dict[str, Any] = {"file": file, "variable": key}

    if isinstance(cause, KeyError | AttributeError) and key:
        closest = closest_key(key)
        expected = closest and f"{closest} (the closest valid key)"
        return ConfigError(
            f"unknown configuration key: {key}", expected=expected, remedy=LIST, **facts
        )
    if isinstance(cause, MissingMandatoryValue):
        return ConfigError(f"there is no value for {key}", **facts)

    return ConfigError(
        f"invalid value for {key}" if key else "the configuration cannot be composed",
        found=next(iter(str(cause).splitlines()), type(cause).__name__),
        expected=type_name(key or ""),
        remedy=LIST,
        **facts,
    )


def _full_key(cause: BaseException, key: str | None) -> str | None:
    """Return the whole dotted key at fault; OmegaConf may know only a part of it."""
    part = getattr(cause, "full_key", None)
    if not part or not key:
        return part or key
    if f"{key}.".startswith(f"{part}."):  # it stopped at the first unknown name
        return key
    return part if part.startswith(f"{key}.") else f"{key}.{part}"


def _omegaconf_cause(error: BaseException) -> BaseException:
    """Follow the chain of causes to the error that knows the key."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error
