"""Checkpoints on disk: switched in one step, checked to the bit, sized before use."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from st_cdgm import outputs
from st_cdgm.checkpoint import directory as checkpoints
from st_cdgm.checkpoint.directory import (
    change_settings,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from st_cdgm.errors import InputError, OutputError
from st_cdgm.outputs import move_directory, recover_directory, remove_leftovers


def copied(trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.checkpoint, tmp_path / "copy"))


def change(folder: Path, how) -> None:
    """Change the stored tensors in place, their checksums not."""
    tensors = load_file(folder / "model.safetensors")
    how(tensors)
    save_file(tensors, folder / "model.safetensors")


def without_checksums(folder: Path) -> None:
    """Make it a checkpoint of a version that wrote none."""
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    del meta["checksums"]
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")


def first_weights(tensors):
    return next(key for key in sorted(tensors) if key.startswith("model.decoder"))


# -- damage ----------------------------------------------------------------------------


def test_one_flipped_bit_is_found_and_named(trained, tmp_path):
    folder = copied(trained, tmp_path)

    def flip(tensors):
        values = tensors[first_weights(tensors)].view(torch.int32).reshape(-1)
        values[0] ^= 1 << 30  # of the exponent

    change(folder, flip)
    key = first_weights(load_file(folder / "model.safetensors"))
    with pytest.raises(InputError, match=f"{key} was changed"):
        load_checkpoint(folder)
    with pytest.raises(InputError, match="was changed"):
        load_weights(load_checkpoint(trained.checkpoint).model, folder)


def test_tensors_that_are_missing_or_too_many_are_named(trained, tmp_path):
    folder = copied(trained, tmp_path)

    def exchange(tensors):
        del tensors[first_weights(tensors)]
        tensors["model.extra"] = torch.zeros(2)

    change(folder, exchange)
    with pytest.raises(InputError, match=r"is missing, model\.extra was added"):
        load_checkpoint(folder)


@pytest.mark.parametrize("key", ["model.extra", "data.extra", "other"])
def test_extra_tensors_are_refused_without_checksums_too(trained, tmp_path, key):
    folder = copied(trained, tmp_path)
    without_checksums(folder)
    change(folder, lambda tensors: tensors.update({key: torch.zeros(2)}))
    with pytest.raises(InputError, match="extra|other"):
        load_checkpoint(folder)


def test_weights_that_are_no_numbers_are_refused(trained, tmp_path):
    folder = copied(trained, tmp_path)
    without_checksums(folder)
    load_checkpoint(folder)  # an earlier version's is read
    change(folder, lambda tensors: tensors[first_weights(tensors)].fill_(torch.nan))
    with pytest.raises(InputError, match="not finite"):
        load_checkpoint(folder)


def test_sizes_are_checked_before_memory_is_taken(trained, tmp_path):
    """``hidden_dim: 1e9`` took 12.6 GB before it was refused."""
    folder = copied(trained, tmp_path)
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    meta["model"]["encoder"]["hidden_dim"] = 10**9
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")
    with pytest.raises(InputError, match="asks for more than its weights hold"):
        load_checkpoint(folder)


def test_changed_settings_keep_the_checksums(trained, tmp_path):
    folder = copied(trained, tmp_path)
    change_settings(folder, "diffusion", noise_memory=[])
    assert load_checkpoint(folder).meta["checksums"]


# -- writing ---------------------------------------------------------------------------


def folder_with(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_takes_the_place_of_another(tmp_path, monkeypatch, exchange):
    if not exchange:  # a system without renameat2
        monkeypatch.setattr(outputs, "_exchanged", lambda *_: False)
    target = folder_with(tmp_path / "last", "old")
    move_directory(folder_with(tmp_path / "new", "new"), target)
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_the_switch_is_one_step(tmp_path, monkeypatch):
    """A kill between two renames lost the whole training."""
    target = folder_with(tmp_path / "last", "old")
    new = folder_with(tmp_path / "new", "new")
    if not outputs._exchanged(new, target):
        pytest.skip("this file system cannot exchange names")
    outputs._exchanged(new, target)

    def killed(*_):
        raise KeyboardInterrupt

    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, killed)
    move_directory(new, target)
    assert (target / "file").read_text() == "new"


def test_what_was_put_aside_is_found_again(tmp_path, monkeypatch):
    """Without an exchange of names a kill can fall between two renames."""
    monkeypatch.setattr(outputs, "_exchanged", lambda *_: False)
    target = folder_with(tmp_path / "last", "old")
    new = folder_with(tmp_path / "new", "new")
    rename = Path.rename

    def killed(self, to):
        if self == new:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        move_directory(new, target)
    monkeypatch.undo()
    assert not target.exists()
    recover_directory(target)
    assert (target / "file").read_text() == "old"


def test_a_checkpoint_put_aside_is_loaded(trained, tmp_path):
    folder = copied(trained, tmp_path)
    folder.rename(folder.with_name(".copy-old"))
    assert load_checkpoint(folder).meta["format_version"] == 1


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    target = tmp_path / "out.nc"
    dead = 2**22 - 3  # above what the system gives out by default
    kept = [
        outputs.temporary_name(target),  # of this process
        tmp_path / f".other.nc.{outputs._HERE}-{dead}-aaaaaa.part",
        tmp_path / ".out.nc.0123456789ab.part",  # an earlier version's, of today
        tmp_path / ".out.nc.mine.part",
    ]
    gone = [
        tmp_path / f".out.nc.{outputs._HERE}-{dead}-aaaaaa.part",
        tmp_path / ".out.nc.ba9876543210.part",
    ]
    for path in (*kept, *gone):
        path.write_text("x")
    os.utime(gone[1], (0, 0))
    folder = tmp_path / f".out.nc.{outputs._HERE}-{dead}-bbbbbb.part"
    (folder / "inner").mkdir(parents=True)
    remove_leftovers(target)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_the_umask_is_honoured(trained, tmp_path, umask):
    loaded = load_checkpoint(trained.checkpoint)
    before = os.umask(umask)
    try:
        path = save_checkpoint(tmp_path / "point", loaded.model, loaded.preprocessor)
    finally:
        os.umask(before)
    rights = {name.name: name.stat().st_mode & 0o777 for name in path.iterdir()}
    assert set(rights.values()) == {0o666 & ~umask}
    assert path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_full_disk_is_named_with_the_space_left(trained, tmp_path, monkeypatch):
    loaded = load_checkpoint(trained.checkpoint)
    path = save_checkpoint(tmp_path / "point", loaded.model, loaded.preprocessor)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        save_checkpoint(path, loaded.model, loaded.preprocessor)
    assert "MB free of" in str(caught.value)
    assert str(path) in str(caught.value)
    # What was there is still there, and nothing else.
    assert [p.name for p in tmp_path.iterdir()] == ["point"]
    load_checkpoint(path)
