"""The library on disk as one object: what `mmsearch/library.py` holds, and all it needs to know about state.

In: a folder for the library, folders of files, an encoder. Out: reports, status.
Searches do not come by here, since SQLAlchemy takes longer to import than they take: see `search/search.py`.
Next: `ingest/ingest.py`, the way in; `maintenance/status.py`, what is there.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from indexer.base.disk_errors import in_words
from indexer.base.errors import LibraryError, LibraryNotFound, SchemaOlder, SchemaOutdated
from indexer.base.lock import writer_lock
from indexer.base.types import Encoder, Float32Array, IndexReport, Posterior, ProgressCallback
from indexer.catalog import notices, own_roots
from indexer.catalog.captions import CaptionedPhoto, captioned_photos
from indexer.catalog.database import Catalog, Model, mismatch
from indexer.catalog.notices import SkippedFile
from indexer.catalog.roots import as_known, is_offline
from indexer.catalog.vectors import own_posteriors
from indexer.files.excludes import Excludes
from indexer.files.scan import NO_EXCLUDES
from indexer.maintenance import status
from indexer.maintenance.status import RootStatus, Status
from indexer.search import index_files as generations
from indexer.search.questions import keep_questions
from indexer.search.search import CATALOG_FILE

if TYPE_CHECKING:  # what only its own command loads
    from indexer.maintenance.compare import Check, Faults
    from indexer.maintenance.prune import PruneReport
    from indexer.transfer.backup import CopyReport

__all__ = ["CaptionedPhoto", "RootStatus", "SkippedFile", "Status", "Store"]

log = logging.getLogger(__name__)


class Store:
    """Catalog, vectors and lock of one library. Readers may open as many as they like; one process writes at a time."""

    def __init__(self, path: Path, catalog: Catalog) -> None:
        self.path = path
        self._catalog = catalog

    @classmethod
    def open(cls, path: Path, *, create: bool = False, url: str | None = None) -> Self:
        """Open the library in folder `path`; `url` moves the catalog to another database.

        One that an older version wrote is brought up to date, in one transaction under the writer's lock.

        Raises: LibraryNotFound when it is not there and `create` is not set; LibraryCorrupt; LibraryLocked when it has
        to be made or brought up to date and another process is writing; SchemaOlder when it cannot be written.
        """
        path = Path(os.path.abspath(path))
        where = url or path / CATALOG_FILE
        if url is None and not create and not (path / CATALOG_FILE).is_file():
            raise LibraryNotFound(
                f"no library at {path}; run 'mmsearch index FOLDER' first, or name one with --library"
            )
        if create:
            _make_folder(path)
        try:
            return cls(path, Catalog.open(where, migrate_schema=False))
        except SchemaOutdated as error:
            if not create and not isinstance(error, SchemaOlder):
                raise
            if not os.access(path, os.W_OK):
                raise SchemaOlder(
                    f"the library {path} is of an older version and cannot be written here; "
                    "run 'mmsearch status' once where it can"
                ) from error
            with writer_lock(path):
                return cls(path, Catalog.open(where, migrate_schema=True))

    def ingest(
        self,
        folder: Path,
        encoder: Encoder,
        *,
        progress: ProgressCallback | None = None,
        batch_size: int = 32,
        excludes: Excludes = NO_EXCLUDES,
        named: bool = True,
    ) -> IndexReport:
        """Bring `folder`, which a person `named`, into the library.

        Raises: FolderNotFound, LibraryLocked, ModelMismatch.
        """
        from indexer.ingest.ingest import ingest  # the way in is not loaded by a search

        run = partial(ingest, self._catalog, self.path, folder, encoder, progress=progress, batch_size=batch_size)
        with writer_lock(self.path):
            return run(excludes=excludes, named=named)

    def name(self, folder: Path, *, follow_links: bool | None = None) -> None:
        """A person named this folder: from now on its files are read when the library needs them, see `own_roots.py`.

        Args:
            follow_links: whether links may lead out of it; None leaves that as it is.
        """
        with self._catalog.begin() as connection:
            own_roots.name(connection, as_known(connection, folder), follow_links=follow_links)

    def rebuild(
        self, encoder: Encoder, *, progress: ProgressCallback | None = None, batch_size: int = 32
    ) -> IndexReport:
        """Encode everything again with another model, then switch to it at once.

        Raises: LibraryLocked; LibraryError while a folder is offline.
        """
        from indexer.ingest.reencode import reencode

        with writer_lock(self.path):
            return reencode(self._catalog, self.path, encoder, progress=progress, batch_size=batch_size)

    def is_offline(self, folder: Path) -> bool:
        """Whether `folder` lies in an indexed folder that is not there now."""
        with self._catalog.begin() as connection:
            return is_offline(connection, Path(os.path.abspath(folder)))

    def relocate(self, old: Path, new: Path) -> int:
        """Tell the library that the indexed folder `old` is at `new` now; the number of its files.

        Raises: FolderNotFound, LibraryError, LibraryLocked.
        """
        from indexer.maintenance.relocate import relocate

        with writer_lock(self.path):
            return relocate(self._catalog, old, new)

    def prune(
        self, folder: Path | None = None, *, dry_run: bool = False, offline: bool = False, excluded: bool = False
    ) -> PruneReport:
        """Forget files that are gone for good; a dry run takes no lock. Raises: LibraryError, LibraryLocked."""
        from indexer.maintenance.prune import prune

        with nullcontext() if dry_run else writer_lock(self.path):
            return prune(self._catalog, self.path, folder, dry_run=dry_run, offline=offline, excluded=excluded)

    def backup(self, dest: Path) -> CopyReport:
        """Copy the library to the new folder `dest`, while it is in use. Raises: LibraryError, LibraryCorrupt."""
        from indexer.transfer.backup import backup

        return backup(self._catalog, self.path, dest)

    def export(self, dest: Path) -> CopyReport:
        """Write the library as Parquet and safetensors, while it is in use. Raises: LibraryError."""
        from indexer.transfer.export import export

        return export(self._catalog, dest)

    def wants_questions(self) -> bool:
        """Whether `keep_questions` would let a search look at less than everything."""
        model = self._catalog.model()
        with self._catalog.begin() as connection:
            folder = self.path / generations.VECTORS_FOLDER
            return model is not None and generations.wants_questions(connection, folder, model)

    def keep_questions(self, questions: Float32Array, fingerprint: str) -> None:
        """Keep vectors of texts, float32 `[q, d]`, to measure recall with, and write the index file by them.

        Raises: ModelMismatch; LibraryLocked.
        """
        model = self._matching(fingerprint)
        if model is None:
            return
        folder = self.path / generations.VECTORS_FOLDER
        with writer_lock(self.path):
            keep_questions(folder, model, questions)
            generations.rewrite(self._catalog, folder, model)

    def mend_index(self, model: Model) -> None:
        """Set a damaged index file aside and write it anew; a search answers without it where that cannot be."""
        try:
            with writer_lock(self.path):
                generations.refresh(self._catalog, self.path / generations.VECTORS_FOLDER, model, suspect=True)
        except LibraryError as error:
            log.info("the index file stays as it is: %s", error)

    def model(self) -> Model | None:
        """The model the vectors come from; None before the first `ingest`."""
        return self._catalog.model()

    def status(self) -> Status:
        """Counts, roots, size, model, backend."""
        with self._catalog.begin() as connection:
            return status.status(connection, self.path)

    def errors(self) -> list[SkippedFile]:
        """Every recorded skip, by path."""
        with self._catalog.begin() as connection:
            return notices.skipped(connection)

    def foundation(self) -> list[Check]:
        """Whether the file and every cell in it are in order: what has to be before `examine`. Nothing is written."""
        from indexer.maintenance.examine import foundation

        return foundation(self._catalog)

    def set_aside(self) -> str:
        """Take rows that hold what no row can out of the catalog, into a file; in words. Raises: LibraryLocked."""
        from indexer.maintenance.examine import set_aside

        with writer_lock(self.path):
            return set_aside(self._catalog, self.path)

    def examine(self, encoder: Encoder | None, sample: int, faults: Faults) -> list[Check]:
        """Every other check of the library, see `examine.py`; `faults` takes what `mend` needs. Nothing is written."""
        from indexer.maintenance.examine import examine

        return examine(self._catalog, self.path, encoder, sample, faults)

    def mend(self, faults: Faults) -> list[Path]:
        """Mend what `examine` found; the folders to `ingest` afterwards. Raises: LibraryLocked."""
        from indexer.maintenance.examine import mend

        with writer_lock(self.path):
            return mend(self._catalog, self.path, faults)

    def captioned_photos(self) -> list[CaptionedPhoto]:
        """Every live photo of this user's folders that has captions, with their words."""
        with self._catalog.begin() as connection:
            own = own_roots.own_folders(connection)
            return [photo for photo in captioned_photos(connection) if own.hold_path(photo.path)]

    def own_posteriors(self) -> tuple[Posterior, Posterior]:
        """What each image `[n, d]` and each text or caption `[m, d]` says by itself, before any fusion.

        Raises: LibraryError before the first `ingest`.
        """
        model = self._catalog.model()
        if model is None:
            raise LibraryError(f"{self.path} holds no vectors; run 'mmsearch index FOLDER' first")
        with self._catalog.begin() as connection:
            return own_posteriors(connection, model)

    def close(self) -> None:
        """Release the database."""
        self._catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _matching(self, fingerprint: str) -> Model | None:
        model = self._catalog.model()
        if model is not None and model.fingerprint != fingerprint:
            raise mismatch(self.path, model, fingerprint)
        return model


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LibraryError(
            f"the library's folder {path} cannot be made {in_words(error, path, 'name another with --library')}"
        ) from error
