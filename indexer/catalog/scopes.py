"""Which rows are meant: the files of a target, the paths below a folder, lists of ids that fit one statement.

In: ids, a `Target`. Out: conditions of SQLAlchemy, for every module here that writes. Next: `assets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from sqlalchemy import ColumnElement, and_, exists, or_, true

from indexer.base.types import Model
from indexer.catalog.roots import Target
from indexer.catalog.schema import OWN, assets, vectors

Key = TypeVar("Key")
CHUNK: Final = 500  # ids in one statement; SQLite's limit on parameters was 999 for long


def chunked(ids: Iterable[Key]) -> Iterator[list[Key]]:
    """Ids, or other keys, in lists that fit one statement."""
    whole = list(ids)
    for start in range(0, len(whole), CHUNK):
        yield whole[start : start + CHUNK]


def within(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """The condition that a path is `prefix` or below it; everything is below ''."""
    if not prefix:
        return true()
    return or_(column == prefix, and_(column > prefix + "/", column < prefix + "0"))  # '0' follows '/'


def below(target: Target) -> ColumnElement[bool]:
    """The condition that an asset lies within `target`."""
    return and_(assets.c.root_id == target.root.id, within(assets.c.rel_path, target.prefix))


def own_of(model: Model) -> ColumnElement[bool]:
    """The condition of an own vector of a file, made by `model`, that can be used."""
    is_own = and_(vectors.c.role == OWN, vectors.c.caption_id.is_(None))
    return and_(vectors.c.model_id == model.id, is_own, vectors.c.mu.is_not(None))


def is_encoded(model: Model) -> ColumnElement[bool]:
    """The condition of an asset that has such a vector."""
    return exists().where(vectors.c.asset_id == assets.c.id, own_of(model))
