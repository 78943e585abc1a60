"""What a preprocessed directory says is checked before it is believed."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import zarr
from tests.data import prepared_task

from st_cdgm.data.store.manifest import (
    read_config,
    read_metadata,
    read_preprocessor,
    write_preprocessor,
)
from st_cdgm.data.store.preprocess import create_shards, write_zarr
from st_cdgm.data.store.resumable import ResumableOutput
from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
from st_cdgm.errors import InputError
from st_cdgm.outputs import digest


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return prepared_task.pipeline(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def made(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_zarr(pipeline, folder / "zarr")
    create_shards(pipeline, folder / "shards", shard_size=60)
    return folder


@pytest.fixture
def stores(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "zarr", tmp_path / "stores"))


@pytest.fixture
def shards(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "shards", tmp_path / "shards"))


def change(directory: Path, where: str, value) -> None:
    """Set the entry ``a.b.0`` of the metadata, or delete it (``...``)."""
    file = directory / "metadata.json"
    metadata = json.loads(file.read_text("utf-8"))
    *path, last = (int(p) if p.isdigit() else p for p in where.split("."))
    holder = metadata
    for part in path:
        holder = holder[part]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    file.write_text(json.dumps(metadata), encoding="utf-8")


def test_sound_metadata_pass(made):
    for name in ("zarr", "shards"):
        metadata = read_metadata(made / name)
        assert read_config(metadata).seq_len == metadata["seq_len"] == 4


WRONG = [
    ("seq_len", 0),
    ("seq_len", "4"),
    ("seq_len", True),
    ("num_days", 2.5),
    ("num_days", ...),
    ("transform_epsilon", "small"),
    ("target_transform", 3),
    ("lr_shape", [4]),
    ("hr_shape", [8, -9]),
    ("variables.lr", "tas"),
    ("variables.lr", ["tas", "tas"]),
    ("variables.hr", [1, 2, 3]),
    ("splits.train.days", []),
    ("splits.train.days", [[0, 2**60]]),
    ("splits.train.days", [[5, 5]]),
    ("splits.train.days", [[10, 20], [15, 30]]),
    ("splits.train", [0, 5]),
    ("checksums", []),
    ("checksums", {"../outside": {"bytes": 1, "sha256": ""}}),
    ("checksums", {"/etc/hostname": {"bytes": 1, "sha256": ""}}),
    ("checksums", {"preprocessor.json": {"sha256": ""}}),
    ("checksums", {"preprocessor.json": {"bytes": -1, "sha256": ""}}),
    ("config", 5),
]


@pytest.mark.parametrize(("where", "value"), WRONG)
@pytest.mark.parametrize("name", ["zarr", "shards"])
def test_wrong_entries_are_refused_by_name(made, tmp_path, name, where, value):
    shutil.copy(made / name / "metadata.json", tmp_path)
    change(tmp_path, where, value)
    with pytest.raises(InputError, match="the metadata are damaged") as caught:
        read_metadata(tmp_path)
    assert caught.value.facts["file"] == tmp_path / "metadata.json"
    assert where.partition(".")[0] in caught.value.facts["variable"]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("shards", {}),
        ("shards.0.samples", 10**12),
        ("shards.1.first", 0),
        ("shards.0.name", None),
        ("num_samples", 1),
        ("splits.train.samples", [0, 10**9]),
        ("splits.test.samples", "all"),
    ],
)
def test_wrong_lists_of_shards_are_refused(shards, where, value):
    change(shards, where, value)
    with pytest.raises(InputError, match="the metadata are damaged"):
        WebDatasetIterableDataset(shards / "data_*.tar")


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "null", "[" * 10**5, "\xff"])
def test_what_is_no_metadata_is_refused(tmp_path, text):
    (tmp_path / "metadata.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="the metadata cannot be read"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("config.stride", "two"),
        ("config.stride", True),
        ("config.normalize", 1),
        ("config.lr_variables", [5]),
        ("config.baseline_map", {"pr": 1}),
        ("config.splits.folds", None),
        ("config.splits.train", "1990"),
    ],
)
def test_options_of_another_type_are_refused(stores, where, value):
    change(stores, where, value)
    with pytest.raises(InputError, match=where.rpartition(".")[2]):
        ZarrDataPipeline(stores)


# -- Fitted state ----------------------------------------------------------------------


def test_the_fitted_preprocessor_is_always_compared(stores):
    """One byte in it, of the same length, is not read as another statistic."""
    file = stores / "preprocessor.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="other contents than written"):
        ZarrDataPipeline(stores)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr_mean", np.zeros((1, 1, 1), np.float32)),
        ("lr_std", np.zeros((3, 2, 2), np.float32)),
        ("residual_std", np.zeros((3, 1), np.float32)),
        ("valid", np.zeros((3, 8, 9), np.float32)),
        ("score_std", np.zeros(4, np.float32)),
        ("static", np.zeros((2, 8, 8), np.float32)),
        ("lr_root", (7,)),
        ("channels", ()),
    ],
)
def test_a_state_that_does_not_fit_together_is_refused(pipeline, tmp_path, name, value):
    from dataclasses import replace

    wrong = replace(pipeline.preprocessor, **{name: value})
    write_preprocessor(tmp_path, wrong, pipeline.days)
    with pytest.raises(
        InputError, match="the fitted preprocessor is damaged"
    ) as caught:
        read_preprocessor(tmp_path)
    assert caught.value.facts["variable"] == name


@pytest.mark.parametrize(
    ("name", "change_days"),
    [
        ("ordinal", lambda days: days[::-1]),
        ("ordinal", lambda days: days.astype(np.float32)),
        ("day", lambda days: days[:-1]),
        ("day", lambda days: days * 0),
        ("season", lambda days: days[:-1]),
    ],
)
def test_days_that_do_not_fit_together_are_refused(
    pipeline, tmp_path, name, change_days
):
    from dataclasses import replace

    days = pipeline.days
    wrong = replace(days, **{name: change_days(getattr(days, name))})
    write_preprocessor(tmp_path, pipeline.preprocessor, wrong)
    with pytest.raises(InputError, match=f"days.{name}"):
        read_preprocessor(tmp_path)


def test_others_may_read_the_state(pipeline, tmp_path):
    """All files have the rights that the user's mask gives."""
    write_preprocessor(tmp_path, pipeline.preprocessor, pipeline.days)
    rights = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    (tmp_path / "plain").write_text("")
    assert rights == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}


# -- Stores and shards -----------------------------------------------------------------


def relist(directory: Path) -> None:
    """Let the metadata list the files as they are."""
    file = directory / "metadata.json"
    metadata = json.loads(file.read_text("utf-8"))
    metadata["checksums"] = {n: digest(directory / n) for n in metadata["checksums"]}
    file.write_text(json.dumps(metadata), encoding="utf-8")


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_an_array_of_another_type_is_refused(stores, dtype):
    array = zarr.open_array(stores / "lr.zarr", path="tas", mode="r")
    shape = array.shape
    shutil.rmtree(stores / "lr.zarr" / "tas")
    zarr.create_array(
        stores / "lr.zarr", name="tas", shape=shape, chunks=shape, dtype=dtype
    )
    change(stores, "checksums", {})
    with pytest.raises(InputError, match="not the one of the metadata") as caught:
        list(ZarrDataPipeline(stores).build_sequence_dataset())
    assert caught.value.facts["variable"] == "tas"
    assert dtype in str(caught.value)


def test_chunks_that_do_not_decode_are_refused(stores):
    for chunk in (stores / "hr.zarr" / "pr" / "c").rglob("0"):
        if chunk.is_file():
            content = chunk.read_bytes()
            chunk.write_bytes(content[:20] + bytes(len(content) - 20))
    opened = ZarrDataPipeline(stores)
    for read in (
        lambda: list(opened.build_sequence_dataset()),
        lambda: opened.windows("train"),
        lambda: opened.hr_prepared.load(),
    ):
        with pytest.raises(InputError, match="cannot be read") as caught:
            read()
        assert caught.value.facts["variable"] == "pr"


def test_samples_of_another_shape_are_refused(shards):
    change(shards, "hr_shape", [4, 18])
    with pytest.raises(InputError, match="a sample has another shape") as caught:
        next(iter(WebDatasetIterableDataset(shards / "data_*.tar")))
    assert "hr (4, 3, 8, 9), not (4, 3, 4, 18)" in str(caught.value)


def test_a_sample_without_a_field_is_refused(shards):
    import tarfile

    file = shards / "data_000000.tar"
    with tarfile.open(file) as archive:
        kept = [
            (member, archive.extractfile(member).read())
            for member in archive
            if member.name != "00000000.baseline.npy"
        ]
    import io

    with tarfile.open(file, "w") as archive:
        for member, content in kept:
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match="no baseline"):
        next(iter(WebDatasetIterableDataset(shards / "data_*.tar")))


# -- Unfinished runs -------------------------------------------------------------------


def stopped(target: Path, blocks: int) -> Path:
    """A run that meets an error after some blocks; returns where it worked."""
    with ResumableOutput(target, {"a": 1}) as output:
        output.begin()
        for number in range(blocks):
            file = output.root / f"{number}"
            file.write_text("12345")
            output.record(number, {file.name: digest(file)})
        (output.root / "next").write_text("half")
        raise InputError("damaged")


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="damaged"):
        stopped(tmp_path / "out", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_block_whose_files_are_gone_is_done_again(tmp_path):
    with pytest.raises(InputError, match="damaged"):
        stopped(tmp_path / "out", 3)
    data = tmp_path / ".out.part" / "data"
    (data / "0").unlink()
    (data / "1").write_text("1")
    with ResumableOutput(tmp_path / "out", {"a": 1}) as again:
        assert again.begun
        assert list(again.done) == [2]


@pytest.mark.parametrize("line", ["5", "[]", "{}", '{"block": "0", "files": {}}', "{"])
def test_a_damaged_journal_is_believed_up_to_the_damage(tmp_path, line):
    with pytest.raises(InputError, match="damaged"):
        stopped(tmp_path / "out", 1)
    journal = tmp_path / ".out.part" / "journal.jsonl"
    sound = journal.read_text()
    journal.write_text(sound + line + "\n" + sound.splitlines()[1] + "\n")
    with ResumableOutput(tmp_path / "out", {"a": 1}) as again:
        assert list(again.done) == [0]
        assert journal.read_text() == sound
