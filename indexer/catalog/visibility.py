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

from indexer.base.types import CAPTION, HIDDEN, IMAGE, TEXT, Model
from indexer.catalog.library import next_change
from indexer.catalog.schema import FUSED, LIVE, assets, captions, library, vectors


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
    for name, rule in _triggers().items():
        connection.exec_driver_sql(f"CREATE TRIGGER {name} {rule}")


def drop(connection: Connection) -> None:
    """Take them away."""
    for name in _triggers():
        connection.exec_driver_sql(f"DROP TRIGGER {name}")


def _triggers() -> dict[str, str]:
    """By name: after which event, when it counts, what follows."""
    new, old = _of("NEW"), _of("OLD")
    count = _sql(update(library).values(change=library.c.change + 1))
    counted = select(library.c.change).scalar_subquery()
    same_file = and_(vectors.c.asset_id == new("asset_id"), vectors.c.model_id == new("model_id"))
    was_same_file = and_(vectors.c.asset_id == old("asset_id"), vectors.c.model_id == old("model_id"))
    own = _sql(update(vectors).where(vectors.c.id == new("id")).values(kind=KIND))
    fused = _refresh(same_file, new("change"))
    unfused = [count, _refresh(was_same_file, counted)]
    texts_of_photo = select(captions.c.text_asset_id).where(captions.c.asset_id == new("id"))
    of_asset = (vectors.c.asset_id == new("id"), vectors.c.asset_id.in_(texts_of_photo))
    by_state = [count, *(_refresh(scope, counted) for scope in of_asset)]
    texts = vectors.c.asset_id.in_([new("text_asset_id"), old("text_asset_id")])
    by_caption = [count, _refresh(vectors.c.caption_id == new("id"), counted), _refresh(texts, counted)]
    said = [count, _refresh(vectors.c.asset_id == new("text_asset_id"), counted)]
    unsaid = [count, _refresh(vectors.c.asset_id == old("text_asset_id"), counted)]
    other_state = "NEW.state <> OLD.state OR NEW.modality <> OLD.modality"
    return {
        "kind_of_own": _after("INSERT ON vectors", f"NEW.role <> '{FUSED}'", own),
        "kind_of_fused": _after("INSERT ON vectors", f"NEW.role = '{FUSED}'", fused),
        "kind_of_vector": _after("UPDATE OF mu ON vectors", "(NEW.mu IS NULL) <> (OLD.mu IS NULL)", fused),
        "kind_without_fused": _after("DELETE ON vectors", f"OLD.role = '{FUSED}' AND OLD.mu IS NOT NULL", *unfused),
        "kind_by_state": _after("UPDATE OF state, modality ON assets", other_state, *by_state),
        "kind_with_caption": _after("INSERT ON captions", "NEW.text_asset_id IS NOT NULL", *said),
        "kind_by_caption": _after("UPDATE OF live, asset_id, text_asset_id ON captions", "true", *by_caption),
        "kind_without_caption": _after("DELETE ON captions", "OLD.text_asset_id IS NOT NULL", *unsaid),
    }


def _after(event: str, when: str, *steps: str) -> str:
    return f"AFTER {event} WHEN {when} BEGIN {' '.join(f'{step};' for step in steps)} END"


def _refresh(scope: ColumnElement[bool], change: ColumnElement[int]) -> str:
    return _sql(update(vectors).where(scope, vectors.c.kind != KIND).values(kind=KIND, change=change))


def _of(row: str) -> Callable[[str], ColumnElement[Any]]:
    """The columns of the row that a trigger is about, NEW or OLD."""
    return lambda column: literal_column(f"{row}.{column}")


def _sql(statement: Update) -> str:
    return str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
