"""A server while its library changes: written, encoded by another model, read-only, removed, replaced.

The truth is a search in a process that opens the library just then: a server gives that answer, or none, and whoever
asked then gives it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexer.store import CATALOG_FILE
from mmsearch import Hit, Library
from mmsearch.server import client
from tests.e2e.conftest import Run
from tests.e2e.disk import Disk
from tests.e2e.server_thread import Served
from tests.fakes import COLOURS, paint

pytestmark = [
    pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here"),
    pytest.mark.usefixtures("runtime"),
]
QUERIES = ["red", "blue whale"]
Answers = list[list[Hit]]


@pytest.fixture
def library(run: Run, photos: Path, home: Path) -> Path:
    assert run("index", photos).code == 0
    return home / "library"


def opened_now(library: Path) -> Answers:
    with Library.open(library) as opened:
        return opened.search_many(QUERIES, k=50)


def assert_same(library: Path) -> Answers:
    answered = client.ask(library, QUERIES, k=50)
    expected = opened_now(library)
    assert answered is not None
    assert [[(hit.path, hit.modality, hit.text) for hit in hits] for hits in answered] == [
        [(hit.path, hit.modality, hit.text) for hit in hits] for hits in expected
    ]
    for hits, others in zip(answered, expected, strict=True):
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in others], abs=1e-5)
    return answered


def more(photos: Path, count: int = 12) -> None:
    for number in range(count):
        paint(photos / f"more{number:02}.png", list(COLOURS)[number % 8], seed=100 + number)


def test_while_an_indexer_writes(library: Path, photos: Path) -> None:
    Served(library)
    more(photos)
    (photos / "red.png").unlink()
    sizes = []
    with Library.open(library) as writer:
        writer.config = writer.config.__class__(batch_size=4)
        writer.index(photos, lambda _: sizes.append(len(assert_same(library)[0])))
    sizes.append(len(assert_same(library)[0]))
    assert len(set(sizes)) > 2  # the answers grew with the batches


def test_while_the_library_goes_over_to_another_model(library: Path, photos: Path) -> None:
    Served(library)
    before = assert_same(library)
    seen = []
    with Library.open(library, model="other") as writer:
        writer.rebuild(lambda _: seen.append(assert_same(library)))
    after = assert_same(library)
    assert len(seen) > 2
    assert all(one == before for one in seen)  # the old model answers until the switch
    assert after != before


def test_removed(library: Path, run: Run) -> None:
    Served(library)
    assert_same(library)
    shutil.rmtree(library)
    assert client.ask(library, QUERIES) is None
    told = run("search", "red")
    assert (told.code, len(told.err.splitlines())) == (1, 1)
    assert "mmsearch index" in told.err


@pytest.mark.parametrize("how", ["renamed", "removed first"])
def test_replaced_by_a_backup(library: Path, photos: Path, run: Run, tmp_path: Path, how: str) -> None:
    Served(library)
    before = assert_same(library)
    backup = tmp_path / "backup"
    assert run("backup", backup).code == 0
    more(photos)
    (photos / "red.png").unlink()
    assert run("index", photos).code == 0
    assert len(assert_same(library)[0]) == len(before[0]) + 11
    if how == "renamed":
        library.rename(tmp_path / "aside")
        backup.rename(library)
    else:
        shutil.rmtree(library)
        shutil.copytree(backup, library)
    assert assert_same(library) == before
    assert run("index", photos).code == 0
    assert len(assert_same(library)[0]) == len(before[0]) + 11


def test_an_older_catalog_written_over_it(
    library: Path, photos: Path, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As `sqlite3 catalog.sqlite '.restore ...'` does: the same file, and rows that were gone are there again."""
    Served(library)
    before = assert_same(library)
    assert run("backup", tmp_path / "backup").code == 0
    (photos / "red.png").unlink()
    assert run("index", photos).code == 0
    assert len(assert_same(library)[0]) == len(before[0]) - 1
    with (
        closing(sqlite3.connect(tmp_path / "backup" / CATALOG_FILE)) as source,
        closing(sqlite3.connect(library / CATALOG_FILE)) as target,
    ):
        source.backup(target)
    assert assert_same(library) == before
    assert not caplog.records  # and nothing was taken for damage


def test_replaced_by_another_library(library: Path, run: Run, tmp_path: Path) -> None:
    Served(library)
    assert_same(library)
    more(tmp_path / "others")
    assert run("index", tmp_path / "others", "--library", tmp_path / "other").code == 0
    shutil.rmtree(library)
    (tmp_path / "other").rename(library)
    assert {hit.path.parent.name for hit in assert_same(library)[0]} == {"others"}


def test_on_a_disk_that_may_only_be_read(disk: Disk, run: Run, photos: Path) -> None:
    library = disk.path / "library"
    assert run("index", photos, "--library", library).code == 0
    (library / "vectors").joinpath("index-1.faiss").write_bytes(b"damaged")  # and cannot be mended now
    disk.writable(False)
    Served(library)
    before = assert_same(library)
    told = run("index", photos, "--library", library)
    assert (told.code, len(told.err.splitlines())) == (2, 1)
    assert "the disk is mounted read-only" in told.err
    disk.writable(True)
    more(photos)
    assert run("index", photos, "--library", library).code == 0
    assert len(assert_same(library)[0]) == len(before[0]) + 12
    assert run("rebuild", "--model", "other", "--library", library).code == 0
    assert_same(library)
    disk.writable(False)
    assert_same(library)


def test_on_a_full_disk(disk: Disk, run: Run, photos: Path) -> None:
    library = disk.path / "library"
    assert run("index", photos, "--library", library).code == 0
    disk.leave(0)
    Served(library)
    before = assert_same(library)
    more(photos)
    assert run("index", photos, "--library", library).code == 2
    assert assert_same(library) == before
    disk.clear()
    assert run("index", photos, "--library", library).code == 0
    assert len(assert_same(library)[0]) == len(before[0]) + 12
