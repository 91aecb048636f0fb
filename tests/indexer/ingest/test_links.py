"""Photo folders of somebody else: links that lead out, texts without bounds, pipes in the place of texts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.files.excludes import MOST_PATTERNS
from indexer.files.opening import LEADS_OUT
from indexer.ingest import captions
from indexer.ingest.captions import CAPTIONS_A_PHOTO
from mmsearch.library import Library
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import counts, fill, found, rows


@pytest.fixture
def out(photos: Path, tmp_path: Path) -> Path:
    """Files outside, and links to them in the photo folder."""
    fill(photos, 1)
    paint(tmp_path / "out" / "far.jpg", "red", seed=9)
    (tmp_path / "out" / "diary.txt").write_text("private words")
    (photos / "folder").symlink_to(tmp_path / "out")
    (photos / "linked.jpg").symlink_to(tmp_path / "out" / "far.jpg")
    (photos / "p0.txt").symlink_to(tmp_path / "out" / "diary.txt")
    (photos / "p0.jpg.xmp").symlink_to(tmp_path / "out" / "diary.txt")
    (photos / "captions.csv").symlink_to(tmp_path / "out" / "diary.txt")
    (photos / "music.mp3").symlink_to(tmp_path / "out" / "diary.txt")
    return tmp_path / "out"


def private(store: Store) -> bool:
    return any(b"private words" in file.read_bytes() for file in store.path.rglob("*") if file.is_file())


def test_they_are_not_followed_and_said(store: Store, photos: Path, encoder: FakeEncoder, out: Path) -> None:
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "encoded": 1, "skipped": 5}
    assert {error.reason for error in store.errors()} == {LEADS_OUT}
    assert found(store, encoder) == ["p0.jpg"]
    assert not private(store)


def test_a_person_may_have_them_followed_and_is_understood_from_then_on(
    tmp_path: Path, photos: Path, encoder: FakeEncoder, out: Path
) -> None:
    with Library.open(tmp_path / "new", model=encoder) as library:
        assert library.index(photos, follow_links=True).added == 3
        paint(out / "new.jpg", "red", seed=10)
        assert library.index(photos).added == 1
        assert library.doctor(sample=8).sound
        images = library.status().images
        paint(out / "newer.jpg", "red", seed=11)
        assert library.index(photos, follow_links=False).added == 0
        assert library.status().images == images  # nothing is hidden


def test_what_an_older_library_has_from_behind_them_stays(
    store: Store, photos: Path, encoder: FakeEncoder, out: Path
) -> None:
    store.name(photos, follow_links=True)
    store.ingest(photos, encoder)
    before = found(store, encoder)
    assert len(before) > 1
    store.name(photos, follow_links=False)  # as of a person of whom nothing is known
    report = store.ingest(photos, encoder)
    assert (report.added, report.excluded, store.status().missing) == (0, 0, 0)
    assert found(store, encoder) == before
    assert store.prune().removed == 0
    store.name(photos, follow_links=True)
    assert store.ingest(photos, encoder).encoded == 0


def test_an_ignore_file_that_leads_out_is_not_read_and_hides_nothing_less(
    store: Store, photos: Path, encoder: FakeEncoder, out: Path
) -> None:
    paint(photos / "sub" / "a.jpg", "red", seed=3)
    (photos / "sub" / ".mmsearchignore").symlink_to(out / "diary.txt")
    store.ingest(photos, encoder)
    assert "sub" in {Path(error.path).name for error in store.errors()}
    assert (found(store, encoder), private(store)) == (["p0.jpg"], False)


def test_a_row_of_a_catalog_leads_nowhere_else(store: Store, photos: Path, encoder: FakeEncoder, out: Path) -> None:
    fill(photos, 2)
    store.ingest(photos, encoder)
    with store._catalog.begin() as connection:
        connection.exec_driver_sql("UPDATE assets SET rel_path = ? WHERE rel_path = ?", (b"folder/far.jpg", b"p0.jpg"))
        connection.exec_driver_sql("UPDATE assets SET rel_path = ? WHERE rel_path = ?", (b"pipe.jpg", b"p1.jpg"))
    os.mkfifo(photos / "pipe.jpg")
    assert counts(store.rebuild(FakeEncoder(name="new", seed=3))) == {"skipped": 2, "postponed": 2}


def test_patterns_without_end_end(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / ("a" * 120 + ".jpg"), "red")
    patterns = ["*a" * 60 + "b", "**/" * 200 + "*a*a*a*a*a*a*a*a*a*a*ab", "x" * 2000]
    (photos / ".mmsearchignore").write_text("\n".join(patterns))
    report = store.ingest(photos, encoder)
    assert (report.added, report.skipped) == (1, 1)
    assert store.errors()[0].reason.startswith("line 3 is no pattern: 'xxx")
    (photos / ".mmsearchignore").write_text("*.gif\n" * (MOST_PATTERNS + 1))
    report = store.ingest(photos, encoder)
    assert (report.unchanged, report.excluded, store.status().images) == (0, 0, 1)  # not walked, and nothing hidden
    assert "more than 2000 lines" in store.errors()[0].reason


def test_a_table_of_captions_is_read_within_bounds(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(photos, 2)
    table = photos / "captions.csv"
    monkeypatch.setattr(captions, "LINE_CHARS", 1000)
    monkeypatch.setattr(captions, "CAPTIONS_BYTES", 100_000)
    for text, reason in (
        ("image,caption\np0.jpg," + "x" * 2000, "line 2 is longer than 1,000 characters"),
        ("x" * 5000, "line 1 is longer than 1,000 characters"),
        ("image,caption\n" + "p0.jpg,a\n" * 20_000, "a table of 180,014 bytes, at most 100,000 are read"),
        ("image,caption\n" + "p0.jpg,a\n" * (CAPTIONS_A_PHOTO + 1), "line 1002: more than 1,000 captions of 'p0.jpg'"),
    ):
        table.write_text(text)
        store.ingest(photos, encoder)
        assert store.errors()[0].reason.startswith(reason)
        assert rows(store, "SELECT count(*) FROM captions") == [(0,)]
    table.write_bytes("image,caption\rp0.jpg,caf\u00e9\rnone.jpg,x\rp1.jpg,two\r".encode("latin-1"))
    store.ingest(photos, encoder)
    assert rows(store, "SELECT text FROM captions ORDER BY id") == [("café",), ("two",)]
    assert store.errors()[0].reason == "1 of 3 rows name no picture here, the first in line 3: 'none.jpg'"


@pytest.mark.parametrize("name", ["captions.csv", "p0.txt", "p0.jpg.json", "p0.xmp", ".mmsearchignore"])
def test_a_pipe_in_the_place_of_a_text_is_not_waited_for(
    store: Store, photos: Path, encoder: FakeEncoder, name: str
) -> None:
    fill(photos, 1)
    store.ingest(photos, encoder)
    os.mkfifo(photos / name)
    assert store.ingest(photos, encoder).skipped == 1
    assert found(store, encoder) == ["p0.jpg"]


def test_sidecars_nested_without_end(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos, 2)
    (photos / "p0.jpg.json").write_text("[" * 500_000)
    (photos / "p1.jpg.xmp").write_text("<a>" * 300_000)
    assert counts(store.ingest(photos, encoder)) == {"added": 2, "encoded": 2, "skipped": 2}
