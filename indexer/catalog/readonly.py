"""A library on a disk that may only be read, or is full: SQLite opened so that it writes nothing, not even a log.

In: the path of a catalog. Out: connections of the driver. Usually SQLite makes two files beside a database in WAL mode,
also to read it. Where it cannot, a database whose log is gone (its last user closed it) is whole by itself and does not
change; one with a log needs the files that are there. Next: `reader.py` and `database.py`,
which ask `is_read_only` first.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from indexer.base.disk_errors import FAILING, NO_MEMORY, TOO_MANY_FILES, no_room, trouble
from indexer.base.errors import LibraryError
from indexer.catalog import door


def is_read_only(catalog_file: Path) -> bool:
    """Whether a catalog that is there, or the folder around it, cannot be written: no right to, or no room left."""
    if not catalog_file.exists():
        return False
    return not (os.access(catalog_file.parent, os.W_OK) and os.access(catalog_file, os.W_OK)) or _no_room(catalog_file)


def stamp(catalog_file: Path) -> tuple[int, ...]:
    """Changes when a catalog is written or replaced: what was read between two equal ones is of one moment."""
    try:
        found = os.stat(catalog_file)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, int(_has_log(catalog_file))


def connect(catalog_file: Path) -> door.CatalogConnection:
    """One connection, for one transaction: whether there is a log is asked anew each time.

    Raises: LibraryError when a run was cut off here and SQLite cannot read its log without writing.
    """
    try:
        return door.connect(catalog_file, "ro" if _has_log(catalog_file) else "immutable")
    except sqlite3.OperationalError as error:
        if trouble(error, catalog_file) in (FAILING, NO_MEMORY, TOO_MANY_FILES):
            raise
        raise LibraryError(
            f"the library in {catalog_file.parent} cannot be written, and a run that was cut off left a log to be "
            f"finished ({error}); run 'mmsearch status' once where it can be written"
        ) from error


def _has_log(catalog_file: Path) -> bool:
    log = catalog_file.with_name(catalog_file.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _no_room(catalog_file: Path) -> bool:
    """Whether SQLite finds no room for its files beside the catalog; asked of it where next to nothing is free."""
    if no_room(catalog_file.parent) is None:
        return False
    try:
        door.connect(catalog_file, "rw").close()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorname.startswith(("SQLITE_FULL", "SQLITE_IOERR_SHM", "SQLITE_CANTOPEN"))
    except (sqlite3.DatabaseError, LibraryError):  # whoever opens it next says so
        return False
    return False
