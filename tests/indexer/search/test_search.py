"""A search reads the catalog by itself: the same rows, from any folder and any thread, and nothing heavy imported."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryError
from indexer.base.types import Model
from indexer.search.search import CATALOG_FILE, Question, Searcher, StoredHit
from mmsearch import Library
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.asking import Store

ROOT = Path(__file__).parents[3]
SEARCH = """
import sys
from pathlib import Path
import numpy as np
from indexer.search.search import Question, Searcher
searcher = Searcher.open(Path(sys.argv[1]), lambda model: None)
model = searcher.model()
hits = searcher.answer(Question(np.ones((1, model.dim), np.float32), 3, model.fingerprint))
assert len(hits[0]) == 3, hits
print(*sorted({"sqlalchemy", "alembic", "faiss", "PIL", "mmsearch"} & set(sys.modules)))
"""


def refuse(model: Model) -> None:
    raise AssertionError("nothing is damaged here")


def opened(library: Path) -> Searcher:
    searcher = Searcher.open(library, refuse)
    assert searcher is not None
    return searcher


def found(searcher: Searcher, encoder: FakeEncoder, words: str = "red") -> list[list[StoredHit]]:
    query = encoder.encode_texts([words]).mu
    return [searcher.answer(Question(query, 20, encoder.fingerprint, within))[0] for within in (None, "image", "text")]


def test_a_search_imports_nothing_heavy(filled: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(filled.path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_it_finds_what_the_store_finds(filled: Store, encoder: FakeEncoder) -> None:
    query = encoder.encode_texts(["red"]).mu[0]
    expected = [
        filled.search(query, 20, fingerprint=encoder.fingerprint, within=within) for within in (None, "image", "text")
    ]
    searcher = opened(filled.path)
    assert found(searcher, encoder) == expected
    searcher.close()
    assert found(searcher, encoder) == expected  # opens itself again


@pytest.mark.parametrize("name", ["a?b#c%20d", "spa ce", "ünïcode", os.fsdecode(b"not\xffutf8")])
def test_from_a_folder_of_any_name(filled: Store, encoder: FakeEncoder, tmp_path: Path, name: str) -> None:
    expected = found(opened(filled.path), encoder)
    filled.close()
    moved = tmp_path / name
    filled.path.rename(moved)
    assert found(opened(moved), encoder) == expected
    assert not [path for path in tmp_path.iterdir() if path.name not in (name, "photos")]


def test_threads_are_answered_alike(filled: Store, encoder: FakeEncoder) -> None:
    searcher = opened(filled.path)
    expected = {words: found(searcher, encoder, words) for words in COLOURS}
    with ThreadPoolExecutor(6) as pool:
        for words, answers in zip(
            [*COLOURS] * 5, pool.map(lambda words: found(searcher, FakeEncoder(), words), [*COLOURS] * 5), strict=True
        ):
            assert answers == expected[words]


def test_what_is_out_of_the_ordinary_is_left_to_the_store(filled: Store, tmp_path: Path) -> None:
    assert Searcher.open(tmp_path / "nothing", refuse) is None
    filled.close()
    with sqlite3.connect(filled.path / CATALOG_FILE) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert Searcher.open(filled.path, refuse) is None
    with Library.open(filled.path, model=FakeEncoder()) as library, pytest.raises(LibraryError, match="9999"):
        library.search("red")
    (filled.path / CATALOG_FILE).write_bytes(b"not a database" * 1000)
    assert Searcher.open(filled.path, refuse) is None
    with Library.open(filled.path, model=FakeEncoder()) as library, pytest.raises(LibraryError):
        library.search("red")


def test_damage_met_later_is_told_in_one_line(filled: Store, encoder: FakeEncoder) -> None:
    searcher = opened(filled.path)
    filled.close()
    data = bytearray((filled.path / CATALOG_FILE).read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    searcher.close()
    (filled.path / CATALOG_FILE).write_bytes(data)
    with pytest.raises(LibraryError, match="doctor --repair") as told:
        searcher.model()
    assert len(str(told.value).splitlines()) == 1


def test_a_writer_is_seen_at_once(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    searcher = opened(filled.path)
    before = len(found(searcher, encoder)[0])
    paint(photos / "new.png", "red", seed=77)
    filled.ingest(photos, encoder)
    assert len(found(searcher, encoder)[0]) == before + 1
    assert searcher.answer(Question(np.zeros((0, 16), np.float32), 3, encoder.fingerprint)) == []
