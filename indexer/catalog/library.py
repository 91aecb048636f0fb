"""The one row of `library`: the live model, the counter of changes, the time of the last run.

In: a writer's connection. Out: the model whose vectors are searched, numbers for changes. What only reads them is in
`reader.py`. Next: `roots.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, select, update

from indexer.base.types import Encoder, Model
from indexer.catalog.reader import live_model, mismatch
from indexer.catalog.schema import library, models


def now() -> datetime:
    """UTC without a zone, as SQLite keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def add_model(connection: Connection, encoder: Encoder) -> Model:
    """The row of `encoder`'s model, written if it is new."""
    query = select(models.c.id, models.c.fingerprint, models.c.name, models.c.dim)
    row = connection.execute(query.where(models.c.fingerprint == encoder.fingerprint)).one_or_none()
    if row is not None:
        return Model(*row)
    values = {"fingerprint": encoder.fingerprint, "name": encoder.name, "dim": encoder.dim}
    key = connection.execute(models.insert(), values).inserted_primary_key
    assert key is not None
    return Model(int(key[0]), encoder.fingerprint, encoder.name, encoder.dim)


def claim(connection: Connection, encoder: Encoder, where: Path) -> Model:
    """The live model, which must be `encoder`'s; an empty library takes it on. Raises: ModelMismatch."""
    model = live_model(connection)
    if model is None:
        model = add_model(connection, encoder)
        make_live(connection, model)
    if model.fingerprint != encoder.fingerprint:
        raise mismatch(where, model, encoder.fingerprint, encoder.name)
    return model


def make_live(connection: Connection, model: Model) -> None:
    """From now on the vectors of `model` are searched."""
    connection.execute(update(library).values(model_id=model.id))


def next_change(connection: Connection) -> int:
    """Count up: the number under which this transaction's changes to vectors are found by later readers."""
    connection.execute(update(library).values(change=library.c.change + 1))
    return int(connection.execute(select(library.c.change)).scalar_one())


def indexed(connection: Connection) -> None:
    """An index run has ended now."""
    connection.execute(update(library).values(indexed_at=now()))


def indexed_at(connection: Connection) -> datetime | None:
    """When the last index run ended, UTC."""
    when = connection.execute(select(library.c.indexed_at)).scalar_one()
    return when.replace(tzinfo=UTC) if when else None
