"""A store that tests ask directly. The program itself asks a `Searcher`, which opens no more than a search needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import indexer.store
from indexer.base.types import Float32Array, Modality, Posterior
from indexer.catalog.database import Catalog
from indexer.catalog.hits import IndexedFile, StoredHit
from indexer.maintenance.compare import Faults
from indexer.search.filters import NO_FILTERS, Filters
from indexer.search.search import Question, Searcher
from indexer.vectors.choose import Device


class Store(indexer.store.Store):
    """Keeps one searcher a device, as a running program does."""

    def __init__(self, path: Path, catalog: Catalog) -> None:
        super().__init__(path, catalog)
        self.searchers: dict[Device, Searcher] = {}

    def search(
        self,
        query: Float32Array,
        k: int,
        *,
        fingerprint: str,
        within: Modality | None = None,
        exclude: Sequence[int] = (),
        filters: Filters = NO_FILTERS,
        device: Device = "auto",
    ) -> list[StoredHit]:
        """The `k` nearest to `query` (float32 `[d]`), best first."""
        question = Question(query[None, :], k, fingerprint, within, filters, exclude=exclude)
        return self._searcher(device).answer(question)[0]

    def posterior_of(self, path: Path, fingerprint: str) -> Posterior | None:
        """The posterior `[1, d]` that an indexed, unchanged file is found by. Raises: ModelMismatch."""
        self._matching(fingerprint)
        file = self._known_file(path)
        return None if file is None else file.posterior

    def asset_id_of(self, path: Path) -> int | None:
        """The id of an indexed file."""
        file = self._known_file(path)
        return None if file is None else file.asset_id

    def mend(self, faults: Faults) -> list[Path]:
        self.searchers.clear()
        return super().mend(faults)

    def _known_file(self, path: Path) -> IndexedFile | None:
        model = self.model()
        return None if model is None else self._searcher("auto").known_file(path, model)

    def _searcher(self, device: Device) -> Searcher:
        return self.searchers.setdefault(device, Searcher(self._catalog, self.path, self.mend_index, device))
