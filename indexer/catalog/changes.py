"""Vectors as the index needs them: all of a model, those that changed since.

In: a snapshot. Out: ids, kinds and means, page by page. Next: `indexer/search/live_index.py`.
"""

from __future__ import annotations

import logging
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
NOT_FINITE: Final = 0x7C00  # the exponent of infinity and NaN at half precision


# What no vector of ours is, is not fetched: the length of a blob is known without reading it.
COLUMNS: Final = """
id, CASE WHEN kind IN (0, 1, 2, 3) THEN kind ELSE -1 END,
CASE WHEN kind IN (1, 2, 3) AND id > 0 AND typeof(mu) = 'blob' AND length(mu) = :length_bytes THEN mu END
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Page:
    """`ids` int64 `[n]`, `kinds` uint8 `[n]`; `means` float16 `[s, d]` of those that are not hidden, in their order.

    A vector that cannot be used is hidden.
    """

    ids: NDArray[np.int64]
    kinds: UInt8Array
    means: NDArray[np.float16]


def everything(snapshot: Snapshot, model: Model) -> Iterator[Page]:
    """All vectors that may be found, by rising id."""
    query = f"SELECT {COLUMNS} FROM vectors WHERE model_id = :model AND kind <> :hidden ORDER BY id"
    for page in _pages(snapshot, query, model, hidden=HIDDEN):
        shown = page.kinds != HIDDEN
        yield page if shown.all() else Page(page.ids[shown], page.kinds[shown], page.means)


def since(snapshot: Snapshot, model: Model, change: int) -> Iterator[Page]:
    """Vectors that changed after `change`, hidden ones too."""
    query = f"SELECT {COLUMNS} FROM vectors WHERE model_id = :model AND change > :change"
    yield from _pages(snapshot, query, model, change=change)


def count_since(snapshot: Snapshot, model_id: int, change: int) -> int:
    """How many vectors changed after `change`."""
    query = "SELECT count(*) FROM vectors WHERE model_id = :model AND change > :change"
    return int(read(snapshot, query, model=model_id, change=change)[0][0])


def finite(vectors: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Which of the vectors `[n, d]` hold neither NaN nor infinity, `[n]`: by their bits, much faster than isfinite."""
    if not vectors.size:
        return np.ones(len(vectors), np.bool_)
    sizes = vectors.view(np.uint16) & 0x7FFF
    if sizes.max() < NOT_FINITE:  # nearly always, and several times as fast as row by row
        return np.ones(len(vectors), np.bool_)
    return np.asarray(sizes.max(axis=1) < NOT_FINITE)


def _pages(snapshot: Snapshot, query: str, model: Model, **values: object) -> Iterator[Page]:
    wrong: list[int] = []
    for rows in pages(snapshot, query, ROWS_AT_ONCE, model=model.id, length_bytes=2 * model.dim, **values):
        yield _page(rows, model.dim, wrong)
    if wrong:
        log.warning(
            "%d of the vectors cannot be used, the first is row %d of vectors; run 'mmsearch doctor --repair'",
            *(len(wrong), wrong[0]),
        )


def _page(rows: Rows, dim: int, wrong: list[int]) -> Page:
    """The rows as arrays; the ids of those that cannot be used are added to `wrong`."""
    ids = np.array([row[0] for row in rows], np.int64)
    kinds = np.array([row[1] for row in rows], np.int8)
    shown = np.array([row[2] is not None for row in rows], np.bool_)
    means = np.frombuffer(b"".join(row[2] for row in rows if row[2] is not None), np.float16).reshape(-1, dim)
    if not (usable := finite(means)).all():
        shown[shown], means = usable, means[usable]
    if not shown.all():
        wrong += ids[(kinds != HIDDEN) & ~shown].tolist()
        kinds[~shown] = HIDDEN
    return Page(ids, kinds.astype(np.uint8), means)
