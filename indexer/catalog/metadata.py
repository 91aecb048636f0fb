"""What pictures, and the sidecars beside them, say of the pictures: table `about`.

In: `Metadata`. Out: rows; dates and places in `assets`, where hits find them; words for captions. A picture without a
row of its own was never read: it came from an older version, or is a copy of a known one. Next: `captions.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, or_, select, update

from indexer.catalog.roots import Target
from indexer.catalog.schema import LIVE, MISSING, about, assets
from indexer.catalog.scopes import below, within
from indexer.decoding.metadata import Metadata


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar as it was read last."""

    rel_path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class SidecarRow:
    """What a sidecar said of a picture is on record."""

    id: int
    asset_id: int
    sidecar: Sidecar


@dataclass(frozen=True, slots=True)
class Said:
    """What one source, the picture itself or a sidecar below the root, says of a picture."""

    asset_id: int
    rel_path: str
    source: str
    metadata: Metadata


def add(connection: Connection, asset_id: int, said: Metadata, sidecar: Sidecar | None = None) -> None:
    """What a picture, or its sidecar, says of it, of which it has said nothing yet."""
    values: dict[str, Any] = vars(said) | {
        "asset_id": asset_id,
        "source": sidecar and sidecar.rel_path,
        "size_bytes": sidecar and sidecar.size_bytes,
        "mtime_ns": sidecar and sidecar.mtime_ns,
        "keywords": json.dumps(said.keywords, ensure_ascii=False) if said.keywords else None,
    }
    connection.execute(about.insert(), values)


def write(connection: Connection, asset_id: int, said: Metadata | None, sidecar: Sidecar | None = None) -> None:
    """Replace what a picture, or its sidecar, says of it; None forgets it."""
    source = sidecar and sidecar.rel_path  # None: IS NULL
    connection.execute(delete(about).where(about.c.asset_id == asset_id, about.c.source == source))
    if said is not None:
        add(connection, asset_id, said, sidecar)


def of_file(connection: Connection, asset_id: int) -> Metadata | None:
    """What a picture itself says; None where it was never read."""
    own = select(about).where(about.c.asset_id == asset_id, about.c.source.is_(None))
    row = connection.execute(own).first()
    return None if row is None else _from_row(row)


def unread(connection: Connection, target: Target) -> list[tuple[int, str]]:
    """(id, path) of the pictures of `target` whose metadata was never read."""
    own = and_(about.c.asset_id == assets.c.id, about.c.source.is_(None))
    query = select(assets.c.id, assets.c.rel_path).join(about, own, isouter=True).where(below(target))
    query = query.where(assets.c.modality == "image", assets.c.state == LIVE, about.c.id.is_(None))
    return [(number, rel_path) for number, rel_path in connection.execute(query)]


def record(connection: Connection, said: Mapping[int, Metadata]) -> None:
    """What pictures say that were read now, by id."""
    for asset_id, one in said.items():
        write(connection, asset_id, one)
        _show(connection, asset_id, one)


def show(connection: Connection, target: Target) -> None:
    """Bring dates and places of pictures with sidecars in step: the file's own come first, then the sidecars'."""
    beside = select(about.c.asset_id).where(about.c.source.is_not(None))
    query = select(about).join(assets, assets.c.id == about.c.asset_id).where(below(target))
    query = query.where(about.c.asset_id.in_(beside))
    said: dict[int, Metadata] = {}
    for row in connection.execute(query.order_by(about.c.asset_id, about.c.source)):  # NULL, the file itself, first
        said[row.asset_id] = said.get(row.asset_id, Metadata()).over(_from_row(row))
    columns = (assets.c.taken_at, assets.c.camera, assets.c.latitude_deg, assets.c.longitude_deg)
    query = select(assets.c.id, *columns).where(below(target), assets.c.id.in_(beside))
    for number, *shown in connection.execute(query).all():
        if shown != list(_shown(said[number]).values()):
            _show(connection, number, said[number])


def sidecars(connection: Connection, target: Target) -> list[SidecarRow]:
    """The sidecars on record within `target` of pictures that are there."""
    query = select(about.c.id, about.c.asset_id, about.c.source, about.c.size_bytes, about.c.mtime_ns)
    query = query.join(assets, assets.c.id == about.c.asset_id).where(assets.c.root_id == target.root.id)
    query = query.where(about.c.source.is_not(None), within(about.c.source, target.prefix))
    rows = connection.execute(query.where(assets.c.state != MISSING))
    return [SidecarRow(number, asset_id, Sidecar(*sidecar)) for number, asset_id, *sidecar in rows]


def forget_sidecar(connection: Connection, row: SidecarRow) -> None:
    """A sidecar is gone: dates and places of its picture are those the file itself has."""
    connection.execute(delete(about).where(about.c.id == row.id))
    said = of_file(connection, row.asset_id)
    if said is not None:
        _show(connection, row.asset_id, said)


def with_words(connection: Connection, target: Target) -> Iterator[Said]:
    """What the live pictures of `target` and their sidecars say in words, picture after picture."""
    has_words = or_(*(column.is_not(None) for column in (about.c.title, about.c.description, about.c.keywords)))
    query = select(about, assets.c.rel_path).join(assets, assets.c.id == about.c.asset_id).where(below(target))
    query = query.where(assets.c.state == LIVE, has_words).order_by(about.c.asset_id, about.c.source)
    for row in connection.execute(query).all():
        yield Said(row.asset_id, row.rel_path, row.source or row.rel_path, _from_row(row))


def _from_row(row: Row[Any]) -> Metadata:
    said = (row.taken_at, row.camera, row.lens, row.latitude_deg, row.longitude_deg, row.title, row.description)
    return Metadata(*said, tuple(json.loads(row.keywords)) if row.keywords else ())


def _shown(said: Metadata) -> dict[str, datetime | str | float | None]:
    """What `assets` has of it, too."""
    return {
        "taken_at": said.taken_at,
        "camera": said.camera,
        "latitude_deg": said.latitude_deg,
        "longitude_deg": said.longitude_deg,
    }


def _show(connection: Connection, asset_id: int, said: Metadata) -> None:
    connection.execute(update(assets).where(assets.c.id == bindparam("asset")), {"asset": asset_id, **_shown(said)})
