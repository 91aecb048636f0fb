"""How many rows there are of what, and which files could not be taken in.

In: a snapshot. Out: counts and reasons as typed rows, for `mmsearch status` and `mmsearch errors`. Nothing here writes.
Next: `checks.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from indexer.catalog.schema import LIVE, SKIPPED, assets, captions, library, notices, roots


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not in the library, and why; `when` is UTC."""

    path: Path
    reason: str
    when: datetime


def files(connection: Connection) -> dict[tuple[int, str, str], int]:
    """How many files have one root, one modality and one state. Every file is in one of these counts."""
    groups = (assets.c.root_id, assets.c.modality, assets.c.state)
    rows = connection.execute(select(*groups, func.count()).group_by(*groups))
    return {(root_id, modality, state): count for root_id, modality, state, count in rows}


def live_captions(connection: Connection, root_ids: Collection[int]) -> int:
    """The live captions of the live photos of some roots."""
    query = select(func.count()).select_from(captions.join(assets, assets.c.id == captions.c.asset_id))
    query = query.where(captions.c.live, assets.c.state == LIVE, assets.c.root_id.in_(list(root_ids)))
    return int(connection.execute(query).scalar_one())


def noticed(connection: Connection) -> int:
    """What could not be taken in and is no file."""
    return int(connection.execute(select(func.count()).select_from(notices)).scalar_one())


def indexed_at(connection: Connection) -> datetime | None:
    """When the last index run ended, UTC."""
    when = connection.execute(select(library.c.indexed_at)).scalar_one()
    return when.replace(tzinfo=UTC) if when else None


def skipped(connection: Connection) -> list[SkippedFile]:
    """Every recorded skip, by path: files that could not be decoded; folders and rows of captions that lead nowhere."""
    of_files = select(roots.c.path, assets.c.rel_path, assets.c.error, assets.c.seen_at)
    of_files = of_files.join(roots, roots.c.id == assets.c.root_id).where(assets.c.state == SKIPPED)
    others = select(roots.c.path, notices.c.rel_path, notices.c.reason, notices.c.noticed_at)
    others = others.join(roots, roots.c.id == notices.c.root_id)
    rows = [*connection.execute(of_files), *connection.execute(others)]
    found = [SkippedFile(Path(root) / path, reason, when.replace(tzinfo=UTC)) for root, path, reason, when in rows]
    return sorted(found, key=lambda one: (one.path, one.reason))
