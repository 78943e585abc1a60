"""``st-cdgm config``: show, check, diff, schema."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from st_cdgm.cli.main import app
from st_cdgm.config.describe import json_schema
from st_cdgm.config.keys import all_keys
from st_cdgm.config.load import config_to_yaml, load_config, preset_names
from st_cdgm.config.schema import Config


def config(*arguments):
    return CliRunner().invoke(app, ["config", *map(str, arguments)])


def leaves(schema, prefix=""):
    """Yield dotted keys of a schema with what it says of them."""
    for name, entry in schema["properties"].items():
        yield f"{prefix}{name}", entry
        for part in [entry, *entry.get("anyOf", [])]:
            if "properties" in part:
                yield from leaves(part, f"{prefix}{name}.")


def test_show_is_the_dry_run():
    shown = config("show", "demo", "training.epochs=7")
    assert shown.exit_code == 0
    assert yaml.safe_load(shown.stdout)["training"]["epochs"] == 7
    dry = CliRunner().invoke(app, ["train", "--config", "demo", "--dry-run"])
    assert config("show", "demo").stdout == dry.stdout


def test_check_names_what_is_wrong(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {splits: {train: ['2001', '2002']}}")
    missing = config("check", tmp_path / "mine.yaml")
    assert missing.exit_code == 2
    assert "data.lr_path" in missing.stderr
    unknown = config("check", "demo", "training.epoch=3")
    assert unknown.exit_code == 2
    assert "training.epochs (the closest valid key)" in unknown.stderr


def test_check_of_what_can_be_run(tiny_files, tmp_path):
    name = tmp_path / "tiny.yaml"
    periods = "{train: ['2001-01-01', '2001-05-31'], validation: ['2001-06-03', "
    periods += "'2001-07-10'], test: ['2001-07-15', '2001-08-28']}"
    name.write_text(
        f"data: {{root: '{tiny_files}', lr_path: lr.nc, hr_path: hr.nc, "
        f"splits: {periods}}}\nevaluation: {{references: [climatology]}}\n"
    )
    sound = config("check", name)
    assert sound.exit_code == 0, sound.stderr
    assert sound.stdout.startswith("Sound: ")


def test_diff_lists_keys_with_both_values():
    lines = config("diff", "demo_quick", "demo").stdout.splitlines()
    at = lines.index("inference.members")
    assert lines[at + 1 : at + 3] == ["  - 10", "  + 8"]
    assert config("diff", "iberia", "iberia").stdout == ""
    assert "encoder.hidden_dim" in config("diff", "iberia").stdout


def test_schema_describes_every_key(tmp_path):
    written = config("schema", "--output", tmp_path / "s.json")
    assert written.exit_code == 0
    schema = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert json.loads(config("schema").stdout) == schema
    entries = dict(leaves(schema))
    keys = set(all_keys())
    assert keys <= set(entries)
    bare = sorted(key for key in keys if len(entries[key]["description"]) < 8)
    assert bare == []
    assert entries["training.epochs"]["default"] == Config().training.epochs


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_fits_the_schema(name):
    validator = pytest.importorskip("jsonschema").Draft202012Validator(
        json.loads(json.dumps(json_schema(), default=vars))
    )
    whole = yaml.safe_load(config_to_yaml(load_config(name)))
    assert list(validator.iter_errors(whole)) == []
    whole["training"]["epochs"] = "many"
    whole["los"] = {}
    assert len(list(validator.iter_errors(whole))) == 2
    whole["training"]["epochs"] = "${oc.env:EPOCHS}"
    assert len(list(validator.iter_errors(whole))) == 1
