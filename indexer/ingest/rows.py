"""The rows of files and of their vectors: written inside the caller's transaction, so that a batch is all there or not.

In: what was loaded and encoded. Out: rows of `assets` and `vectors`. The `kind` of a vector follows from everything
else in one place, `refresh_kinds`. Next: `captions.py`, the texts that speak of a photo.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, func, literal, or_, select, update

from indexer.base.types import Modality, Posterior
from indexer.catalog import keyframes as moments
from indexer.catalog.database import Model, next_change, now
from indexer.catalog.schema import (
    CAPTION,
    FUSED,
    HIDDEN,
    IMAGE,
    LIVE,
    MISSING,
    OWN,
    SKIPPED,
    TEXT,
    assets,
    captions,
    vectors,
)
from indexer.ingest import descriptions
from indexer.ingest.loader import Loaded, excerpt_of
from indexer.ingest.plan import settled_state

CHUNK = 500  # ids in one statement; SQLite's limit on parameters was 999 for long


@dataclass(frozen=True)
class Blobs:
    """One posterior as the catalog keeps it: float16 [d] each."""

    mu: bytes
    logvar: bytes
    frames: moments.Moments = ()  # of a video


Description = dict[str, Any]  # width_px, taken_at, camera, ...: what a file says of itself


@dataclass(frozen=True)
class Kept:
    """Content that lost its row."""

    blobs: Blobs
    description: Description


@dataclass(frozen=True)
class Donor:
    """An asset that holds the content another path has now."""

    id: int
    root_id: int
    rel_path: str
    state: str
    blobs: Blobs


def to_blobs(posterior: Posterior) -> list[Blobs]:
    """Posteriors `[n, d]` -> n pairs of blobs."""
    halves = [np.asarray(part, np.float16) for part in (posterior.mu, posterior.logvar)]
    return [Blobs(mu.tobytes(), logvar.tobytes()) for mu, logvar in zip(*halves, strict=True)]


def from_blobs(blobs: Sequence[Blobs], dim: int) -> Posterior:
    """The inverse of `to_blobs`, as float32 `[n, d]`."""

    def matrix(parts: Iterable[bytes]) -> NDArray[np.float32]:
        return np.frombuffer(b"".join(parts), np.float16).reshape(-1, dim).astype(np.float32)

    return Posterior(matrix(one.mu for one in blobs), matrix(one.logvar for one in blobs))


def known_hashes(connection: Connection, model: Model) -> dict[Modality, set[bytes]]:
    """The contents that need no encoding, by modality."""
    query = select(assets.c.modality, assets.c.content_hash).where(
        assets.c.content_hash.is_not(None),
        assets.c.error.is_(None),
        exists().where(vectors.c.asset_id == assets.c.id, *_own(model)),
    )
    known: dict[Modality, set[bytes]] = {"image": set(), "text": set()}
    for modality, content_hash in connection.execute(query):
        known[modality].add(content_hash)
    return known


def donors(connection: Connection, loaded: Loaded, model: Model) -> list[Donor]:
    """Assets whose vector fits `loaded`'s content; those that are gone from their path first."""
    query = (
        select(assets.c.id, assets.c.root_id, assets.c.rel_path, assets.c.state, vectors.c.mu, vectors.c.logvar)
        .join(vectors, and_(vectors.c.asset_id == assets.c.id, *_own(model)))
        .where(assets.c.content_hash == loaded.content_hash, assets.c.modality == loaded.job.modality)
        .where(assets.c.error.is_(None))
        .order_by(assets.c.state != MISSING, assets.c.id)
    )
    return [Donor(*row[:4], blobs=Blobs(row.mu, row.logvar)) for row in connection.execute(query)]


def keep(connection: Connection, model: Model, asset_id: int) -> Kept | None:
    """The vector and the description of an asset whose row is about to hold other content."""
    own = select(vectors.c.mu, vectors.c.logvar).where(*_own(model), vectors.c.asset_id == asset_id)
    row = connection.execute(own).one_or_none()
    if row is None:
        return None
    blobs = Blobs(row.mu, row.logvar, moments.of_asset(connection, model.id, asset_id))
    return Kept(blobs, described(connection, asset_id))


def put(connection: Connection, root_id: int, loaded: Loaded, *, like: Description | None = None) -> int:
    """Write the row of a file as it was loaded; a copy is described like the file it copies."""
    values = _columns(loaded) | (like or {})
    values["root_id"] = root_id
    said = loaded.picture.metadata if loaded.picture else None  # None: `descriptions.catch_up` asks the copy
    if loaded.job.asset_id is not None:
        if loaded.content_hash is None:  # it could not be opened: what is known of its content stays for when it can
            values = {name: values[name] for name in ("state", "error", "size_bytes", "mtime_ns", "seen_at")}
        connection.execute(update(assets).where(assets.c.id == loaded.job.asset_id).values(values))
        if loaded.content_hash is not None:
            descriptions.write(connection, loaded.job.asset_id, said)
        return loaded.job.asset_id
    # as parameters: `.values(...)` makes a new statement of every row, which took five times as long as the row itself
    key = connection.execute(assets.insert(), values).inserted_primary_key
    assert key is not None
    if said is not None:
        descriptions.add(connection, int(key[0]), said)
    return int(key[0])


def touch(connection: Connection, loaded: Loaded) -> None:
    """The file has another time, or can be read again, and the content on record."""
    values = _columns(loaded, described=False)
    connection.execute(update(assets).where(assets.c.id == loaded.job.asset_id).values(values))


def move(connection: Connection, donor: Donor, root_id: int, loaded: Loaded) -> None:
    """The file of asset `donor` is at another path now; everything else about it stays."""
    values = _columns(loaded, described=False) | {"root_id": root_id}
    connection.execute(update(assets).where(assets.c.id == donor.id).values(values))


def mark(connection: Connection, ids: Collection[int], *, missing: bool) -> None:
    """Hide files that are gone, or take back files that returned."""
    state = literal(MISSING) if missing else case((assets.c.error.is_(None), LIVE), else_=SKIPPED)
    for chunk in chunked(ids):
        connection.execute(update(assets).where(assets.c.id.in_(chunk)).values(state=state, seen_at=now()))


def set_own(connection: Connection, model: Model, blobs: dict[int, Blobs | None]) -> None:
    """Replace the own vectors of assets; None for one whose content cannot be read any more."""
    change = next_change(connection)
    present: set[int] = set()
    for chunk in chunked(blobs):
        of_these = and_(vectors.c.asset_id.in_(chunk), vectors.c.caption_id.is_(None), vectors.c.role == OWN)
        connection.execute(delete(vectors).where(of_these, vectors.c.model_id != model.id))
        moments.drop_others(connection, model.id, chunk)
        present.update(connection.scalars(select(vectors.c.asset_id).where(of_these, vectors.c.model_id == model.id)))
    moments.write(connection, model.id, {asset_id: _frames(blobs[asset_id]) for asset_id in present})
    for asset_id in present:
        pair = blobs[asset_id]
        mu, logvar = (pair.mu, pair.logvar) if pair else (None, None)
        mine = and_(vectors.c.asset_id == asset_id, vectors.c.model_id == model.id, vectors.c.role == OWN)
        statement = update(vectors).where(mine, vectors.c.caption_id.is_(None))
        connection.execute(statement.values(mu=mu, logvar=logvar, change=change))
    add_own(connection, model, {key: pair for key, pair in blobs.items() if pair and key not in present})


def add_own(connection: Connection, model: Model, blobs: dict[int, Blobs]) -> None:
    """Own vectors for assets that have none of this model; hidden until `refresh_kinds`."""
    base = {"model_id": model.id, "role": OWN, "kind": HIDDEN, "change": next_change(connection)}
    fresh = [base | {"asset_id": key, "mu": pair.mu, "logvar": pair.logvar} for key, pair in blobs.items()]
    if fresh:
        connection.execute(vectors.insert(), fresh)
    moments.write(connection, model.id, {key: pair.frames for key, pair in blobs.items() if pair.frames})


def with_frames(connection: Connection, model: Model, donor: Donor) -> Blobs:
    """What a donor gives to its copy."""
    return replace(donor.blobs, frames=moments.of_asset(connection, model.id, donor.id))


def drop_fused(connection: Connection, photo_ids: Collection[int]) -> None:
    """Forget the fusion of these photos, for every model: an expert changed. `fusion.py` computes it again."""
    if not photo_ids:
        return
    change = next_change(connection)
    for chunk in chunked(photo_ids):
        fused = and_(vectors.c.asset_id.in_(chunk), vectors.c.role == FUSED)
        connection.execute(update(vectors).where(fused).values(mu=None, logvar=None, kind=HIDDEN, change=change))


def captioned_by(connection: Connection, text_ids: Collection[int]) -> set[int]:
    """The photos that these text files are captions of."""
    photos: set[int] = set()
    for chunk in chunked(text_ids):
        of_these = and_(captions.c.text_asset_id.in_(chunk), captions.c.live)
        photos.update(connection.scalars(select(captions.c.asset_id).where(of_these)))
    return photos


def refresh_kinds(connection: Connection, model: Model, asset_ids: Collection[int] | None = None) -> None:
    """Bring `kind` in step with states, captions and fusions, for some assets or for all."""
    change = next_change(connection)
    kind = _kind()
    scopes = (
        [vectors.c.asset_id.in_(chunk) for chunk in chunked(asset_ids)] if asset_ids is not None else [literal(True)]
    )
    for scope in scopes:
        stale = and_(vectors.c.model_id == model.id, scope, vectors.c.kind != kind)
        connection.execute(update(vectors).where(stale).values(kind=kind, change=change))


def stale_kinds(connection: Connection, model: Model) -> int:
    """How many vectors `refresh_kinds` would change: none, outside a run."""
    stale = select(func.count()).select_from(vectors).where(vectors.c.model_id == model.id, vectors.c.kind != _kind())
    return int(connection.execute(stale).scalar_one())


def chunked(ids: Iterable[int]) -> Iterator[list[int]]:
    """Ids in lists that fit one statement."""
    whole = list(ids)
    for start in range(0, len(whole), CHUNK):
        yield whole[start : start + CHUNK]


def _frames(blobs: Blobs | None) -> moments.Moments:
    return blobs.frames if blobs else ()


@cache
def _kind() -> ColumnElement[int]:
    asset, photo, fused, caption = assets.alias(), assets.alias(), vectors.alias(), captions.alias()
    is_live = exists().where(asset.c.id == vectors.c.asset_id, asset.c.state == LIVE)
    is_image = exists().where(asset.c.id == vectors.c.asset_id, asset.c.modality == "image")
    is_spoken = exists().where(caption.c.id == vectors.c.caption_id, caption.c.live)
    same_asset = and_(fused.c.asset_id == vectors.c.asset_id, fused.c.model_id == vectors.c.model_id)
    is_fused = exists().where(same_asset, fused.c.role == FUSED, fused.c.mu.is_not(None))
    speaks = exists().where(
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
        else_=case((speaks, CAPTION), else_=TEXT),
    )


def _own(model: Model) -> tuple[ColumnElement[bool], ...]:
    """The conditions of an own vector of a file that can be used."""
    file = vectors.c.caption_id.is_(None)
    return (vectors.c.model_id == model.id, vectors.c.role == OWN, file, vectors.c.mu.is_not(None))


def _columns(loaded: Loaded, *, described: bool = True) -> dict[str, Any]:
    values: dict[str, Any] = {
        "rel_path": loaded.job.rel_path,
        "modality": loaded.job.modality,
        "state": settled_state(loaded.error),
        "error": loaded.error,
        "size_bytes": loaded.size_bytes,
        "mtime_ns": loaded.mtime_ns,
        "content_hash": loaded.content_hash,
        "seen_at": now(),
    }
    if described:
        picture = loaded.picture
        for name in ("width_px", "height_px"):
            values[name] = getattr(picture, name, None)
        for name in descriptions.SHOWN:
            values[name] = getattr(picture.metadata, name) if picture else None
        values["excerpt"] = excerpt_of(loaded.text) if loaded.text is not None else None
    return values


_DESCRIPTION = ("width_px", "height_px", *descriptions.SHOWN)


def described(connection: Connection, asset_id: int) -> Description:
    """What a file says of itself, by column."""
    columns = [assets.c[name] for name in (*_DESCRIPTION, "excerpt")]
    return dict(connection.execute(select(*columns).where(assets.c.id == asset_id)).one()._mapping)
