"""What each vector stands for: `vectors.kind`, which follows from states, captions and fusions, and from nothing else.

In: nothing. Out: triggers that keep `kind` in step within every transaction that changes what it follows from, so that
no writer has to; the count of rows that are out of step, which none should be. An index file catches up by the rows
whose `change` is newer than itself: whoever writes a vector gives it a new one, and the triggers pass that on to the
vectors that are found, or hidden, because of it. Next: `database.py`.

A migration that rebuilds `vectors`, `assets` or `captions` drops their triggers: it has to call `create` again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Update, and_, case, exists, func, literal_column, or_, select, update
from sqlalchemy.dialects import sqlite

from indexer.base.types import Model
from indexer.catalog.library import next_change
from indexer.catalog.schema import CAPTION, FUSED, HIDDEN, IMAGE, LIVE, TEXT, assets, captions, library, vectors


def _kind() -> ColumnElement[int]:
    asset, photo, fused, caption = assets.alias(), assets.alias(), vectors.alias(), captions.alias()
    is_live = exists().where(asset.c.id == vectors.c.asset_id, asset.c.state == LIVE)
    is_image = exists().where(asset.c.id == vectors.c.asset_id, asset.c.modality == "image")
    is_spoken = exists().where(caption.c.id == vectors.c.caption_id, caption.c.live)
    same_asset = and_(fused.c.asset_id == vectors.c.asset_id, fused.c.model_id == vectors.c.model_id)
    is_fused = exists().where(same_asset, fused.c.role == FUSED, fused.c.mu.is_not(None))
    is_caption = exists().where(
        caption.c.text_asset_id == vectors.c.asset_id,
        caption.c.live,
        photo.c.id == caption.c.asset_id,
        photo.c.state == LIVE,
    )
    return case(
        (or_(vectors.c.mu.is_(None), ~is_live), HIDDEN),
        (vectors.c.caption_id.is_not(None), case((is_spoken, CAPTION), else_=HIDDEN)),
        (vectors.c.role == FUSED, IMAGE),
        (is_image, case((is_fused, HIDDEN), else_=IMAGE)),
        else_=case((is_caption, CAPTION), else_=TEXT),
    )


KIND: Final = _kind()  # of a row of `vectors`


def stale(connection: Connection, model: Model) -> int:
    """How many vectors of `model` have a kind that does not follow."""
    query = select(func.count()).select_from(vectors).where(vectors.c.model_id == model.id, vectors.c.kind != KIND)
    return int(connection.execute(query).scalar_one())


def refresh(connection: Connection) -> None:
    """Give every vector the kind that follows: after damage, and where there were no triggers yet."""
    is_stale = vectors.c.kind != KIND
    if connection.execute(select(vectors.c.id).where(is_stale).limit(1)).first() is not None:
        change = next_change(connection)
        connection.execute(update(vectors).where(is_stale).values(kind=KIND, change=change))


def create(connection: Connection) -> None:
    """Make the triggers."""
    for name, (event, when, steps) in _triggers().items():
        body = " ".join(f"{step};" for step in steps)
        connection.exec_driver_sql(f"CREATE TRIGGER {name} AFTER {event} WHEN {when} BEGIN {body} END")


def drop(connection: Connection) -> None:
    """Take them away."""
    for name in _triggers():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")


def _triggers() -> dict[str, tuple[str, str, list[str]]]:
    """By name: the event, when it counts, what follows."""
    new, old = _of("NEW"), _of("OLD")
    count = _sql(update(library).values(change=library.c.change + 1))
    counted = select(library.c.change).scalar_subquery()
    texts_of_photo = select(captions.c.text_asset_id).where(captions.c.asset_id == new("id"))
    same_file = and_(vectors.c.asset_id == new("asset_id"), vectors.c.model_id == new("model_id"))
    was_same_file = and_(vectors.c.asset_id == old("asset_id"), vectors.c.model_id == old("model_id"))
    return {
        "kind_of_own": (
            "INSERT ON vectors",
            f"NEW.role <> '{FUSED}'",
            [_sql(update(vectors).where(vectors.c.id == new("id")).values(kind=KIND))],
        ),
        "kind_of_fused": ("INSERT ON vectors", f"NEW.role = '{FUSED}'", [_refresh(same_file, new("change"))]),
        "kind_of_vector": (
            "UPDATE OF mu ON vectors",
            "(NEW.mu IS NULL) <> (OLD.mu IS NULL)",
            [_refresh(same_file, new("change"))],
        ),
        "kind_without_fused": (
            "DELETE ON vectors",
            f"OLD.role = '{FUSED}' AND OLD.mu IS NOT NULL",
            [count, _refresh(was_same_file, counted)],
        ),
        "kind_by_state": (
            "UPDATE OF state, modality ON assets",
            "NEW.state <> OLD.state OR NEW.modality <> OLD.modality",
            [
                count,
                _refresh(vectors.c.asset_id == new("id"), counted),
                _refresh(vectors.c.asset_id.in_(texts_of_photo), counted),
            ],
        ),
        "kind_with_caption": (
            "INSERT ON captions",
            "NEW.text_asset_id IS NOT NULL",
            [count, _refresh(vectors.c.asset_id == new("text_asset_id"), counted)],
        ),
        "kind_by_caption": (
            "UPDATE OF live, asset_id, text_asset_id ON captions",
            "true",
            [
                count,
                _refresh(vectors.c.caption_id == new("id"), counted),
                _refresh(vectors.c.asset_id.in_([new("text_asset_id"), old("text_asset_id")]), counted),
            ],
        ),
        "kind_without_caption": (
            "DELETE ON captions",
            "OLD.text_asset_id IS NOT NULL",
            [count, _refresh(vectors.c.asset_id == old("text_asset_id"), counted)],
        ),
    }


def _refresh(scope: ColumnElement[bool], change: ColumnElement[int]) -> str:
    return _sql(update(vectors).where(scope, vectors.c.kind != KIND).values(kind=KIND, change=change))


def _of(row: str) -> Callable[[str], ColumnElement[Any]]:
    """The columns of the row that a trigger is about, NEW or OLD."""
    return lambda column: literal_column(f"{row}.{column}")


def _sql(statement: Update) -> str:
    return str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
