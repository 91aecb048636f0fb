"""The library on disk as one object: what `mmsearch/library.py` holds and nothing else needs to know about.

In: a folder for the library, folders of files, an encoder. Out: reports, hits, status.
Next: `ingest.py`, the way in; `search.py`, the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from indexer.types import Encoder, Float32Array, IndexReport, Modality, Posterior, ProgressCallback


@dataclass(frozen=True)
class StoredHit:
    """One result: `path` is the file (for a row of captions.csv its photo), `score` the cosine of the means."""

    path: Path
    score: float
    modality: Modality
    text: str | None
    asset_id: int


@dataclass(frozen=True)
class RootStatus:
    """One indexed folder; `reason` says why it is offline, in words."""

    path: Path
    online: bool
    files: int
    reason: str | None = None


@dataclass(frozen=True)
class Status:
    """Counts of what can be found (`images`, `texts`, `captions`) and of what is hidden (`missing`, `offline`, `skipped`)."""

    images: int
    texts: int
    captions: int
    missing: int
    offline: int
    skipped: int
    roots: tuple[RootStatus, ...]
    size_bytes: int
    model_name: str | None
    model_fingerprint: str | None
    backend: str
    last_indexed_at: datetime | None


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not in the library, and why; `when` is UTC."""

    path: Path
    reason: str
    when: datetime


class Store:
    """Catalog, vectors and lock of one library. Readers may open as many as they like; one process writes at a time."""

    @classmethod
    def open(cls, path: Path, *, create: bool = False, url: str | None = None) -> Store:
        """Open the library in folder `path`; `url` moves the catalog to another database.

        Raises: LibraryNotFound when it is not there and `create` is not set; LibraryCorrupt.
        """
        raise NotImplementedError

    def ingest(
        self, folder: Path, encoder: Encoder, *, progress: ProgressCallback | None = None, batch_size: int = 32
    ) -> IndexReport:
        """Bring `folder` into the library. Raises: FolderNotFound, LibraryLocked, ModelMismatch."""
        raise NotImplementedError

    def rebuild(
        self, encoder: Encoder, *, progress: ProgressCallback | None = None, batch_size: int = 32
    ) -> IndexReport:
        """Encode everything again with another model, then switch to it at once. Raises: LibraryLocked, LibraryError."""
        raise NotImplementedError

    def search(
        self,
        query: Float32Array,
        k: int,
        *,
        fingerprint: str,
        within: Modality | None = None,
        exclude: Sequence[int] | None = None,
        device: str = "auto",
    ) -> list[StoredHit]:
        """The `k` nearest to `query` (float32 `[d]`), best first; `exclude` names asset ids. Raises: ModelMismatch."""
        raise NotImplementedError

    def posterior_of(self, path: Path, fingerprint: str) -> Posterior | None:
        """The posterior `[1, d]` an indexed, unchanged file is found by (fused for a captioned photo), else None."""
        raise NotImplementedError

    def asset_id_of(self, path: Path) -> int | None:
        """The id of an indexed file, for `exclude`."""
        raise NotImplementedError

    def model_fingerprint(self) -> str | None:
        """Fingerprint of the model the vectors come from; None before the first `ingest`."""
        raise NotImplementedError

    def model_name(self) -> str | None:
        """Name of that model as the user called it."""
        raise NotImplementedError

    def status(self) -> Status:
        """Counts, roots, size, model, backend."""
        raise NotImplementedError

    def errors(self) -> list[SkippedFile]:
        """Every recorded skip, by path."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the database."""
        raise NotImplementedError
