"""The one door to a catalog: every connection of SQLite in this project is made here, and looked at before it is used.

A library may come from another person, so its catalog is data and never orders. Before SQLite sees anything, the
catalog and the files beside it are plain files, and no rollback journal names another file: SQLite would delete that
one (https://www.sqlite.org/fileformat.html#the_rollback_journal). Before any other statement, the schema is one that
our migrations make: no view, trigger or virtual table of somebody else is ever run (https://www.sqlite.org/security.html).
Then every transaction has a budget of work, so that no crafted file makes a statement endless, and Ctrl-C ends one.

In: the path of a catalog, and how to open it. Out: connections of the driver. What SQLite complains of comes out as it
is; `reader.py` and `database.py` have the words for it. Next: `known_schema.py`, what is expected.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import quote

from indexer.base.errors import LibraryCorrupt, LibraryError, SchemaOutdated
from indexer.base.plain_files import check_plain, open_plain
from indexer.catalog.known_schema import KNOWN, OPTIONAL, SCHEMA_REVISION, Object, Schema, digest

How = Literal["rwc", "rw", "ro", "immutable"]  # rwc: made where it is missing; immutable: neither locks nor log

BUSY_TIMEOUT_S: Final = 30
SUPER_JOURNAL: Final = bytes.fromhex("d9d505f920a163d7")  # the last bytes of a journal that names another file
LEAST_STEPS: Final = 5_000_000  # of SQLite's virtual machine, for one transaction, however small the catalog: 0.2 s
STEPS_A_BYTE: Final = 10  # more of them for each byte of the catalog; the most that honest ones took is 1
STEPS_AT_ONCE: Final = 10_000  # between two looks at the budget: a millisecond
LEAST_ROWS: Final = 10_000  # for one statement, however small the catalog
ROW_BYTES: Final = 32  # no row of ours is smaller, with its entries in indexes
ROWS_AT_ONCE: Final = 10_000
OPENING_STEPS: Final = 20_000  # to read the schema takes a thousand
OPENING_STEPS_AT_ONCE: Final = 500
OPENING_BYTES: Final = 64 << 10  # of one statement of the schema; our longest has 6,000
LEAST_VALUE_BYTES: Final = 16 << 20  # of one value or row, however small the catalog
BYTES_A_VALUE: Final = 8  # of the catalog for each byte of its largest value: ids and kinds are 9 of 1,000 a vector
ENDLESS: Final = "a question to it does not end"
SQL_BYTES: Final = 1 << 20  # of one of our statements; with the ids of one question it has 100,000
TRIGGERS_DEEP: Final = 8  # ours set off none in turn
MOST_OBJECTS: Final = 2 * max(map(len, KNOWN.values()))

_here = threading.local()  # why a statement of this thread was stopped


class CatalogConnection(sqlite3.Connection):
    """A connection that came through the door. Whoever begins a transaction on it calls `renew` first."""

    budget: Budget

    def opened(self, path: Path) -> None:
        """What holds from the first statement on."""
        self.budget = Budget(path)
        self.set_progress_handler(self.budget.spend, OPENING_STEPS_AT_ONCE)
        self.execute("PRAGMA trusted_schema = OFF")
        self.execute("PRAGMA cell_size_check = ON")
        if sys.version_info >= (3, 12):
            self.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        self.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # one file for one connection
        self.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, TRIGGERS_DEEP)
        self.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, OPENING_BYTES)
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, OPENING_BYTES)

    def renew(self) -> None:
        """A new budget, by the size the catalog has now."""
        size_bytes = self.budget.renew()
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LEAST_VALUE_BYTES + size_bytes // BYTES_A_VALUE)
        self.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES)
        self.set_progress_handler(self.budget.spend, STEPS_AT_ONCE)

    def execute(self, sql: str, parameters: Any = (), /) -> CatalogCursor:
        """As `sqlite3.Connection.execute`, which would take a cursor that does not count."""
        cursor: CatalogCursor = self.cursor()
        return cursor.execute(sql, parameters)

    def cursor(self, factory: Any = None) -> Any:
        """One that counts its rows."""
        return super().cursor(factory or CatalogCursor)


class CatalogCursor(sqlite3.Cursor):
    """Hands out no more rows of a statement than the catalog can hold. Raises: LibraryCorrupt when there are more."""

    _rows = 0

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        """A new statement."""
        self._rows = 0
        return super().execute(sql, parameters)

    def fetchone(self) -> Any:
        """One row, or None."""
        self._count(1)
        return super().fetchone()

    def __next__(self) -> Any:
        self._count(1)
        return super().__next__()

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        """At most `size` rows."""
        rows = super().fetchmany(size)
        self._count(len(rows))
        return rows

    def fetchall(self) -> list[Any]:
        """The rest of the rows."""
        rows: list[Any] = []
        while page := self.fetchmany(ROWS_AT_ONCE):
            rows += page
        return rows

    def _count(self, rows: int) -> None:
        self._rows += rows
        if self._rows > LEAST_ROWS:
            assert isinstance(self.connection, CatalogConnection)
            self.connection.budget.check_rows(self._rows - self.connection.total_changes)  # not in the file yet


class Budget:
    """The work that the long statements of one transaction may take: so many steps for each byte of the catalog.

    Not time: a slow disk, a busy machine or a laptop that slept must stop nobody, and a large library takes long
    honestly. No honest statement does more than look at every row a few times. A crafted tree of pages that leads back
    to itself has rows without end in a small file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._step = OPENING_STEPS_AT_ONCE
        self._spent, self._allowed, self._may_grow = 0, OPENING_STEPS, False
        self._most_rows = 0

    def renew(self) -> int:
        """Begin anew; the bytes of the catalog and its log."""
        size_bytes = _size_bytes(self._path)
        self._step, self._spent, self._may_grow = STEPS_AT_ONCE, 0, True
        self._allowed = LEAST_STEPS + STEPS_A_BYTE * size_bytes
        return size_bytes

    def spend(self) -> bool:
        """Called by SQLite between steps; True ends the statement, and `stopped` says why."""
        try:
            self._spent += self._step
            if self._spent <= self._allowed:
                return False
            if self._may_grow:  # a writer's own transaction
                self._allowed = LEAST_STEPS + STEPS_A_BYTE * _size_bytes(self._path)
                if self._spent <= self._allowed:
                    return False
            _here.stopped = damaged(self._path, ENDLESS)
        except BaseException as error:  # Ctrl-C arrives here, and SQLite knows no exceptions
            _here.stopped = error
        return True

    def check_rows(self, rows: int) -> None:
        """Raises: LibraryCorrupt where a statement has more rows than the catalog has now."""
        if rows > self._most_rows:
            self._most_rows = LEAST_ROWS + _size_bytes(self._path) // ROW_BYTES
            if rows > self._most_rows:
                raise damaged(self._path, ENDLESS)


def stopped(error: BaseException | None) -> BaseException | None:
    """What to raise in place of SQLite's complaint that a statement of this thread was interrupted, if it is that."""
    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
        return None
    reason: BaseException | None = getattr(_here, "stopped", None)
    _here.stopped = None
    return reason or KeyboardInterrupt()  # it came between two lines of `spend`


def connect(catalog_file: Path, how: How, *, any_schema: bool = False) -> CatalogConnection:
    """Open the catalog in one of SQLite's ways, from any thread, without transactions that nobody asked for.

    Args:
        any_schema: leave the schema alone. Only for whoever reads damaged catalogs, or makes a copy of a whole one.

    Raises: NotPlainFile, LibraryError: it, or a file beside it, is not ours; LibraryCorrupt: the schema is not;
    SchemaOutdated: it is a newer version's; sqlite3.Error: what SQLite complains of.
    """
    before = check_files(catalog_file)
    mode = "immutable=1" if how == "immutable" else f"mode={how}"
    connection = sqlite3.connect(
        f"file:{quote(str(catalog_file), errors='surrogateescape')}?{mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # a pool closes them all
        factory=CatalogConnection,
    )
    try:
        after = check_files(catalog_file)
        if before is not None and after is not None and not os.path.samestat(before, after):
            raise LibraryError(f"the catalog {catalog_file} was replaced while it was opened; ask again")
        connection.opened(catalog_file)
        if not any_schema:
            check_schema(connection, catalog_file)
        connection.renew()
    except BaseException as error:
        connection.close()
        if (reason := stopped(error)) is not None:
            raise reason from error
        raise
    return connection


def check_files(catalog_file: Path) -> os.stat_result | None:
    """What is at `catalog_file`, None for nothing. They are looked at and not opened.

    To close a file gives up every lock that this process holds on it (POSIX), SQLite's own too.

    Raises: NotPlainFile, LibraryError: as the door says.
    """
    beside = [catalog_file.with_name(catalog_file.name + end) for end in ("-wal", "-shm", "-journal")]
    for path in beside:
        if (found := _look(path)) is not None:
            check_plain(path, found)
            if path == beside[-1]:
                _check_journal(path)
    found = _look(catalog_file)
    if found is not None and not _has_all_names_here(catalog_file, found):
        check_plain(catalog_file, found)
    return found


def check_schema(connection: sqlite3.Connection, catalog_file: Path) -> None:
    """Compare the schema with those of our migrations; an empty one is a new file's.

    To read it runs nothing: SQLite parses what the table says, and calls no function, view or module of it.

    Raises: LibraryCorrupt, naming the object; SchemaOutdated; sqlite3.Error.
    """
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(MOST_OBJECTS)
    found = {(str(kind), str(name), str(table)): digest(sql) for kind, name, table, sql in rows}
    once = len(found) == len(rows) < MOST_OBJECTS
    for optional, expected in OPTIONAL.items():
        if found.get(optional) == expected:
            del found[optional]
    if once and (not found or any(found == known for known in KNOWN.values())):
        return
    _check_newer(connection, found)
    raise damaged(catalog_file, _strange(found))


def damaged(catalog_file: Path | str, how: object) -> LibraryCorrupt:
    """The error for a catalog that is not as mmsearch makes it."""
    return LibraryCorrupt(f"the catalog {catalog_file} is damaged ({how}); run 'mmsearch doctor --repair'")


def _check_newer(connection: sqlite3.Connection, found: Schema) -> None:
    """Raises: SchemaOutdated where the version, which stands in a plain table of ours, is newer than this one."""
    version = ("table", "alembic_version", "alembic_version")
    if found.get(version) != KNOWN[SCHEMA_REVISION][version]:
        return
    for (revision,) in connection.execute("SELECT version_num FROM alembic_version LIMIT 1"):
        if len(str(revision)) == 4 and str(revision).isdecimal() and str(revision) > SCHEMA_REVISION:
            raise SchemaOutdated(
                f"the catalog has schema {revision}, this version reads {SCHEMA_REVISION}; update mmsearch"
            )


def _strange(found: Schema) -> str:
    """The first object that is not as it should be, in the known schema that is nearest."""
    nearest = max(KNOWN.values(), key=lambda known: len(known.items() & found.items()))
    for kind, name, _ in sorted(found.keys() - nearest.keys(), key=_tables_first):
        return f"it has the {kind[:8]} {name[:60]!r}, which mmsearch does not make"
    for kind, name, _ in sorted(nearest.keys() - found.keys(), key=_tables_first):
        return f"its {kind} '{name}' is missing"
    for (kind, name, _), _ in sorted(nearest.items() - found.items()):
        return f"its {kind} '{name}' is not as mmsearch makes it"
    return "its list of tables names something twice"


def _tables_first(thing: Object) -> tuple[bool, Object]:
    return thing[0] in ("index", "trigger"), thing


def _check_journal(journal: Path) -> None:
    """Raises: LibraryError where it names another file, which SQLite would delete when it has rolled back.

    A journal of ours never does: only a transaction over several files writes such a name, and no connection has more
    than one. What a crash of ours leaves, while a catalog is made or on a disk that cannot keep a log, is rolled back.
    """
    with suppress(FileNotFoundError), os.fdopen(open_plain(journal), "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - len(SUPER_JOURNAL)))
        if file.read(len(SUPER_JOURNAL)) == SUPER_JOURNAL:
            raise LibraryError(
                f"{journal} names another file, which SQLite would delete, and no journal of mmsearch does; "
                "move it out of the library, then run 'mmsearch doctor'"
            )


def _look(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _has_all_names_here(path: Path, found: os.stat_result) -> bool:
    """Whether every name of a file is in its folder, as for a moment while a damaged catalog is set aside."""
    if found.st_nlink < 2 or not stat.S_ISREG(found.st_mode):
        return False
    with os.scandir(path.parent) as entries:
        return sum(entry.name.startswith(path.name) and entry.inode() == found.st_ino for entry in entries) == (
            found.st_nlink
        )


def _size_bytes(catalog_file: Path) -> int:
    total = 0
    for path in (catalog_file, catalog_file.with_name(catalog_file.name + "-wal")):
        with suppress(OSError):
            total += os.stat(path).st_size
    return total
