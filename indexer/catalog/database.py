"""The database that is the truth: opening and migrating it, its transactions.

In: a database URL. Out: connections whose transactions are all or nothing. The rows are read and written by the modules
beside this one, one for each group of tables. Next: `library.py`, the one row about the library itself.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import NullPool

from indexer.base.disk_errors import FULL, NO_INODES, trouble
from indexer.base.errors import LibraryCorrupt, LibraryError, RowCorrupt, SchemaOlder, SchemaOutdated
from indexer.base.failpoints import reach
from indexer.base.types import Model
from indexer.catalog import door, readonly
from indexer.catalog.known_schema import SCHEMA_REVISION
from indexer.catalog.reader import is_damage, last_change, live_model, mismatch

__all__ = ["URL", "Catalog", "Connection", "Model", "last_change", "live_model", "migrate", "mismatch"]

log = logging.getLogger(__name__)


class Catalog:
    """One database. Every read and write goes through `begin()`: a transaction, and in SQLite a stable snapshot."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, where: Path | str | URL, *, migrate_schema: bool) -> Catalog:
        """Open the SQLite file or the database at `where`; a writer (`migrate_schema`) brings its schema up to date.

        Raises: LibraryCorrupt when the file is no database; SchemaOutdated when its schema is not this version's;
        LibraryError when the database cannot be reached.
        """
        # a string would trip over '?' in the name of a file
        url = URL.create("sqlite", database=str(where)) if isinstance(where, Path) else make_url(where)
        catalog = cls(_engine(url))
        try:
            revision = catalog._revision()
            if revision != SCHEMA_REVISION:
                if revision is None and not migrate_schema:  # a first run that ended before its first commit
                    raise SchemaOutdated(f"the catalog {catalog._place()} is empty; run 'mmsearch index FOLDER' first")
                if not migrate_schema:
                    raise (SchemaOlder if revision and revision < SCHEMA_REVISION else SchemaOutdated)(
                        f"the catalog has schema {revision}, this version reads {SCHEMA_REVISION}; "
                        "run 'mmsearch index' once, with the newest mmsearch that wrote here"
                    )
                migrate(catalog)
        except LibraryError:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Release every connection."""
        self.engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed when the block ends, rolled back when it raises.

        Raises: LibraryCorrupt, LibraryError: what the database complains of, in one line.
        """
        try:
            with self.engine.begin() as connection:
                try:
                    yield connection
                except (RowCorrupt, UnicodeDecodeError, exc.DataError, exc.OperationalError) as error:
                    if (wrong := _wrong_row(connection, error)) is None:
                        raise
                    raise wrong from error
        except OSError as error:
            found = trouble(error, self._path())
            if found not in (FULL, NO_INODES):
                raise
            what = error.strerror if found is FULL else found.what
            raise LibraryError(
                f"the catalog {self._place()} cannot be written ({what}); nothing is lost, {found.remedy}"
            ) from error
        except (exc.IntegrityError, exc.ProgrammingError):
            raise  # a fault of ours, not of the disk
        except exc.DatabaseError as error:
            if (reason := door.stopped(error.orig)) is not None:
                raise reason from error
            if isinstance(error, exc.OperationalError) and not is_damage(error.orig):
                raise LibraryError(self._unusable(error)) from error
            raise self._damaged(_complaint(error)) from error
        except (exc.NoResultFound, exc.MultipleResultsFound) as error:
            raise self._damaged("a row that must be there once is not") from error
        except UnicodeDecodeError as error:  # the driver cannot read what SQLite complains of
            raise self._damaged("its text is not UTF-8") from error

    def model(self) -> Model | None:
        """The live model: the one whose vectors are searched."""
        with self.begin() as connection:
            return live_model(connection)

    def _revision(self) -> str | None:
        # Alembic takes half a second to import; a search must not pay that to learn that the schema is current.
        try:
            with self.begin() as connection:
                found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
                if found is not None and not re.fullmatch("[0-9]{4}", str(found)):
                    raise self._damaged(f"its version is {str(found)[:20]!r}")  # words that Alembic might follow
                return None if found is None else str(found)
        except LibraryCorrupt as error:
            if "no such table" not in str(error):
                raise
            with self.begin() as connection:
                if connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one():
                    raise  # not a new file, one that has lost its list of tables
            return None

    def _unusable(self, error: exc.DatabaseError) -> str:
        found = None if error.orig is None else trouble(error.orig, self._path())
        if found in (FULL, NO_INODES):
            return f"the catalog {self._place()} cannot be written ({found.what}); nothing is lost, {found.remedy}"
        if found is not None:
            return f"the catalog {self._place()} cannot be used now ({found.what}); {found.remedy}"
        return f"the catalog {self._place()} cannot be used now ({_complaint(error)})"

    def _damaged(self, how: str) -> LibraryCorrupt:
        return door.damaged(self._place(), how)

    def _path(self) -> Path:
        return Path(self.engine.url.database or "")

    def _place(self) -> str:
        return self.engine.url.render_as_string(hide_password=True).removeprefix("sqlite:///")


def migrate(catalog: Catalog) -> None:
    """Bring the schema to `SCHEMA_REVISION`, all steps in one transaction.

    Raises: LibraryError when the database comes from a newer version.
    """
    from alembic import command  # imported here: half a second that only a new or an old library needs to spend
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with catalog.begin() as connection:
        config.attributes["connection"] = connection
        try:
            reach("migrate.beginning")
            command.upgrade(config, "head")
            reach("migrate.upgraded")
        except CommandError as error:
            raise LibraryError(f"this library was written by a newer mmsearch ({error}); update mmsearch") from error
    reach("migrate.committed")


def _wrong_row(connection: Connection, error: Exception) -> RowCorrupt | None:
    """The row that a complaint about a value is about, as an error that names it."""
    from indexer.catalog import wrong_rows  # needed here and by the doctor alone

    is_about_value = isinstance(error, (RowCorrupt, exc.DataError)) or "UTF-8" in str(error)
    return wrong_rows.first(connection) if is_about_value else None


def _complaint(error: exc.DatabaseError) -> str:
    return " ".join(str(error.orig).split())


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite" or not url.database:
        return create_engine(url)
    file = Path(url.database)
    writable = not readonly.is_read_only(file)
    if writable:
        engine = create_engine(url, creator=lambda: door.connect(file, "rwc"))
    else:
        engine = create_engine(url, creator=lambda: readonly.connect(file), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, door.CatalogConnection)
        driver.renew()
        connection.exec_driver_sql("BEGIN")

    if not writable:
        return engine

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver would open transactions late and close them before DDL; SQLAlchemy says BEGIN below instead.
        connection.isolation_level = None
        cursor = connection.cursor()
        # WAL: readers never wait for the writer. With WAL, NORMAL survives every crash of the process without loss, and
        # a power cut without damage (it may take back the last commits, which the next run encodes again); FULL would
        # add an fsync to every batch.
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return engine
