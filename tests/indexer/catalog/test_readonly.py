"""A library that may not be written: it answers as ever, and what would write says so in one line."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.crashing import KILLED, exit_code, ingest, reencode, start

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of files are another thing on Windows")
NOBODY = 65534
Answers = list[tuple[str, float, str | None]]


@pytest.fixture
def library() -> Iterator[Path]:
    """In a folder that everybody may enter, since rights do not hold root: a child gives up being root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield fill(folder)
    allow(folder, write=True)
    shutil.rmtree(folder)


def fill(folder: Path) -> Path:
    for number, colour in enumerate(("red", "green", "blue")):
        paint(folder / "photos" / f"{colour}.png", colour, seed=number)
    (folder / "photos" / "red.txt").write_text("a red wall")
    ingest(folder / "library", folder / "photos", FakeEncoder())
    return folder / "library"


def allow(folder: Path, *, write: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o755 if path.is_dir() else 0o644) if write else (0o555 if path.is_dir() else 0o444))


def answers(library: Path) -> Answers:
    encoder = FakeEncoder()
    query = encoder.embed_texts(["red"]).mu[0]
    with Store.open(library) as store:
        found = store.search(query, 9, fingerprint=encoder.fingerprint)
        found += store.search(query, 9, fingerprint=encoder.fingerprint, within="text")
        assert store.status().images == 3
        assert store.errors() == []
        assert store.posterior_of(library.parent / "photos" / "red.png", encoder.fingerprint) is not None
    return [(str(hit.path), hit.score, hit.text) for hit in found]


def listing(library: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in library.rglob("*") if path.is_file()}


def without_rights(work: Callable[..., None], *arguments: object) -> None:
    """Run `work` in a child that may only read what everybody may; what fails there fails here."""
    process = multiprocessing.get_context("forkserver").Process(target=_as_nobody, args=(work, *arguments))
    process.start()
    assert exit_code(process) == 0


def _as_nobody(work: Callable[..., None], *arguments: object) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # imports everything while the source may still be read
        library = fill(Path(temporary))
        answers(library)
        reencode(library, library, FakeEncoder(seed=1))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    work(*arguments)


def reads(library: Path, expected: Answers) -> None:
    assert answers(library) == expected


def writes(library: Path) -> None:
    encoder = FakeEncoder(seed=1)
    for write in (
        lambda store: store.ingest(library.parent / "photos", FakeEncoder()),
        lambda store: store.rebuild(encoder),
    ):
        with Store.open(library) as store, pytest.raises(LibraryError, match=r"cannot be written \(.*\)") as caught:
            write(store)
        assert "\n" not in str(caught.value)


def says_so(library: Path) -> None:
    with pytest.raises(LibraryError, match="run 'mmsearch status' once where it can be written"):
        Store.open(library)


def test_it_answers_and_nothing_is_written(library: Path) -> None:
    expected = answers(library)
    allow(library, write=False)
    before = listing(library)
    without_rights(reads, library, expected)
    without_rights(writes, library)
    assert listing(library) == before
    assert not list(library.glob("*-wal"))


def test_a_damaged_index_file_is_passed_over(library: Path) -> None:
    expected = answers(library)
    (path,) = (library / "vectors").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    allow(library, write=False)
    before = listing(library)
    without_rights(reads, library, expected)
    assert listing(library) == before


def test_after_a_run_that_was_killed(library: Path) -> None:
    photos = library.parent / "photos"
    (photos / "note.txt").write_text("red words")
    assert exit_code(start(ingest, library, photos, FakeEncoder(), "save.committed")) == KILLED
    assert (library / "catalog.sqlite-wal").stat().st_size > 0
    (library.parent / "copy").mkdir()
    for path in library.glob("catalog.sqlite*"):
        shutil.copy(path, library.parent / "copy")
    expected = [*answers(library.parent / "copy")]
    assert any("note.txt" in path for path, *_ in expected)
    allow(library, write=False)
    without_rights(reads, library, expected)
    (library / "catalog.sqlite-shm").unlink()
    without_rights(says_so, library)
