"""What is expected of a schema is what the migrations make, at every revision and from every revision on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import indexer
from indexer.catalog.known_schema import KNOWN, SCHEMA_REVISION, Schema, digest


def made(path: Path, *revisions: str) -> Schema:
    """The schema after the migrations up to each revision in turn."""
    config = Config()
    config.set_main_option("script_location", str(Path(indexer.__file__).parent / "catalog" / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    for revision in revisions:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return {(kind, name, table): digest(sql) for kind, name, table, sql in rows}


def lines(schema: Schema) -> list[str]:
    """As they stand in `known_schema.py`."""
    return [" ".join((*thing, made_by)) for thing, made_by in sorted(schema.items())]


@pytest.mark.parametrize("revision", KNOWN)
def test_the_migrations_make_what_is_expected(tmp_path: Path, revision: str) -> None:
    assert lines(made(tmp_path / "c.sqlite", revision)) == lines(KNOWN[revision])


def test_step_by_step_they_make_the_same(tmp_path: Path) -> None:
    assert lines(made(tmp_path / "c.sqlite", *KNOWN)) == lines(KNOWN[SCHEMA_REVISION])


def test_the_newest_is_the_last() -> None:
    assert list(KNOWN) == sorted(KNOWN)
    assert list(KNOWN)[-1] == SCHEMA_REVISION


def test_white_space_does_not_count_and_everything_else_does() -> None:
    assert digest("CREATE TABLE a (\n\tb TEXT, \n\tc BLOB\n)") == digest("CREATE TABLE  a ( b TEXT, c BLOB )")
    others = ["CREATE TABLE a (b TEXT)", "CREATE TABLE a (b text)", "CREATE TABLE a (b\u00a0TEXT)", b"CREATE", None, 1]
    assert len({digest(one) for one in others}) == 5  # bytes and numbers are no statements
    assert digest(None) == "-"
