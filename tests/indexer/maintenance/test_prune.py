"""What prune forgets, what it leaves alone, and that a library without a file equals one that never had it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from indexer.base.errors import LibraryError, LibraryLocked
from indexer.base.lock import writer_lock
from indexer.catalog.library import next_change
from indexer.catalog.roots import Target
from indexer.catalog.schema import assets, captions, roots, vectors
from indexer.maintenance import prune
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.snapshots import answers, contents
from tests.indexer.test_crash import Crash, crash_at


def rows_in(store: Store) -> dict[str, int]:
    with store._catalog.begin() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (assets, captions, vectors, roots)
        }


@pytest.fixture
def filled(store: Store, photos: Path, encoder: FakeEncoder) -> Store:
    """Five photos in two folders; `a0.png` has a caption beside it and one in a CSV."""
    for number in range(3):
        paint(photos / "a" / f"a{number}.png", "red", seed=number)
    paint(photos / "b" / "b0.png", "blue", seed=7)
    paint(photos / "b" / "b1.png", "green", seed=8)
    (photos / "a" / "a0.txt").write_text("red zero")
    (photos / "captions.csv").write_text("image,caption\na/a0.png,said of zero\n")
    store.ingest(photos, encoder)
    return store


def test_a_library_without_a_file_equals_one_that_never_had_it(
    filled: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path
) -> None:
    (photos / "a" / "a0.png").unlink()
    (photos / "a" / "a0.txt").unlink()
    (photos / "captions.csv").unlink()
    filled.ingest(photos, encoder)
    report = filled.prune()
    assert report.paths == (photos / "a" / "a0.png", photos / "a" / "a0.txt")
    assert (report.removed, report.held_back, report.present, report.offline, report.dry_run) == (2, 0, 0, 0, False)
    assert rows_in(filled) == {"assets": 4, "captions": 0, "vectors": 4, "roots": 1}
    with Store.open(tmp_path / "fresh", create=True) as fresh:
        fresh.ingest(photos, encoder)
    assert contents(filled.path) == contents(tmp_path / "fresh")


def test_a_dry_run_changes_nothing(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    (photos / "a" / "a1.png").unlink()
    filled.ingest(photos, encoder)
    before = contents(filled.path)
    report = filled.prune(dry_run=True)
    assert (report.removed, report.paths, report.dry_run) == (1, (photos / "a" / "a1.png",), True)
    assert contents(filled.path) == before
    assert filled.prune(dry_run=True) == report


def test_what_was_not_missed_by_an_index_run_stays(filled: Store, photos: Path) -> None:
    (photos / "a" / "a1.png").unlink()
    assert filled.prune().removed == 0


def test_a_file_that_is_back_stays(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    kept = (photos / "a" / "a1.png").read_bytes()
    (photos / "a" / "a1.png").unlink()
    filled.ingest(photos, encoder)
    (photos / "a" / "a1.png").write_bytes(kept)
    report = filled.prune()
    assert (report.removed, report.present) == (0, 1)
    encoded = encoder.encoded
    assert filled.ingest(photos, encoder).unchanged == 6
    assert encoder.encoded == encoded
    (photos / "a" / "a1.png").unlink()
    filled.ingest(photos, encoder)
    (photos / "a" / "a1.png").write_bytes(kept)
    assert filled.prune(excluded=True).removed == 1


def test_an_empty_folder_may_be_a_drive_that_is_not_there(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    """A disk mounted inside an indexed folder leaves an empty folder; its files go only when that folder is named."""
    for file in (photos / "b").iterdir():
        file.unlink()
    filled.ingest(photos, encoder)
    for folder in (None, photos):
        report = filled.prune(folder)
        assert (report.removed, report.held_back) == (0, 2)
    assert filled.prune(photos / "a").held_back == 0
    assert filled.prune(photos / "b").removed == 2


def test_a_folder_that_is_gone_holds_nothing_back(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    for file in (photos / "b").iterdir():
        file.unlink()
    (photos / "b").rmdir()
    filled.ingest(photos, encoder)
    assert filled.prune().removed == 2


def test_a_link_that_leads_nowhere_holds_its_files_back(
    filled: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path
) -> None:
    paint(tmp_path / "far" / "f.png", "red", seed=30)
    (photos / "link").symlink_to(tmp_path / "far")
    filled.name(photos, follow_links=True)
    filled.ingest(photos, encoder)
    (tmp_path / "far").rename(tmp_path / "away")
    filled.ingest(photos, encoder)
    assert (filled.prune().removed, filled.prune().held_back) == (0, 1)


def test_an_offline_folder_goes_only_by_name(filled: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path) -> None:
    home = tmp_path / "home"
    paint(home / "h.png", "red", seed=20)
    filled.ingest(home, encoder)
    photos.rename(tmp_path / "unplugged")
    report = filled.prune()
    assert (report.removed, report.offline) == (0, 6)
    assert filled.prune(photos).offline == 6
    assert filled.prune(home, offline=True).removed == 0
    assert filled.prune(photos, offline=True, dry_run=True).removed == 6
    assert len(filled.status().roots) == 2
    assert filled.prune(photos, offline=True).removed == 6
    assert rows_in(filled) == {"assets": 1, "captions": 0, "vectors": 1, "roots": 1}
    with Store.open(tmp_path / "fresh", create=True) as fresh:
        fresh.ingest(home, encoder)
    assert contents(filled.path) == contents(tmp_path / "fresh")


def test_a_folder_that_is_not_in_the_library(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="mmsearch status"):
        filled.prune(tmp_path / "elsewhere")


def test_a_reader_that_slept_through_everything_finds_all_that_is_left(
    filled: Store, photos: Path, encoder: FakeEncoder
) -> None:
    """Its index in memory still holds what was pruned; the hits must not be fewer for it."""
    query = FakeEncoder().embed_texts(["red"]).mu[0].astype(np.float32)
    with Store.open(filled.path) as reader:
        first = reader.search(query, 2, fingerprint=encoder.fingerprint)
        for hit in first:
            hit.path.unlink()
        with Store.open(filled.path) as writer:
            writer.ingest(photos, encoder)
            writer.prune()
        hits = reader.search(query, 3, fingerprint=encoder.fingerprint)
    assert len(hits) == 3
    assert not {hit.asset_id for hit in hits} & {hit.asset_id for hit in first}


def test_a_drive_pulled_out_while_its_files_are_looked_for_loses_none(
    filled: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (photos / "a" / "a1.png").read_bytes()
    (photos / "a" / "a1.png").unlink()
    filled.ingest(photos, encoder)
    (photos / "a" / "a1.png").write_bytes(kept)
    real, away = prune._fate, photos.with_name("unplugged")

    def fate(target: Target, rel_path: str, bare: dict[str, bool]) -> str:
        photos.rename(away)
        return real(target, rel_path, bare)

    monkeypatch.setattr(prune, "_fate", fate)
    report = filled.prune()
    assert (report.removed, report.offline) == (0, 5)
    away.rename(photos)
    assert filled.ingest(photos, encoder).unchanged == 6


def test_a_dry_run_waits_for_nobody(filled: Store) -> None:
    with writer_lock(filled.path):
        assert filled.prune(dry_run=True).removed == 0
        with pytest.raises(LibraryLocked):
            filled.prune()


def test_a_crash_in_any_transaction_of_a_prune(
    filled: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a" / "a0.png").unlink()
    (photos / "a" / "a2.png").unlink()
    filled.ingest(photos, encoder)
    with filled._catalog.begin() as connection:
        next_change(connection)  # as of a run that ended before it wrote the index file, so that prune writes it
    shutil.copytree(filled.path, tmp_path / "before")
    filled.prune()
    expected = contents(filled.path)
    found = answers(filled)
    for number in range(1, 20):
        library = tmp_path / f"crash{number}"
        shutil.copytree(tmp_path / "before", library)
        crash = crash_at(monkeypatch, number, after=False)
        with Store.open(library) as store:
            store.name(photos)  # a copy of a library is another one
        with Store.open(library) as store, contextlib.suppress(Crash), crash as seen:
            store.prune()
        crashed = seen[0] == number
        with Store.open(library) as store:
            assert answers(store) == found
            store.prune()
        assert contents(library) == expected
        if not crashed:
            break
    else:
        pytest.fail("more transactions than were tried")
    assert number > 5
