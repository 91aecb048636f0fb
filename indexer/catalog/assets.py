"""The rows of files: table `assets`.

In: files as they were found and read. Out: their rows, and what an index run asks of them: which are known, changed,
hidden, not encoded yet. `vectors.kind` follows from these rows by itself, see `visibility.py`. Next: `metadata.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, bindparam, case, func, literal, select, type_coerce, update
from sqlalchemy.types import NullType

from indexer.base.types import Modality, Model
from indexer.catalog.columns import check_columns
from indexer.catalog.library import now
from indexer.catalog.roots import Root, Target
from indexer.catalog.schema import LIVE, MISSING, SKIPPED, assets
from indexer.catalog.scopes import below, chunked, is_encoded

PAGE: Final = 500  # rows read at a time


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read last. `error` says why it could not be, `content_hash` is None where not even opened."""

    rel_path: str
    modality: Modality
    size_bytes: int
    mtime_ns: int
    content_hash: bytes | None
    error: str | None = None

    def values(self) -> dict[str, Any]:
        """The columns of its row, but for its root."""
        return _columns(self) | {"state": LIVE if self.error is None else SKIPPED, "seen_at": now()}


@dataclass(frozen=True, slots=True)
class Description:
    """What a hit shows of a file besides its path."""

    width_px: int | None = None
    height_px: int | None = None
    taken_at: datetime | None = None
    camera: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    excerpt: str | None = None  # the beginning of a text


class KnownFile(NamedTuple):
    """A file on record, to be compared with the disk. A tuple: a run makes one for every file of its target."""

    id: int
    rel_path: str
    is_missing: bool
    error: str | None
    size_bytes: int
    mtime_ns: int
    is_encoded: bool


class PresentFile(NamedTuple):
    """A file that is there: live, or skipped."""

    id: int
    rel_path: str
    modality: Modality
    is_live: bool
    content_hash: bytes | None


def known_files(connection: Connection, target: Target, model: Model) -> Iterator[KnownFile]:
    """The files of `target` on record, read by the page."""
    names = ("rel_path", "state", "error", "size_bytes", "mtime_ns")
    # checked by the page: a type of ours, called for every cell, would take twice as long
    columns = [type_coerce(assets.c[name], NullType()) for name in names]
    with connection.execute(select(assets.c.id, *columns, is_encoded(model)).where(below(target))) as result:
        for page in result.partitions(PAGE):
            check_columns("assets", page, ("id", *names))
            for number, rel_path, state, error, size_bytes, mtime_ns, has_vector in page:
                known = (error, size_bytes, mtime_ns, bool(has_vector))
                yield KnownFile(number, os.fsdecode(rel_path), state == MISSING, *known)


def hashes_of(connection: Connection, ids: Collection[int]) -> dict[int, bytes | None]:
    """The content hash of each of these files."""
    query = select(assets.c.id, assets.c.content_hash)
    found: dict[int, bytes | None] = {}
    for chunk in chunked(ids):
        found.update((row.id, row.content_hash) for row in connection.execute(query.where(assets.c.id.in_(chunk))))
    return found


def known_hashes(connection: Connection, model: Model) -> dict[Modality, set[bytes]]:
    """The contents that need no encoding, by modality."""
    query = select(assets.c.modality, assets.c.content_hash)
    query = query.where(assets.c.content_hash.is_not(None), assets.c.error.is_(None), is_encoded(model))
    known: dict[Modality, set[bytes]] = {"image": set(), "text": set()}
    for modality, content_hash in connection.execute(query):
        known[modality].add(content_hash)
    return known


def count_live(connection: Connection, target: Target) -> int:
    """The files of `target` that can be found when it is online."""
    query = select(func.count()).select_from(assets).where(below(target), assets.c.state == LIVE)
    return int(connection.execute(query).scalar_one())


def count_by_state(connection: Connection) -> dict[tuple[int, str, str], int]:
    """How many files have one root, one modality and one state. Every file is in one of these counts."""
    groups = (assets.c.root_id, assets.c.modality, assets.c.state)
    rows = connection.execute(select(*groups, func.count()).group_by(*groups))
    return {(root_id, modality, state): count for root_id, modality, state, count in rows}


def present(connection: Connection, root: Root) -> Iterator[PresentFile]:
    """The files of a root that were there at the last look, the oldest row first."""
    query = _present(root).where(assets.c.state != MISSING).order_by(assets.c.id)
    yield from map(PresentFile._make, connection.execute(query))


def unencoded(connection: Connection, root: Root, model: Model) -> list[PresentFile]:
    """The live files of a root that `model` has not encoded yet, by path."""
    query = _present(root).where(assets.c.state == LIVE, ~is_encoded(model)).order_by(assets.c.rel_path)
    return list(map(PresentFile._make, connection.execute(query)))


def insert(connection: Connection, root: Root, file: FileState, description: Description) -> int:
    """The row of a new file; its id."""
    # As parameters: `.values(...)` makes a new statement of every row, which took five times as long as the row itself.
    values = {"root_id": root.id} | file.values() | _columns(description)
    key = connection.execute(assets.insert(), values).inserted_primary_key
    assert key is not None
    return int(key[0])


def replace(connection: Connection, asset_id: int, root: Root, file: FileState, description: Description) -> None:
    """The file of a row has other content now."""
    _set(connection, asset_id, {"root_id": root.id} | file.values() | _columns(description))


def keep(connection: Connection, asset_id: int, root: Root, file: FileState) -> None:
    """The file of a row has another path or time, or can be read again; its content is the one on record."""
    _set(connection, asset_id, {"root_id": root.id} | file.values())


def unopened(connection: Connection, asset_id: int, file: FileState) -> None:
    """The file of a row cannot be opened: what is known of its content stays for when it can."""
    known = file.values()
    _set(connection, asset_id, {name: known[name] for name in ("state", "error", "size_bytes", "mtime_ns", "seen_at")})


def mark(connection: Connection, ids: Collection[int], *, missing: bool) -> None:
    """Hide files that are gone, or take back files that returned."""
    state = literal(MISSING) if missing else case((assets.c.error.is_(None), LIVE), else_=SKIPPED)
    for chunk in chunked(ids):
        connection.execute(update(assets).where(assets.c.id.in_(chunk)).values(state=state, seen_at=now()))


def description_of(connection: Connection, asset_id: int) -> Description:
    """What is shown of a file."""
    shown = [assets.c[field.name] for field in fields(Description)]
    return Description(*connection.execute(select(*shown).where(assets.c.id == asset_id)).one())


def _columns(row: FileState | Description) -> dict[str, Any]:
    """`dataclasses.asdict` copies each value deeply, which takes as long as the row itself."""
    return {name: getattr(row, name) for name in row.__slots__}


def _present(root: Root) -> Select[Any]:
    columns = (assets.c.id, assets.c.rel_path, assets.c.modality, assets.c.state == LIVE, assets.c.content_hash)
    return select(*columns).where(assets.c.root_id == root.id)


def _set(connection: Connection, asset_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(assets).where(assets.c.id == bindparam("asset")), {"asset": asset_id, **values})
