"""Rows by position: what is in a file, what came since, what is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryCorrupt
from indexer.vectors.rows import Rows, pieces, write_rows

VECTORS = np.arange(40, dtype=np.float16).reshape(10, 4)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Six rows of a file, four that came since."""
    write_rows(tmp_path / "index.f16", [VECTORS[:4], VECTORS[4:6]])
    assert (tmp_path / "index.f16").stat().st_size == 6 * 4 * 2
    opened = Rows.open(tmp_path / "index.f16", np.arange(10, 16), 4)
    opened.add(np.array([30, 20, 25, 40]), VECTORS[6:])
    return opened


def test_positions_count_through_the_file_and_then_through_what_came(rows: Rows) -> None:
    assert rows.ids.tolist() == [10, 11, 12, 13, 14, 15, 30, 20, 25, 40]
    assert rows.positions(np.array([20, 15, 99, 10])).tolist() == [7, 5, 0]
    np.testing.assert_array_equal(rows.take(np.array([9, 0, 6, 5])), VECTORS[[9, 0, 6, 5]])
    np.testing.assert_array_equal(rows.vectors_of(np.array([40, 11])), VECTORS[[9, 1]])
    for start in range(10):
        for stop in range(start, 11):
            np.testing.assert_array_equal(rows.slice(start, stop), VECTORS[start:stop])


def test_a_position_stays_what_it_is_when_others_go(rows: Rows) -> None:
    assert rows.remove(np.array([11, 20, 77])) == 2
    assert rows.remove(np.array([11])) == 0
    rows.add(np.array([10, 11]), -VECTORS[:2])
    assert rows.alive.tolist() == [False, False, *[True] * 5, False, *[True] * 4]
    assert len(rows) == 9
    assert rows.ids[rows.alive].tolist() == [12, 13, 14, 15, 30, 25, 40, 10, 11]
    assert rows.positions(np.array([10, 11, 12, 20])).tolist() == [10, 11, 2]
    np.testing.assert_array_equal(rows.vectors_of(np.array([10, 12])), [-VECTORS[0], VECTORS[2]])


def test_a_file_that_is_not_as_long_as_its_ids(tmp_path: Path) -> None:
    write_rows(tmp_path / "index.f16", [VECTORS])
    with pytest.raises(LibraryCorrupt, match="80 bytes, 9 rows"):
        Rows.open(tmp_path / "index.f16", np.arange(9), 4)
    with pytest.raises(FileNotFoundError):
        Rows.open(tmp_path / "none.f16", np.arange(9), 4)


def test_pieces() -> None:
    assert list(pieces(5, 2)) == [(0, 2), (2, 4), (4, 5)]
    assert list(pieces(0)) == []
