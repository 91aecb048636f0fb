"""FAISS reads only what this user's mmsearch wrote: two users of one library, files of others, of earlier versions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from indexer.base import compared, personal
from indexer.base.types import Model
from indexer.catalog.index_files import IndexFiles, newest, put_facts
from indexer.catalog.schema import generations
from indexer.maintenance.compare import Faults
from indexer.maintenance.examine import examine
from indexer.search import stored_index
from indexer.search.index_files import VECTORS_FOLDER, facts, open_index, refresh
from indexer.search.live_index import LiveIndex
from indexer.search.stored_index import own_file, sealed
from indexer.vectors import faiss_index, form
from indexer.vectors.faiss_index import FaissIndex
from tests.bench.synthetic import World, make_library
from tests.indexer.asking import Store

pytest.importorskip("faiss")

DIM, COUNT, TEXTS = 32, 3000, 300
PRINT = "made up"
WORLD = World.of(DIM, clusters=30)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "IVF_FROM", 1000)
    monkeypatch.setattr(faiss_index, "EXACT_ROWS", 200)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Path]:
    """Written by Anna."""
    with of("anna", tmp_path):
        make_library(tmp_path / "library", COUNT, texts=TEXTS, dim=DIM, model=PRINT, world=WORLD)
        yield tmp_path / "library"


@contextmanager
def of(user: str, tmp_path: Path) -> Iterator[None]:
    """As one user, who has a home and a key of his own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(personal.HOME_VARIABLE, str(tmp_path / "homes" / user))
        yield


def form_of(library: Path) -> str:
    """How a search goes now, which must find what is there."""
    question = WORLD.texts(np.random.default_rng(7), 1)[0]
    with Store.open(library) as store:
        hits = store.search(question, 10, fingerprint=PRINT)
        live = opened(store)
        ids, _ = live.index.search(question[None, :], 10)
        means = live.index.rows.vectors_of(live.ids).astype(np.float64)
        truth = live.ids[np.argsort(-(means @ question) / np.linalg.norm(means, axis=1))[:10]]
        assert len(set(ids[0].tolist()) & set(truth.tolist())) >= 8
        assert len(hits) == 10
        return "lists" if isinstance(live.index, FaissIndex) and live.index.probing is not None else "everything"


def opened(store: Store) -> LiveIndex:
    model = store._catalog.model()
    assert model is not None
    live, sound = open_index(store._catalog, store.path / VECTORS_FOLDER, model, "cpu")
    assert sound
    return live


def run(library: Path) -> int:
    """What `mmsearch index` does at its end."""
    with Store.open(library) as store:
        return refresh(store._catalog, library / VECTORS_FOLDER, model_of(store))


def model_of(store: Store) -> Model:
    model = store._catalog.model()
    assert model is not None
    return model


def row_of(library: Path) -> IndexFiles:
    with Store.open(library) as store, store._catalog.begin() as connection:
        files = newest(connection, model_of(store))
        assert files is not None
        return files


def stamps(library: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in (library / VECTORS_FOLDER).iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def no_faiss(_: object) -> None:
    pytest.fail("FAISS was given what somebody else wrote")


def test_two_users_of_one_library(library: Path, tmp_path: Path) -> None:
    anna = stamps(library)
    assert form_of(library) == "lists"
    with of("ben", tmp_path):
        assert form_of(library) == "everything"
        assert stamps(library) == anna  # a search writes nothing
        with Store.open(library) as store, store._catalog.begin() as connection:
            assert facts(connection, model_of(store)).recall_at_10 is None
        assert run(library) == COUNT
        assert form_of(library) == "lists"
    both = stamps(library)
    assert anna.items() < both.items()
    assert len(both) == 3
    for _ in range(3):
        for user in ("anna", "ben"):
            with of(user, tmp_path):
                assert run(library) == 0
                assert form_of(library) == "lists"
                assert stamps(library) == both
    assert [check.faults for check in checks(library)] == [0] * len(checks(library))


def checks(library: Path) -> list[object]:
    with Store.open(library) as store:
        return [
            one for one in examine(store._catalog, library, None, 0, Faults()) if one.name.startswith(("ind", "lef"))
        ]


def test_what_one_user_changes_the_other_sees_and_writes_his_own(library: Path, tmp_path: Path) -> None:
    with of("ben", tmp_path):
        run(library)
        with Store.open(library) as store, store._catalog.begin() as connection:
            connection.exec_driver_sql("UPDATE library SET change = 2")
            connection.exec_driver_sql("UPDATE vectors SET change = 2 WHERE id <= 200")
        assert run(library) == COUNT
        assert len(stamps(library)) == 2  # the old generation is gone, Anna's with it
    assert form_of(library) == "everything"
    assert run(library) == COUNT
    assert form_of(library) == "lists"
    assert len(stamps(library)) == 3


def _older(store: Store, folder: Path, files: IndexFiles) -> None:
    """As the version before wrote it: one file for all, with a checksum that anybody can make."""
    old = own_file(files)
    assert old is not None
    assert files.facts is not None
    (folder / old.name).rename(folder / "index-1.faiss")
    faiss = {"name": "index-1.faiss", "checksum": old.checksum, "size_bytes": old.size_bytes}
    with store._catalog.begin() as connection:
        connection.execute(generations.update().values(facts=json.dumps({**asdict(files.facts), "faiss": faiss})))


def _anothers(store: Store, _: Path, files: IndexFiles) -> None:
    """Anna's entry under the name of somebody else's key."""
    ((_key, one),) = files.of_faiss.items()
    _put(store, replace(files, of_faiss={"0" * 16: one}))


def _forged(store: Store, folder: Path, files: IndexFiles) -> None:
    """Ben's name, a seal by the key of the giver."""
    ((key, one),) = files.of_faiss.items()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal, "key", lambda: b"g" * 32)
        forged = sealed(files.checksum, one.checksum, one.size_bytes, one.facts)
    with of("ben", folder.parent.parent):
        mine = personal.key_id()
    (folder / f"index-1-{key}.faiss").rename(folder / f"index-1-{mine}.faiss")
    _put(store, replace(files, of_faiss={mine: forged}))


def _put(store: Store, files: IndexFiles) -> None:
    with store._catalog.begin() as connection:
        assert put_facts(connection, files)


@pytest.mark.parametrize("given", [_older, _anothers, _forged])
def test_a_library_that_was_given(
    library: Path, tmp_path: Path, given: Callable[[Store, Path, IndexFiles], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(library) as store:
        given(store, library / VECTORS_FOLDER, row_of(library))
    rows = stamps(library)["index-1.f16"]
    with of("ben", tmp_path):
        with monkeypatch.context() as patch:
            patch.setattr(FaissIndex, "load", no_faiss)
            assert form_of(library) == "everything"
            assert [one.faults for one in checks(library)][:1] == [0]
        assert run(library) == COUNT
        assert stamps(library)["index-1.f16"] == rows
        assert form_of(library) == "lists"
        assert not (library / VECTORS_FOLDER / "index-1.faiss").exists()
        assert run(library) == 0


@pytest.mark.parametrize("what", ["nprobe", "depth", "checksum", "size_bytes", "rows"])
def test_the_seal_is_over_everything(library: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = row_of(library)
    ((key, one),) = files.of_faiss.items()
    if what == "rows":
        files = replace(files, checksum="0" * 64)
    elif what == "checksum":
        one = replace(one, checksum="0" * 64)
    elif what == "size_bytes":
        one = replace(one, size_bytes=one.size_bytes + 1)
    else:
        one = replace(one, facts=replace(one.facts, **{what: 7777}))  # type: ignore[arg-type]
    assert own_file(row_of(library)) is not None
    assert own_file(replace(files, of_faiss={key: one})) is None


def test_what_is_compared_is_what_faiss_reads(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is exchanged at any moment: FAISS gets the bytes that were compared, or none."""
    given: list[bytes] = []
    real = FaissIndex.load.__func__  # type: ignore[attr-defined]

    def spied(cls: type[FaissIndex], content: bytes, *args: object) -> FaissIndex:
        given.append(content)
        return real(cls, content, *args)

    monkeypatch.setattr(FaissIndex, "load", classmethod(spied))
    assert form_of(library) == "lists"
    ((_, one),) = row_of(library).of_faiss.items()
    assert {hashlib.sha256(content).hexdigest() for content in given} == {one.checksum}


@pytest.mark.parametrize("damage", ["flip", "gone", "empty", "longer", "link", "hard link", "pipe", "device"])
@pytest.mark.parametrize("which", ["rows", "faiss"])
def test_files_that_are_not_what_they_were(library: Path, tmp_path: Path, damage: str, which: str) -> None:
    files = row_of(library)
    file = files.rows if which == "rows" else own_file(files)
    assert file is not None
    path, victim = library / VECTORS_FOLDER / file.name, tmp_path / "victim"
    data = path.read_bytes()
    victim.write_bytes(data)
    path.unlink()
    if damage in ("flip", "empty", "longer"):
        path.write_bytes({"flip": data[:-1] + bytes([data[-1] ^ 1]), "empty": b"", "longer": data + b"x"}[damage])
    elif damage == "hard link":
        os.link(victim, path)
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage != "gone":
        path.symlink_to(victim if damage == "link" else "/dev/zero")
    with Store.open(library) as store:
        assert len(store.search(WORLD.texts(np.random.default_rng(7), 1)[0], 10, fingerprint=PRINT)) == 10
    assert form_of(library) == "lists"  # the search has mended it
    names = stamps(library)
    assert len([name for name in names if ".bad-" not in name]) == 2
    assert any(name.startswith(f"{path.name}.bad-") for name in names) == (damage != "gone")
    assert victim.read_bytes() == data
    assert which == "rows" or names[files.rows.name]


def test_a_folder_that_is_a_link(library: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is searched from the catalog, with one line; nothing is written or removed where it leads."""
    (library / VECTORS_FOLDER).rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "index-9.of-somebody").write_bytes(b"precious")
    (library / VECTORS_FOLDER).symlink_to(tmp_path / "elsewhere")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "elsewhere").iterdir())
    with Store.open(library) as store:
        assert len(store.search(WORLD.texts(np.random.default_rng(7), 1)[0], 10, fingerprint=PRINT)) == 10
        lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(lines) == 1
        assert "is a link" in lines[0]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "elsewhere").iterdir()) == before


def test_a_key_that_does_not_last_seals_nothing(library: Path, tmp_path: Path) -> None:
    """Else every run would write an index that the next one cannot trust."""
    (tmp_path / "homes" / "carl").write_text("in the way: no folder can be made here")
    before = stamps(library)
    with of("carl", tmp_path):
        assert run(library) == 0
        assert form_of(library) == "everything"
    assert stamps(library) == before


def test_that_everything_is_searched_is_measured_once_a_user(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where lists would not do, which another user's run may have found otherwise."""
    with of("ben", tmp_path):
        monkeypatch.setattr(form, "RECALL", 1.1)
        assert run(library) == COUNT
        assert form_of(library) == "everything"
        monkeypatch.setattr(form, "trained", no_faiss)
        assert run(library) == 0
    assert form_of(library) == "lists"


def test_the_names_in_the_row_are_those_of_earlier_versions(library: Path) -> None:
    with Store.open(library) as store, store._catalog.begin() as connection:
        assert connection.execute(select(generations.c.file_name)).scalar_one() == "index-1.f16"


def test_rows_that_were_compared_are_not_hashed_again_until_they_are_written(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = stored_index.checksum
    monkeypatch.setattr(stored_index, "checksum", lambda path: (hashed.append(path.name), real(path))[1])
    monkeypatch.setattr(compared, "FROM_BYTES", 4)
    monkeypatch.setattr(compared, "SETTLED_S", -1.0)
    for _ in range(3):
        assert form_of(library) == "lists"
    assert hashed == ["index-1.f16"]
    path = library / VECTORS_FOLDER / "index-1.f16"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert form_of(library) == "lists"  # mended
    assert any(name.startswith("index-1.f16.bad-") for name in stamps(library))
