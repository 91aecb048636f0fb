"""A library of somebody else, as every command meets it: nothing outside of it changes, and one line says why."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mmsearch.cli import app as cli
from tests.e2e.conftest import Answer, Run
from tests.e2e.runner import load_fake
from tests.fakes import paint
from tests.indexer.catalog.endless import make_endless
from tests.indexer.catalog.test_door import STRANGE, journal

CATALOG = "catalog.sqlite"
Spoil = Callable[[Path, Path], None]  # given the library and a folder outside

COMMANDS = {
    "status": ("status",),
    "search": ("search", "red"),
    "similar": ("similar", "{photos}/red.png"),
    "errors": ("errors",),
    "index": ("index", "{photos}"),
    "index more": ("index", "{more}"),
    "prune": ("prune", "--dry-run"),
    "prune for good": ("prune",),
    "rebuild": ("rebuild", "--model", "other"),
    "doctor": ("doctor",),
    "doctor --repair": ("doctor", "--repair"),
    "backup": ("backup", "{new}/copy"),
    "export": ("export", "{new}/archive"),
    "export to a tar": ("export", "{new}/archive.tar"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library, its photos and more of them; each test gets a copy of the library."""
    top = tmp_path_factory.mktemp("made")
    paint(top / "photos" / "red.png", "red", seed=1)
    paint(top / "photos" / "garden.jpg", "green", seed=4)
    (top / "photos" / "garden.txt").write_text("a green garden", encoding="utf-8")
    (top / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    paint(top / "more" / "blue.png", "blue", seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_HOME", str(top / "home"))
        patch.setattr("mmsearch.model_choice.load_encoder", load_fake)
        assert cli.main(["index", str(top / "photos"), "--library", str(top / "library")]) == 3  # one file is skipped
    return top


@pytest.fixture(autouse=True)
def home(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the person who made the library, and named its model and folder."""
    monkeypatch.setenv("MMSEARCH_HOME", str(made / "home"))
    return made / "home"


def listing(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every file with its rights, time and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        seen = os.lstat(path)
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (seen.st_mode, seen.st_mtime_ns, seen.st_size, content)
    return found


def attack(made: Path, tmp_path: Path, run: Run, spoil: Spoil) -> dict[str, Answer]:
    """Every command on a fresh copy of the library, spoilt; what must never happen does not."""
    answers = {}
    for name, words in COMMANDS.items():
        place = tmp_path / name.replace(" ", "_")
        library, outside = place / "library", place / "outside"
        shutil.copytree(made / "library", library)
        outside.mkdir()
        spoil(library, outside)
        before = listing(outside)
        photos = listing(made / "photos")
        filled = [word.format(photos=made / "photos", more=made / "more", new=place) for word in words]
        started = time.perf_counter()
        answer = run(*filled, "--library", library)
        assert time.perf_counter() - started < 10, name
        assert listing(outside) == before, name
        assert listing(made / "photos") == photos, name
        assert answer.code in (0, 1, 2, 3), (name, answer)
        assert "unexpected" not in answer.err, (name, answer)
        assert "Traceback" not in answer.err, (name, answer)
        answers[name] = answer
    return answers


def refused(answers: dict[str, Answer], why: str, but: tuple[str, ...] = ()) -> None:
    """Every command said so in one line, `but` those that have nothing to do with it."""
    for name, answer in answers.items():
        if name not in but:
            assert answer.code in (2, 3), (name, answer)
            assert why in answer.err + answer.out, (name, answer)
            assert answer.err.count("\n") == 1, (name, answer)


def test_a_journal_deletes_no_file(made: Path, tmp_path: Path, run: Run) -> None:
    def spoil(library: Path, outside: Path) -> None:
        (outside / "victim").write_bytes(b"precious")
        journal(library / CATALOG, str(outside / "victim").encode())

    refused(attack(made, tmp_path, run, spoil), "names another file")


def in_place_of(name: str, kind: str) -> Spoil:
    """A file of the library leads outside."""

    def spoil(library: Path, outside: Path) -> None:
        path, target = library / name, outside / "target"
        if path.is_file():
            shutil.move(path, target)
        else:
            target.write_bytes(b"precious" * 2000)
        {
            "link": lambda: path.symlink_to(target),
            "dangling": lambda: path.symlink_to(outside / "nothing"),
            "hard link": lambda: path.hardlink_to(target),
            "pipe": lambda: os.mkfifo(path),
            "device": lambda: path.symlink_to("/dev/zero"),
        }[kind]()

    return spoil


KINDS = ["link", "dangling", "hard link", *(["pipe", "device"] if hasattr(os, "mkfifo") else [])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [CATALOG, f"{CATALOG}-wal", f"{CATALOG}-shm", f"{CATALOG}-journal"])
def test_the_catalog_is_a_plain_file(made: Path, tmp_path: Path, run: Run, name: str, kind: str) -> None:
    answers = attack(made, tmp_path, run, in_place_of(name, kind))
    if name == CATALOG and kind in ("dangling", "pipe", "device"):
        assert {answer.code for answer in answers.values()} <= {1, 2, 3}
    else:
        refused(answers, "a library holds plain files only")


WRITERS = ("index", "index more", "prune for good", "rebuild")


@pytest.mark.parametrize("kind", KINDS)
def test_the_lock_is_a_plain_file(made: Path, tmp_path: Path, run: Run, kind: str) -> None:
    answers = attack(made, tmp_path, run, in_place_of("writer.lock", kind))
    refused({name: answers[name] for name in WRITERS}, "a library holds plain files only")
    assert answers["search"].code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_of_decoding_is_a_plain_file(made: Path, tmp_path: Path, run: Run, kind: str) -> None:
    answers = attack(made, tmp_path, run, in_place_of("decoding", kind))
    assert answers["search"].code == 0
    assert "a library holds plain files only" in answers["index more"].err


def test_the_folder_of_index_files_leads_nowhere(made: Path, tmp_path: Path, run: Run) -> None:
    def spoil(library: Path, outside: Path) -> None:
        shutil.move(library / "vectors", outside / "elsewhere")
        (library / "vectors").symlink_to(outside / "elsewhere")
        (outside / "elsewhere" / "index-99.f16").write_bytes(b"precious")

    answers = attack(made, tmp_path, run, spoil)
    assert answers["search"].code == 0
    refused({name: answers[name] for name in ("index", "index more", "backup")}, "a library holds plain files only")


@pytest.mark.parametrize("kind", KINDS)
def test_index_files_are_plain_files(made: Path, tmp_path: Path, run: Run, kind: str) -> None:
    (name,) = (path.name for path in (made / "library" / "vectors").iterdir())
    answers = attack(made, tmp_path, run, in_place_of(f"vectors/{name}", kind))
    assert answers["search"].code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_salvaged_catalog_goes_nowhere_else(made: Path, tmp_path: Path, run: Run, kind: str) -> None:
    def spoil(library: Path, outside: Path) -> None:
        in_place_of(f"{CATALOG}.new", kind)(library, outside)
        STRANGE["a trigger"][1](library / CATALOG)

    answers = attack(made, tmp_path, run, spoil)
    assert answers["doctor --repair"].code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_copies_what_is_the_library_s(made: Path, tmp_path: Path, run: Run, kind: str) -> None:
    answers = attack(made, tmp_path, run, in_place_of("notes.txt", kind))
    assert answers["backup"].code == 0
    assert "notes.txt" in answers["backup"].err
    assert not (tmp_path / "backup" / "copy" / "notes.txt").exists()
    assert (tmp_path / "backup" / "copy" / CATALOG).exists()


@pytest.mark.parametrize("strange", STRANGE)
def test_a_schema_that_is_not_ours_runs_nothing(made: Path, tmp_path: Path, run: Run, strange: str) -> None:
    named, change = STRANGE[strange]
    answers = attack(made, tmp_path, run, lambda library, _: change(library / CATALOG))
    refused(answers, named, but=("doctor --repair",))
    refused(answers, "mmsearch doctor --repair", but=("doctor --repair",))
    mended = answers["doctor --repair"]
    assert mended.code in (0, 3), mended
    library = tmp_path / "doctor_--repair" / "library"
    if strange not in ("a statement that is none", "a table without row ids"):  # neither is a table of rows
        assert run("search", "red", "--library", library).code == 0
        with closing(sqlite3.connect(library / CATALOG)) as connection:
            assert connection.execute("SELECT count(*) FROM assets").fetchall() == [(4,)]
            assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'evil'").fetchall() == [(0,)]


@pytest.mark.parametrize("table", ["vectors", "assets", "captions", "roots", "notices"])
def test_rows_without_end_end(made: Path, tmp_path: Path, run: Run, table: str) -> None:
    answers = attack(made, tmp_path, run, lambda library, _: make_endless(library / CATALOG, table))
    refused({"export": answers["export"]}, "is damaged")
    refused({"backup": answers["backup"]}, "is damaged")
    assert "FAULT  database" in answers["doctor"].out
    assert answers["doctor --repair"].code == 0
    assert run("search", "red", "--library", tmp_path / "doctor_--repair" / "library").code in (0, 1)


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling"])
def test_nothing_is_written_through_a_link_at_the_destination(made: Path, tmp_path: Path, run: Run, kind: str) -> None:
    target = tmp_path / "target"
    for command, name in (("backup", "copy"), ("export", "archive"), ("export", "archive.tar")):
        target.write_bytes(b"precious")
        dest = tmp_path / name
        if kind == "hard link":
            dest.hardlink_to(target)
        else:
            dest.symlink_to(target if kind == "link" else tmp_path / "nothing")
        answer = run(command, dest, "--library", made / "library")
        assert answer.code == 2
        assert "is there already" in answer.err
        assert target.read_bytes() == b"precious"
        assert not (tmp_path / "nothing").exists()


def test_a_link_to_an_empty_folder_is_no_destination(made: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "copy").symlink_to(tmp_path / "empty")
    answer = run("backup", tmp_path / "copy", "--library", made / "library")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert list((tmp_path / "empty").iterdir()) == []
