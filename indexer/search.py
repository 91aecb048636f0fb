"""From a query vector to the files it finds.

In: a vector, how many, among what. Out: ids and scores, then files. A `Searcher` keeps its index in memory and follows
the catalog: before each search it reads what a running `mmsearch index` has committed since. Next: `store.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from indexer.catalog import Catalog, Model, last_change
from indexer.errors import LibraryError
from indexer.generations import VECTORS_FOLDER, open_index, refresh
from indexer.lock import writer_lock
from indexer.rebuild import LiveIndex
from indexer.roots import all_roots, offline_reason
from indexer.schema import HIDDEN, assets, captions, roots, vectors
from indexer.types import Float32Array, Modality
from indexer.vectors.base import Int64Array
from indexer.vectors.choose import Device

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredHit:
    """One result: `path` is the file (for a row of captions.csv its photo), `score` the cosine of the means."""

    path: Path
    score: float
    modality: Modality
    text: str | None
    asset_id: int


class Searcher:
    """The index of one library, loaded by the first search."""

    def __init__(self, catalog: Catalog, library: Path, device: Device) -> None:
        self._catalog = catalog
        self._library = library
        self._device = device
        self._live: LiveIndex | None = None

    def search(
        self, query: Float32Array, k: int, within: Modality | None, exclude: Sequence[int], model: Model
    ) -> list[StoredHit]:
        """The `k` nearest files to `query` `[d]` among what can be found now."""
        hits, complete = self._try(query, k, within, exclude, model)
        if not complete:
            self._live = None
            hits, _ = self._try(query, k, within, exclude, model)
        return hits

    def _try(
        self, query: Float32Array, k: int, within: Modality | None, exclude: Sequence[int], model: Model
    ) -> tuple[list[StoredHit], bool]:
        """Hits, and whether each has its row: rows pruned since the index was read leave gaps."""
        live = self._current(model)
        with self._catalog.begin() as connection:
            hidden = np.concatenate([_of_offline_roots(connection, model), _of_assets(connection, model, exclude)])
            ids, scores = live.search(query, k, within, hidden)
            hits = _hits(connection, ids, scores)
            return hits, len(hits) == len(ids)

    def _current(self, model: Model) -> LiveIndex:
        live = self._live
        if live is None or live.model != model:
            live = self._open(model)
        else:
            with self._catalog.begin() as connection:
                if last_change(connection) != live.change:
                    live.replay(connection)
        self._live = live
        return live

    def _open(self, model: Model) -> LiveIndex:
        folder = self._library / VECTORS_FOLDER
        live, sound = open_index(self._catalog, folder, model, self._device)
        if not sound:
            try:
                with writer_lock(self._library):
                    refresh(self._catalog, folder, model, suspect=True)
            except LibraryError as error:
                log.info("the index file stays as it is: %s", error)  # the answer does not depend on it
        return live


def _of_offline_roots(connection: Connection, model: Model) -> Int64Array:
    offline = [root.id for root in all_roots(connection) if offline_reason(connection, root) is not None]
    if not offline:
        return np.empty(0, np.int64)
    query = select(vectors.c.id).join(assets, assets.c.id == vectors.c.asset_id)
    shown = query.where(vectors.c.model_id == model.id, vectors.c.kind != HIDDEN, assets.c.root_id.in_(offline))
    return np.array(connection.scalars(shown).all(), np.int64)


def _of_assets(connection: Connection, model: Model, asset_ids: Sequence[int]) -> Int64Array:
    """The vectors of files themselves; captions about an excluded photo may still be found."""
    if not asset_ids:
        return np.empty(0, np.int64)
    mine = select(vectors.c.id).where(vectors.c.asset_id.in_(asset_ids), vectors.c.model_id == model.id)
    return np.array(connection.scalars(mine.where(vectors.c.caption_id.is_(None))).all(), np.int64)


def _hits(connection: Connection, ids: Int64Array, scores: Float32Array) -> list[StoredHit]:
    columns = (vectors.c.id, vectors.c.caption_id, assets.c.id.label("asset_id"), assets.c.rel_path, assets.c.modality)
    query = (
        select(*columns, assets.c.excerpt, captions.c.text, roots.c.path)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .join(roots, roots.c.id == assets.c.root_id)
        .join(captions, captions.c.id == vectors.c.caption_id, isouter=True)
    )
    rows: dict[int, Any] = {}
    wanted = [int(one) for one in ids]
    for start in range(0, len(wanted), 500):
        page = connection.execute(query.where(vectors.c.id.in_(wanted[start : start + 500])))
        rows.update((found.id, found) for found in page)
    hits: list[StoredHit] = []
    for one, score in zip(wanted, scores, strict=True):
        row = rows.get(one)
        if row is None:  # another model took over since the index was read
            continue
        path = Path(row.path) / row.rel_path
        if row.caption_id is not None:
            hits.append(StoredHit(path, float(score), "text", row.text, row.asset_id))
        else:
            hits.append(StoredHit(path, float(score), row.modality, row.excerpt, row.asset_id))
    return hits
