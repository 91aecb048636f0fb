"""Bytes on stdout: exact for paths, one row a line for tables, plain ASCII for JSON; whatever the file names hold."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.base.types import IndexReport, Profile, Stage
from indexer.store import RootStatus, SkippedFile, Status
from mmsearch.cli.render import show_answers, show_errors, show_facts, show_hits, show_report, show_status
from mmsearch.cli.terminal import Format
from mmsearch.query.hits import Hit

NAMES = [b"plain.jpg", b"two words.jpg", b"caf\xe9.jpg", "日本.jpg".encode(), b"new\nline.jpg", b"esc\x1b[31m.jpg"]
STAGES = (Stage("decode", 30, 15.0, 5.0), Stage("encode", 20, 8.0, 12.0), Stage("index_file", 0, 0.0, 0.0))
PROFILE = Profile(10.0, 2, 1.5, 1.0, STAGES)
HITS = [
    Hit(Path(os.fsdecode(b"/photos/" + name)), 1 - rank / 10, rank, "image") for rank, name in enumerate(NAMES, start=1)
]


def test_paths_are_the_bytes_of_the_file_names(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show_hits(HITS, {"query": "x"}, Format.PRINT0)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"".join(b"/photos/" + name + b"\0" for name in NAMES)
    show_hits(HITS, {"query": "x"}, Format.PATHS)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"".join(b"/photos/" + name + b"\n" for name in NAMES)


def test_json_gives_every_path_back(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show_hits(HITS, {"query": "caf\udce9"}, Format.JSON)
    sys.stdout.flush()
    out = capfdbinary.readouterr().out
    assert out.isascii()
    answer = json.loads(out)
    assert answer["query"] == "caf\udce9"
    assert [os.fsencode(hit["path"]) for hit in answer["hits"]] == [b"/photos/" + name for name in NAMES]
    assert answer["hits"][0] == {"rank": 1, "path": "/photos/plain.jpg", "score": 0.9, "modality": "image"}


def test_a_text_hit_carries_its_text(capfd: pytest.CaptureFixture[str]) -> None:
    hit = Hit(Path("/notes/a.md"), 0.5, 1, "text", "a long\n\nstory " * 20)
    show_hits([hit], {"query": "x"}, Format.JSON)
    sys.stdout.flush()
    assert json.loads(capfd.readouterr().out)["hits"][0]["text"] == hit.text
    show_hits([hit], {"query": "x"}, Format.TABLE)
    sys.stdout.flush()
    row = capfd.readouterr().out
    assert row.count("\n") == 1
    assert "a long story a long" in row
    assert row.rstrip("\n").endswith("…")


def test_answers_to_many_texts_are_one_line_of_json_each(capfd: pytest.CaptureFixture[str]) -> None:
    taken = datetime(2019, 6, 1, 12, tzinfo=UTC)
    show_answers(["a", "b"], [[Hit(Path("red.png"), 0.5, 1, "image", taken_at=taken)], []], Format.JSON)
    first, second = map(json.loads, capfd.readouterr().out.splitlines())
    assert first["query"] == "a"
    assert first["hits"][0]["taken_at"].startswith("2019-06-01")
    assert second == {"query": "b", "hits": []}


def test_a_table_has_one_line_a_hit_and_no_control_characters(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    show_hits(HITS, {"query": "x"}, Format.TABLE)
    sys.stdout.flush()
    lines = capfdbinary.readouterr().out.splitlines()
    assert len(lines) == len(HITS)
    assert b"\x1b" not in b"".join(lines)
    assert lines[0].split() == [b"1", b"0.900", b"image", b"/photos/plain.jpg"]
    assert b"/photos/caf\xe9.jpg" in lines[2]
    assert rb"new\nline.jpg" in lines[4]


def test_files_below_the_current_folder_are_shown_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    show_hits([Hit(tmp_path / "a" / "b.jpg", 0.5, 1, "image")], {"query": "x"}, Format.TABLE)
    sys.stdout.flush()
    assert capfd.readouterr().out.split()[-1] == os.path.join("a", "b.jpg")


def test_a_report_on_stdout_and_the_skips_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    report = IndexReport(added=3, updated=1, unchanged=2, skipped=1, encoded=4, seconds=2.0)
    show_report(report, as_json=False)
    sys.stdout.flush()
    out, err = capfd.readouterr()
    assert out == "3 added, 1 updated, 0 moved, 2 unchanged in 2.0 s, 2.0 encoded/s\n"
    assert err == "mmsearch: 1 file skipped; 'mmsearch errors' lists them with the reasons\n"
    show_report(IndexReport(seconds=0.5, profile=PROFILE), as_json=True)
    sys.stdout.flush()
    out, err = capfd.readouterr()
    counts = {"added", "updated", "moved", "unchanged", "skipped", "postponed", "offline", "excluded", "encoded"}
    assert set(json.loads(out)) == {*counts, "seconds"}
    assert err == ""


def test_what_a_run_hid_is_said_only_where_there_is_any(capfd: pytest.CaptureFixture[str]) -> None:
    show_report(IndexReport(unchanged=2, offline=3, excluded=4, seconds=2.0), as_json=False)
    sys.stdout.flush()
    counts = "0 added, 0 updated, 0 moved, 2 unchanged, 3 offline, 4 newly excluded in 2.0 s\n"
    assert capfd.readouterr().out == counts


def test_errors_in_every_form(capfd: pytest.CaptureFixture[str]) -> None:
    skipped = [SkippedFile(Path("/photos/a.jpg"), "not a picture", datetime(2025, 1, 2, tzinfo=UTC))]
    show_errors(skipped, Format.TABLE)
    show_errors(skipped, Format.PATHS)
    show_errors([], Format.TABLE)
    sys.stdout.flush()
    assert capfd.readouterr().out == "/photos/a.jpg  not a picture\n/photos/a.jpg\n"
    show_errors(skipped, Format.JSON)
    sys.stdout.flush()
    assert json.loads(capfd.readouterr().out) == [
        {"path": "/photos/a.jpg", "reason": "not a picture", "when": "2025-01-02T00:00:00+00:00"}
    ]


def test_status_as_a_table_and_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    status = Status(
        images=7,
        texts=2,
        captions=1,
        missing=0,
        offline=3,
        skipped=1,
        roots=(RootStatus(Path("/photos"), True, 9), RootStatus(Path("/usb"), False, 3, "the folder is missing")),
        size_bytes=1_500_000,
        model_name="default",
        model_fingerprint="ab" * 32,
        backend="numpy",
        search="exact",
        recall_at_10=None,
        last_indexed_at=datetime(2025, 1, 2, 3, 4, tzinfo=UTC),
    )
    show_status(Path("/lib"), status, as_json=False)
    sys.stdout.flush()
    out = capfd.readouterr().out
    for words in ["1.5 MB", "default (abababababab)", "2025-01-02 03:04 UTC"]:
        assert words in out
    assert "/usb  3 files, offline: the folder is missing\n" in out
    show_status(Path("/lib"), status, as_json=True)
    sys.stdout.flush()
    answer = json.loads(capfd.readouterr().out)
    assert answer["images"] == 7
    assert answer["library"] == "/lib"
    usb = {"path": "/usb", "online": False, "files": 3, "reason": "the folder is missing", "yours": True}
    assert answer["roots"][1] == usb


def test_nested_figures_are_indented(capfd: pytest.CaptureFixture[str]) -> None:
    show_facts({"split": "val", "text_to_image": {"r1": 21.0, "median_rank": 5.0}, "elbo": -1.2345678}, as_json=False)
    sys.stdout.flush()
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert lines == ["split val", "text to image", "r1 21.0", "median rank 5.0", "elbo -1.2346"]
