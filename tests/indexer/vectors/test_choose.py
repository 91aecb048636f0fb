"""Which index serves: by size, by what is installed."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

from indexer.vectors import choose
from indexer.vectors.choose import FLAT_FROM, index_over
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.rows import Rows


def rows(count: int) -> Rows:
    return Rows(2, np.arange(count), np.ones((count, 2), np.float16))


def test_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    assert isinstance(index_over(rows(FLAT_FROM - 1), "cpu"), ExactIndex)
    flat = index_over(rows(FLAT_FROM), "cpu")
    assert isinstance(flat, FaissIndex)
    assert flat.probing is None
    assert flat.search(np.float32([[1, 1]]), 2)[0].tolist() == [[0, 1]]
    monkeypatch.setattr(choose, "FLAT_BYTES", 4 * FLAT_FROM)
    assert isinstance(index_over(rows(FLAT_FROM + 1), "cpu"), ExactIndex)  # too large for memory: block by block


def test_a_small_library_is_searched_without_importing_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import would fail
    monkeypatch.setattr(choose, "has_faiss", lambda: True)
    assert index_over(rows(FLAT_FROM - 1), "cpu").search(np.float32([[1, 1]]), 1)[0].tolist() == [[0]]


def test_without_faiss_one_line_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choose, "has_faiss", lambda: False)
    choose._hint_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert isinstance(index_over(rows(2 * FLAT_FROM), "cuda"), ExactIndex)
        index_over(rows(1))
    assert [record.message for record in caplog.records] == [choose.HINT]
    assert choose.backend("cuda") == "numpy"
