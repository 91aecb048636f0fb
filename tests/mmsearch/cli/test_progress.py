"""Progress and profile on stderr: lines now and then, a table at the end, what limited the run."""

from __future__ import annotations

import json
import sys

import pytest

from indexer.base.types import IndexReport, Profile, Progress, Stage
from mmsearch.cli.progress import limit_of, progress_on_stderr, show_profile
from mmsearch.cli.render import show_report

STAGES = (Stage("decode", 30, 15.0, 5.0), Stage("encode", 20, 8.0, 12.0), Stage("index_file", 0, 0.0, 0.0))


PROFILE = Profile(10.0, 2, 1.5, 1.0, STAGES)


def test_a_profile_is_a_table_on_stderr_and_stands_in_the_json(capfd: pytest.CaptureFixture[str]) -> None:
    report = IndexReport(encoded=20, seconds=10.0, profile=PROFILE)
    show_report(report, as_json=True, profile=True)
    sys.stdout.flush()
    show_profile(report)
    out, err = capfd.readouterr()
    assert json.loads(out)["profile"] == PROFILE.to_dict()
    lines = err.splitlines()
    assert lines[0] == "mmsearch: 2.0 encoded/s over 10.0 s"
    assert lines[1].split() == ["stage", "items", "seconds", "items/s", "busy"]
    assert lines[2].split() == ["decode", "30", "15.00", "2.0", "25", "%"]
    assert lines[4].split() == ["index", "file", "0", "0.00", "-", "0", "%"]
    assert [line.split()[-2] for line in lines[5:7]] == ["5", "10"]
    assert lines[7] == "mmsearch: limit: 2 cores, busy to 90 %, most of it with encode"
    show_profile(IndexReport(encoded=20, seconds=10.0))
    assert capfd.readouterr().err == ""


def test_what_limits_a_run() -> None:
    def limit(waited_s: float, *stages: Stage) -> str:
        return limit_of(Profile(10.0, 2, waited_s, 0.0, stages))

    decode, encode, store = Stage("decode", 9, 19.0, 2.0), Stage("encode", 9, 1.0, 2.0), Stage("store", 9, 3.0, 1.0)
    assert limit(6.0, decode, encode) == "limit: reading files, 6.0 s of waiting for them; 2 cores used to 20 %"
    assert limit(1.0, decode, encode, store) == "limit: store, 3.0 s; 2 cores used to 25 %"
    assert limit_of(Profile(0.0, 1, 0.0, 0.0, (decode, encode))).startswith("limit: encode, 1.0 s; the core used to")


def test_plain_progress_says_rate_time_left_and_skips(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 102.0, 110.0])
    monkeypatch.setattr("mmsearch.cli.progress.time.monotonic", lambda: next(clock))
    with progress_on_stderr() as progress:
        progress(Progress(10, None, 0))  # two seconds after the start: too soon for a line
        progress(Progress(20, 60, 2))  # ten seconds after the start
    assert capfd.readouterr().err == "mmsearch: 20 of 60 files, 2.0 files/s, ETA 20 s, 2 skipped\n"
