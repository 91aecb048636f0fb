"""The rows of what pictures say of themselves, and of what lies beside them says: table `about`.

In: `Metadata`. Out: rows; dates and places in `assets` where hits find them; words for `captions.py`. A picture without
a row of its own was never asked: it came from an older version, or is a copy of a known one. It is asked at the next
run. That opens the file once and reads its header; nothing is encoded again but the words that turn up, so a library
of 100,000 photos pays minutes once, and an interrupted run goes on where it was. Next: `sidecars.py`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, update

from indexer.base.errors import DecodeError
from indexer.base.profile import cores
from indexer.catalog.database import Catalog
from indexer.catalog.roots import Target
from indexer.catalog.schema import LIVE, MISSING, about, assets, roots
from indexer.decoding.camera_phrases import captions_of
from indexer.decoding.decode import read_metadata
from indexer.decoding.metadata import Metadata
from indexer.decoding.sandbox import Sandbox
from indexer.files.kinds import HEAD_BYTES, kind_of
from indexer.ingest.plan import within

_PARSED_IN_C = ("heif", "avif", "video")  # the headers of all others are read in Python
CHUNK = 400  # files asked in one transaction
SHOWN = ("taken_at", "camera", "latitude_deg", "longitude_deg")  # in `assets`, too
_FIELDS = (*SHOWN, "lens", "title", "description")


def write(
    connection: Connection,
    asset_id: int,
    said: Metadata | None,
    source: str | None = None,
    size_bytes: int | None = None,
    mtime_ns: int | None = None,
) -> None:
    """Replace what a source says of an asset; None forgets it. The source is a sidecar, or None for the file itself."""
    connection.execute(delete(about).where(about.c.asset_id == asset_id, _is_source(source)))
    if said is not None:
        add(connection, asset_id, said, source, size_bytes, mtime_ns)


def add(
    connection: Connection,
    asset_id: int,
    said: Metadata,
    source: str | None = None,
    size_bytes: int | None = None,
    mtime_ns: int | None = None,
) -> None:
    """What a source says of an asset of which it has said nothing yet."""
    values: dict[str, Any] = {name: getattr(said, name) for name in _FIELDS}
    values["keywords"] = json.dumps(said.keywords, ensure_ascii=False) if said.keywords else None
    values |= {"asset_id": asset_id, "source": source, "size_bytes": size_bytes, "mtime_ns": mtime_ns}
    connection.execute(about.insert(), values)


def catch_up(catalog: Catalog, target: Target, side_px: int) -> int:
    """Ask the pictures of `target` that were never asked; how many were. Commits as it goes."""
    asked = 0
    with catalog.begin() as connection:
        unread = connection.execute(_unread(target)).all()
    if not unread:
        return 0
    with ThreadPoolExecutor(cores(), thread_name_prefix="describe") as pool, Sandbox(side_px) as sandbox:
        for start in range(0, len(unread), CHUNK):
            chunk = unread[start : start + CHUNK]
            said = list(pool.map(lambda row: _ask(target.root.path / row.rel_path, sandbox), chunk))
            with catalog.begin() as connection:
                for row, one in zip(chunk, said, strict=True):
                    if one is not None:
                        write(connection, row.id, one)
                        connection.execute(update(assets).where(assets.c.id == row.id).values(_shown(one)))
                        asked += 1
                connection.execute(update(roots).where(roots.c.id == target.root.id).values(pairing_due=True))
    return asked


def show(connection: Connection, target: Target) -> None:
    """Bring dates and places of pictures with sidecars in step: the file's own come first, then the sidecars'."""
    mine = and_(assets.c.root_id == target.root.id, within(assets.c.rel_path, target.prefix))
    beside = select(about.c.asset_id).where(about.c.source.is_not(None))
    query = select(about).join(assets, assets.c.id == about.c.asset_id).where(mine, about.c.asset_id.in_(beside))
    said: dict[int, Metadata] = {}
    for row in connection.execute(query.order_by(about.c.asset_id, about.c.source)):  # NULL, the file itself, first
        said[row.asset_id] = said.get(row.asset_id, Metadata()).over(_from_row(row))
    columns = [assets.c[name] for name in SHOWN]
    for row in connection.execute(select(assets.c.id, *columns).where(mine, assets.c.id.in_(beside))).all():
        wanted = _shown(said[row.id])
        if any(getattr(row, name) != value for name, value in wanted.items()):
            connection.execute(update(assets).where(assets.c.id == row.id).values(wanted))


def unshow(connection: Connection, asset_id: int) -> None:
    """Dates and places of a picture as the file itself has them: a sidecar of it is gone."""
    own = select(about).where(about.c.asset_id == asset_id, about.c.source.is_(None))
    row = connection.execute(own).one_or_none()
    if row is not None:
        connection.execute(update(assets).where(assets.c.id == asset_id).values(_shown(_from_row(row))))


def said_of(connection: Connection, target: Target) -> Iterator[tuple[int, str, str]]:
    """(picture, source, words) for the captions of the live pictures of `target`; the source is below the root."""
    has_words = or_(*(column.is_not(None) for column in (about.c.title, about.c.description, about.c.keywords)))
    query = select(about, assets.c.rel_path).join(assets, assets.c.id == about.c.asset_id)
    query = query.where(assets.c.root_id == target.root.id, within(assets.c.rel_path, target.prefix))
    query = query.where(assets.c.state == LIVE, has_words).order_by(about.c.asset_id, about.c.source)
    for row in connection.execute(query).all():
        for text in captions_of(_from_row(row), row.rel_path.rpartition("/")[2]):
            yield row.asset_id, row.source or row.rel_path, text


def recorded_sidecars(connection: Connection, target: Target) -> Sequence[Any]:
    """The rows of sidecars in `target`: id, asset_id, source, size_bytes, mtime_ns."""
    query = select(about.c.id, about.c.asset_id, about.c.source, about.c.size_bytes, about.c.mtime_ns)
    query = query.join(assets, assets.c.id == about.c.asset_id).where(assets.c.root_id == target.root.id)
    return connection.execute(query.where(about.c.source.is_not(None), assets.c.state != MISSING)).all()


def _is_source(source: str | None) -> ColumnElement[bool]:
    return about.c.source.is_(None) if source is None else about.c.source == source


def _unread(target: Target) -> Any:
    own = and_(about.c.asset_id == assets.c.id, about.c.source.is_(None))
    query = select(assets.c.id, assets.c.rel_path).join(about, own, isouter=True)
    query = query.where(assets.c.root_id == target.root.id, within(assets.c.rel_path, target.prefix))
    return query.where(assets.c.modality == "image", assets.c.state == LIVE, about.c.id.is_(None))


def _ask(path: Path, sandbox: Sandbox) -> Metadata | None:
    """What a picture says; None where the file cannot be opened now."""
    try:
        with path.open("rb") as file, contextlib.suppress(DecodeError):
            kind = kind_of(file.read(HEAD_BYTES))
            file.seek(0)
            return sandbox.read_metadata(path) if kind in _PARSED_IN_C else read_metadata(file)
    except OSError:
        return None
    return Metadata()


def _from_row(row: Any) -> Metadata:
    keywords = tuple(json.loads(row.keywords)) if row.keywords else ()
    return Metadata(**{name: getattr(row, name) for name in _FIELDS}, keywords=keywords)


def _shown(said: Metadata) -> dict[str, Any]:
    return {name: getattr(said, name) for name in SHOWN}
