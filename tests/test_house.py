"""The plan of rooms holds, and the ratchets do not slip back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import golden, house
from tests.data import small_task

# What a test counts -> the most it may be.
RATCHETS = {
    "modules in a folder": 12,
    "lines of __all__": 0,
    "circles of modules": 0,
    "functions without a paragraph": 0,
    "statements without a break": 10,
    "long functions without a comment": 0,
    "modules entered for one channel": 12,
    "moves between modules for one channel": 30,
    "moves between modules for a pipeline": 250,
}


def hold(name: str, found: int, more: object = "") -> None:
    """Print what was counted and compare it with the ratchet."""
    sys.stdout.write(f"\n{name}: {found} (at most {RATCHETS[name]})\n")
    assert found <= RATCHETS[name], more


@pytest.mark.parametrize("module", sorted(house.MODULES))
def test_imports_follow_the_plan(module):
    name = module.removeprefix("st_cdgm").lstrip(".")
    room = house.room_of(name)
    if room is None:  # the package itself and the shared ground
        return
    found = {
        target.removeprefix("st_cdgm.")
        for target in house.imported(house.tree_of(house.MODULES[module]))
        if target.startswith("st_cdgm.")
    }
    assert [t for t in sorted(found) if not house.is_allowed(t, room)] == []


@pytest.mark.parametrize(
    ("target", "room", "allowed"),
    [
        ("models.config.ModelConfig", "training", True),
        ("checkpoint.directory.load_checkpoint", "inference", True),
        ("training.fit", "inference", False),
        ("data.task.batch.Batch", "models", False),
        ("physics.blocks.Blocks", "models", True),
        ("physics.terms.BlockTerm", "models", False),
        ("data.files.open.open_dataset", "data.space", False),
        ("data.space.grid.Grid", "data.files", True),
        ("data.task.days.DayFields", "data.fit", False),
        ("errors.InputError", "data.variables", True),
        ("cli.main", "runs", False),
        ("config.schema", "training", False),
    ],
)
def test_the_rule_itself(target, room, allowed):
    assert house.is_allowed(target, room) is allowed


@pytest.mark.parametrize("name", sorted(house.SHARED))
def test_shared_ground_knows_no_layer(name):
    tree = house.tree_of(house.SRC / "st_cdgm" / f"{name}.py")
    own = {n.split(".")[1] for n in house.imported(tree) if n.startswith("st_cdgm.")}
    assert own <= house.SHARED


def test_every_module_has_a_room():
    names = [m.removeprefix("st_cdgm.") for m in house.MODULES if "." in m]
    assert [n for n in names if n not in house.SHARED and not house.room_of(n)] == []


def test_folders_are_small():
    open_ended = {"st_cdgm/models", "st_cdgm/cli"}
    count = {f: n for f, n in house.modules_per_folder().items() if f not in open_ended}
    hold("modules in a folder", max(count.values()), count)


def test_only_faces_list_their_names():
    hold("lines of __all__", house.lines_of_all())


def test_no_circles():
    found = house.circles()
    hold("circles of modules", len(found), found)


def test_functions_are_written_in_paragraphs():
    dense, long = house.without_paragraphs()
    hold("functions without a paragraph", len(dense), (dense, long))


def test_no_long_run_of_statements():
    (most, place), *_ = house.longest_runs()
    hold("statements without a break", most, place)


def test_long_functions_name_their_steps():
    found = house.uncommented()
    hold("long functions without a comment", len(found), found)


# -- How often the reader has to change the room ---------------------------------------


class Walk:
    """Count calls that enter another module than the call before."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.moves = 0
        self._last: str | None = None

    def __call__(self, frame, event, _argument) -> None:
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(f"{house.SRC}/"):
            return
        self.moves += self._last not in (None, file)
        self.modules.add(file)
        self._last = file


def walked(action) -> Walk:
    """Do something twice; count the second time, when nothing is new."""
    action()
    walk = Walk()
    sys.setprofile(walk)
    try:
        action()
    finally:
        sys.setprofile(None)
    return walk


def test_opening_one_channel_enters_few_rooms(tmp_path):
    from st_cdgm.data.read.readers import read_channels

    small_task.write(tmp_path)
    walk = walked(lambda: read_channels(tmp_path / "lr.nc", variables=["tas"]))
    hold("modules entered for one channel", len(walk.modules), walk.modules)
    hold("moves between modules for one channel", walk.moves)


def test_a_pipeline_enters_few_rooms(tmp_path):
    from st_cdgm.data.pipeline import NetCDFDataPipeline

    config = small_task.config(small_task.write(tmp_path))
    walk = walked(lambda: NetCDFDataPipeline.from_config(config))
    hold("moves between modules for a pipeline", walk.moves)


# -- What must not change --------------------------------------------------------------


def test_the_toy_chain_gives_what_it_gave(tiny_pipeline, tmp_path):
    """Golden values: equal to 1e-6 on a machine of the same kind, else to 5e-3.

    Training magnifies the last bits of other kernels, hence the two tolerances.
    """
    record = json.loads(golden.RECORD.read_text("utf-8"))
    same = record.pop("machine") == golden.machine()
    found = golden.compute(tiny_pipeline, tmp_path)
    tolerance = 1e-6 if same else 5e-3
    assert golden.differences(found, record, tolerance=tolerance, exact=False) == []


def test_a_changed_value_is_seen():
    record = {"a": 1.0, "b": [1, 2], "c": "0" * 64}
    assert golden.differences(record, record, tolerance=0.0, exact=True) == []
    other = {"a": 1.0 + 1e-5, "b": [1, 3], "c": "1" * 64}
    seen = golden.differences(other, record, tolerance=1e-6, exact=False)
    assert [line.split(":")[0] for line in seen] == ["a", "b/1"]
    assert len(golden.differences(other, record, tolerance=1e-6, exact=True)) == 3


FROZEN = Path(__file__).with_name("faces.json")


@pytest.mark.parametrize("face", sorted(json.loads(FROZEN.read_text("utf-8"))))
def test_public_faces_are_frozen(face):
    """Names may be added; one that goes breaks somebody's import."""
    import importlib

    module = importlib.import_module(face)
    names = json.loads(FROZEN.read_text("utf-8"))[face]
    assert [name for name in names if not hasattr(module, name)] == []
