"""Verbs, options, exit codes, messages, and what is imported when."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from st_cdgm import __version__
from st_cdgm.cli.main import EXIT_FAILED, EXIT_INPUT, app
from st_cdgm.errors import InputError
from st_cdgm.runs import environment as doctor_module
from st_cdgm.runs.environment import Status

HEAVY = ("torch", "omegaconf", "hydra", "xarray", "numpy", "matplotlib", "pandas")

# A change here changes what users type.
OPTIONS = {
    "demo": ["--out", "--quick"],
    "run": ["--config", "--dry-run", "--overwrite", "--resume"],
    "synthesize": ["--output"],
    "preprocess": [
        "--config",
        "--dry-run",
        "--format",
        "--memory",
        "--out",
        "--overwrite",
        "--scheduler",
        "--shard-size",
        "--verify",
        "--workers",
    ],
    "train": ["--config", "--dry-run", "--overwrite", "--resume"],
    "downscale": [
        "--block-means",
        "--calibrate",
        "--checkpoint",
        "--device",
        "--end",
        "--guidance-scale",
        "--lr",
        "--members",
        "--on-invalid",
        "--output",
        "--regrid",
        "--sampler",
        "--seed",
        "--start",
        "--steps",
    ],
    "evaluate": [
        "--figures",
        "--mask",
        "--metric",
        "--output",
        "--prediction",
        "--reference",
        "--truth",
    ],
    "reference": ["--config", "--dry-run", "--members", "--output"],
    "report": ["--title"],
    "inspect": ["--checkpoint", "--json", "--output", "--pair"],
    "discover": [
        *("--compare", "--config", "--dry-run", "--known", "--output", "--series"),
    ],
    "certify": ["--resamples", "--seeds", "--surrogates"],
    "counterfactual": [
        "--allow-uncertified",
        "--box",
        "--checkpoint",
        "--days",
        "--device",
        "--do",
        "--edit-days",
        "--from",
        "--graph",
        "--hold-others",
        "--lr",
        "--members",
        "--output",
        "--pattern",
        "--regrid",
        "--seed",
    ],
    "doctor": [],
    "config": [],  # a group: see CONFIG
    "plugins": ["--kind"],
}
ARGUMENTS = {
    "discover": ["overrides"],
    "certify": ["run_dir"],
    "run": ["overrides"],
    "synthesize": ["overrides"],
    "preprocess": ["overrides"],
    "train": ["overrides"],
    "reference": ["name", "overrides"],
    "report": ["run_dir"],
    "inspect": ["files"],
}


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "action",
    [
        "import st_cdgm; st_cdgm.__version__; dir(st_cdgm)",
        "import st_cdgm.data, st_cdgm.models, st_cdgm.training, st_cdgm.inference, "
        "st_cdgm.evaluation, st_cdgm.references, st_cdgm.config, st_cdgm.cli",
        "from typer.testing import CliRunner; from st_cdgm.cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from typer.testing import CliRunner; from st_cdgm.cli.main import app; "
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0",
    ],
)
def test_import_and_help_stay_light(action):
    """D17: nothing heavy is loaded before it is needed."""
    done = python(
        f"{action}\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_verbs_and_options_are_frozen():
    group = typer.main.get_command(app)
    found = {
        verb: sorted(
            max(p.opts, key=len) for p in command.params if p.opts[0].startswith("-")
        )
        for verb, command in group.commands.items()
    }
    assert found == OPTIONS
    arguments = {
        verb: [p.name for p in command.params if not p.opts[0].startswith("-")]
        for verb, command in group.commands.items()
    }
    assert {verb: names for verb, names in arguments.items() if names} == ARGUMENTS
    assert sorted(p.opts[0] for p in group.params) == [
        "--install-completion",
        "--log-level",
        "--plugin",
        "--show-completion",
        "--version",
    ]


def test_every_verb_shows_an_example():
    for verb in set(OPTIONS) - {"doctor"}:
        assert f"st-cdgm {verb}" in call(verb, "--help").output


def test_version():
    result = call("--version")
    assert (result.exit_code, result.output) == (0, f"st-cdgm {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["train"],
        ["train", "--config"],
        ["train", "--unknown"],
        ["--log-level", "LOUD", "doctor"],
        ["downscale", "--checkpoint", "x"],
        ["downscale", "--checkpoint=x", "--lr=y", "--output=z", "--members=0"],
        ["evaluate", "--prediction=a", "--truth=b", "--output=c", "--reference=d"],
        ["run", "--config", "iberai"],
        ["run", "--config", "iberia", "--dry-run", "loss.beta_recc=1"],
        ["inspect", "/nowhere/nothing.nc"],
    ],
)
def test_bad_usage_and_bad_input_exit_with_2(arguments):
    result = call(*arguments)
    assert result.exit_code == EXIT_INPUT
    assert result.stdout == ""
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_unknown_key_is_one_readable_message():
    result = call("train", "--config", "iberia", "--dry-run", "loss.beta_recc=1")
    lines = result.stderr.splitlines()
    assert lines[0] == "Error: unknown configuration key: loss.beta_recc"
    assert "  expected: loss.beta_rec (the closest valid key)" in lines
    assert lines[-1].startswith("  remedy: ")


def test_entry_point_has_the_same_exit_codes():
    code = (
        "import sys; from st_cdgm.cli.main import main\n"
        "sys.argv = ['st-cdgm', {}]; main()"
    )
    assert python(code.format("'--version'")).returncode == 0
    missing = python(code.format("'inspect', 'nothing.nc'"), NO_COLOR="1")
    assert missing.returncode == EXIT_INPUT
    assert missing.stderr.startswith("Error: ")
    assert "\x1b[" not in missing.stderr
    assert "Traceback" not in missing.stderr


def failing(monkeypatch, error: Exception) -> None:
    def fail(ctx: typer.Context) -> None:
        raise error

    monkeypatch.setattr("st_cdgm.data.inspect.files.inspect_file", fail)


def test_unexpected_failure_exits_with_1_in_one_line(monkeypatch):
    failing(monkeypatch, RuntimeError("disk on fire\nmore"))
    result = call("inspect", "x.nc")
    assert result.exit_code == EXIT_FAILED
    assert result.stderr.splitlines() == [
        "Failed: RuntimeError: disk on fire",
        "Traceback: run again with --log-level DEBUG",
    ]


def test_debug_shows_the_traceback(monkeypatch):
    failing(monkeypatch, RuntimeError("disk on fire"))
    result = call("--log-level", "debug", "inspect", "x.nc")
    assert result.exit_code == EXIT_FAILED
    assert "inspect_file" in result.stderr


def test_failure_during_a_run_leaves_its_traceback_in_the_log(monkeypatch, tmp_path):
    from st_cdgm.runs import checks as _checks
    from st_cdgm.runs import workflow as _workflow
    from st_cdgm.runs.console import start_logging

    def fail(config, session, **_):
        start_logging(session, run_dir=tmp_path / "run")
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(_workflow, "run_workflow", fail)
    monkeypatch.setattr(_checks, "check_before_training", lambda *_, **__: None)
    result = call("run", "--config", "demo")
    assert result.exit_code == EXIT_FAILED
    log = tmp_path / "run" / "run.log"
    assert result.stderr.splitlines()[1] == f"Traceback: {log}"
    assert "RuntimeError: disk on fire" in log.read_text("utf-8")


def test_input_error_inside_a_verb(monkeypatch):
    failing(monkeypatch, InputError("wrong grid", file="a.nc", remedy="regrid it"))
    result = call("inspect", "x.nc")
    assert result.exit_code == EXIT_INPUT
    assert result.stderr.splitlines() == [
        "Error: wrong grid",
        "  file: a.nc",
        "  remedy: regrid it",
    ]


@pytest.mark.parametrize("verb", ["run", "train"])
def test_dry_run_prints_the_configuration_and_writes_nothing(
    verb, tmp_path, monkeypatch
):
    from omegaconf import OmegaConf

    monkeypatch.chdir(tmp_path)
    result = call(verb, "--config", "demo", "--dry-run", "training.epochs=77")
    assert result.exit_code == 0
    printed = OmegaConf.create(result.stdout)
    assert printed.training.epochs == 77
    assert "loss" in printed
    assert list(tmp_path.iterdir()) == []


def test_log_goes_to_standard_error_and_to_the_run(tmp_path, capsys):
    from st_cdgm.runs.console import Session, start_logging

    session = Session()
    start_logging(session, run_dir=tmp_path)
    logging.getLogger("st_cdgm.x").info("epoch %d", 3)
    logging.getLogger("st_cdgm.x").warning("careful")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "careful" in captured.err
    assert "epoch" not in captured.err  # standard output is not a terminal here
    text = session.log_file.read_text("utf-8")
    assert "epoch 3" in text
    assert "careful" in text


def test_log_level_of_the_command_line_wins(tmp_path, capsys):
    from st_cdgm.runs.console import Session, start_logging

    start_logging(Session(log_level="DEBUG"), level="ERROR", run_dir=tmp_path)
    logging.getLogger("st_cdgm.x").debug("detail")
    assert "detail" in capsys.readouterr().err


def test_idle_threads_sleep_unless_the_user_says_otherwise():
    code = (
        "from typer.testing import CliRunner; from st_cdgm.cli.main import app\n"
        "import os; os.environ.pop('OMP_WAIT_POLICY') if {} else None\n"
        "CliRunner().invoke(app, ['inspect', 'nothing.nc'])\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    assert python(code.format(True)).stdout.strip() == "PASSIVE"
    kept = python(code.format(False), OMP_WAIT_POLICY="ACTIVE")
    assert kept.stdout.strip() == "ACTIVE"


def test_doctor_passes_here(monkeypatch):
    monkeypatch.setattr(doctor_module, "LIBRARIES", {"numpy": "numpy"})
    result = call("doctor")
    assert result.exit_code == 0
    assert "OMP_WAIT_POLICY" in result.stdout


def test_doctor_fails_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor_module, "LIBRARIES", {"no-such-library": "nosuch"})
    result = call("doctor")
    assert result.exit_code == EXIT_FAILED
    assert "no-such-library" in result.stdout
    assert "make install" in result.stdout


def test_doctor_sees_an_old_python_and_a_broken_library(monkeypatch):
    assert doctor_module.check_python((3, 10, 4)).status is Status.FAIL
    assert doctor_module.check_python((3, 12, 0)).status is Status.OK
    broken = doctor_module.check_library("numpy", "st_cdgm.nothing")
    assert broken.status is Status.FAIL
    assert "cannot be imported" in broken.found
    monkeypatch.setattr(doctor_module, "_wanted", lambda name: ">=999")
    old = doctor_module.check_library("numpy", "numpy")
    assert old.status is Status.FAIL
    assert 'pip install "numpy>=999"' in old.remedy


def test_doctor_reports_an_unwanted_library():
    found = doctor_module.check_unwanted("json", "for this test")
    assert found.status is Status.WARN
    assert "pip uninstall json" in found.remedy
    absent = doctor_module.check_unwanted("torchvision_nothing", "for this test")
    assert absent.status is Status.OK


@pytest.mark.parametrize(
    ("installed", "used", "words"),
    [
        (None, False, "not installed"),
        ("0.5.0", True, "0.5.0, used"),
        ("0.5.0", False, "installed and not used"),
    ],
)
def test_doctor_says_whether_pyg_lib_is_used(monkeypatch, installed, used, words):
    # D40: the check for pyg-lib did nothing.
    import torch_geometric.typing as geometric

    def version(name):
        if installed is None:
            raise doctor_module.importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(doctor_module.importlib.metadata, "version", version)
    monkeypatch.setattr(geometric, "WITH_PYG_LIB", used)
    found = doctor_module.check_pyg_lib()
    assert words in found.found
    wrong = installed is not None and not used
    assert found.status is (Status.WARN if wrong else Status.OK)
    assert bool(found.remedy) is wrong


def test_doctor_counts_threads_memory_and_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    threads, policy = doctor_module.check_threads()
    assert threads.status is Status.WARN
    assert threads.remedy.startswith("export OMP_NUM_THREADS=")
    assert policy.status is Status.WARN
    assert doctor_module.check_memory(needed_gib=1e9).status is Status.WARN
    assert doctor_module.check_disk(tmp_path, needed_gib=1e9).status is Status.WARN
    assert doctor_module.check_disk(tmp_path, needed_gib=0).status is Status.OK
