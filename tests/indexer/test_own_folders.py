"""A library of somebody else: its folders are searched and shown, and read only after this user named them here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError
from indexer.doctor import visit
from mmsearch.cli.render import show_pruned, show_status
from mmsearch.library import Library
from tests.fakes import FakeEncoder, paint

PRIVATE = "the private diary of somebody"


class Person:
    """One user of this machine: a home of their own, and a model that counts."""

    def __init__(self, home: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.path, self.encoder = home, library, FakeEncoder()
        self._patch = monkeypatch

    def __enter__(self) -> Library:
        self._patch.setenv("MMSEARCH_HOME", str(self.home))
        self._opened = Library.open(self.path, model=self.encoder)
        return self._opened

    def __exit__(self, *_: object) -> None:
        self._opened.close()


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    (tmp_path / "nas").mkdir()
    for colour in ("red", "blue"):
        paint(tmp_path / "nas" / "photos" / f"{colour}.png", colour)
    (tmp_path / "nas" / "photos" / "red.txt").write_text(PRIVATE)
    return tmp_path / "nas"


@pytest.fixture
def ann(tmp_path: Path, nas: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(tmp_path / "ann", nas / "library", monkeypatch)


@pytest.fixture
def ben(tmp_path: Path, nas: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    return Person(tmp_path / "ben", nas / "library", monkeypatch)


@pytest.fixture
def untouched(nas: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything in the photo folder that is looked at or opened, while it lasts."""
    seen: list[str] = []

    def watch(name: str) -> None:
        original = getattr(os, name)

        def call(path: object = ".", *values: object, **more: object) -> object:
            if isinstance(path, (str, Path)) and str(path).startswith(str(nas / "photos")):
                seen.append(f"{name} {path}")
            return original(path, *values, **more)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "lstat", "scandir", "open", "readlink"):
        watch(name)
    yield seen
    assert seen == []


def names(library: Library) -> list[str]:
    return sorted(hit.path.name for hit in library.search("red", within="image"))


def test_two_users_of_a_library_work_without_a_word(
    ann: Person, ben: Person, nas: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for person in (ann, ben):  # each said once which photos are theirs
        with person as library:
            library.index(nas / "photos")
    paint(nas / "photos" / "green.png", "green")
    for person in (ben, ann, ben):
        with person as library:
            library.index(nas / "photos")
            assert names(library) == ["blue.png", "green.png", "red.png"]
            assert [root.yours for root in library.status().roots] == [True]
            assert library.doctor(sample=8).sound
            assert library.rebuild().skipped == 0
            assert library.prune().not_yours == 0
    assert caplog.messages == []


@pytest.fixture
def given(ann: Person, ben: Person, nas: Path) -> Person:
    """What Ann indexed, as Ben finds it: he named nothing."""
    with ann as library:
        library.index(nas / "photos")
    (nas / "photos" / "red.txt").write_text("other words")  # a second look at it would show
    return ben


def test_what_nobody_here_named_is_searched_and_shown_and_not_looked_at(given: Person, untouched: list[str]) -> None:
    with given as library:
        assert names(library) == ["blue.png", "red.png"]
        status = library.status()
        assert (status.images, status.offline, [root.yours for root in status.roots]) == (2, 0, [False])
        assert library.prune(dry_run=True).not_yours == 3
        assert library.errors() == []


def test_no_other_command_reads_it(given: Person, nas: Path, tmp_path: Path, untouched: list[str]) -> None:
    paint(tmp_path / "mine" / "red too.png", "red")
    shutil.copy(nas / "library" / "catalog.sqlite", tmp_path / "before")
    with given as library:
        line = (
            f"not read, since you never indexed it on this machine: {nas / 'photos'}; 'mmsearch index {nas / 'photos'}'"
        )
        (folders,) = [check.found for check in library.doctor(sample=8).checks if check.name == "folders"]
        assert folders == f"1 folders; {line} takes it on"
        assert library.doctor(repair=True, sample=8).sound
        assert library.rebuild().encoded == 0  # nothing is due, so nothing is left out
        report = library.index(tmp_path / "mine")
        assert (report.added, report.moved, report.encoded) == (1, 0, 0)  # one more copy
        assert library.similar(tmp_path / "mine" / "red too.png", within="image")[0].path.name == "red.png"
    other = Person(given.home, given.path, given._patch)
    other.encoder = FakeEncoder(name="new", seed=3, dim=24)
    with other as library, pytest.raises(LibraryError, match=r"never indexed it on this machine.*prune --offline"):
        library.rebuild()


def test_a_repair_reads_nothing_into_the_giver_s_catalog(given: Person, nas: Path, tmp_path: Path) -> None:
    """The attack: rows of files that the receiver has, of which the giver wants the words."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "diary.txt").write_text(PRIVATE)
    with given as library:
        store = library._open_store()
        with store._catalog.begin() as connection:
            connection.exec_driver_sql("UPDATE roots SET path = ?", (os.fsencode(tmp_path / "secrets"),))
            connection.exec_driver_sql("UPDATE assets SET rel_path = ? WHERE modality = 'text'", (b"diary.txt",))
            connection.exec_driver_sql("UPDATE assets SET excerpt = 'x', content_hash = NULL")
            connection.exec_driver_sql("UPDATE vectors SET mu = x'00'")
        library.doctor(repair=True, sample=8)
        library.index(nas / "photos")
    for file in (nas / "library").rglob("*"):
        assert not file.is_file() or PRIVATE.encode() not in file.read_bytes()


def test_after_it_was_named_it_is_read(given: Person, nas: Path) -> None:
    with given as library:
        assert library.index(nas / "photos").encoded == 1  # the caption that changed
        assert [root.yours for root in library.status().roots] == [True]
        assert library.prune().not_yours == 0
    other = Person(given.home, given.path, given._patch)
    other.encoder = FakeEncoder(name="new", seed=3, dim=24)
    with other as library:
        assert library.rebuild().encoded > 0


def test_another_model_at_the_first_index_of_a_library_without_a_state(given: Person, nas: Path) -> None:
    given.encoder = FakeEncoder(name="new", seed=3, dim=24)
    with given as library:
        assert library.index(nas / "photos").encoded > 0
        assert names(library) == ["blue.png", "red.png"]


def test_a_part_of_somebody_s_folder_is_that_part(given: Person, nas: Path) -> None:
    paint(nas / "photos" / "sub" / "green.png", "green")
    with given as library:
        assert library.index(nas / "photos" / "sub").added == 1
        (nas / "photos" / "sub" / "green.png").rename(nas / "photos" / "sub" / "moved.png")
        (nas / "photos" / "blue.png").unlink()
        assert library.index(nas / "photos" / "sub").moved == 1
        assert library.prune().removed == 0
        assert names(library) == ["blue.png", "moved.png", "red.png"]
    given.encoder = FakeEncoder(name="new", seed=3, dim=24)
    with given as library, pytest.raises(LibraryError, match="never indexed"):
        library.rebuild()


def test_a_copy_of_a_library_and_one_that_moved(ann: Person, nas: Path, tmp_path: Path) -> None:
    with ann as library:
        library.index(nas / "photos")
        library.backup(tmp_path / "copy")
    shutil.copytree(nas / "library", tmp_path / "moved")
    for place in ("copy", "moved"):
        with Person(ann.home, tmp_path / place, ann._patch) as library:
            assert names(library) == ["blue.png", "red.png"]
            assert "never indexed" in next(one.found for one in library.doctor().checks if one.name == "folders")
            assert library.index(nas / "photos").unchanged == 3
            assert library.doctor(sample=8).sound


def test_a_folder_that_moved_is_named_by_relocate(given: Person, nas: Path) -> None:
    (nas / "photos").rename(nas / "pictures")
    with given as library:
        library.relocate(nas / "photos", nas / "pictures")
        assert [root.yours for root in library.status().roots] == [True]
        assert library.doctor(sample=8).sound


def test_what_is_lost_can_be_forgotten(given: Person, nas: Path, untouched: list[str]) -> None:
    with given as library:
        assert library.prune(nas / "photos", offline=True).removed == 3
        assert library.status().roots == ()


def test_the_doctor_names_no_folder_on_the_way(ann: Person, nas: Path) -> None:
    """What a repair reads again is the user's already; roots of others below it stay theirs."""
    with ann as library:
        library.index(nas / "photos")
        store = library._open_store()
        with store._catalog.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO roots (path, pairing_due) VALUES (?, 0)", (os.fsencode(nas / "photos" / "sub"),)
            )
            connection.exec_driver_sql("UPDATE vectors SET mu = x'00' WHERE id = 1")
    visit(nas / "library", lambda _: ann.encoder, repair=True, sample=0)
    with ann as library:
        assert [root.yours for root in library.status().roots] == [True, False]


def test_the_command_line_says_it_in_a_word(
    given: Person, nas: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(given.home))
    with given as library:
        show_status(library.path, library.status(), as_json=False)
        assert f"{nas / 'photos'}  3 files, not yours yet: " in capsys.readouterr().out
        show_pruned(library.prune(dry_run=True), as_json=False)
        assert "3 files of folders you never indexed on this machine stay" in capsys.readouterr().err
