"""From a query vector to the files it finds.

In: a `Question`. Out: ids and scores, then files. A `Searcher` keeps its index in memory and follows the catalog:
before each search it reads what a running `mmsearch index` has committed since. Next: `store.py`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import HIDDEN, Float32Array, Modality, Model
from indexer.catalog.reader import CatalogReader, last_change, listed, live_model, mismatch, read, read_by_ids
from indexer.catalog.roots import all_roots, offline_reason
from indexer.search.filters import Among, ids_among
from indexer.search.index_files import VECTORS_FOLDER, Transactions, open_index
from indexer.search.live_index import LiveIndex, means_of
from indexer.search.query_bank import QueryBank
from indexer.vectors.base import Int64Array
from indexer.vectors.choose import Device

CATALOG_FILE = "catalog.sqlite"
EVERYTHING = Among()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredHit:
    """One result: `path` is the file (for a row of captions.csv its photo), `score` the cosine, less its hubness."""

    path: Path
    score: float
    modality: Modality
    text: str | None
    asset_id: int
    taken_at: datetime | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    camera: str | None = None
    time_s: float | None = None  # where in a video


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a library.

    Attributes:
        queries: float32 `[m, d]`.
        k: how many files for each.
        within: only files of one modality.
        among: only files in a folder or of some days.
        exclude: ids of assets that are not to be found.
        bank: of queries like these, by which hubs are told; None leaves the scores cosines.
    """

    queries: Float32Array
    k: int
    within: Modality | None = None
    among: Among = EVERYTHING
    exclude: Sequence[int] = ()
    bank: QueryBank | None = None


class Searcher:
    """The index of one library, loaded by the first search. Threads may share it; they are answered one by one.

    `mend` is called when the index file turned out to be damaged: it has a new one written, if it can.
    """

    def __init__(self, catalog: Transactions, library: Path, device: Device, mend: Callable[[Model], None]) -> None:
        self._catalog = catalog
        self._library = library
        self._device = device
        self._mend = mend
        self._live: LiveIndex | None = None
        self._lock = threading.Lock()

    def search(self, question: Question, model: Model) -> list[list[StoredHit]]:
        """The files nearest to each query, among what can be found now."""
        with self._lock:
            try:
                return self._answers(question, model)
            except LibraryCorrupt as error:
                log.warning("%s; searching the catalog instead", error)
            self._mend(model)
            self._live, _ = open_index(self._catalog, self._library / VECTORS_FOLDER, model, self._device, suspect=True)
            return self._answers(question, model)

    def _answers(self, question: Question, model: Model, *, again: bool = False) -> list[list[StoredHit]]:
        live = self._current(model)
        with self._catalog.begin() as connection:
            now = live_model(connection)
            if now != model:  # a writer has switched since the caller looked
                if now is None:
                    return [[] for _ in question.queries]
                raise mismatch(self._library, now, model.fingerprint, model.name)
            older = last_change(connection) < live.change  # another catalog was written over the one that was read
            live.replay(connection)  # in the snapshot that the rows of the hits come from: no answer mixes two states
            hidden = [_of_offline_roots(connection, model), _of_assets(connection, model, question.exclude)]
            some = None if question.among.is_everything else ids_among(connection, model, question.among)
            found = live.search(
                question.queries,
                question.k,
                question.within,
                np.concatenate(hidden),
                some,
                partial(means_of, connection, model),
                question.bank,
            )
            rows = _rows(connection, np.concatenate([ids for ids, _ in found]) if found else np.empty(0, np.int64))
            frames = _frames(connection, model, sorted({row[1] for row in rows.values()}))
            gaps = any(int(one) not in rows for ids, _ in found for one in ids)
        if (gaps or older) and not again:  # gaps: rows pruned since the index was read, the hits would be too few
            self._live = None
            return self._answers(question, model, again=True)
        return [
            _hits(rows, ids, scores, frames, query)
            for (ids, scores), query in zip(found, question.queries, strict=True)
        ]

    def _current(self, model: Model) -> LiveIndex:
        live = self._live
        if live is None or live.model != model:
            live = self._open(model)
        self._live = live
        return live

    def _open(self, model: Model) -> LiveIndex:
        live, sound = open_index(self._catalog, self._library / VECTORS_FOLDER, model, self._device)
        if not sound:
            self._mend(model)
        return live


class Finder:
    """A library as far as a search needs it: the catalog read without SQLAlchemy, the vectors where they lie."""

    def __init__(self, library: Path, reader: CatalogReader, mend: Callable[[Model], None]) -> None:
        self.path = library
        self._reader = reader
        self._mend = mend
        self._searchers: dict[Device, Searcher] = {}

    @classmethod
    def open(cls, library: Path, mend: Callable[[Model], None]) -> Finder | None:
        """The library in a folder, or None where `Store.open` must say what is there instead."""
        path = Path(os.path.abspath(library))
        if not (path / CATALOG_FILE).is_file():
            return None
        reader = CatalogReader.open(path / CATALOG_FILE)
        return None if reader is None else cls(path, reader, mend)

    def model(self) -> Model | None:
        """The model the vectors come from; None before the first `ingest`."""
        with self._reader.begin() as connection:
            return live_model(connection)

    def search(
        self,
        queries: Float32Array,
        k: int,
        *,
        fingerprint: str,
        within: Modality | None = None,
        among: Among = EVERYTHING,
        bank: QueryBank | None = None,
        device: Device = "auto",
    ) -> list[list[StoredHit]]:
        """The `k` nearest to each of `queries` (float32 `[m, d]`), best first, see `Question`.

        Raises: ModelMismatch, LibraryError.
        """
        model = self.model()
        if model is None:
            return [[] for _ in queries]
        if model.fingerprint != fingerprint:
            raise mismatch(self.path, model, fingerprint)
        searcher = self._searchers.setdefault(device, Searcher(self._reader, self.path, device, self._mend))
        return searcher.search(Question(queries, k, within, among, bank=bank), model)

    def close(self) -> None:
        """Release the database."""
        self._searchers.clear()
        self._reader.close()


def _of_offline_roots(connection: Any, model: Model) -> Int64Array:
    offline = [root.id for root in all_roots(connection) if offline_reason(connection, root) is not None]
    if not offline:
        return np.empty(0, np.int64)
    query = (
        "SELECT v.id FROM vectors v JOIN assets a ON a.id = v.asset_id "
        f"WHERE v.model_id = :model AND v.kind <> :hidden AND a.root_id IN ({listed(offline)})"
    )
    return np.array([one for (one,) in read(connection, query, model=model.id, hidden=HIDDEN)], np.int64)


def _of_assets(connection: Any, model: Model, asset_ids: Sequence[int]) -> Int64Array:
    """The vectors of files themselves; captions about an excluded photo may still be found."""
    if not asset_ids:
        return np.empty(0, np.int64)
    query = (
        f"SELECT id FROM vectors WHERE asset_id IN ({listed(asset_ids)}) AND model_id = :model AND caption_id IS NULL"
    )
    return np.array([one for (one,) in read(connection, query, model=model.id)], np.int64)


def _rows(connection: Any, ids: Int64Array) -> dict[int, tuple[Any, ...]]:
    """What is shown of each vector's file, by the id of the vector."""
    query = (
        "SELECT v.id, v.caption_id, a.id, a.rel_path, a.modality, a.excerpt, c.text, r.path, "
        "a.taken_at, a.latitude_deg, a.longitude_deg, a.camera FROM vectors v "
        "JOIN assets a ON a.id = v.asset_id JOIN roots r ON r.id = a.root_id "
        "LEFT JOIN captions c ON c.id = v.caption_id WHERE v.id IN ({ids})"
    )
    return {row[0]: row[1:] for row in read_by_ids(connection, query, sorted(set(ids.tolist())))}


Frames = dict[int, tuple[list[int], Float32Array]]  # of a video by its id: milliseconds [f], unit vectors [f, d]


def _frames(connection: Any, model: Model, asset_ids: Sequence[int]) -> Frames:
    """The keyframes of those assets that are videos."""
    found: dict[int, list[tuple[int, bytes]]] = {}
    query = "SELECT asset_id, time_ms, mu FROM frames WHERE asset_id IN ({ids}) AND model_id = :model"
    for asset_id, time_ms, mu in read_by_ids(connection, query, asset_ids, model=model.id):
        if len(mu) == 2 * model.dim:  # of a damaged catalog it may not be
            found.setdefault(asset_id, []).append((time_ms, bytes(mu)))
    frames: Frames = {}
    for asset_id, some in found.items():
        some.sort()
        mus = np.stack([np.frombuffer(mu, np.float16).astype(np.float32) for _, mu in some])  # [f, d]
        lengths = np.maximum(np.linalg.norm(mus, axis=1, keepdims=True), 1e-12)
        frames[asset_id] = ([time_ms for time_ms, _ in some], mus / lengths)
    return frames


def _hits(
    rows: dict[int, tuple[Any, ...]], ids: Int64Array, scores: Float32Array, frames: Frames, query: Float32Array
) -> list[StoredHit]:
    hits: list[StoredHit] = []
    for one, score in zip(ids.tolist(), scores.tolist(), strict=True):
        if one not in rows:  # another model took over since the index was read
            continue
        caption_id, asset_id, rel_path, modality, excerpt, text, root, taken_at, *about = rows[one]
        path = Path(os.fsdecode(bytes(root))) / os.fsdecode(bytes(rel_path))
        moment = datetime.fromisoformat(taken_at) if isinstance(taken_at, str) else taken_at
        if caption_id is not None:
            hits.append(StoredHit(path, score, "text", text, asset_id, moment, *about))
            continue
        hit = StoredHit(path, score, modality, excerpt, asset_id, moment, *about)
        if asset_id in frames:
            times_ms, units = frames[asset_id]
            hit = replace(hit, time_s=times_ms[int(np.argmax(units @ query))] / 1000)
        hits.append(hit)
    return hits
