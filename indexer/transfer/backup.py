"""A copy of a library while it is in use: the catalog by SQLite's backup, the index file, the models that lie inside.

In: an open catalog, a folder that is not there yet. Out: a library in that folder, as of one moment between two
batches. A writer goes on meanwhile; the copy gets its name when it is whole, so that half a one is never taken for it.
Next: `archive.py`, for a copy that other programs read.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from indexer.base.disk_errors import in_words
from indexer.base.durable import sync
from indexer.base.errors import LibraryError, NotPlainFile
from indexer.base.lock import LOCK_FILE
from indexer.base.plain_files import check_folder, check_name, new_file, reading, temporary_name
from indexer.catalog import tables
from indexer.catalog.database import Catalog
from indexer.catalog.index_files import StoredFile, stored_files
from indexer.decoding.sandbox import JOURNAL_FILE
from indexer.search.index_files import VECTORS_FOLDER
from indexer.search.search import CATALOG_FILE
from indexer.search.stored_index import checksum

log = logging.getLogger(__name__)
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class CopyReport:
    """A copy that was made: where, how many files it knows, how many vectors it has, how long it took."""

    path: Path
    files: int
    vectors: int
    size_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """The report as `--json` prints it."""
        return {**asdict(self), "path": str(self.path)}


def backup(catalog: Catalog, where: Path, dest: Path) -> CopyReport:
    """Copy the library in folder `where` to the new folder `dest`, itself a library then. Takes no lock.

    Raises: LibraryError when `dest` is there and not empty, lies in the library, or cannot be written, or the catalog
    is no SQLite file; LibraryCorrupt when the catalog is damaged.
    """
    started = time.perf_counter()
    dest = Path(os.path.abspath(dest))
    if where == dest or where in dest.parents:
        raise LibraryError(f"{dest} lies in the library itself; name a folder elsewhere, best on another disk")
    with new_folder(dest) as partial:
        check_name(partial)
        tables.copy_to(catalog, partial / CATALOG_FILE)
        files, vectors, stored = _settle(partial, where, dest)
        for file in stored:
            _copy_index(where / VECTORS_FOLDER, partial / VECTORS_FOLDER, file)
        _copy_rest(where, partial)
        for path in partial.rglob("*"):
            sync(path)
        size_bytes = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    return CopyReport(dest, files, vectors, size_bytes, time.perf_counter() - started)


@contextmanager
def new_folder(dest: Path) -> Iterator[Path]:
    """A folder to fill, which is called `dest` when the block ends well, and is gone when it does not.

    Raises: LibraryError when there is something at `dest`, or the disk does not take it.
    """
    if os.path.lexists(dest) and (dest.is_symlink() or not dest.is_dir() or any(dest.iterdir())):
        raise LibraryError(f"{dest} is there already; name a folder that is not, nothing is ever written over")
    partial = temporary_name(dest.with_name(f".{dest.name}"))
    try:
        partial.mkdir(parents=True)  # never one that is there
        yield partial
        sync(partial)
        if dest.is_dir():
            dest.rmdir()
        partial.rename(dest)
        sync(dest.parent)
    except OSError as error:
        name = str(error.filename or dest).replace(str(partial), str(dest))
        how = in_words(error, dest, "look at it, or name another folder")
        raise LibraryError(f"{name} cannot be read or written {how}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _settle(partial: Path, where: Path, dest: Path) -> tuple[int, int, list[StoredFile]]:
    """In the copied catalog: models inside the library, as `mmsearch tune` writes them, go along under its new path.

    Returns how many files and vectors it knows, and its index files.
    """
    catalog = Catalog.open(partial / CATALOG_FILE, migrate_schema=False)
    inside = str(where) + os.sep
    try:
        with catalog.begin() as connection:
            names = {model.id: model.name for model in tables.all_models(connection) if model.name.startswith(inside)}
            moved = {number: str(dest / name.removeprefix(inside)) for number, name in names.items()}
            tables.rename_models(connection, moved)
            files, vectors = tables.count(connection, "assets"), tables.count(connection, "vectors")
            return files, vectors, stored_files(connection)
    finally:
        catalog.close()  # the last connection takes SQLite's log into the file


def _copy_index(source: Path, target: Path, file: StoredFile) -> None:
    """An index file, where it is still the one that the copied catalog lists; it is only a cache."""
    check_folder(source)
    if file.name != os.path.basename(file.name):  # what the catalog says is data
        return
    try:
        target.mkdir(exist_ok=True)
        _copy_plain(source / file.name, target / file.name)
    except FileNotFoundError:
        return
    if checksum(target / file.name) != file.checksum:
        (target / file.name).unlink()


def _copy_rest(where: Path, partial: Path) -> None:
    for folder, _, names in os.walk(where):
        inside = Path(folder).relative_to(where)
        if inside.parts[:1] == (VECTORS_FOLDER,):
            continue
        for name in names:
            source = Path(folder) / name
            ours = not inside.parts and (name.startswith(CATALOG_FILE) or name in (LOCK_FILE, JOURNAL_FILE))
            if ours:
                continue
            try:
                (partial / inside).mkdir(parents=True, exist_ok=True)
                _copy_plain(source, partial / inside / name)
            except NotPlainFile as error:  # a socket or a pipe; a link, whose file is not the library's
                log.warning("not copied: %s", error)


def _copy_plain(source: Path, target: Path) -> None:
    """Copy a plain file to a new one. Raises: NotPlainFile, OSError."""
    with reading(source) as content, new_file(target) as copy:
        shutil.copyfileobj(content, copy, COPY_BYTES)
