"""The vectors of files and captions themselves: the rows of `vectors` with role OWN.

In: posteriors. Out: rows, written inside the caller's transaction, so that a batch is all there or not. Whoever writes
a vector gives it a new `change`; its `kind` follows by itself, see `visibility.py`. Next: `fused.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, bindparam, delete, or_, select, update

from indexer.base.errors import RowCorrupt
from indexer.base.types import Modality, Model, Posterior
from indexer.catalog import keyframes
from indexer.catalog.captions import PendingText
from indexer.catalog.cells import DAMAGED, REMEDY
from indexer.catalog.changes import finite
from indexer.catalog.library import make_live, next_change
from indexer.catalog.roots import Target
from indexer.catalog.schema import LIVE, MISSING, OWN, assets, captions, frames, vectors
from indexer.catalog.scopes import below, chunked, is_encoded, own_of

LOGVAR_LIMIT: Final = 0.1
LEAST_LOGVAR: Final = -60.0


@dataclass(frozen=True, slots=True)
class Blobs:
    """One posterior as the catalog keeps it: float16 [d] each."""

    mu: bytes
    logvar: bytes
    frames: keyframes.Moments = ()  # of a video


@dataclass(frozen=True, slots=True)
class Donor:
    """An asset that holds the content another path has now."""

    id: int
    root_id: int
    rel_path: str
    is_missing: bool


def to_blobs(posterior: Posterior) -> list[Blobs]:
    """Posteriors `[n, d]` -> n pairs of blobs."""
    halves = [np.asarray(part, np.float16) for part in (posterior.mu, posterior.logvar)]
    return [Blobs(mu.tobytes(), logvar.tobytes()) for mu, logvar in zip(*halves, strict=True)]


def from_blobs(blobs: Sequence[Blobs], dim: int) -> Posterior:
    """The inverse of `to_blobs`, as float32 `[n, d]`."""

    def matrix(parts: Iterable[bytes]) -> NDArray[np.float32]:
        return np.frombuffer(b"".join(parts), np.float16).reshape(-1, dim).astype(np.float32)

    return Posterior(matrix(one.mu for one in blobs), matrix(one.logvar for one in blobs))


def hold_posteriors(rows: Sequence[Any], dim: int) -> NDArray[np.bool_]:
    """Which rows, each with `mu` and `logvar`, hold a posterior `[n]`: of `dim` numbers each, within bounds.

    None is wider than the prior, but for rounding; beyond `LEAST_LOGVAR` precisions overflow, and fusions are NaN.
    """
    found = np.array([len(row.mu or b"") == len(row.logvar or b"") == 2 * dim for row in rows], np.bool_)
    whole = [part for row, fits in zip(rows, found, strict=True) if fits for part in (row.mu, row.logvar)]
    if whole:
        halves = np.frombuffer(b"".join(whole), np.float16).reshape(-1, 2 * dim)
        logvar = halves[:, dim:].astype(np.float32)
        found[found] = finite(halves) & ((logvar >= LEAST_LOGVAR) & (logvar <= LOGVAR_LIMIT)).all(axis=1)
    return found


def checked(rows: Sequence[Any], dim: int) -> Sequence[Any]:
    """The same rows. Raises: RowCorrupt, naming the first that holds no posterior; rows have an `id`."""
    if not (fine := hold_posteriors(rows, dim)).all():
        number = rows[int(np.argmin(fine))].id
        raise RowCorrupt(f"{DAMAGED}row {number} of vectors holds no vector of {dim} usable numbers{REMEDY}")
    return rows


def donors(
    connection: Connection, model: Model, target: Target, hashes: Collection[bytes]
) -> dict[tuple[Modality, bytes], list[Donor]]:
    """Files with these contents and a vector that may have left their path; those known to be gone from it first.

    What is live in `target` has just been seen there. The contents lead to the files, and those to their vectors: a
    join of the two goes over all vectors, by the index of captions.
    """
    missing = assets.c.state == MISSING
    columns = (assets.c.modality, assets.c.content_hash, assets.c.id, assets.c.root_id, assets.c.rel_path, missing)
    query = select(*columns).where(assets.c.error.is_(None), or_(missing, ~below(target)), is_encoded(model))
    query = query.order_by(~missing, assets.c.id)
    found: dict[tuple[Modality, bytes], list[Donor]] = {}
    for chunk in chunked(hashes):
        for modality, content_hash, *donor in connection.execute(query.where(assets.c.content_hash.in_(chunk))):
            found.setdefault((modality, content_hash), []).append(Donor(*donor))
    return found


def holder(connection: Connection, model: Model, content_hash: bytes, modality: Modality) -> int | None:
    """Any file with this content and a vector."""
    query = select(assets.c.id).where(assets.c.content_hash == content_hash, assets.c.modality == modality)
    return connection.scalar(query.where(assets.c.error.is_(None), is_encoded(model)).limit(1))


def own(connection: Connection, model: Model, asset_id: int) -> Blobs | None:
    """The vector of a file itself, with the keyframes of a video; None where there is none. Raises: RowCorrupt."""
    query = select(vectors.c.id, vectors.c.mu, vectors.c.logvar).where(own_of(model), vectors.c.asset_id == asset_id)
    for row in checked(connection.execute(query.limit(1)).all(), model.dim):
        return Blobs(row.mu, row.logvar, keyframes.of_asset(connection, model.id, asset_id))
    return None


def set_own(connection: Connection, model: Model, blobs: Mapping[int, Blobs | None]) -> None:
    """Replace the own vectors of assets; None for one whose content cannot be read any more."""
    change = next_change(connection)
    present: set[int] = set()
    is_own = and_(vectors.c.caption_id.is_(None), vectors.c.role == OWN)
    for chunk in chunked(blobs):
        of_these = and_(vectors.c.asset_id.in_(chunk), is_own)
        connection.execute(delete(vectors).where(of_these, vectors.c.model_id != model.id))
        keyframes.drop_others(connection, model.id, chunk)
        present.update(connection.scalars(select(vectors.c.asset_id).where(of_these, vectors.c.model_id == model.id)))
    rewritten = {asset_id: blobs[asset_id] or _NO_VECTOR for asset_id in present}
    keyframes.write(connection, model.id, {asset_id: pair.frames for asset_id, pair in rewritten.items()})
    if rewritten:
        mine = and_(vectors.c.asset_id == bindparam("asset"), is_own, vectors.c.model_id == model.id)
        values = [
            {"asset": asset_id, "mu": pair.mu or None, "logvar": pair.logvar or None, "change": change}
            for asset_id, pair in rewritten.items()
        ]
        connection.execute(update(vectors).where(mine), values)
    add_own(connection, model, {key: pair for key, pair in blobs.items() if pair and key not in present})


def add_own(connection: Connection, model: Model, blobs: Mapping[int, Blobs]) -> None:
    """Own vectors for assets that have none of this model."""
    if not blobs:
        return
    base = {"model_id": model.id, "role": OWN, "change": next_change(connection)}
    fresh = [base | {"asset_id": key, "mu": pair.mu, "logvar": pair.logvar} for key, pair in blobs.items()]
    connection.execute(vectors.insert(), fresh)
    keyframes.write(connection, model.id, {key: pair.frames for key, pair in blobs.items() if pair.frames})


def of_texts(connection: Connection, model: Model, hashes: Collection[bytes]) -> dict[bytes, Blobs]:
    """The vectors of words that were encoded before, by the hash of the words."""
    of_caption = and_(vectors.c.caption_id == captions.c.id, vectors.c.model_id == model.id)
    query = select(captions.c.text_hash, vectors.c.mu, vectors.c.logvar).join(vectors, of_caption)
    rows = connection.execute(query.where(captions.c.text_hash.in_(hashes), vectors.c.mu.is_not(None))).all()
    fine = hold_posteriors(rows, model.dim)  # the others are encoded again
    return {row.text_hash: Blobs(row.mu, row.logvar) for row, holds in zip(rows, fine, strict=True) if holds}


def add_texts(connection: Connection, model: Model, texts: Iterable[tuple[PendingText, Blobs]]) -> None:
    """The vectors of captions that are no file."""
    base = {"model_id": model.id, "role": OWN, "change": next_change(connection)}
    fresh = []
    for text, blobs in texts:
        values = base | {"mu": blobs.mu, "logvar": blobs.logvar}
        if text.vector_id is None:
            fresh.append(values | {"asset_id": text.photo_id, "caption_id": text.id})
        else:  # forgotten by a repair
            connection.execute(update(vectors).where(vectors.c.id == text.vector_id).values(values))
    if fresh:
        connection.execute(vectors.insert(), fresh)


def switch(connection: Connection, model: Model) -> None:
    """Another model at once: its vectors can be found, and those of all others go."""
    make_live(connection, model)
    connection.execute(delete(vectors).where(vectors.c.model_id != model.id))
    connection.execute(delete(frames).where(frames.c.model_id != model.id))


def own_posteriors(connection: Connection, model: Model) -> tuple[Posterior, Posterior]:
    """The unfused posteriors of live files and captions, oldest first: images `[n, d]`, texts `[m, d]`.

    Raises: RowCorrupt.
    """
    query = (
        select(vectors.c.id, vectors.c.mu, vectors.c.logvar, vectors.c.caption_id, assets.c.modality)
        .join(assets, assets.c.id == vectors.c.asset_id)
        .where(vectors.c.model_id == model.id, vectors.c.role == OWN, vectors.c.mu.is_not(None))
        .where(assets.c.state == LIVE)
        .order_by(vectors.c.id)
    )
    images: list[Blobs] = []
    texts: list[Blobs] = []
    for row in checked(connection.execute(query).all(), model.dim):
        is_image = row.caption_id is None and row.modality == "image"
        (images if is_image else texts).append(Blobs(row.mu, row.logvar))
    return from_blobs(images, model.dim), from_blobs(texts, model.dim)


_NO_VECTOR = Blobs(b"", b"")
