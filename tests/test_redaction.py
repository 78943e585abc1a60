"""Passwords and tokens of URLs appear in no message, log or record."""

from __future__ import annotations

import json
import logging
import sys

import pandas as pd
import pytest

from st_cdgm.config.load import load_config
from st_cdgm.data.files.open import open_dataset
from st_cdgm.errors import InputError
from st_cdgm.evaluation import scorecard
from st_cdgm.redaction import RedactingFormatter, redacted
from st_cdgm.runs import directory, provenance
from st_cdgm.runs.console import Session, show_failure, show_results, start_logging

URL = "https://me:pa55@w0rd@host.example/a/lr.nc?token=t0ken&year=2001&X-Amz-Signature=f00"
SECRETS = ("pa55", "w0rd", "t0ken", "f00")


def clean(text: str) -> bool:
    return not any(secret in text for secret in SECRETS) and "host.example" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            URL,
            "https://***@host.example/a/lr.nc?token=***&year=2001&X-Amz-Signature=***",
        ),
        ("simplecache::s3://KEY@bucket/x.nc", "simplecache::s3://***@bucket/x.nc"),
        ("a https://h/x?sig=1%2F2 b", "a https://h/x?sig=*** b"),
        ("https://h/x.nc?year=2001&sky=blue", "https://h/x.nc?year=2001&sky=blue"),
        ("mail me@host or /data/a@b/c?token=1", "mail me@host or /data/a@b/c?token=1"),
    ],
)
def test_what_is_hidden(text, expected):
    assert redacted(text) == expected


def test_errors_hide_secrets_and_keep_their_facts():
    error = InputError(f"no answer from {URL}", file=URL, found=f"404 at {URL}")
    assert clean(str(error))
    assert clean(error.args[0])
    assert error.facts["file"] == URL  # for code, not for eyes


def test_an_unreachable_server_is_named_without_its_password():
    url = "http://me:t0ken@127.0.0.1:9/lr.nc"
    with pytest.raises(InputError) as caught:
        open_dataset(url, role="lr")
    assert "t0ken" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_logs_and_tracebacks_hide_secrets(tmp_path, capsys):
    session = Session(log_level="DEBUG")
    start_logging(session, run_dir=tmp_path)
    logging.getLogger("st_cdgm.anything").warning("reading %s", URL)
    show_failure(session, ValueError(f"cannot read {URL}"))
    show_results({"File": URL})
    told = "".join(capsys.readouterr()) + (tmp_path / "run.log").read_text("utf-8")
    assert clean(told)
    assert told.count("***@host.example") >= 4

    record = logging.LogRecord("x", 30, "f", 1, "%s", (URL,), None)
    assert clean(RedactingFormatter("%(message)s").format(record))


def test_records_of_a_run_hide_secrets(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["st-cdgm", f"data.lr_path={URL}"])
    monkeypatch.setattr(
        "st_cdgm.data.files.remote.fingerprint", lambda url: "size=1", raising=True
    )
    config = load_config("demo", [f"run.dir={tmp_path / 'run'}"])
    config.data.lr_path = URL
    config.data.hr_path, config.data.static_path = "", None
    run_dir = directory.prepare_run(config, Session())
    for name in ("config.yaml", "provenance.json"):
        assert clean((run_dir / name).read_text("utf-8"))
    origin = json.loads((run_dir / "provenance.json").read_text("utf-8"))
    assert origin["data"] == {redacted(URL): "size=1"}
    # The same address with another password is the same run.
    config.data.lr_path = URL.replace("pa55@w0rd", "other")
    (run_dir / "scorecard.json").write_text("{}")
    directory.check_run_directory(config, resume=True)


def test_scorecards_hide_secrets(tmp_path):
    assert scorecard._named([URL, "b.nc"]) == f"{redacted(URL)}, b.nc"
    assert scorecard.source_name(URL) == "lr"
    rows = pd.DataFrame(columns=list(scorecard.COLUMNS))
    card = scorecard.Scorecard(rows=rows, protocol={"truth": URL})
    assert clean(card.to_json(tmp_path / "card.json").read_text("utf-8"))


def test_outputs_name_a_url_without_what_follows_its_path(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    attrs = provenance.output_attributes(tmp_path, [URL], command="st-cdgm downscale")
    assert attrs["input_files"] == "lr.nc"
