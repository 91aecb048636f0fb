"""The rows of index files: what is put is read again; what an earlier version wrote is known as such."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import IndexFacts, Model
from indexer.catalog.index_files import (
    MOST_USERS,
    IndexFiles,
    OfFaiss,
    StoredFile,
    newest,
    next_generation,
    put,
    put_facts,
    stored_files,
    with_faiss,
)
from indexer.catalog.reader import CatalogReader
from indexer.catalog.schema import generations, models
from indexer.search.search import CATALOG_FILE
from indexer.store import Store

MODEL = Model(1, "print", "name", 4)
ENTRIES = np.array([3, 9], "<i8").tobytes() + bytes([0, 1])
FACTS = IndexFacts("ivf", 100, 7, 50, 20_000, 0.96, 0.95, 400)
ANNA, BEN = "a" * 16, "b" * 16  # ids of their keys
HERS, HIS = OfFaiss("c" * 64, 99, FACTS, "d" * 64), OfFaiss("", 0, IndexFacts(questions=400), "e" * 64)
FILES = IndexFiles(1, 1, 2, 4, 5, "f" * 64, FACTS, ENTRIES)
ROWS, OF_FAISS = StoredFile("index-1.f16", "f" * 64, 16), StoredFile(f"index-1-{ANNA}.faiss", "c" * 64, 99)


@pytest.fixture
def library(store: Store) -> Store:
    with store._catalog.begin() as connection:
        connection.execute(models.insert().values(id=1, fingerprint="print", name="name", dim=4))
    return store


@pytest.mark.parametrize("of_faiss", [{}, {ANNA: HERS}, {BEN: HIS, ANNA: HERS}])
def test_what_is_put_is_read_by_either_connection(library: Store, of_faiss: dict[str, OfFaiss]) -> None:
    with library._catalog.begin() as connection:
        assert newest(connection, MODEL) is None
        assert (next_generation(connection), next_generation(connection)) == (1, 2)
        put(connection, replace(FILES, generation=7))
        put(connection, replace(FILES, change=6, of_faiss=of_faiss))
    reader = CatalogReader.open(library.path / CATALOG_FILE)
    assert reader is not None
    for catalog in (library._catalog, reader):
        with catalog.begin() as snapshot:  # type: ignore[attr-defined]
            files = newest(snapshot, MODEL)
            assert files is not None
            assert (files.generation, files.change, files.rows, files.facts) == (1, 6, ROWS, FACTS)
            assert files.of_faiss == of_faiss
            assert (files.ids.tolist(), files.kinds.tolist()) == ([3, 9], [0, 1])
            assert files.files == tuple(stored_files(snapshot)) == (ROWS, *([OF_FAISS] if of_faiss else []))
            assert newest(snapshot, Model(2, "", "", 4)) is None
    reader.close()


def test_users_stand_side_by_side_and_the_newest_stay(library: Store) -> None:
    with library._catalog.begin() as connection:
        put(connection, FILES)
        files = newest(connection, MODEL)
        assert files is not None
        for number in range(MOST_USERS + 2):
            files = with_faiss(files, f"{number:016x}", HERS)
            assert put_facts(connection, files)
        files = newest(connection, MODEL)
        assert files is not None
        assert [int(key, 16) for key in files.of_faiss] == list(range(2, MOST_USERS + 2))
        assert not put_facts(connection, replace(files, generation=8))  # another process has written anew


STRANGE = (
    *("{}", "", "[]", "null", "7", "[" * 9999, '{"form": "of a later version", "faiss": null, "more": 1}'),
    *('{"form": "ivf", "lists": "many", "faiss": null}', '{"form": "ivf", "nprobe": -1, "faiss": null}'),
    *('{"form": "ivf", "depth": 1e99, "faiss": null}', '{"form": "ivf", "recall_at_10": NaN, "faiss": null}'),
    *('{"form": "exact", "faiss": 7}', json.dumps({"form": "exact", "faiss": {ANNA: {}}}), " " * 70_000 + "{}"),
)


@pytest.mark.parametrize("facts", STRANGE, ids=range(len(STRANGE)))
def test_a_row_without_facts_is_of_another_version(library: Store, facts: str) -> None:
    with library._catalog.begin() as connection:
        put(connection, FILES)
        connection.execute(generations.update().values(facts=facts))
        files = newest(connection, MODEL)
        assert files is not None
        assert files.facts is None
        assert stored_files(connection) == [ROWS]


@pytest.mark.parametrize("checksum", ["", "\u00e9" * 64, "../../../etc/passwd"])
def test_an_index_with_a_checksum_that_is_none(library: Store, checksum: str) -> None:
    with library._catalog.begin() as connection:
        for strange in (replace(HERS, checksum=checksum), replace(HERS, mac=checksum)):
            put(connection, replace(FILES, of_faiss={ANNA: strange}))
            files = newest(connection, MODEL)
            assert files is not None
            assert (files.facts, files.of_faiss) == (None, {})


def test_the_one_index_of_earlier_versions_is_nobodys(library: Store) -> None:
    said = {**asdict(FACTS), "faiss": {"name": "index-1.faiss", "checksum": "b" * 64, "size_bytes": 99}}
    with library._catalog.begin() as connection:
        put(connection, FILES)
        connection.execute(generations.update().values(facts=json.dumps(said)))
        files = newest(connection, MODEL)
        assert files is not None
        assert (files.facts, files.of_faiss, files.files) == (FACTS, {}, (ROWS,))


@pytest.mark.parametrize("name", ["../../victim", "/etc/passwd", "catalog.sqlite", "index-1.f16\0"])
def test_names_are_made_from_numbers(library: Store, name: str) -> None:
    with library._catalog.begin() as connection:
        put(connection, replace(FILES, of_faiss={ANNA: HERS}))
        connection.execute(generations.update().values(file_name=name))
        assert stored_files(connection) == [ROWS, OF_FAISS]


@pytest.mark.parametrize(
    "lie",
    [
        *({"count": 3}, {"count": -1}, {"count": 2**62}, {"count": "two"}, {"dim": 2**31}, {"dim": 0}, {"change": -1}),
        *({"size_bytes": 17}, {"entries": b""}, {"entries": "words"}, {"sha256": "A" * 64}, {"sha256": b"f" * 64}),
        *({"generation": -5}, {"generation": "../x"}, {"generation": 1.5}, {"change": b"\0" * 9}),
    ],
    ids=str,
)
def test_a_row_that_lies_is_nobodys(library: Store, lie: dict[str, object]) -> None:
    with library._catalog.begin() as connection:
        put(connection, FILES)
        ((column, value),) = lie.items()
        connection.exec_driver_sql(f"UPDATE generations SET {column} = ?", (value,))
        files = newest(connection, MODEL)
        assert files is not None
        assert files.facts is None
        assert all(re.fullmatch(r"index-\d+\.f16", file.name) for file in stored_files(connection))


@pytest.mark.parametrize("number", [-1, 2**63 - 1, "x"])
def test_a_counter_that_lies_is_told(library: Store, number: object) -> None:
    with library._catalog.begin() as connection:
        connection.exec_driver_sql("UPDATE library SET generation = ?", (number,))
    with pytest.raises(LibraryCorrupt, match="library has generation"), library._catalog.begin() as connection:
        next_generation(connection)


def test_entries_of_another_number() -> None:
    with pytest.raises(LibraryCorrupt, match="2 ids for 3 vectors"):
        _ = replace(FILES, count=3).ids
