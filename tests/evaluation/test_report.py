"""The page: whole, self-contained, accessible, and honest about what it was given."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from run_directory import CONFIG, GRAPH_NAMES, NOTE, write_run

from st_cdgm import registry
from st_cdgm.errors import InputError, MissingFileError, OutputError
from st_cdgm.evaluation.gains import Gain
from st_cdgm.evaluation.report import build as report_module
from st_cdgm.evaluation.report.build import build_report
from st_cdgm.evaluation.report.inputs import read_run
from st_cdgm.evaluation.report.scores import Scores, compare, score_tables, verdict
from st_cdgm.evaluation.scorecard import COLUMNS, Scorecard

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with attributes in order, and whether they nest rightly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "iberia"
    return write_run(
        folder, shape=(10, 12), days=3, members=4, variables=("tasmax", "pr")
    )


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Page:
    path = build_report(run_dir)
    assert path == run_dir / "report.html"
    return Page(path.read_text("utf-8"))


def part_of(run_dir: Path, folder: Path, *names: str) -> Path:
    """Copy only some files of a run directory."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run_dir / name, folder / name)
    return folder


def test_page_is_self_contained_and_small(run_dir: Path, page: Page):
    raw = (run_dir / "report.html").read_text("utf-8")
    assert len(raw) < 6_000_000
    assert "script" not in {tag for tag, _ in page.tags}
    assert "link" not in {tag for tag, _ in page.tags}
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) >= 10
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", s) for s in sources)
    outside = re.sub(r"base64,[A-Za-z0-9+/=]+", "", raw)
    assert "http" not in outside.replace("http-equiv", "")
    assert "@import" not in outside
    assert "url(" not in outside
    assert not list(run_dir.glob(".*"))  # no temporary file is left


def test_page_is_accessible(page: Page):
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("title")) == 1
    assert all(len(image["alt"] or "") > 20 for image in page.all("img"))
    assert (
        len(page.all("figure")) == len(page.all("figcaption")) == len(page.all("img"))
    )
    assert {attrs.get("scope") for attrs in page.all("th")} == {"row", "col"}
    assert len(page.all("caption")) == len(page.all("table"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"].lstrip("#") for attrs in page.all("a")}
    assert targets <= set(ids)


def test_sections_come_in_the_order_of_reading(page: Page):
    found = [attrs["id"] for attrs in page.all("section")]
    assert found == [anchor for anchor, _ in report_module.SECTIONS]


def test_page_says_what_was_done(page: Page):
    assert "Evaluation of iberia" in page.text
    assert "st-cdgm (4 members)" in page.text
    assert "2003-01-01 to 2003-01-03, 3 days scored (noleap calendar)" in page.text
    assert NOTE in page.text
    assert "Acyclicity constraint in training: none. The graph shown is acyclic" in (
        page.text
    )
    assert "7 of 20 possible edges" in page.text
    assert "3 of them were cut, 4 are kept" in page.text
    assert "0123456789abcdef0123456789abcdef01234567" in page.text  # git commit
    assert "wet_threshold: 0.1" in page.text
    assert "Caution" not in page.text
    assert "°C" in page.text
    assert "degC" not in page.text


def test_alt_texts_hold_the_numbers(run_dir: Path, page: Page):
    alts = " ".join(image["alt"] or "" for image in page.all("img"))
    with xr.open_dataset(run_dir / "diagnostics.nc") as data:
        top = float(data["truth"].isel(case=0, variable=0).max())
    assert f"to {top:.3g}, mean" in alts
    assert "GP850 to GP500 0.66" in alts
    assert "SURF to GP1000 0.42" in alts
    assert set(GRAPH_NAMES) <= set(re.findall(r"\w+", alts)) | {"GP1000"}


def test_same_files_give_the_same_bytes(run_dir: Path, tmp_path: Path):
    folder = part_of(
        run_dir, tmp_path / "run", "dag.json", "logs/metrics.csv", "scorecard.json"
    )
    first = build_report(folder).read_bytes()
    assert build_report(folder).read_bytes() == first


FILES = {
    "scorecard.json": "no scorecard.json",
    "diagnostics.nc": "no diagnostics.nc",
    "dag.json": "no dag.json",
    "logs/metrics.csv": "no logs/metrics.csv",
    "config.yaml": "no config.yaml",
    "provenance.json": "no provenance.json",
}


def test_absent_files_become_notes(run_dir: Path, tmp_path: Path):
    folder = part_of(run_dir, tmp_path / "run", "config.yaml")
    text = Page(build_report(folder).read_text("utf-8")).text
    for name, note in FILES.items():
        assert (f"The run directory has {note}." in text) == (name != "config.yaml")
    assert "No verdict" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scorecard.json", "{"),
        ("scorecard.json", '{"rows": 3}'),
        ("diagnostics.nc", "not netcdf"),
        ("dag.json", "[]"),
        ("dag.json", '{"variables": ["a"], "matrix": [[1, 2]]}'),
        (
            "dag.json",
            '{"variables": ["a"], "matrix": [[0]], "edges": [{"source": "b"}]}',
        ),
        (
            "dag.json",
            '{"variables": ["a"], "matrix": [[0]],'
            ' "edges": [{"source": "b", "target": "a", "weight": 1}]}',
        ),
        (
            "dag.json",
            '{"variables": ["a", "b"], "matrix": [[0, 1], [0, 0]],'
            ' "edges": [{"source": "a", "target": "b", "weight": NaN}]}',
        ),
        ("logs/metrics.csv", "epoch,train_loss\n"),
        ("logs/metrics.csv", "epoch,train_loss\nx,1\n"),
        ("provenance.json", "[1]"),
    ],
)
def test_damaged_files_become_notes(tmp_path: Path, caplog, name, content):
    folder = tmp_path / "run"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(content)
    (folder / "config.yaml").write_text("run: {name: x}\n")
    run = read_run(folder)
    assert run.missing[name].startswith(f"{name} cannot be read: ")
    assert name.rsplit("/", 1)[-1] in caplog.text


@pytest.mark.parametrize("config", ["run:\n", "- 1\n", "a: [\n", "run: {name: 3}\n"])
def test_odd_configuration_is_shown_as_it_is(tmp_path: Path, config):
    (tmp_path / "config.yaml").write_text(config)
    assert config.strip() in build_report(tmp_path).read_text("utf-8")


def test_text_from_files_is_escaped(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("run: {name: '<script>alert(1)</script>'}\n")
    text = build_report(tmp_path, title="<b>A & B</b>").read_text("utf-8")
    assert "<script" not in text
    assert "<title>&lt;b&gt;A &amp; B&lt;/b&gt;</title>" in text


def test_errors(tmp_path: Path):
    with pytest.raises(MissingFileError, match="no such run directory"):
        build_report(tmp_path / "absent")
    with pytest.raises(InputError, match="nothing to report"):
        build_report(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError):
        build_report(tmp_path)


def test_maps_beyond_the_budget_are_left_out_and_said(
    run_dir: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(report_module, "MAP_BUDGET", 0)
    for name in ("spectrum_pictures", "variogram_pictures"):
        monkeypatch.setattr(report_module, name, lambda _: [])
    monkeypatch.setattr(report_module, "rank_pictures", lambda _: [])
    with xr.open_dataset(run_dir / "diagnostics.nc") as data:
        data.isel(case=[0], variable=[0]).to_netcdf(tmp_path / "diagnostics.nc")
    text = Page(build_report(tmp_path).read_text("utf-8")).text
    assert "Left out to keep the page small: 1 of the figures." in text
    assert "No spectrum was stored." in text


@pytest.fixture
def peeking(monkeypatch) -> str:
    """Register an oracle, as a plugin may do; return its name."""
    registry.names("baseline")  # those of the package first
    monkeypatch.setattr(registry, "_ENTRIES", registry._ENTRIES.copy())
    registry.register("baseline", "peeking")(type("Peeking", (), {"oracle": True}))
    return "peeking"


@pytest.mark.parametrize(
    "strategy", ["hr_smoothing", "peeking", "lr_interp", "unknown"]
)
def test_oracle_baseline_and_changed_code_are_called_out(
    tmp_path: Path, strategy: str, peeking: str
):
    config = CONFIG.format(name="x", strategy=strategy)
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "provenance.json").write_text('{"git_commit": "abc-dirty"}')
    text = Page(build_report(tmp_path).read_text("utf-8")).text
    oracle = strategy in ("hr_smoothing", peeking)
    assert ("made from the truth (an oracle)" in text) is oracle
    assert "uncommitted changes" in text


def test_training_log_averages_the_rows_of_an_epoch(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    lines = ["epoch,step,train_loss,val_loss,seconds", "0,1,2.0,,1", "0,2,4.0,,1"]
    lines += ["1,3,1.0,1.5,1", "1,4,nan,,1"]
    (tmp_path / "logs" / "metrics.csv").write_text("\n".join(lines))
    log = read_run(tmp_path).training
    assert log is not None
    assert set(log.curves) == {"train_loss", "val_loss"}
    assert log.curves["train_loss"].tolist() == [3.0, 1.0]
    assert math.isnan(log.curves["val_loss"][0])
    assert log.curves["val_loss"][1] == 1.5


def test_land_fraction_of_the_diagnostics_is_used(run_dir: Path, tmp_path: Path):
    folder = part_of(run_dir, tmp_path / "run", "config.yaml")
    with xr.open_dataset(run_dir / "diagnostics.nc") as data:
        made = data.load()
    made["sftlf"] = (("lat", "lon"), np.full((10, 12), 50.0), {"units": "%"})
    made.to_netcdf(folder / "diagnostics.nc")
    found = read_run(folder).diagnostics
    assert found is not None
    np.testing.assert_array_equal(found.grid.land, 0.5)


# The scorecard's message -------------------------------------------------------------


def card(values: dict[tuple[str, str], float], metric: str = "crps") -> Scores:
    rows = [
        (source, variable, metric, value, "degC")
        for (source, variable), value in values.items()
    ]
    return Scores(Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS)))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {("m", "pr"): 0.8, ("a", "pr"): 1.0, ("b", "pr"): 1.6},
            "Judged by fair CRPS, m beats the best reference in the only variable: "
            "pr by 20 % (a).",
        ),
        (
            {("m", "pr"): 1.0, ("m", "tas"): 2.0, ("a", "pr"): 0.8, ("a", "tas"): 1.0},
            "Judged by fair CRPS, m beats the best reference in none of the 2 "
            "variables; it loses in 2: pr by 25 % (a), tas by 100 % (a).",
        ),
        (
            {
                ("m", "pr"): 0.9,
                ("m", "tas"): 2.0,
                ("m", "hus"): 1.0,
                ("a", "pr"): 1.0,
                ("a", "tas"): 1.0,
                ("b", "tas"): 1.99,
                ("a", "hus"): 1.0001,
            },
            "Judged by fair CRPS, m beats the best reference in 1 of 3 variables: pr "
            "by 10 % (a); a tie in 1: hus; it loses in 1: tas by 100 % (a).",
        ),
        (
            {("m", "pr"): 0.5, ("m", "tas"): math.nan, ("a", "pr"): 1, ("a", "tas"): 1},
            "Judged by fair CRPS, m beats the best reference in 1 of 2 variables: pr "
            "by 50 % (a); scores are missing for 1: tas.",
        ),
        (
            {("m", "pr"): 0.5},
            "No reference method was scored beside m, so nothing can be said about its "
            "skill.",
        ),
        ({}, "The scorecard is empty, so nothing can be said about skill."),
    ],
)
def test_verdict(values, sentence):
    assert verdict(card(values)) == sentence


def test_verdict_on_the_page_of_a_losing_model(tmp_path: Path):
    rows = [("m", "pr", "crps", 1.2, "mm day-1"), ("a", "pr", "crps", 1.0, "mm day-1")]
    made = Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS), protocol={"seed": 1})
    made.to_json(tmp_path / "scorecard.json")
    text = Page(build_report(tmp_path).read_text("utf-8")).text
    assert (
        "m beats the best reference in no variable; it loses in 1: pr by 20 % (a)"
        in text
    )
    assert "This scorecard was written without intervals" in text
    assert "pr : 20 % worse: 1.200 mm day⁻¹ against 1.000 mm day⁻¹ of a" in text


def measured(variable: str, gain: float, low: float, high: float) -> Gain:
    return Gain(
        variable=variable,
        reference="a",
        gain=gain,
        low=low,
        high=high,
        days=120,
        block=3,
    )


def test_headline_with_intervals_counts_wins_ties_and_losses(tmp_path: Path):
    own = {"pr": 0.993, "tasmin": 0.79, "tasmax": 1.05, "hus": 0.5}
    rows = [("m", v, "crps", value, "degC") for v, value in own.items()]
    rows += [("a", v, "crps", 1.0, "degC") for v in own]
    gains = [
        measured("pr", 0.007, -0.008, 0.021),
        measured("tasmin", 0.21, 0.17, 0.25),
        measured("tasmax", -0.05, -0.12, -0.02),
        measured("hus", 0.5, math.nan, math.nan),
    ]
    made = Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS), gains=gains)
    made.to_json(tmp_path / "scorecard.json")
    text = Page(build_report(tmp_path).read_text("utf-8")).text
    assert (
        "Judged by fair CRPS, m beats the best reference in 1 of 4 variables: tasmin "
        "by 21 % (a; 95 % interval 17 to 25 %); a tie in 1: pr; no clear difference in "
        "1: hus; it loses in 1: tasmax by 5.0 % (a; 95 % interval 2.0 to 12 %)."
    ) in text
    assert "tasmin : 21 % better (95 % interval 17 to 25 %): 0.790 °C against" in text
    assert "pr : tie (0.70 % better; 95 % interval 0.80 % worse" in text
    assert "hus : no clear difference (50 % better; 120 scored days are too" in text
    assert "moving-block bootstrap over the 120 scored days" in text
    assert "blocks of 3 scored days, about 10 days" in text
    assert "without" not in text


def test_a_gain_over_another_reference_or_score_is_not_used():
    rows = [("m", "pr", "crps", 1.0, "mm"), ("b", "pr", "crps", 2.0, "mm")]
    gains = [measured("pr", 0.1, 0.05, 0.15)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    (pair,) = compare(Scores(Scorecard(rows=frame, gains=gains)))
    assert (pair.gain, pair.measured, pair.outcome) == (0.5, None, "wins")


def test_possible_edges_are_those_the_model_allows(run_dir: Path, tmp_path: Path):
    folder = part_of(run_dir, tmp_path / "run", "dag.json")
    content = json.loads((folder / "dag.json").read_text())
    (folder / "dag.json").write_text(json.dumps({**content, "possible": 16}))
    assert "7 of 16 possible edges" in Page(build_report(folder).read_text()).text
    (folder / "dag.json").write_text(json.dumps({**content, "possible": None}))
    assert "7 of 20 possible edges" in Page(build_report(folder).read_text()).text


def test_tables_show_the_tail_ratio_and_the_wet_days_of_precipitation(run_dir: Path):
    card = Scorecard.from_json(run_dir / "scorecard.json")
    tasmax, pr, _ = score_tables(Scores(card))
    assert ("99th percentile ratio", "ideal 1") in pr.columns
    assert ("wet-day frequency difference", "ideal 0") in pr.columns
    assert "99th percentile bias" not in dict(pr.columns)
    assert "99th percentile bias" in dict(tasmax.columns)
    full = score_tables(Scores(card), full=True)[1]
    assert "bias of the 99th percentile" in dict(full.columns)


def test_compare_uses_the_best_reference_that_has_a_score():
    pairs = compare(card({("m", "pr"): 1.0, ("a", "pr"): math.nan, ("b", "pr"): 2.0}))
    assert [(p.reference_name, p.gain, p.outcome) for p in pairs] == [
        ("b", 0.5, "wins")
    ]
    assert compare(card({("m", "pr"): 1.0, ("a", "pr"): 2.0}, metric="bias")) == []


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("crps", (2.0, 1.0, 3.0), {"a"}),
        ("crps", (1.0, 1.0, 3.0), {"m", "a"}),  # a tie is shared
        ("correlation", (0.9, 0.8, math.nan), {"m"}),
        ("bias", (-0.1, 0.2, -5.0), {"m"}),
        ("spread_skill", (0.2, 1.3, 1.9), {"a"}),
        ("wet_day_frequency", (0.1, 0.2, 0.3), set()),  # describes, is no score
        ("someone_elses_metric", (0.1, 0.2, 0.3), set()),
        ("crps", (math.nan, math.nan, math.nan), set()),
    ],
)
def test_best_follows_the_ideal_of_each_score(metric, values, best):
    scores = card(
        {(s, "pr"): v for s, v in zip("mab", values, strict=True)}, metric=metric
    )
    assert scores.best("pr", metric) == best


def test_tables_mark_the_best_and_give_units():
    (table,) = score_tables(card({("m", "tas"): -0.5, ("a", "tas"): 0.25}, "bias"))
    assert table.columns == [("bias", "°C, ideal 0")]
    assert table.rows == [
        ("m", True, [("−0.500", False)]),
        ("a", False, [("0.250", True)]),
    ]


def test_best_cells_are_bold_and_marked(run_dir: Path, page: Page):
    raw = (run_dir / "report.html").read_text("utf-8")
    marked = raw.count('<td class="best"><span aria-hidden="true">★')
    assert marked == raw.count('class="best"') > 0
    assert "td.best { font-weight: 700; }" in raw


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8421, "0.842"),
        (12.345, "12.35"),
        (123.45, "123.5"),
        (12345.6, "12346"),
        (0.00012, "1.20e−04"),
        (-3.0, "−3.000"),
        (0.0, "0"),
    ],
)
def test_numbers_in_tables(value, text):
    (table,) = score_tables(card({("m", "tas"): value, ("a", "tas"): 1.0}))
    assert table.rows[0][2][0][0] == text


def test_missing_scores_are_dashes_and_sources_without_any_are_left_out():
    nothing = math.nan
    rows = [
        ("m", "tas", "crps", 1.0, "degC"),
        ("m", "tas", "spread_skill", nothing, "1"),
        ("a", "tas", "crps", nothing, "degC"),
        ("a", "tas", "spread_skill", nothing, "1"),
        ("b", "tas", "crps", nothing, "degC"),
        ("b", "tas", "spread_skill", 0.9, "1"),
    ]
    scores = Scores(Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS)))
    (table,) = score_tables(scores)
    assert table.rows == [
        ("m", True, [("1.000", True), ("–", False)]),
        ("b", False, [("–", False), ("0.900", True)]),
    ]


def test_protocol_is_printed_flat(tmp_path: Path):
    made = Scorecard(
        rows=pd.DataFrame([("m", "pr", "crps", 1.0, "mm day-1")], columns=COLUMNS),
        protocol={"splits": {"train": ["1991", "1999"]}, "checkpoint": None},
    )
    made.to_json(tmp_path / "scorecard.json")
    assert json.loads((tmp_path / "scorecard.json").read_text())["format"] == 1
    text = Page(build_report(tmp_path).read_text("utf-8")).text
    assert "splits.train 1991, 1999" in text
    assert "checkpoint not stated" in text


def test_ablations_are_shown_where_they_were_measured(run_dir, tmp_path):
    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    row = {"variable": "tasmin", "increase": 0.42, "low": 0.31, "high": 0.55, "days": 9}
    edges = {**row, "variable": "drivers", "increase": 0.004}
    document = {
        "period": ["2001-01-11", "2002-12-21"],
        "shuffled": [row],
        "without_edges": [edges],
    }
    (copy / "conditioning.json").write_text(json.dumps(document))
    text = Page(build_report(copy).read_text("utf-8")).text
    assert "states of another day tasmin +42.0 % +31.0 to +55.0 %" in text
    assert "all edges removed drivers +0.4 %" in text
    assert "2001-01-11 to 2002-12-21" in text
