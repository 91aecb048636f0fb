"""A copy of a library while it is in use: the catalog by SQLite's backup, the index file, the models that lie inside.

In: an open catalog, a folder that is not there yet. Out: a library in that folder, as of one moment between two
batches. A writer goes on meanwhile; the copy gets its name when it is whole, so that half a one is never taken for it.
Next: `archive.py`, for a copy that other programs read.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from indexer.base.durable import sha256_of, sync
from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.base.lock import LOCK_FILE
from indexer.catalog.database import Catalog
from indexer.decoding.sandbox import JOURNAL_FILE
from indexer.search.index_files import VECTORS_FOLDER

CATALOG_FILE = "catalog.sqlite"


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
    if catalog.engine.dialect.name != "sqlite":
        raise LibraryError("the catalog is no SQLite file; back it up with the tools of its database")
    if where == dest or where in dest.parents:
        raise LibraryError(f"{dest} lies in the library itself; name a folder elsewhere, best on another disk")
    with new_folder(dest) as partial:
        _copy_catalog(catalog, partial / CATALOG_FILE)
        with closing(sqlite3.connect(partial / CATALOG_FILE)) as copy:
            row = copy.execute("SELECT file_name, sha256 FROM generations ORDER BY generation DESC").fetchone()
            _follow_models(copy, where, dest)
            files, vectors = (
                copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("assets", "vectors")
            )
        if row is not None:
            _copy_index(where / VECTORS_FOLDER / row[0], partial / VECTORS_FOLDER / row[0], row[1])
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
    if os.path.lexists(dest) and (not dest.is_dir() or any(dest.iterdir())):
        raise LibraryError(f"{dest} is there already; name a folder that is not, nothing is ever written over")
    partial = dest.with_name(f".{dest.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        sync(partial)
        if dest.is_dir():
            dest.rmdir()
        partial.rename(dest)
        sync(dest.parent)
    except OSError as error:
        name = str(error.filename or dest).replace(str(partial), str(dest))
        raise LibraryError(f"{name} cannot be read or written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_catalog(catalog: Catalog, path: Path) -> None:
    """One step, in one snapshot: done page by page it would begin again with every batch a writer commits."""
    source = catalog.engine.raw_connection()
    try:
        with closing(sqlite3.connect(path)) as target:
            driver = source.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.backup(target)
            found = target.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise LibraryCorrupt(f"the catalog is damaged ({found}), and was not copied; keep your older backups")
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise LibraryError(f"the catalog cannot be copied ({error})") from error
        raise LibraryCorrupt(
            f"the catalog is damaged ({error}), and was not copied; keep your older backups"
        ) from error
    finally:
        source.close()


def _follow_models(copy: sqlite3.Connection, where: Path, dest: Path) -> None:
    """Models inside the library, as `mmsearch tune` writes them, go along: the copy names its own."""
    inside = str(where) + os.sep
    for number, name in copy.execute("SELECT id, name FROM models").fetchall():
        if name.startswith(inside):
            moved = str(dest / name.removeprefix(inside))
            copy.execute("UPDATE models SET name = ? WHERE id = ?", (moved, number))
    copy.commit()


def _copy_index(source: Path, target: Path, sha256: str) -> None:
    """The index file, where it is still the one that the copied catalog vouches for; it is only a cache."""
    try:
        target.parent.mkdir()
        shutil.copyfile(source, target)
        sound = sha256_of(target) == sha256
    except FileNotFoundError:
        return
    if not sound:
        target.unlink()


def _copy_rest(where: Path, partial: Path) -> None:
    for folder, _, names in os.walk(where):
        inside = Path(folder).relative_to(where)
        if inside.parts[:1] == (VECTORS_FOLDER,):
            continue
        for name in names:
            source = Path(folder) / name
            ours = not inside.parts and (name.startswith(CATALOG_FILE) or name in (LOCK_FILE, JOURNAL_FILE))
            if not ours and source.is_file():  # neither a socket nor a pipe
                (partial / inside).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, partial / inside / name)
