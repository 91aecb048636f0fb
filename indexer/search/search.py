"""From a query vector to the files it finds.

In: a `Question`. Out: for each of its queries the nearest files, `StoredHit`s. A `Searcher` keeps the index in memory
and follows the catalog: before each search it reads what a running `mmsearch index` has committed since. It reads the
catalog without SQLAlchemy, whose import takes longer than a search. Next: `live_index.py`, the vectors in memory.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.base.errors import LibraryCorrupt, RowCorrupt
from indexer.base.types import Float32Array, Modality, Model
from indexer.catalog import hits
from indexer.catalog.hits import IndexedFile, Keyframes, StoredHit
from indexer.catalog.own_roots import own_folders
from indexer.catalog.reader import CatalogReader, last_change, live_model, mismatch
from indexer.search.filters import NO_FILTERS, Filters, allowed_ids
from indexer.search.index_files import VECTORS_FOLDER, Transactions, open_index
from indexer.search.live_index import LiveIndex
from indexer.search.query_bank import QueryBank
from indexer.vectors.choose import Device

CATALOG_FILE = "catalog.sqlite"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a library.

    Attributes:
        queries: float32 `[m, d]`.
        k: how many files for each.
        fingerprint: of the model that the queries come from; the library's vectors must come from the same one.
        within: only files of one modality.
        filters: only files in a folder or of some days.
        bank: queries like these, by which hubs are told (QB-Norm); None leaves the scores cosines.
        exclude: ids of assets that are not to be found.
    """

    queries: Float32Array
    k: int
    fingerprint: str
    within: Modality | None = None
    filters: Filters = NO_FILTERS
    bank: QueryBank | None = None
    exclude: Sequence[int] = ()


class Searcher:
    """A library as far as a search needs it; the index is loaded by the first one.

    Threads may share it; they are answered one by one. `mend` is called when the index file turns out to be damaged:
    it has a new one written, if it can.
    """

    def __init__(
        self, catalog: Transactions, library: Path, mend: Callable[[Model], None], device: Device = "auto"
    ) -> None:
        self.path = library
        self._catalog = catalog
        self._mend = mend
        self._device = device
        self._live: LiveIndex | None = None
        self._ahead: tuple[LiveIndex, bool] | None = None  # read by `preparing`, for the first search
        self._lock = threading.Lock()

    @classmethod
    def open(cls, library: Path, mend: Callable[[Model], None], device: Device = "auto") -> Searcher | None:
        """The library in a folder, or None where `Store.open` must say what is there instead."""
        path = Path(os.path.abspath(library))
        if not (path / CATALOG_FILE).is_file():
            return None
        reader = CatalogReader.open(path / CATALOG_FILE)
        return None if reader is None else cls(reader, path, mend, device)

    def model(self) -> Model | None:
        """The model the vectors come from; None before the first `ingest`."""
        with self._catalog.begin() as connection:
            return live_model(connection)

    def known_file(self, path: Path, model: Model) -> IndexedFile | None:
        """What the library knows of the file at `path`; None where it is not indexed."""
        with self._catalog.begin() as connection:
            return hits.indexed_file(connection, model, path)

    def is_own(self, path: Path) -> bool:
        """Whether a hit lies in a folder that this user named: others are not looked at, see `own_roots.py`."""
        with self._catalog.begin() as connection:
            return own_folders(connection).hold_path(path)

    def answer(self, question: Question) -> list[list[StoredHit]]:
        """For each query the `k` nearest files among what can be found now, best first.

        Raises: ModelMismatch; LibraryError when nothing of the filter's folder is in the library.
        """
        with self._lock:
            model = self.model()
            if model is None:
                return [[] for _ in question.queries]
            if model.fingerprint != question.fingerprint:
                raise mismatch(self.path, model, question.fingerprint)
            try:
                return self._answer(question, model)
            except RowCorrupt:  # of the catalog itself
                raise
            except LibraryCorrupt as error:
                log.warning("%s; searching the catalog instead", error)
            self._mend(model)
            self._live, _ = open_index(self._catalog, self.path / VECTORS_FOLDER, model, self._device, suspect=True)
            return self._answer(question, model)

    @contextmanager
    def preparing(self, model: Model) -> Iterator[None]:
        """While the block runs, which loads the model, another thread reads the index: each takes as long as the other.

        What is wrong with the index is said by the search that follows.
        """
        if self._live is not None:
            yield
            return
        thread = threading.Thread(target=self._prepare, args=(model,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _prepare(self, model: Model) -> None:
        with self._lock:
            if self._live is None:
                try:
                    self._ahead = open_index(self._catalog, self.path / VECTORS_FOLDER, model, self._device)
                except Exception as error:  # the search meets it again, and says it to whoever asked
                    log.debug("the index was not read ahead: %s", error)

    def close(self) -> None:
        """Release the database; a search that is running in another thread ends first, and then gives its part back."""
        self._live = self._ahead = None
        self._catalog.close()

    def _answer(self, question: Question, model: Model, *, again: bool = False) -> list[list[StoredHit]]:
        live = self._current_index(model)
        with self._catalog.begin() as connection:
            now = live_model(connection)
            if now != model:  # a writer has switched since the caller looked
                if now is None:
                    return [[] for _ in question.queries]
                raise mismatch(self.path, now, model.fingerprint, model.name)
            older = last_change(connection) < live.change  # another catalog was written over the one that was read
            live.replay(connection)  # in the snapshot that the rows of the hits come from: no answer mixes two states
            hidden = [
                hits.vectors_of_offline_roots(connection, model),
                hits.vectors_of_files(connection, model, question.exclude),
            ]
            found = live.nearest(
                question.queries,
                question.k,
                question.within,
                np.concatenate(hidden),
                allowed_ids(connection, model, question.filters),
                question.bank,
            )
            wanted = sorted({int(one) for ids, _ in found for one in ids})
            rows = hits.hit_rows(connection, wanted)
            shown = {number: row for number, row in rows.items() if row is not None}
            frames = hits.keyframes(connection, model, sorted({row.asset_id for row in shown.values()}))
        if (len(rows) < len(wanted) or older) and not again:  # rows pruned since the index was read: too few hits
            self._live = None
            return self._answer(question, model, again=True)
        return [
            [
                _hit(shown[one], score, frames, query)
                for one, score in zip(ids.tolist(), scores.tolist(), strict=True)
                if one in shown  # else it is wrong, or another model took over since the index was read
            ]
            for (ids, scores), query in zip(found, question.queries, strict=True)
        ]

    def _current_index(self, model: Model) -> LiveIndex:
        live = self._live  # `close` may take it away
        if live is None or live.model != model:
            ahead, self._ahead = self._ahead, None
            if ahead is None or ahead[0].model != model:
                ahead = open_index(self._catalog, self.path / VECTORS_FOLDER, model, self._device)
            live, sound = ahead
            self._live = live
            if not sound:
                self._mend(model)
        return live


def _hit(row: StoredHit, score: float, frames: dict[int, Keyframes], query: Float32Array) -> StoredHit:
    """`query` `[d]` tells which moment of a video is meant."""
    time_s = None
    if not row.is_caption and row.asset_id in frames:
        video = frames[row.asset_id]
        lengths = np.maximum(np.linalg.norm(video.means, axis=1), 1e-12)  # [f]
        time_s = video.times_s[int(np.argmax(video.means @ query / lengths))]
    return replace(row, score=score, time_s=time_s)
