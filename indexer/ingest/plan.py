"""What changed since last time, by name, size and time of modification alone: no file is opened here.

In: a scan and the catalog. Out: `Plan`: files to load, files that came back, files that are gone. Next: `pipeline.py`,
which loads; whether a file to load is new, changed, moved or merely touched shows by its content there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    and_,
    exists,
    func,
    or_,
    select,
    true,
    type_coerce,
)

from indexer.base.types import Modality
from indexer.catalog.database import Model
from indexer.catalog.roots import Target
from indexer.catalog.schema import LIVE, MISSING, OWN, SKIPPED, assets, vectors
from indexer.files.kinds import is_remedied
from indexer.files.scan import Scan

PAGE = 500  # rows at a time; also ids in one statement

Rows = Sequence[Any]


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
    excluded: int = 0  # of those missing

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.jobs or self.returned or self.missing)


def plan_for(connection: Connection, target: Target, scan: Scan, model: Model) -> Plan:
    """Compare a scan with the catalog's files below the same folder: one pass over each, nothing kept of what is same.

    A list of all rows would take half a kilobyte a file, three times what the scan itself does.
    """
    plan = Plan()
    left = {file.rel_path: file for file in scan.found if file.role in ("image", "text")}
    changed: dict[str, tuple[int, bool]] = {}  # path -> id, whether it has a vector
    unreadable = [unseen.rel_path for unseen in scan.unreadable if unseen.is_folder]
    for page in _known(connection, target, model):
        for number, path, state, error, size_bytes, mtime_ns, has_vector in page:
            rel_path = os.fsdecode(bytes(path))
            file = left.get(rel_path)
            if file is None:
                if state != MISSING and not _below_any(rel_path, unreadable):
                    plan.missing.append(number)
                    plan.excluded += scan.excludes(rel_path)
                continue
            is_same = size_bytes == file.size_bytes and mtime_ns == file.mtime_ns
            if is_same and error is not None and not is_remedied(error):
                plan.still_skipped += 1
            elif is_same and error is None and has_vector:
                plan.unchanged += 1
            else:
                changed[rel_path] = (number, bool(has_vector))
                continue
            del left[rel_path]
            if state == MISSING:
                plan.returned.append(number)
    hashes = _hashes(connection, [number for number, has_vector in changed.values() if has_vector])
    for rel_path, file in left.items():  # in the order of the scan
        number, _ = changed.get(rel_path, (None, False))
        plan.jobs.append(Job(rel_path, cast(Modality, file.role), number, hashes.get(number)))
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


def _known(connection: Connection, target: Target, model: Model) -> Iterator[Rows]:
    """Rows by the page: id, path as bytes, state, error, size, time, whether it has a vector of `model`."""
    own = exists().where(
        vectors.c.asset_id == assets.c.id,
        vectors.c.model_id == model.id,
        vectors.c.role == OWN,
        vectors.c.caption_id.is_(None),
        vectors.c.mu.is_not(None),
    )
    path = type_coerce(assets.c.rel_path, LargeBinary)  # a type of ours, called for every row, would take twice as long
    query = select(assets.c.id, path, assets.c.state, assets.c.error, assets.c.size_bytes, assets.c.mtime_ns, own)
    with connection.execute(query.where(below(target))) as result:
        yield from result.partitions(PAGE)


def _hashes(connection: Connection, ids: list[int]) -> dict[int | None, bytes]:
    found: dict[int | None, bytes] = {}
    for start in range(0, len(ids), PAGE):
        query = select(assets.c.id, assets.c.content_hash).where(assets.c.id.in_(ids[start : start + PAGE]))
        found.update((number, content_hash) for number, content_hash in connection.execute(query))
    return found


def _below_any(rel_path: str, folders: list[str]) -> bool:
    return any(not folder or rel_path.startswith(folder + "/") for folder in folders)
