"""The scorecard on the terminal."""

from __future__ import annotations

import io
import math

import pandas as pd
from rich.console import Console

from st_cdgm.evaluation.gains import Gain
from st_cdgm.evaluation.scorecard import COLUMNS, Scorecard
from st_cdgm.runs.score_table import scorecard_table


def test_gains_follow_the_table_line_by_line():
    rows = [
        ("st-cdgm", "pr", "crps", 0.5, "mm day-1"),
        ("ridge", "pr", "crps", 0.75, "mm day-1"),
        ("st-cdgm", "tas", "crps", 1.5, "degC"),
        ("ridge", "tas", "crps", 1.49, "degC"),
        ("st-cdgm", "tas", "rmse", 1.5, "degC"),
    ]
    gains = [
        Gain(
            variable="pr",
            reference="ridge",
            gain=1 / 3,
            low=0.3,
            high=0.4,
            days=365,
            block=10,
        ),
        Gain(
            variable="tas",
            reference="ridge",
            gain=-0.0067,
            low=-0.02,
            high=0.01,
            days=365,
            block=10,
        ),
        Gain(
            variable="hus",
            reference="ridge",
            gain=0.5,
            low=math.nan,
            high=math.nan,
            days=9,
            block=10,
        ),
    ]
    card = Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS), gains=gains)
    out = io.StringIO()
    Console(file=out, width=120).print(scorecard_table(card))
    below = out.getvalue().split("st-cdgm against the best reference")[1]
    lines = [" ".join(line.split()) for line in below.splitlines()]
    assert "variable reference gain 95 % interval verdict" in lines
    assert "pr ridge +33 % +30 % to +40 % better" in lines
    assert "tas ridge -0.67 % -2.0 % to +1.0 % no clear difference" in lines
    assert "hus ridge +50 % too few days no clear difference" in lines
    assert max(map(len, below.splitlines())) < 80
    out = io.StringIO()
    Console(file=out, width=120).print(scorecard_table(card, "rmse"))
    assert "best reference" not in out.getvalue()
