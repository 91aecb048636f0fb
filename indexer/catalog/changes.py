"""Vectors as the index needs them: all of a model, those that changed since.

In: a snapshot. Out: ids, kinds and means, page by page. Next: `indexer/search/live_index.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import HIDDEN, Model, UInt8Array
from indexer.catalog.reader import pages, read

if TYPE_CHECKING:
    from indexer.catalog.reader import Rows, Snapshot

ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True, eq=False)
class Page:
    """`ids` int64 `[n]`, `kinds` uint8 `[n]`; `means` float16 `[s, d]` of those that are not hidden, in their order."""

    ids: NDArray[np.int64]
    kinds: UInt8Array
    means: NDArray[np.float16]


def everything(snapshot: Snapshot, model: Model) -> Iterator[Page]:
    """All vectors that may be found, by rising id."""
    query = "SELECT id, kind, mu FROM vectors WHERE model_id = :model AND kind <> :hidden ORDER BY id"
    for rows in pages(snapshot, query, ROWS_AT_ONCE, model=model.id, hidden=HIDDEN):
        yield _page(rows, model.dim)


def since(snapshot: Snapshot, model: Model, change: int) -> Iterator[Page]:
    """Vectors that changed after `change`, hidden ones too."""
    query = "SELECT id, kind, mu FROM vectors WHERE model_id = :model AND change > :change"
    for rows in pages(snapshot, query, ROWS_AT_ONCE, model=model.id, change=change):
        yield _page(rows, model.dim)


def count_since(snapshot: Snapshot, model_id: int, change: int) -> int:
    """How many vectors changed after `change`."""
    query = "SELECT count(*) FROM vectors WHERE model_id = :model AND change > :change"
    return int(read(snapshot, query, model=model_id, change=change)[0][0])


def _page(rows: Rows, dim: int) -> Page:
    ids = np.array([row[0] for row in rows], np.int64)
    kinds = np.array([row[1] for row in rows], np.uint8)
    blobs = b"".join(mu for _, kind, mu in rows if kind != HIDDEN)
    return Page(ids, kinds, np.frombuffer(blobs, np.float16).reshape(-1, dim))
