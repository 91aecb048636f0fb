"""A real disk that fills up at many points: one line, exit code 2, a sound library, and the next run continues.

The disk is a tmpfs of two mebibytes; what stands on it besides leaves as much room as a test says. Only root mounts
one: elsewhere the full disk is the injected one of `tests/indexer/base/test_failpoints.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.catalog import visibility
from indexer.store import CATALOG_FILE, Store
from tests.e2e.conftest import Answer, Run
from tests.e2e.disk import Disk
from tests.fakes import paint
from tests.indexer.folders import fill
from tests.indexer.snapshots import contents

KIB = 1024


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def whole(run: Run, photos: Path, tmp_path: Path) -> Path:
    """The library as it is where there is room."""
    assert run("index", photos, "--library", tmp_path / "whole").code == 3  # one file is no picture
    return tmp_path / "whole"


def assert_full(answer: Answer) -> None:
    assert answer.code == 2, answer
    said = [line for line in answer.err.splitlines() if "goes over from model" not in line]
    assert len(said) == 1, answer.err
    assert any(words in said[0] for words in ("full", "No space left on device", "are free")), said
    assert "unexpected" not in said[0]


def sweep(disk: Disk, work: Callable[[], Answer], check: Callable[[], None], rooms: range) -> list[int]:
    """`work` with more and more room until it ends well; the codes it ended with. `check` looks with space made."""
    codes = []
    for room in rooms:
        disk.leave(room)
        answer = work()
        codes.append(answer.code)
        disk.clear()
        if answer.code in (0, 3):
            return codes
        assert_full(answer)
        check()
    return codes


def test_index(disk: Disk, run: Run, photos: Path, whole: Path) -> None:
    library = disk.path / "library"
    indexed = ("index", photos, "--library", library)
    expected = contents(whole)

    def check() -> None:
        if run("status", "--library", library).code == 0:
            answer = run("doctor", "--library", library)
            assert answer.code == 0, answer.out
        assert run(*indexed).code == 3
        assert run("doctor", "--library", library).code == 0
        assert contents(library) == expected
        shutil.rmtree(library)

    codes = sweep(disk, lambda: run(*indexed), check, range(0, 1024 * KIB, 140 * KIB))
    assert codes[-1] == 3
    assert len(codes) > 2


def test_a_run_that_goes_on_where_the_disk_was_full(disk: Disk, run: Run, photos: Path, whole: Path) -> None:
    """No doctor and no new library between: every try gets as far as there is room."""
    library = disk.path / "library"
    indexed = ("index", photos, "--library", library)
    codes = sweep(disk, lambda: run(*indexed), lambda: None, range(0, 1024 * KIB, 56 * KIB))
    assert codes[0] == 2
    assert codes[-1] == 3
    assert contents(library) == contents(whole)


def test_searches_answer_on_a_full_disk(disk: Disk, run: Run, whole: Path) -> None:
    library = shutil.copytree(whole, disk.path / "library")
    asked = (("search", "red", "--json"), ("search", "blue", "--in", "image"), ("errors",), ("doctor",))
    expected = [run(*one, "--library", library) for one in asked]
    disk.leave(0)
    assert [run(*one, "--library", library) for one in asked] == expected
    disk.clear()
    assert [run(*one, "--library", library) for one in asked] == expected


def test_rebuild(disk: Disk, run: Run, whole: Path, photos: Path) -> None:
    library = disk.path / "library"
    shutil.copytree(whole, library)
    with Store.open(library) as store:
        store.name(photos)  # a copy is another library
    before = run("search", "red", "--json", "--library", library)
    assert run("rebuild", "--model", "other", "--library", whole).code == 0
    expected = contents(whole)

    def check() -> None:
        assert run("doctor", "--library", library).code == 0
        assert run("search", "red", "--json", "--library", library) == before  # the old vectors answer

    work = ("rebuild", "--model", "other", "--library", library)
    codes = sweep(disk, lambda: run(*work), check, range(0, 1024 * KIB, 72 * KIB))
    assert codes[0] == 2
    assert codes[-1] == 0
    assert contents(library) == expected


@pytest.mark.parametrize(
    ("command", "rooms"), [("backup", range(0, 1024 * KIB, 96 * KIB)), ("export", range(0, 256 * KIB, 24 * KIB))]
)
def test_copies(disk: Disk, run: Run, whole: Path, command: str, rooms: range) -> None:
    copy = disk.path / "copy"

    def check() -> None:
        assert list(disk.path.iterdir()) == []

    codes = sweep(disk, lambda: run(command, copy, "--library", whole), check, rooms)
    assert codes[0] == 2
    assert codes[-1] == 0
    if command == "backup":
        assert contents(copy) == contents(whole)


def test_import(disk: Disk, run: Run, whole: Path, tmp_path: Path) -> None:
    assert run("export", tmp_path / "archive", "--library", whole).code == 0
    library = disk.path / "library"

    def check() -> None:
        assert list(disk.path.iterdir()) == []

    work = ("import", tmp_path / "archive", "--library", library)
    codes = sweep(disk, lambda: run(*work), check, range(0, 1536 * KIB, 128 * KIB))
    assert codes[0] == 2
    assert codes[-1] == 0
    assert contents(library) == contents(whole)


def test_a_library_of_an_older_version(disk: Disk, run: Run, photos: Path, tmp_path: Path, whole: Path) -> None:
    library = disk.path / "library"
    shutil.copytree(whole, library)
    with Store.open(library) as store, store._catalog.begin() as connection:  # as version 0001 left it
        for statement in (
            "UPDATE alembic_version SET version_num = '0001'", "DROP TABLE about", "DROP TABLE frames",
            "ALTER TABLE generations DROP COLUMN facts",
        ):  # fmt: skip
            connection.exec_driver_sql(statement)
        visibility.drop(connection)
        connection.exec_driver_sql("UPDATE assets SET camera = NULL")
    old = shutil.copytree(library, tmp_path / "old")
    paint(photos / "new.png", "grey", seed=70)
    assert run("index", photos, "--library", old).code == 3
    expected = contents(old)

    def check() -> None:
        assert (library / CATALOG_FILE).is_file()

    codes = sweep(disk, lambda: run("index", photos, "--library", library), check, range(0, 1024 * KIB, 56 * KIB))
    assert codes[0] == 2
    assert codes[-1] == 3
    assert run("doctor", "--library", library).code == 0
    assert contents(library) == expected
