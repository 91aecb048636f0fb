"""Index files that are damaged, or hold what the catalog does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.maintenance.visits import faults, see, sql
from tests.indexer.snapshots import contents


def test_a_strange_vector_in_the_index_file_and_files_of_nobody(library: Path) -> None:
    expected = contents(library)
    sql(library, "DELETE FROM vectors WHERE id = (SELECT max(id) FROM vectors WHERE kind = 1)")
    (library / "vectors" / "index-99.faiss").write_bytes(b"half")
    (library / "vectors" / "index-99.f16.0123456789ab.tmp").write_bytes(
        b"of a run that was killed: the next one removes it"
    )
    assert {"index file": 1, "leftovers": 1}.items() <= faults(see(library)).items()
    assert see(library, repair=True).sound
    assert len(list((library / "vectors").iterdir())) == 1
    with Store.open(library) as store, store._catalog.begin() as connection:
        connection.exec_driver_sql("UPDATE roots SET pairing_due = 1")
    with Store.open(library) as store:
        store.ingest(Path(expected[0][0][0].decode()), FakeEncoder())  # type: ignore[attr-defined]
    assert contents(library) == expected


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
