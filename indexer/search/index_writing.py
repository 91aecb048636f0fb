"""Index files written so that a crash at any moment leaves the old ones or the new ones.

In: a `LiveIndex`. Out: `vectors/index-<generation>.f16`, the vectors at half precision; for a large library
`index-<generation>-<key>.faiss`, FAISS's index of them as this user made it; the row that lists them. Write to names
that nobody can have made before, fsync, rename, fsync the folder, commit the row, remove the old.
Next: `index_files.py`, which decides when.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.base import personal
from indexer.base.disk_errors import in_words
from indexer.base.durable import sync
from indexer.base.errors import LibraryError
from indexer.base.failpoints import reach
from indexer.base.plain_files import TEMPORARY, check_folder, make_folder, temporary_name
from indexer.base.types import EXACT_SEARCH, IMAGE, IndexFacts
from indexer.catalog import index_files as table
from indexer.catalog.index_files import IndexFiles, OfFaiss, faiss_name, rows_name
from indexer.search.live_index import LiveIndex
from indexer.search.questions import questions_for
from indexer.search.stored_index import sealed
from indexer.vectors import choose, form
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.rows import Rows, write_rows

if TYPE_CHECKING:  # SQLAlchemy is for those who write
    from indexer.catalog.database import Catalog

OURS: Final = ("index-*", f"questions-*{TEMPORARY}")  # what is removed when no row lists it


def write(catalog: Catalog, folder: Path, live: LiveIndex) -> Path:
    """Write a new generation and make it the one in use. The caller holds the writer's lock.

    Returns: the file of the vectors.

    Raises: LibraryError when the disk does not take it; the catalog has everything, and searches read it instead.
    """
    with catalog.begin() as connection:
        number = table.next_generation(connection)
    reach("save.numbered")
    path = folder / rows_name(number)
    with _pending(folder, path) as pending:
        reach("save.opening")
        pending[path] = temporary_name(path)
        checksum, _ = write_rows(pending[path], live.parts())
        rows = Rows.open(pending[path], live.ids, live.model.dim)
        own = _write_faiss(folder, number, checksum, rows, live, pending)
        del rows  # Windows renames no file that is mapped
        reach("save.written")
    sizes = (len(live.ids), live.model.dim, live.change)
    entries = live.ids.astype("<i8").tobytes() + live.kinds.tobytes()
    facts = EXACT_SEARCH if own is None else own.facts
    files = IndexFiles(number, live.model.id, *sizes, checksum, facts, entries)
    if own is not None and own.size_bytes:
        files = table.with_faiss(files, personal.key_id(), own)
    try:
        with catalog.begin() as connection:
            table.put(connection, files)
            reach("save.committing")
    except LibraryError:  # a full disk: files that no row lists only take room
        for one in pending:
            with contextlib.suppress(OSError):
                one.unlink(missing_ok=True)
        raise
    reach("save.committed")
    sweep(folder, files)
    reach("save.swept")
    return path


def add_faiss(catalog: Catalog, folder: Path, files: IndexFiles, live: LiveIndex) -> None:
    """Write FAISS's index of rows that are there, for this user; the rows and the others' indexes stay as they are.

    `live` holds the rows as their file has them. The caller holds the writer's lock. Raises: LibraryError.
    """
    with _pending(folder, folder / files.rows.name) as pending:
        own = _write_faiss(folder, files.generation, files.checksum, live.index.rows, live, pending)
    if own is None:
        return
    files = table.with_faiss(files, personal.key_id(), own)
    with catalog.begin() as connection:
        is_listed = table.put_facts(connection, files)
    if is_listed:
        sweep(folder, files)


def sweep(folder: Path, files: IndexFiles) -> None:
    """Remove what no row lists, but not what was set aside. Raises: NotPlainFile: the folder leads elsewhere."""
    check_folder(folder)
    kept = {file.name for file in files.files}
    for path in (path for pattern in OURS for path in folder.glob(pattern)):
        if path.name not in kept and ".bad-" not in path.name:
            with contextlib.suppress(OSError):  # Windows, while somebody has it open: the next run does it
                path.unlink(missing_ok=True)


@contextmanager
def _pending(folder: Path, path: Path) -> Iterator[dict[Path, Path]]:
    """Takes temporary files under their final names, which they get when the block ends well. Raises: LibraryError."""
    pending: dict[Path, Path] = {}
    try:
        make_folder(folder)
        yield pending
        for one in pending.values():
            sync(one)
        reach("save.synced")
        for final, one in pending.items():
            os.replace(one, final)
        reach("save.renamed")
        sync(folder)
        reach("save.named")
    except (OSError, RuntimeError) as error:  # RuntimeError is how FAISS says that a write failed
        for one in (*pending, *pending.values()):
            with contextlib.suppress(OSError):
                one.unlink(missing_ok=True)
        how = in_words(error, path, "run the same command again").replace("); ", "); nothing is lost, ", 1)
        raise LibraryError(f"the index file {path} cannot be written {how}") from error


def _write_faiss(
    folder: Path, generation: int, rows_checksum: str, rows: Rows, live: LiveIndex, pending: dict[Path, Path]
) -> OfFaiss | None:
    """FAISS's index of `rows`, see `form.planned`; None where nothing can be planned."""
    if len(rows) < form.IVF_FROM or not choose.has_faiss() or not personal.is_lasting():
        return None
    photos = live.ids[live.kinds == IMAGE]
    old = (live.index, live.facts) if isinstance(live.index, FaissIndex) else None
    index, facts = form.planned(rows, questions_for(folder, live), photos if len(photos) < len(live.ids) else None, old)
    if index is None:
        return _exactly(rows_checksum, facts)
    path = folder / faiss_name(generation, personal.key_id())
    pending[path] = temporary_name(path)
    return sealed(rows_checksum, *index.write(pending[path]), facts)


def _exactly(rows_checksum: str, facts: IndexFacts) -> OfFaiss | None:
    """That everything is to be searched, where that was measured."""
    return sealed(rows_checksum, "", 0, facts) if facts.questions else None
