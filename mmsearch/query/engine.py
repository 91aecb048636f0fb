"""Answers queries on one library: the way from words, a picture or a file to `Hit`s.

    QueryEngine.search -> encode_query -> Searcher.answer(Question) -> LiveIndex.nearest -> VectorIndex.search -> Hits

In: what is looked for, what it is narrowed to. Out: `Hit`s. The scores of all three kinds of query are corrected for
hubness alike, by the model's bank of queries of the same modality. Next: `encode.py`, then
`../../indexer/search/search.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.base.types import Modality, Model
from indexer.search.filters import Filters
from indexer.search.query_bank import bank_of
from indexer.search.search import Question, Searcher
from mmsearch.errors import LibraryCorrupt
from mmsearch.model_choice import LibraryModel
from mmsearch.query.encode import encode_file, encode_queries, encode_query, modality_of, query_bank
from mmsearch.query.hits import Hit, to_hits

if TYPE_CHECKING:
    from indexer.store import Store
    from indexer.vectors.choose import Device
    from mmsearch.inference.pictures import Picture


class QueryEngine:
    """What a search needs of a library: its catalog and vectors, opened by the first query, and its model.

    `open_store` opens the whole library, which is only done where something is out of the ordinary.
    """

    def __init__(self, library: Path, model: LibraryModel, device: Device, open_store: Callable[[], Store]) -> None:
        self._library = library
        self._model = model
        self._device = device
        self._open_store = open_store
        self._searcher: Searcher | None = None
        self._opening = threading.Lock()

    def search(
        self, text: str | None, image: Picture | None, k: int, within: Modality | None, filters: Filters
    ) -> list[Hit]:
        """The `k` files nearest to words, a picture, or both; see `Library.search`."""
        stored = self._open().model()
        if stored is None:
            return []  # an empty library has no vectors, whatever the model
        with self._open().preparing(stored):
            encoder = self._model.load_matching(stored, self._library)
            queries, bank = encode_query(encoder, text, image).mu, query_bank(encoder, text, image)  # [1, d]
        return self._answers(Question(queries, k, stored.fingerprint, within, filters, bank))[0]

    def search_many(self, texts: Sequence[str], k: int, within: Modality | None, filters: Filters) -> list[list[Hit]]:
        """The same for many texts, encoded together and searched at once."""
        stored = self._open().model()
        if stored is None or not texts:
            return [[] for _ in texts]
        with self._open().preparing(stored):
            encoder = self._model.load_matching(stored, self._library)
            queries, bank = encode_queries(encoder, texts).mu, bank_of(encoder, "text")  # [m, d]
        return self._answers(Question(queries, k, stored.fingerprint, within, filters, bank))

    def similar(self, path: Path, k: int, within: Modality | None, filters: Filters) -> list[Hit]:
        """The `k` files nearest to a file, itself not among them; an indexed and unchanged one needs no model."""
        stored = self._open().model()
        if stored is None:
            return []
        known = self._open().known_file(path, stored)
        if known is not None and known.posterior is not None and self._model.choose(stored).wrote_library:
            queries, bank = known.posterior.mu, self._model.query_bank(stored, known.modality)  # [1, d]
        else:
            encoder = self._model.load_matching(stored, self._library)
            queries, bank = encode_file(encoder, path).mu, bank_of(encoder, modality_of(path))
        if known is not None:
            return self._answers(Question(queries, k, stored.fingerprint, within, filters, bank, [known.asset_id]))[0]
        # one more: a file that is indexed under another name, by a link, is only known when it is found
        hits = self._answers(Question(queries, k + 1, stored.fingerprint, within, filters, bank))[0]
        others = [hit for hit in hits if not (self._open().is_own(hit.path) and _is_same_file(hit.path, path))]
        return [replace(hit, rank=rank) for rank, hit in enumerate(others[:k], 1)]

    def close(self) -> None:
        """Release the database; the next query opens it again, and one that is running ends first."""
        with self._opening:
            searcher, self._searcher = self._searcher, None
        if searcher is not None:
            searcher.close()

    def _answers(self, question: Question) -> list[list[Hit]]:
        return [to_hits(hits) for hits in self._open().answer(question)]

    def _open(self) -> Searcher:
        with self._opening:
            if self._searcher is None:
                self._searcher = Searcher.open(self._library, self._mend, self._device)
            if self._searcher is None:
                self._open_store()  # says what is wrong, or brings the schema up to date
                self._searcher = Searcher.open(self._library, self._mend, self._device)
            if self._searcher is None:
                raise LibraryCorrupt(f"the catalog of {self._library} cannot be read; run 'mmsearch index' once")
            return self._searcher

    def _mend(self, model: Model) -> None:
        self._open_store().mend_index(model)


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # one of them is gone since it was indexed
        return False
