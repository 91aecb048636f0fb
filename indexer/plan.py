"""What changed since last time, by name, size and time of modification alone: no file is opened here.

In: a scan and the catalog. Out: `Plan`: files to load, files that came back, files that are gone. Next: `pipeline.py`,
which loads; whether a file to load is new, changed, moved or merely touched shows by its content there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, or_, select, true

from indexer.catalog import Model
from indexer.kinds import is_remedied
from indexer.roots import Target
from indexer.scan import Scan
from indexer.schema import LIVE, MISSING, OWN, SKIPPED, assets, vectors
from indexer.types import Modality


@dataclass(frozen=True, slots=True)
class Job:
    """A file to load. `asset_id` and `content_hash` are those on record, None for a path never seen."""

    rel_path: str
    modality: Modality
    asset_id: int | None
    content_hash: bytes | None  # None also when the content must be encoded whatever it is


@dataclass
class Plan:
    """Everything `ingest` has to do about one target."""

    jobs: list[Job] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    unchanged: int = 0
    still_skipped: int = 0

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.jobs or self.returned or self.missing)


def plan_for(connection: Connection, target: Target, scan: Scan, model: Model) -> Plan:
    """Compare a scan with the catalog's files below the same folder."""
    plan = Plan()
    known = {row.rel_path: row for row in _known(connection, target, model)}
    for file in scan.found:
        if file.role == "captions" or file.role == "sidecar":
            continue
        row = known.pop(file.rel_path, None)
        if row is None:
            plan.jobs.append(Job(file.rel_path, file.role, None, None))
            continue
        same = row.size_bytes == file.size_bytes and row.mtime_ns == file.mtime_ns
        if same and row.error is not None and not is_remedied(row.error):
            plan.still_skipped += 1
        elif same and row.error is None and row.has_vector:
            plan.unchanged += 1
        else:
            content_hash = row.content_hash if row.has_vector else None
            plan.jobs.append(Job(file.rel_path, file.role, row.id, content_hash))
            continue
        if row.state == MISSING:
            plan.returned.append(row.id)
    unreadable = [unseen.rel_path for unseen in scan.unseen if unseen.is_folder]
    plan.missing = [
        row.id for row in known.values() if row.state != MISSING and not _below_any(row.rel_path, unreadable)
    ]
    return plan


def below(target: Target) -> ColumnElement[bool]:
    """The condition that an asset lies within `target`."""
    return and_(assets.c.root_id == target.root.id, within(assets.c.rel_path, target.prefix))


def count_live(connection: Connection, target: Target) -> int:
    """The files of `target` that can be found when it is online."""
    query = select(func.count()).select_from(assets).where(below(target), assets.c.state == LIVE)
    return int(connection.execute(query).scalar_one())


def within(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """The condition that a path is `prefix` or below it; everything is below ''."""
    if not prefix:
        return true()
    return or_(column == prefix, and_(column > prefix + "/", column < prefix + "0"))  # '0' follows '/'


def settled_state(error: str | None) -> str:
    """The state of a file that is there: with the error on record, or without."""
    return LIVE if error is None else SKIPPED


def _known(connection: Connection, target: Target, model: Model) -> Iterable[Row[Any]]:
    own = exists().where(
        vectors.c.asset_id == assets.c.id,
        vectors.c.model_id == model.id,
        vectors.c.role == OWN,
        vectors.c.caption_id.is_(None),
        vectors.c.mu.is_not(None),
    )
    columns = (assets.c.id, assets.c.rel_path, assets.c.state, assets.c.error, assets.c.size_bytes, assets.c.mtime_ns)
    query = select(*columns, assets.c.content_hash, own.label("has_vector")).where(below(target))
    return connection.execute(query).all()


def _below_any(rel_path: str, folders: list[str]) -> bool:
    return any(not folder or rel_path.startswith(folder + "/") for folder in folders)
