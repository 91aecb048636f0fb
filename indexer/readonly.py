"""A library on a disk, or in a folder, that may only be read: SQLite opened so that it writes nothing, not even a log.

In: the path of a catalog. Out: connections of the driver. Usually SQLite makes two files beside a database in WAL mode,
also to read it. Where it may not, a database whose log is gone (its last user closed it) is whole by itself and cannot
change; one with a log needs the files that are there. Next: `catalog.py`, which asks `is_read_only` first.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from indexer.errors import LibraryError


def is_read_only(catalog_file: Path) -> bool:
    """Whether a catalog that is there, or the folder around it, may not be written by this process."""
    return catalog_file.exists() and not (os.access(catalog_file.parent, os.W_OK) and os.access(catalog_file, os.W_OK))


def connect(catalog_file: Path) -> sqlite3.Connection:
    """One connection, for one transaction: whether there is a log is asked anew each time.

    Raises: LibraryError when a run was cut off here and SQLite cannot read its log without writing.
    """
    log = catalog_file.with_name(catalog_file.name + "-wal")
    has_log = log.exists() and log.stat().st_size > 0
    address = f"file:{quote(str(catalog_file))}?{'mode=ro' if has_log else 'immutable=1'}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        raise LibraryError(
            f"the library in {catalog_file.parent} cannot be written, and a run that was cut off left a log to be "
            f"finished ({error}); run 'mmsearch status' once where it can be written"
        ) from error
    except sqlite3.DatabaseError:  # damaged: the first query says so in its own words
        pass
    return connection
