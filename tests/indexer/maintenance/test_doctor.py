"""Damage of every kind: found, said in words, mended where that loses nothing, and the library is as it was."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError, LibraryLocked, MMSearchError, SchemaOutdated
from indexer.base.failpoints import REPAIR, SALVAGE
from indexer.base.lock import writer_lock
from indexer.doctor import DoctorReport, visit
from indexer.store import CATALOG_FILE, Store
from tests.fakes import FakeEncoder
from tests.indexer.crashing import KILLED, exit_code, ingest, start
from tests.indexer.folders import fill
from tests.indexer.snapshots import contents


@pytest.fixture
def library(tmp_path: Path, photos: Path) -> Path:
    fill(photos)
    ingest(tmp_path / "library", photos, FakeEncoder())
    return tmp_path / "library"


def see(library: Path, encoder: FakeEncoder | None = None, *, repair: bool = False, sample: int = 99) -> DoctorReport:
    model = encoder or FakeEncoder()
    return visit(library, lambda _: model, repair=repair, sample=sample)


def faults(report: DoctorReport) -> dict[str, int]:
    return {check.name: check.faults for check in report.checks if check.faults and not check.mended}


def sql(library: Path, *statements: str) -> None:
    with closing(sqlite3.connect(library / CATALOG_FILE)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement


def test_a_sound_library_has_no_faults_and_is_left_as_it_is(library: Path) -> None:
    before = contents(library)
    files = sorted(path.name for path in library.rglob("*"))
    encoder = FakeEncoder()
    for repair in (False, True):
        report = see(library, encoder, repair=repair)
        assert report.sound
        assert faults(report) == {}
        assert [check.name for check in report.checks] == [
            "database", "references", "counters", "folders", "model", "doubles", "files", "visibility", "vectors",
            "index file", "comparison", "keyframes", "leftovers", "sample",
        ]  # fmt: skip
    assert encoder.encoded == 2 * (15 + 8 + 8)  # pictures, text files, rows of captions.csv: the sample was all of them
    assert contents(library) == before
    assert sorted(path.name for path in library.rglob("*")) == files


MENDED: dict[str, tuple[str, ...]] = {
    "references": ("INSERT INTO captions (asset_id, live) VALUES (4711, 1)",),
    "counters": ("UPDATE library SET change = 3",),
    "doubles": (
        "INSERT INTO vectors (model_id, asset_id, role, kind, change, mu, logvar)"
        " SELECT model_id, asset_id, role, kind, change, mu, logvar FROM vectors WHERE id = 3",
    ),
    "visibility": ("UPDATE vectors SET kind = 2 WHERE kind = 1",),
    "files": ("UPDATE vectors SET mu = NULL, logvar = NULL WHERE id = 2", "DELETE FROM vectors WHERE id = 3"),
    "vectors": (
        "UPDATE vectors SET mu = substr(mu, 1, 31) WHERE id = 1",
        "UPDATE vectors SET logvar = zeroblob(0) WHERE id = 2",
        "UPDATE vectors SET logvar = NULL WHERE id = 3",
        "UPDATE vectors SET mu = CAST(x'007e' || substr(mu, 3) AS BLOB) WHERE id = 4",  # NaN
        "UPDATE vectors SET logvar = CAST(x'0044' || substr(logvar, 3) AS BLOB) WHERE id = 5",  # wider than the prior
        "UPDATE vectors SET mu = x'00' WHERE caption_id IS NOT NULL AND id % 2",
        "UPDATE vectors SET mu = x'00' WHERE role = 'fused' AND id % 2",
    ),
    "comparison": (
        "UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE kind != 0",
    ),
    "sample": ("UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE kind = 0 AND mu IS NOT NULL",),
}  # fmt: skip


@pytest.mark.parametrize("name", MENDED)
def test_a_fault_in_the_rows_is_found_and_mended(library: Path, name: str) -> None:
    expected = contents(library)
    sql(library, *MENDED[name])
    report = see(library)
    assert name in faults(report)
    assert not report.sound
    again = see(library, repair=True)
    assert again.sound, faults(again)
    assert [check.found for check in again.checks if check.mended and check.name == name]
    assert faults(see(library)) == {}
    assert contents(library) == expected


def test_files_whose_folder_was_lost_find_their_vectors_again(library: Path, photos: Path) -> None:
    expected = contents(library)
    sql(library, "DELETE FROM roots")
    assert faults(see(library)) == {"references": 24 + 1}  # files, and a notice about captions.csv
    assert see(library, repair=True).sound
    encoder = FakeEncoder()
    ingest(library, photos, encoder)
    assert encoder.encoded == 0
    assert contents(library)[-1] == expected[-1]


def test_what_cannot_be_encoded_again_is_kept(library: Path, photos: Path) -> None:
    expected = contents(library)
    away = photos.rename(photos.with_name("away"))
    sql(library, "UPDATE vectors SET mu = CAST(x'0050' || substr(mu, 3) AS BLOB) WHERE kind = 2")
    assert faults(see(library)) == {"comparison": 3}
    report = see(library, repair=True)
    assert faults(report) == {"comparison": 3}
    away.rename(photos)
    assert see(library, repair=True).sound
    assert contents(library) == expected


def test_a_strange_vector_in_the_index_file_and_files_of_nobody(library: Path) -> None:
    expected = contents(library)
    sql(library, "DELETE FROM vectors WHERE id = (SELECT max(id) FROM vectors WHERE kind = 1)")
    (library / "vectors" / "index-99.faiss.tmp").write_bytes(b"half")
    assert {"index file": 1, "leftovers": 1}.items() <= faults(see(library)).items()
    assert see(library, repair=True).sound
    assert len(list((library / "vectors").iterdir())) == 1
    with Store.open(library) as store, store._catalog.begin() as connection:
        connection.exec_driver_sql("UPDATE roots SET pairing_due = 1")
    with Store.open(library) as store:
        store.ingest(Path(expected[0][0][0].decode()), FakeEncoder())  # type: ignore[attr-defined]
    assert contents(library) == expected


def test_an_interrupted_rebuild_is_no_fault(library: Path) -> None:
    class Stop(BaseException):
        pass

    def stop(progress: object) -> None:
        if getattr(progress, "done", 0) > 9:
            raise Stop

    with Store.open(library) as store, pytest.raises(Stop):
        store.rebuild(FakeEncoder(seed=1, name="other"), progress=stop, batch_size=4)
    report = see(library, repair=True)
    assert report.sound
    (model,) = (check.found for check in report.checks if check.name == "model")
    assert "8 of 'other'" in model
    encoder = FakeEncoder(seed=1, name="other")
    with Store.open(library) as store:
        store.rebuild(encoder, batch_size=4)
    assert encoder.encoded == 15 + 8 + 5 - 8  # the captions.csv says five different things


def test_a_model_that_cannot_be_loaded_is_a_fault_of_its_own(library: Path) -> None:
    def load(_: Store) -> FakeEncoder:
        raise MMSearchError("weights are damaged; copy the model again")

    report = visit(library, load, repair=True, sample=9)
    assert faults(report) == {"model file": 1}
    assert report.checks[-1].found == "weights are damaged; copy the model again"
    assert visit(library, load, repair=True, sample=0).sound


def test_mending_waits_for_nobody(library: Path) -> None:
    sql(library, "UPDATE library SET change = 3")
    with writer_lock(library), pytest.raises(LibraryLocked):
        see(library, repair=True)


FLIPS = 16


def found_by(library: list[list[tuple[object, ...]]]) -> list[tuple[object, ...]]:
    """Files and scores: a bit in the words that are shown with them is the one thing that nothing here can know."""
    return sorted((hit[:3] for hit in library[-1]), key=repr)


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bits_in_the_database(library: Path, photos: Path, seed: int) -> None:
    """Whatever a bit or a few bytes do: after the doctor and the next run, every file is found as before."""
    dice = random.Random(seed)
    expected, path = contents(library), library / CATALOG_FILE
    sound = path.read_bytes()
    found = 0
    for number in range(FLIPS):
        data = bytearray(sound)
        place = dice.randrange(len(data)) if number % 4 else dice.randrange(100)
        if number % 2:
            data[place] ^= 1 << dice.randrange(8)
        else:
            data[place : place + 16] = dice.randbytes(len(data[place : place + 16]))
        path.write_bytes(data)
        try:
            report = see(library, repair=True)
            found += any(check.mended for check in report.checks)
            ingest(library, photos, FakeEncoder())
        except LibraryError as error:
            raise AssertionError(f"bit in byte {place}: {error}") from error
        assert found_by(contents(library)) == found_by(expected), f"bit in byte {place}"
        for leftover in library.glob(f"{CATALOG_FILE}?*"):
            leftover.unlink()
    assert found >= 2  # much of a small file is free space


@pytest.mark.parametrize("kept", [99, 4096, 0.3, 0.6, 0.95])
def test_a_truncated_database(library: Path, photos: Path, kept: float) -> None:
    expected, path = contents(library), library / CATALOG_FILE
    data = path.read_bytes()
    cut = data[: int(kept * len(data)) if isinstance(kept, float) else kept]
    path.write_bytes(cut)
    with pytest.raises(LibraryError):
        contents(library)
    assert list(faults(see(library))) == ["database"]
    report = see(library, repair=True)
    assert report.sound
    (aside,) = library.glob(f"{CATALOG_FILE}.bad-*")
    assert aside.read_bytes() == cut
    assert aside.name in report.checks[0].found
    ingest(library, photos, FakeEncoder())
    assert contents(library)[-1] == expected[-1]
    assert see(library).sound


def test_a_database_that_is_empty_is_told_from_a_damaged_one(library: Path) -> None:
    (library / CATALOG_FILE).write_bytes(b"")
    with pytest.raises(SchemaOutdated, match="is empty; run 'mmsearch index FOLDER' first"):
        see(library, repair=True)


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": lambda data, dice: _flipped(data, dice.randrange(len(data)), dice.randrange(8)),
    "truncated": lambda data, dice: data[: dice.randrange(len(data))],
}


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_index_file(library: Path, how: str) -> None:
    expected, dice = contents(library), random.Random(5)
    for _ in range(3):
        (path,) = (one for one in (library / "vectors").iterdir() if ".bad-" not in one.name)
        path.write_bytes(DAMAGE[how](path.read_bytes(), dice))
        assert faults(see(library, sample=0)) == {"index file": 1}
        assert see(library, repair=True, sample=0).sound
        assert contents(library) == expected
    assert len(list((library / "vectors").glob("*.bad-*"))) == 3


def mend(library: Path, _photos: Path, encoder: FakeEncoder) -> None:
    visit(library, lambda _: encoder, repair=True, sample=0)


@pytest.mark.parametrize("name", REPAIR)
def test_killed_while_it_mends(library: Path, photos: Path, name: str) -> None:
    expected = contents(library)
    sql(library, *MENDED["comparison"], *MENDED["counters"])
    assert exit_code(start(mend, library, photos, FakeEncoder(), name)) == KILLED
    assert see(library, repair=True).sound
    assert contents(library) == expected


@pytest.mark.parametrize("name", SALVAGE)
def test_killed_while_it_saves_what_can_be_read(library: Path, photos: Path, name: str) -> None:
    expected, path = contents(library), library / CATALOG_FILE
    path.write_bytes(path.read_bytes()[: -2 * 4096])
    assert exit_code(start(mend, library, photos, FakeEncoder(), name)) == KILLED
    assert see(library, repair=True).sound
    assert list(library.glob(f"{CATALOG_FILE}.bad-*"))
    assert not list(library.glob(f"{CATALOG_FILE}.new*"))
    ingest(library, photos, FakeEncoder())
    assert contents(library)[-1] == expected[-1]
