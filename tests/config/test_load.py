"""Presets, files, overrides: one schema, readable errors (D83, D84, D85)."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

from st_cdgm.config.keys import all_keys, closest_key, type_name
from st_cdgm.config.load import config_to_yaml, load_config, preset_names, save_config
from st_cdgm.config.schema import Config
from st_cdgm.errors import ConfigError, MissingFileError


@pytest.fixture
def write(tmp_path: Path):
    """Write a YAML file into a directory whose name needs quoting."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()

    def writer(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return writer


def test_presets_are_packaged_and_valid():
    assert preset_names() == ["access_cm2", "demo", "demo_quick", "iberia"]
    for name in preset_names():
        config = load_config(name)
        assert set(config.data.splits.periods()) == {"train", "validation", "test"}


def test_iberia_uses_the_fixed_periods():
    config = load_config("iberia", ["data.root=/data/iberia"])
    assert config.data.resolve(config.data.lr_path) == (
        "/data/iberia/predictors_ncep_r1.nc"
    )
    assert config.run.dir == "runs/iberia"
    assert config.data.splits.periods() == {
        "train": ["1991-01-01", "1999-12-21"],
        "validation": ["2001-01-11", "2002-12-21"],
        "test": ["2003-01-01", "2005-12-31"],
    }


def test_preset_inherits_from_preset():
    quick, full = load_config("demo_quick"), load_config("demo")
    assert quick.data.lr_path == full.data.lr_path
    assert quick.inference.members < full.inference.members


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.epochs=3", "training.epochs", 3),
        ("training.lr=1e-7", "training.lr", 1e-7),
        ("training.max_minutes=null", "training.max_minutes", None),
        ("data.root=/a dir/x", "data.root", "/a dir/x"),
        ("run.dir='a=b,c'", "run.dir", "a=b,c"),
        ("run.name=${run.dir}", "run.name", "runs/${run.name}"),
        ("diffusion.unet.block_out_channels=[8,16]", "diffusion.unet", [8, 16]),
        ("+training.epochs=4", "training.epochs", 4),
        ("++training.epochs=4", "training.epochs", 4),
    ],
)
def test_overrides_are_typed(override, key, value):
    if override.startswith("run.name"):
        override, value = "run.name=${training.precision}", "32-true"
    found = load_config("iberia", [override])
    for part in key.split("."):
        found = getattr(found, part)
    if key == "diffusion.unet":
        found = found.block_out_channels
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "override",
    ["data.baseline_map.wind=tas", "data.baseline_map={wind: tas}"],
)
def test_dictionaries_accept_new_keys(override):
    config = load_config("iberia", [override])
    assert config.data.baseline_map["wind"] == "tas"
    assert config.data.baseline_map["pr"] == "pr"


def test_levels_of_a_baseline_are_numbers_or_names():
    config = load_config("iberia", ["data.baseline_sources={pr: [SURF, 850]}"])
    assert config.data.baseline_sources == {"pr": ["SURF", 850]}


def test_later_override_wins():
    config = load_config("demo", ["training.epochs=3", "training.epochs=5"])
    assert config.training.epochs == 5


@pytest.mark.parametrize(
    ("override", "key", "closest"),
    [
        ("loss.beta_recc=1", "loss.beta_recc", "loss.beta_rec"),
        ("los.beta_rec=1", "los.beta_rec", "loss.beta_rec"),
        ("epochs=3", "epochs", "training.epochs"),
        ("training.unet.dropout=0", "training.unet.dropout", "diffusion.unet.dropout"),
        ("data.splits.tain=[a,b]", "data.splits.tain", "data.splits.train"),
    ],
)
def test_unknown_key_names_the_closest(override, key, closest):
    with pytest.raises(ConfigError) as caught:
        load_config("iberia", [override])
    assert caught.value.facts["variable"] == key
    assert str(caught.value.facts["expected"]).startswith(closest)
    assert caught.value.facts["remedy"]
    assert "hydra" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("training.epochs=many", "training.epochs", "int"),
        ("training.batch_size=2.5", "training.batch_size", "int"),
        ("training.lr=fast", "training.lr", "float"),
        ("data.normalize=perhaps", "data.normalize", "bool"),
        ("training=3", "training", "training.epochs=VALUE"),
        ("loss.variable_weights.pr=x", "loss.variable_weights.pr", None),
    ],
)
def test_wrong_type_names_key_and_type(override, key, expected):
    with pytest.raises(ConfigError) as caught:
        load_config("iberia", [override])
    assert caught.value.facts["variable"] == key
    found = caught.value.facts["expected"]
    assert found is None if expected is None else expected in str(found)


@pytest.mark.parametrize(
    "path", ["~/x", "été/my run (1)", "o'neil data", "a=b", "'quoted'", "plain/dir"]
)
def test_paths_are_taken_as_they_are(path):
    """The shell removes the quotes that Hydra's grammar would need."""
    found = load_config("demo", [f"data.root={path}"]).data.root
    assert found == path.strip("'")


@pytest.mark.parametrize(
    "override",
    [
        "training",
        "=3",
        "training.epochs=1,2",
        "~training.epochs",
        "training@other=3",
        "hydra.run.dir=x",
        "encoder.metapaths=[{nme: a}]",
        "encoder.metapaths=[{name: a}]",
        "run.dir=${run.nothing}",
        "run.log_level=LOUD",
        "run.seed=-1",
        "diffusion.scheduler_type=magic",
        "evaluation.references=[guess]",
        "evaluation.stride=0",
        "data.splits.train=[]",
    ],
)
def test_every_refusal_is_a_config_error(override):
    with pytest.raises(ConfigError) as caught:
        load_config("iberia", [override])
    assert str(caught.value).strip()


def test_unknown_source_lists_the_presets():
    with pytest.raises(MissingFileError, match="demo_quick"):
        load_config("iberai")


def test_user_file_builds_on_a_preset(write):
    path = write("mine.yaml", "defaults: [iberia, _self_]\ntraining: {epochs: 7}\n")
    config = load_config(path, ["training.batch_size=3"])
    assert (config.training.epochs, config.training.batch_size) == (7, 3)
    assert config.data.baseline_map == {"tasmin": "tas", "tasmax": "tas", "pr": "pr"}


@pytest.mark.parametrize("defaults", ["iberia", "[iberia]", "[iberia, _self_]"])
def test_own_values_win_however_defaults_are_written(write, defaults):
    path = write("a.yaml", f"defaults: {defaults}\ntraining: {{epochs: 7}}\n")
    assert load_config(path).training.epochs == 7


def test_user_file_may_bear_a_presets_name(write):
    path = write("iberia.yaml", "defaults: [iberia, _self_]\ntraining: {lr: 1e-7}\n")
    assert load_config(path).training.lr == 1e-7  # plain PyYAML reads text here
    assert load_config("iberia").training.lr != 1e-7


def test_user_file_builds_on_a_file_beside_it(write):
    write("mine.yaml", "defaults: [iberia, _self_]\ntraining: {epochs: 13}\n")
    path = write("b.yaml", "defaults: [mine, _self_]\nrun: {seed: 2}\n")
    config = load_config(path)
    assert (config.training.epochs, config.run.seed) == (13, 2)


@pytest.mark.parametrize("head", ["", "defaults: [base, _self_]\n", "defaults: []\n"])
def test_without_preset_the_default_values_hold(write, head):
    path = write("c.yaml", head + "data: {splits: {train: [2001, 2002]}}\n")
    config = load_config(path)
    assert config.training == Config().training
    assert config.data.splits.train == ["2001", "2002"]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("training: {epoch: 3}\n", ["training.epoch", "training.epochs"]),
        ("trainings: {epochs: 3}\n", ["trainings", "training (the closest"]),
        ("training: {epochs: x}\n", ["training.epochs", "int"]),
        ("training: 3\n", ["training"]),
        ("training: [3\n", ["not valid YAML"]),
        ("- 3\n", ["not a mapping"]),
        ("defaults: [ibera, _self_]\n", ["ibera", "iberia"]),
    ],
)
def test_faulty_file_is_named(write, text, facts):
    path = write("bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert all(fact in str(caught.value) for fact in [*facts, str(path)])


def test_fault_in_an_inherited_file_names_the_key(write):
    write("mine.yaml", "defaults: [iberia, _self_]\ntraining: {epoch: 13}\n")
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        load_config(write("b.yaml", "defaults: [mine, _self_]\n"))


def test_saved_configuration_reads_back_equal(tmp_path):
    config = load_config("iberia", ["training.lr=1e-7", "data.root=/x", "run.seed=5"])
    save_config(config, tmp_path / "run" / "config.yaml")
    assert load_config(tmp_path / "run" / "config.yaml") == config
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_yaml_is_resolved_and_complete():
    text = config_to_yaml(load_config("iberia"))
    assert "${" not in text
    sections = [line.split(":")[0] for line in text.splitlines() if line[0].isalpha()]
    assert sections == [f.name for f in fields(Config)]


def test_loaded_configuration_is_independent_and_mutable():
    first, second = load_config("demo"), load_config("demo")
    first.training.epochs += 1
    first.data.splits.train[0] = "1900"
    assert second == load_config("demo")


def _sections(kind: type):
    yield kind
    for item in fields(kind):
        default = item.default_factory if item.default is MISSING else item.default
        if isinstance(default, type) and is_dataclass(default):
            yield from _sections(default)


def test_defaults_are_factories_and_nothing_is_frozen():
    """D83: an instance as default fails at import; frozen would be read-only."""
    kinds = list(_sections(Config))
    assert len(kinds) >= 12
    for kind in kinds:
        assert not kind.__dataclass_params__.frozen, kind
        assert not any(is_dataclass(f.default) for f in fields(kind)), kind


def test_every_key_can_be_overridden():
    """D84: what the schema holds can be given on the command line."""
    config = load_config("demo")
    overrides = {}
    for key in all_keys():
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        if not is_dataclass(value):
            overrides[key] = "null" if value is None else json.dumps(value)
    assert len(overrides) > 80
    changes = [f"{key}={value}" for key, value in overrides.items()]
    assert load_config("demo", changes) == config


def test_closest_key_prefers_the_whole_name():
    assert closest_key("training.lrr") == "training.lr"
    assert closest_key("scheduler_type") == "diffusion.scheduler_type"
    assert closest_key("zzzqqq") is None


def test_type_names():
    assert type_name("training.epochs") == "int"
    assert type_name("data.root") == "str"
    assert type_name("loss.variable_weights") == "dict[str, float]"
    assert type_name("nothing") is None
