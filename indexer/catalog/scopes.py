"""Which rows are meant: the files of a target, the paths below a folder, lists of ids that fit one statement.

In: ids, a `Target`. Out: conditions of SQLAlchemy, for every module here that writes. Next: `assets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import ColumnElement, and_, or_, true

from indexer.catalog.roots import Target
from indexer.catalog.schema import assets

CHUNK: Final = 500  # ids in one statement; SQLite's limit on parameters was 999 for long


def chunked(ids: Iterable[int]) -> Iterator[list[int]]:
    """Ids in lists that fit one statement."""
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
