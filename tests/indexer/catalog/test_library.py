"""The one row of the library: its model, and the counter of changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from indexer.base.errors import ModelMismatch
from indexer.base.types import Model
from indexer.catalog import library
from indexer.catalog.reader import last_change, live_model
from indexer.catalog.schema import library as row
from indexer.catalog.schema import models
from tests.fakes import FakeEncoder


def test_an_empty_library_takes_the_first_model_and_refuses_another(connection: Connection) -> None:
    assert live_model(connection) is None
    first = library.claim(connection, FakeEncoder(), Path("here"))
    assert live_model(connection) == first == Model(first.id, FakeEncoder().fingerprint, "fake", 16)
    assert library.claim(connection, FakeEncoder(), Path("here")) == first
    with pytest.raises(ModelMismatch, match=r"^library here was written with model 'fake' .*mmsearch rebuild"):
        library.claim(connection, FakeEncoder(seed=1), Path("here"))
    assert live_model(connection) == first


def test_a_model_is_one_row_whatever_it_is_called(connection: Connection) -> None:
    first = library.add_model(connection, FakeEncoder(name="a"))
    assert library.add_model(connection, FakeEncoder(name="b")) == first
    second = library.add_model(connection, FakeEncoder(seed=1))
    assert second.id != first.id
    assert connection.execute(select(func.count()).select_from(models)).scalar_one() == 2
    library.make_live(connection, second)
    assert live_model(connection) == second


def test_changes_count_up(connection: Connection) -> None:
    before = last_change(connection)
    assert [library.next_change(connection) for _ in range(3)] == [before + 1, before + 2, before + 3]
    assert last_change(connection) == before + 3


def test_the_end_of_a_run_is_noted_in_utc(connection: Connection) -> None:
    assert connection.execute(select(row.c.indexed_at)).scalar_one() is None
    library.indexed(connection)
    noted = connection.execute(select(row.c.indexed_at)).scalar_one()
    assert noted.tzinfo is None
    assert abs(noted.replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(seconds=30)
