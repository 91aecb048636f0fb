"""What could not be taken in and is no file of its own: folders, rows of a captions.csv, sidecars.

In: a path below a root and a reason. Out: rows of `notices`; what `mmsearch errors` lists, with the files of `assets`
that could not be decoded. Next: `library.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select

from indexer.catalog.library import now
from indexer.catalog.roots import Root, Target
from indexer.catalog.schema import SKIPPED, assets, notices, roots
from indexer.catalog.scopes import within

Source = Literal["scan", "captions", "sidecar"]


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not in the library, and why; `when` is UTC."""

    path: Path
    reason: str
    when: datetime


def add(connection: Connection, root: Root, source: Source, rel_path: str, reason: str) -> None:
    """Note why something was not taken in."""
    values = {"root_id": root.id, "rel_path": rel_path, "source": source, "reason": reason, "noticed_at": now()}
    connection.execute(notices.insert(), values)


def forget(connection: Connection, root: Root, source: Source, rel_path: str) -> None:
    """Take back what was noted of one path."""
    mine = (notices.c.root_id == root.id, notices.c.source == source, notices.c.rel_path == rel_path)
    connection.execute(delete(notices).where(*mine))


def forget_below(connection: Connection, target: Target, source: Source, others: Iterable[str] = ()) -> None:
    """Take back what was noted within `target`, and of some other paths of its root."""
    meant = or_(within(notices.c.rel_path, target.prefix), notices.c.rel_path.in_(list(others)))
    mine = (notices.c.root_id == target.root.id, notices.c.source == source)
    connection.execute(delete(notices).where(*mine, meant))


def paths(connection: Connection, target: Target, source: Source) -> list[str]:
    """The paths within `target` of which something is noted."""
    query = select(notices.c.rel_path).where(_within(target), notices.c.source == source)
    return list(connection.scalars(query))


def count(connection: Connection, target: Target | None = None) -> int:
    """How much is noted within `target`, or at all."""
    query = select(func.count()).select_from(notices)
    query = query if target is None else query.where(_within(target))
    return int(connection.execute(query).scalar_one())


def skipped(connection: Connection) -> list[SkippedFile]:
    """Every recorded skip, by path: files that could not be decoded; folders and rows of captions that lead nowhere."""
    of_files = select(roots.c.path, assets.c.rel_path, assets.c.error, assets.c.seen_at)
    of_files = of_files.join(roots, roots.c.id == assets.c.root_id).where(assets.c.state == SKIPPED)
    others = select(roots.c.path, notices.c.rel_path, notices.c.reason, notices.c.noticed_at)
    others = others.join(roots, roots.c.id == notices.c.root_id)
    rows = [*connection.execute(of_files), *connection.execute(others)]
    found = [SkippedFile(Path(root) / path, reason, when.replace(tzinfo=UTC)) for root, path, reason, when in rows]
    return sorted(found, key=lambda one: (one.path, one.reason))


def _within(target: Target) -> ColumnElement[bool]:
    return and_(notices.c.root_id == target.root.id, within(notices.c.rel_path, target.prefix))
