"""The door: what is not a plain catalog of ours is refused before SQLite obeys it."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from indexer.base.errors import LibraryCorrupt, LibraryError, NotPlainFile, SchemaOutdated
from indexer.catalog import door
from indexer.catalog.database import Catalog
from indexer.catalog.door import SUPER_JOURNAL, connect
from indexer.catalog.reader import CatalogReader

PAGE_BYTES = 4096


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "library" / "catalog.sqlite"
    path.parent.mkdir()
    Catalog.open(path, migrate_schema=True).close()
    return path


def change(catalog: Path, *statements: str) -> None:
    """Other programs write what they like."""
    with closing(sqlite3.connect(catalog, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)


def journal(catalog: Path, named: bytes = b"", *, header: bool = True) -> Path:
    """A journal to roll back, which may name a super-journal."""
    path = catalog.with_name("catalog.sqlite-journal")
    pages = catalog.stat().st_size // PAGE_BYTES
    head = SUPER_JOURNAL + struct.pack(">IIIII", 0, 7, pages, 512, PAGE_BYTES) if header else b"\0" * 28
    tail = b""
    if named:
        tail = struct.pack(">I", 0x40000000 // PAGE_BYTES + 1) + named
        tail += struct.pack(">II", len(named), sum(named)) + SUPER_JOURNAL
    path.write_bytes(head.ljust(512, b"\0") + tail)
    return path


def test_a_catalog_of_ours_opens_in_every_way(catalog: Path) -> None:
    for how in ("rwc", "rw", "ro", "immutable"):
        with closing(connect(catalog, how)) as connection:
            assert connection.execute("SELECT count(*) FROM assets").fetchall() == [(0,)]
            assert connection.execute("PRAGMA trusted_schema").fetchall() == [(0,)]
            assert connection.execute("PRAGMA cell_size_check").fetchall() == [(1,)]


def test_a_new_catalog_is_made_and_an_empty_one_is_no_damage(tmp_path: Path) -> None:
    connect(tmp_path / "new.sqlite", "rwc").close()
    (tmp_path / "empty.sqlite").touch()
    connect(tmp_path / "empty.sqlite", "rw").close()
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "none.sqlite", "rw")
    assert not (tmp_path / "none.sqlite").exists()


def test_one_connection_has_one_file(catalog: Path, tmp_path: Path) -> None:
    with closing(connect(catalog, "rw")) as connection, pytest.raises(sqlite3.OperationalError, match="attached"):
        connection.execute("ATTACH ? AS other", (str(tmp_path / "other"),))


@pytest.mark.parametrize("beside", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder", *["pipe"] * hasattr(os, "mkfifo")])
def test_links_and_devices_are_refused_and_lead_nowhere(catalog: Path, tmp_path: Path, beside: str, kind: str) -> None:
    path = catalog.with_name(catalog.name + beside)
    outside = tmp_path / "outside"
    if beside:
        outside.write_bytes(b"precious")
    else:
        catalog.rename(outside)
    before = outside.read_bytes()
    makers: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(outside),
        "dangling link": lambda: path.symlink_to(tmp_path / "nothing"),
        "hard link": lambda: path.hardlink_to(outside),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    makers[kind]()
    for how in ("rwc", "rw", "ro", "immutable"):
        with pytest.raises(NotPlainFile, match="plain files only"):
            connect(catalog, how)
    assert CatalogReader.open(catalog) is None
    assert outside.read_bytes() == before
    assert not (tmp_path / "nothing").exists()


def test_two_names_in_the_library_are_no_way_out(catalog: Path, tmp_path: Path) -> None:
    """A crash while a damaged catalog is set aside leaves them."""
    catalog.with_name("catalog.sqlite.bad-20260101T000000").hardlink_to(catalog)
    connect(catalog, "rw").close()
    (tmp_path / "outside").hardlink_to(catalog)
    with pytest.raises(NotPlainFile):
        connect(catalog, "rw")


@pytest.mark.parametrize("header", [True, False])
def test_a_journal_that_names_a_file_is_refused_and_the_file_stays(catalog: Path, tmp_path: Path, header: bool) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = journal(catalog, str(victim).encode(), header=header)
    for how in ("rwc", "rw", "ro", "immutable"):
        with pytest.raises(LibraryError, match="names another file") as caught:
            connect(catalog, how)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, LibraryCorrupt)
    assert victim.read_bytes() == b"precious"
    assert path.exists()


def test_sqlite_would_have_deleted_it(catalog: Path, tmp_path: Path) -> None:
    """The test above is about a real danger: without the door the file is gone."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    journal(catalog, str(victim).encode())
    with closing(sqlite3.connect(catalog)) as connection:
        connection.execute("SELECT count(*) FROM assets").fetchall()
    assert not victim.exists()


def test_a_journal_of_a_crash_is_rolled_back(catalog: Path) -> None:
    """On a disk that cannot keep a log, and while a catalog is made, SQLite keeps a journal."""
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode = DELETE')\n"
        "connection.execute('PRAGMA cache_size = 1')\n"
        "connection.execute('BEGIN')\n"
        "connection.execute('UPDATE library SET change = 7')\n"
        "rows = [(n, str(n), 'm' * 999) for n in range(99)]\n"
        "connection.executemany('INSERT INTO models VALUES (?, ?, ?, 16)', rows)\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(catalog)], check=False).returncode == 9
    left = catalog.with_name("catalog.sqlite-journal")
    assert left.stat().st_size > 512
    with closing(connect(catalog, "rw")) as connection:
        assert connection.execute("SELECT change FROM library").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM models").fetchall() == [(0,)]
    assert not left.exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 512, SUPER_JOURNAL[:4]])
def test_what_is_no_journal_any_more_is_left_alone(catalog: Path, content: bytes) -> None:
    catalog.with_name("catalog.sqlite-journal").write_bytes(content)
    connect(catalog, "rw").close()


def without(catalog: Path, table: str, column: str, by: str) -> None:
    """The table is made anew with one column declared otherwise."""
    with closing(sqlite3.connect(catalog)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        assert column in sql
    change(
        catalog,
        f"UPDATE sqlite_master SET sql = '{sql.replace(column, by).replace(chr(39), chr(39) * 2)}' "
        f"WHERE name = '{table}'",
    )


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x"
STRANGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a view in a table's place": (
        "view 'notices'",
        lambda c: change(
            c,
            "DROP TABLE notices",
            f"CREATE VIEW notices AS {ENDLESS} AS id, x AS root_id, x AS rel_path, x AS source, x AS reason, "
            "x AS noticed_at FROM n",
        ),
    ),
    "a view in the version's place": (
        "view 'alembic_version'",
        lambda c: change(
            c, "DROP TABLE alembic_version", f"CREATE VIEW alembic_version AS {ENDLESS} AS version_num FROM n"
        ),
    ),
    "a trigger": (
        "trigger 'evil'",
        lambda c: change(
            c, "CREATE TRIGGER evil AFTER UPDATE ON library BEGIN UPDATE assets SET error = 'changed'; END"
        ),
    ),
    "a trigger of ours that does more": (
        "trigger 'kind_of_own'",
        lambda c: change(
            c,
            "DROP TRIGGER kind_of_own",
            "CREATE TRIGGER kind_of_own AFTER INSERT ON vectors BEGIN DELETE FROM assets; END",
        ),
    ),
    "a table more, with a trigger": (
        "table 'more'",
        lambda c: change(
            c,
            "CREATE TABLE more (x)",
            "CREATE TRIGGER evil AFTER INSERT ON more BEGIN DELETE FROM assets; END",
        ),
    ),
    "a generated column": (
        "table 'notices'",
        lambda c: without(c, "notices", "reason TEXT NOT NULL", "reason TEXT AS (hex(zeroblob(id)))"),
    ),
    "a constraint": (
        "table 'notices'",
        lambda c: without(c, "notices", "reason TEXT NOT NULL", "reason TEXT CHECK (length(hex(zeroblob(9))))"),
    ),
    "a default": (
        "table 'notices'",
        lambda c: without(c, "notices", "reason TEXT NOT NULL", "reason TEXT DEFAULT (randomblob(9)) NOT NULL"),
    ),
    "an index on an expression": (
        "index 'evil'",
        lambda c: change(c, "CREATE INDEX evil ON notices (hex(zeroblob(id)))"),
    ),
    "an index with a condition": (
        "index 'ix_notices_root_id'",
        lambda c: change(
            c,
            "DROP INDEX ix_notices_root_id",
            "CREATE INDEX ix_notices_root_id ON notices (root_id) WHERE length(reason) > 9",
        ),
    ),
    "a table with another name": (
        "table 'renamed'",
        lambda c: change(c, "ALTER TABLE notices RENAME TO renamed"),
    ),
    "a table without row ids": (
        "table 'models'",
        lambda c: without(c, "models", "UNIQUE (fingerprint)\n)", "UNIQUE (fingerprint)\n) WITHOUT ROWID"),
    ),
    "a virtual table": (
        "table 'evil",
        lambda c: change(c, "CREATE VIRTUAL TABLE evil USING fts5(x)"),
    ),
    "a module that is not there": (
        "table 'evil'",
        lambda c: change(
            c,
            "INSERT INTO sqlite_master VALUES ('table', 'evil', 'evil', 0, 'CREATE VIRTUAL TABLE evil USING none(x)')",
        ),
    ),
    "a comment": (
        "table 'notices'",
        lambda c: without(c, "notices", "reason TEXT", "reason /* more */ TEXT"),
    ),
    "a table less": ("table 'about'", lambda c: change(c, "DROP TABLE about")),
    "no index": ("index 'ix_about_asset_id'", lambda c: change(c, "DROP INDEX ix_about_asset_id")),
    "a statement that is none": (
        "malformed",
        lambda c: change(c, "UPDATE sqlite_master SET sql = 'CREATE nothing' WHERE name = 'notices'"),
    ),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_schema_that_is_not_ours_is_named(catalog: Path, strange: str) -> None:
    named, spoil = STRANGE[strange]
    spoil(catalog)
    assert CatalogReader.open(catalog) is None
    for migrate_schema in (False, True):
        with pytest.raises(LibraryCorrupt, match=named) as caught:
            Catalog.open(catalog, migrate_schema=migrate_schema)
        assert str(caught.value).endswith("run 'mmsearch doctor --repair'")
        assert "\n" not in str(caught.value)


def test_names_of_objects_come_without_control_characters(catalog: Path) -> None:
    change(catalog, 'CREATE TABLE "\x1b]0;x\x07\x9b\n" (x)')
    with pytest.raises(LibraryCorrupt) as caught:
        connect(catalog, "rw")
    assert str(caught.value).isprintable()


def test_a_million_tables_are_not_read(catalog: Path) -> None:
    rows = (f"('table', 't{n}', 't{n}', 2, 'CREATE TABLE t{n} (x)')" for n in range(100_000))
    change(catalog, f"INSERT INTO sqlite_master VALUES {', '.join(rows)}")
    started = time.perf_counter()
    with pytest.raises(LibraryCorrupt, match="does not end"):
        connect(catalog, "rw")
    assert time.perf_counter() - started < 5


def test_what_analyze_leaves_is_allowed(catalog: Path) -> None:
    change(catalog, "INSERT INTO models VALUES (1, 'f', 'n', 16)", "ANALYZE")
    connect(catalog, "rw").close()


def test_a_newer_version_is_told_from_damage(catalog: Path) -> None:
    change(catalog, "CREATE TABLE more (x)", "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(SchemaOutdated, match=r"0999.*update mmsearch"):
        connect(catalog, "rw")


def test_a_long_value_is_not_read_from_a_small_file(catalog: Path) -> None:
    with closing(connect(catalog, "rw")) as connection, pytest.raises(sqlite3.DataError, match="too big"):
        connection.execute("SELECT zeroblob(100000000)").fetchall()


def test_a_statement_without_end_is_stopped(catalog: Path) -> None:
    opened = Catalog.open(catalog, migrate_schema=False)
    with pytest.raises(LibraryCorrupt, match="does not end") as caught, opened.begin() as connection:
        connection.exec_driver_sql(f"SELECT count(*) FROM ({ENDLESS} FROM n)")
    assert "\n" not in str(caught.value)
    with opened.begin() as connection:  # the next one has a budget of its own
        assert connection.exec_driver_sql("SELECT count(*) FROM assets").scalar_one() == 0
    opened.close()
    reader = CatalogReader.open(catalog)
    assert reader is not None
    with pytest.raises(LibraryCorrupt, match="does not end"), reader.begin() as plain:
        plain.execute(f"SELECT count(*) FROM ({ENDLESS} FROM n)").fetchall()
    reader.close()


def test_a_writer_has_more_when_its_file_has_grown(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LEAST_STEPS", 100_000)
    count = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) SELECT count(*) FROM n"
    with closing(connect(catalog, "rw")) as connection:
        connection.renew()
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute(count)
        assert isinstance(door.stopped(caught.value), LibraryCorrupt)
        connection.execute("PRAGMA cache_size = 1")
        connection.renew()
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO models VALUES (?, ?, ?, 16)", [(n, str(n), "m" * 9999) for n in range(99)])
        assert connection.execute(count).fetchall() == [(300_000,)]


@pytest.mark.parametrize("fetch", ["fetchall", "fetchmany", "fetchone", "next"])
def test_no_more_rows_come_than_the_catalog_can_hold(catalog: Path, fetch: str) -> None:
    rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60000) SELECT x FROM n"
    seen = 0

    def look(cursor: sqlite3.Cursor) -> None:
        nonlocal seen
        if fetch == "fetchall":
            cursor.fetchall()
        elif fetch == "fetchmany":
            while page := cursor.fetchmany(100):
                seen += len(page)
        elif fetch == "fetchone":
            while cursor.fetchone():
                seen += 1
        else:
            for _ in cursor:
                seen += 1

    with closing(connect(catalog, "rw")) as connection:
        with pytest.raises(LibraryCorrupt, match="does not end"):
            look(connection.execute(rows))
        assert seen < 20_000
        connection.execute("BEGIN")  # rows that it writes itself are in no file yet
        connection.executemany("INSERT INTO models VALUES (?, ?, '', 16)", [(n, str(n)) for n in range(60_000)])
        assert len(connection.execute("SELECT * FROM models").fetchall()) == 60_000


def test_ctrl_c_ends_a_statement(catalog: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from indexer.catalog import door\n"
        "from indexer.catalog.database import Catalog\n"
        "door.LEAST_STEPS = 10**12\n"
        "catalog = Catalog.open(Path(sys.argv[1]), migrate_schema=False)\n"
        "try:\n"
        "    with catalog.begin() as connection:\n"
        "        print('begun', flush=True)\n"
        f"        connection.exec_driver_sql('SELECT count(*) FROM ({ENDLESS} FROM n)')\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(catalog)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[0] == "ended\n"
        assert process.returncode == 0
