"""Which calibration is weakest, and how the report says so."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from st_cdgm.errors import InputError
from st_cdgm.evaluation.gains import Gain
from st_cdgm.evaluation.metrics.base import metric_of
from st_cdgm.evaluation.report.calibration import calibration_tables, outside
from st_cdgm.evaluation.report.figures import scale_picture
from st_cdgm.evaluation.report.scores import Scores, verdict
from st_cdgm.evaluation.report.text import weakest
from st_cdgm.evaluation.scorecard import BOUNDS, COLUMNS, Scorecard

nan = math.nan
ROWS = [
    ("m", "pr", "crps", 0.8, "mm day-1", nan, nan),
    ("m", "pr", "spread_skill", 0.95, "1", 0.91, 0.99),
    ("m", "pr", "spread_skill_4x4_7d", 0.7, "1", 0.6, 0.8),
    ("m", "pr", "spread_skill_domain_30d", 0.4, "1", 0.2, 1.3),
    ("m", "pr", "rank_worst_bin_4x4_7d", 0.5, "1", 0.0, 0.9),
    ("m", "pr", "lag1_members", 0.1, "1", nan, nan),
    ("m", "pr", "lag1_errors", 0.35, "1", nan, nan),
    ("m", "pr", "lag1_difference", -0.25, "1", -0.31, -0.2),
    ("m", "pr", "wet_wet", 0.5, "1", nan, nan),
    ("m", "pr", "wet_wet_truth", 0.56, "1", nan, nan),
    ("m", "pr", "wet_wet_bias", -0.06, "1", -0.08, -0.04),
    ("m", "pr", "small_scale_power", -6.0, "dB", -6.4, -5.5),
    ("m", "tas", "crps", 0.8, "degC", nan, nan),
    ("m", "tas", "spread_skill", 1.02, "1", 0.97, 1.06),
    ("m", "pr & tas", "variables_difference", 0.48, "1", 0.4, 0.55),
    ("m", "all variables", "patch_energy", 0.5, "1", nan, nan),
    ("a", "pr", "crps", 1.0, "mm day-1", nan, nan),
    ("a", "pr", "spread_skill", 0.1, "1", 0.05, 0.2),
    ("a", "tas", "crps", 1.0, "degC", nan, nan),
    ("a", "all variables", "patch_energy", 0.6, "1", nan, nan),
]


def gain(variable, low, high, metric="crps"):
    return Gain(
        variable=variable,
        reference="a",
        gain=0.2,
        low=low,
        high=high,
        days=90,
        block=10,
        metric=metric,
    )


def card(rows=ROWS, gains=()):
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *BOUNDS])
    return Scorecard(rows=frame, gains=list(gains))


def test_what_surely_misses_its_ideal_comes_first_by_its_distance():
    found = card().calibration()
    assert list(found["metric"])[:5] == [
        "small_scale_power",
        "variables_difference",
        "spread_skill_4x4_7d",
        "lag1_difference",
        "wet_wet_bias",
    ]
    assert list(found["variable"])[:2] == ["pr", "pr & tas"]
    first = found.iloc[0]
    assert first["distance"] == pytest.approx(6.0)  # in units of 1 dB
    assert first["sure"] == pytest.approx(5.5)
    # 0.4 is farther off than 0.7, but its interval holds 1.
    doubtful = found.set_index("metric").loc["spread_skill_domain_30d"]
    assert doubtful["sure"] == 0
    assert doubtful["distance"] == pytest.approx(np.log(2.5) / np.log(1.1))
    assert (card().calibration("a")["metric"] == "spread_skill").all()
    with pytest.raises(InputError, match="source"):
        card().calibration("z")


def test_a_ratio_is_as_bad_when_it_is_half_as_when_it_is_double():
    metric = metric_of("spread_skill")
    assert metric.distance(0.5) == pytest.approx(metric.distance(2.0))
    assert metric.distance(1.1) == pytest.approx(1.0)
    assert metric.distance(0.0) == math.inf
    assert metric_of("rank_worst_bin").distance(0.2) == pytest.approx(1.0)


def test_the_verdict_names_the_weakest_and_a_tie():
    gains = [
        gain("pr", 0.1, 0.3),
        gain("tas", -0.1, 0.4),
        gain("all variables", 0.05, 0.3, "patch_energy"),
        gain("all variables", -0.05, 0.3, "patch_variogram"),
    ]
    text = verdict(Scores(card(gains=gains)))
    assert text == (
        "Judged by fair CRPS, m beats the best reference in 1 of 2 variables: pr by "
        "20 % (a; 95 % interval 10 to 30 %); a tie in 1: tas. In all variables "
        "together: 20 % better (95 % interval 5.0 to 30 %) than a in the fair energy "
        "score of 4 x 4 cells; tie (20 % better; 95 % interval 5.0 % worse to 30 % "
        "better) with a in the fair variogram score of neighbours and variables. The "
        "weakest calibration: pr, power at wavelengths under 8 cells, members against "
        "truth: −6.000 (95 % interval −6.400 to −5.500; ideal 0)."
    )


@pytest.mark.parametrize(
    ("row", "end"),
    [
        (("spread_skill", 0.95, 0.91, 0.99), "ideal 1, within its tolerance of 0.1)."),
        (("spread_skill", 0.8, 0.5, 1.2), "ideal 1, which the interval holds)."),
        (("spread_skill", 0.8, nan, nan), "0.800 (no interval; ideal 1)."),
    ],
)
def test_words_about_the_weakest(row, end):
    metric, *numbers = row
    rows = [("m", "pr", metric, numbers[0], "1", *numbers[1:])]
    text = weakest(card(rows).calibration())
    assert text.startswith("The weakest calibration: pr, spread-skill ratio: 0.")
    assert text.endswith(end)


def test_nothing_to_judge_says_nothing():
    rows = [("m", "pr", "crps", 1.0, "mm day-1", nan, nan)]
    assert weakest(card(rows).calibration()) == ""
    assert outside(card(rows).calibration()) is None
    empty = Scorecard(rows=pd.DataFrame([], columns=COLUMNS))
    assert empty.calibration().empty
    assert calibration_tables(Scores(empty)) == []


def test_what_is_outside_is_counted_and_listed():
    found = outside(card().calibration())
    assert (found.count, found.of, found.sure) == (7, 9, 4)
    assert found.rows[0][:2] == ("pr", metric_of("small_scale_power").title)
    assert found.rows[0][2:] == ("−6.000", "−6.400 to −5.500", "0 ± 1")
    assert "7 of 9 scores" in found.summary


def test_tables_have_intervals_and_mark_what_is_off():
    scale, dependence, sequences, small = calibration_tables(Scores(card()))
    assert scale.columns == ["1 day", "7 days", "30 days"]
    rows = {(variable, where): entries for variable, where, entries in scale.rows}
    assert list(rows) == [
        ("pr", "cells"),
        ("pr", "4 x 4"),
        ("pr", "domain"),
        ("tas", "cells"),
    ]
    week = rows["pr", "4 x 4"][1]
    assert (week.text, week.interval, week.off) == ("0.700", "0.600 to 0.800", "low")
    assert rows["tas", "cells"][0].off == ""
    assert dependence.rows[0][:2] == ("pr", "one day and the next")
    assert [e.text for e in dependence.rows[0][2]] == ["0.100", "0.350", "−0.250"]
    assert dependence.rows[1][:2] == ("pr & tas", "two variables")
    assert dependence.rows[1][2][2].off == "high"
    assert [row[:2] for row in sequences.rows] == [("pr", "wet day after a wet one")]
    assert small.rows[0][2][0].off == "low"


def test_the_picture_names_every_ratio():
    picture = scale_picture(Scores(card()))
    assert "pr a cell, 1 day 0.95, 4 x 4 cells, 7 days 0.7" in picture.alt
    alone = [row for row in ROWS if row[2] in ("crps", "spread_skill")]
    assert scale_picture(Scores(card(alone))) is None


def test_tables_of_scores_and_of_calibration_are_apart():
    made = card()
    assert "spread_skill" in made.to_dataframe().index.get_level_values("metric")
    table = made.to_dataframe(calibration=True)
    assert ("pr", "lag1_difference", "1") in table.index
    assert "crps" not in table.index.get_level_values("metric")
    assert list(table.columns) == ["m", "a"]


def test_bounds_survive_the_file_and_older_files_have_none(tmp_path):
    path = card().to_json(tmp_path / "scorecard.json")
    back = Scorecard.from_json(path)
    pd.testing.assert_frame_equal(back.rows, card().rows)
    assert path.read_text().count('"low"') == sum(not math.isnan(r[5]) for r in ROWS)
    older = [row[:5] for row in ROWS]
    made = Scorecard(rows=pd.DataFrame(older, columns=COLUMNS))
    back = Scorecard.from_json(made.to_json(path))
    assert back.rows[BOUNDS].isna().all(axis=None)
    assert weakest(back.calibration()).endswith("; ideal 1).")
