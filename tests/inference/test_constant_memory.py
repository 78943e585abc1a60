"""The memory of an ensemble does not grow with its members, nor with its years."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.data.task import predictors
from st_cdgm.data.task.predictor_check import open_predictors
from st_cdgm.data.task.predictors import find_predictors, load_predictors
from st_cdgm.errors import InputError
from st_cdgm.inference import members
from st_cdgm.inference.downscale import downscale, plan_ensemble
from st_cdgm.inference.members import days_at_once

OPTIONS = {"start": "2001-06-20", "end": "2001-08-20", "seed": 4}


@pytest.fixture(scope="module")
def checkpoint(trained):
    return load_checkpoint(trained.checkpoint)


def fields_of(checkpoint, tiny_files, **options):
    plan = plan_ensemble(checkpoint, tiny_files / "lr.nc", **OPTIONS | options)
    days, made = zip(*plan.batches(), strict=True)
    return np.concatenate(days), np.concatenate(made)


def test_blocks_of_days_give_what_the_whole_gives(checkpoint, tiny_files, monkeypatch):
    """To the bit, as blocks begin with a batch."""
    whole = fields_of(checkpoint, tiny_files, members=2)
    read, load = [], predictors.PredictorDays.load

    def counted(self):
        read.append(len(self.index))
        return load(self)

    monkeypatch.setattr(predictors.PredictorDays, "load", counted)
    monkeypatch.setattr(predictors, "BLOCK_BYTES", 1)
    parts = fields_of(checkpoint, tiny_files, members=2)
    assert np.array_equal(parts[0], whole[0])
    assert np.array_equal(parts[1], whole[1], equal_nan=True)
    # A batch of 16 days and two days of history at once, whatever the period.
    assert read == [18, 18, 18, 16]


def test_members_pass_through_the_network_in_groups(
    checkpoint, tiny_files, monkeypatch
):
    whole = fields_of(checkpoint, tiny_files, members=7)
    rows = []
    draw = checkpoint.model.decoder.draw_residual

    def counted(condition, noise, sampling):
        made = draw(condition, noise, sampling)
        rows.append(made.shape[0] * made.shape[1])
        return made

    monkeypatch.setattr(checkpoint.model.decoder, "draw_residual", counted)
    monkeypatch.setattr(members, "CELLS_AT_ONCE", 40 * 80)  # fields of 8 x 10 cells
    parts = fields_of(checkpoint, tiny_files, members=7)
    assert max(rows) <= 40
    scale = np.nanstd(whole[1], axis=(0, 1, 3, 4))[:, None, None]
    difference = np.abs(parts[1] - whole[1]) / scale
    assert np.nanmax(difference) < 1e-5


def test_finished_fields_are_few_days_of_a_large_ensemble(checkpoint, monkeypatch):
    one_member = 4 * 3 * 8 * 10  # bytes of a day
    monkeypatch.setattr(members, "BATCH_BYTES", 40 * one_member)
    prep = checkpoint.preprocessor
    assert [days_at_once(prep, m, 16) for m in (1, 2, 10, 100)] == [16, 16, 4, 1]


def test_a_block_knows_its_history(checkpoint, tiny_files):
    prep = checkpoint.preprocessor
    opened = open_predictors(prep, tiny_files / "lr.nc")
    found = find_predictors(prep, opened, start="2001-06-20", end="2001-07-20")
    whole, first = load_predictors(prep, opened, start="2001-06-20", end="2001-07-20")
    assert (len(found), found.first, first) == (31, 2, 2)
    arrays, history = found.block(10, 14)
    assert history == 2
    assert np.array_equal(arrays.lr, whole.lr[10:16])
    assert np.array_equal(arrays.baseline, whole.baseline[10:16])
    assert found.block(10, 14)[0] is arrays  # the block read last is kept
    assert len(found.block(30, 99)[0]) == 3


def test_days_that_no_sampler_can_draw_are_named_or_masked(
    checkpoint, tiny_files, monkeypatch, tmp_path
):
    """A sampler that fails on one day costs that day, not the batch."""
    draw, noise = checkpoint.model.decoder.draw_residual, members.member_noise

    def dated(model, preprocessor, days, **options):
        return days, noise(model, preprocessor, days, **options)

    monkeypatch.setattr(members, "member_noise", dated)

    def failing(condition, given, sampling):
        days, source = given
        if 20010704 in days:
            raise FloatingPointError("not finite after 6 steps")
        return draw(condition, source, sampling)

    monkeypatch.setattr(checkpoint.model.decoder, "draw_residual", failing)
    path = tiny_files / "lr.nc"
    days = {"start": "2001-07-02", "end": "2001-07-06", "members": 2}
    with pytest.raises(InputError, match="nan degC on 20010704"):
        downscale(checkpoint, path, tmp_path / "out.nc", **days)
    plan = plan_ensemble(checkpoint, path, seed=0, on_invalid="mask", **days)
    ((_, made),) = plan.batches()
    lost = np.isnan(made[:, :, checkpoint.preprocessor.valid])  # (T, M, cells)
    assert lost[2].all()
    assert not lost[[0, 1, 3, 4]].any()
