"""Stored vectors compared with the index file, which has a checksum, and with the model.

In: rows of `vectors`, the index file as it lies there, an encoder. Out: the ids that are not right. An own vector is
encoded again from its file, a caption's from its words; a fused one follows from both. Next: `repair.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from indexer.base.types import HIDDEN, Encoder, Float32Array
from indexer.catalog import checks
from indexer.catalog import keyframes as moments
from indexer.catalog.checks import OwnVector, StoredVector
from indexer.catalog.database import Catalog, Connection, Model
from indexer.catalog.roots import all_roots, offline_reason
from indexer.catalog.vectors import Blobs, from_blobs
from indexer.decoding.sandbox import DecodeJournal, Sandbox
from indexer.ingest.encode import encode_pictures
from indexer.ingest.loader import Loaded, Reader, load
from indexer.ingest.plan import Job
from indexer.search import index_files as generations
from indexer.search.live_index import LiveIndex
from indexer.vectors.protocol import normalised
from indexer.vectors.rows import Int64Array

LOGVAR_LIMIT: Final = 0.1  # a posterior is never wider than the prior; the rest is rounding
ALIKE: Final = 0.9999  # cosine of a vector in the index with the float16 row it was made from
SAME_MODEL: Final = 0.98  # cosine of a vector encoded in float32 here and in int8 on another machine, at the least
AT_ONCE: Final = 32  # pictures encoded together

Item = TypeVar("Item")
Vector = TypeVar("Vector", StoredVector, OwnVector)


@dataclass
class Faults:
    """What `repair.py` mends: ids of vectors, and whether the index file has to be made again."""

    unusable: set[int] = field(default_factory=set)  # no search can use them
    doubtful: set[int] = field(default_factory=set)  # usable, and not what the index or the file says
    videos: set[int] = field(default_factory=set)  # own vectors that the keyframes beside them do not make
    index: bool = False


@dataclass(frozen=True)
class Compared:
    """How many vectors there are, how many were compared with the index file, and that file in words."""

    vectors: int
    compared: int
    index: str


def with_index(connection: Connection, folder: Path, model: Model, faults: Faults) -> Compared:
    """Read every vector of `model` once: can it be used, and is it the one in the index file?"""
    live, index, sound = generations.examine(connection, folder, model)
    faults.index = not sound
    held = _Held(live) if live is not None else None
    count = 0
    for page in checks.stored_vectors(connection, model):
        kept = [row for row in page if not row.is_due]
        usable = _usable(kept, model.dim)
        faults.unusable.update({row.id for row in kept} - {row.id for row in usable})
        count += len(kept)
        if held is not None:
            faults.doubtful.update(held.differing(page, usable))
    if held is not None and held.strangers:
        faults.index, index = True, f"{held.strangers} vectors of the index file are not the catalog's"
    return Compared(count, held.compared if held else 0, index)


def sample(catalog: Catalog, model: Model, encoder: Encoder, count: int) -> tuple[int, set[int]]:
    """Encode `count` files and captions again, chosen by chance: how many could be, and the ids of those that differ.

    A file that is away, or has changed since it was indexed, says nothing about its vector and is left out.
    """
    with catalog.begin() as connection:
        online = {root.id: root.path for root in all_roots(connection) if offline_reason(connection, root) is None}
        chosen = _usable(checks.sample(connection, model, online, count), model.dim)
    texts = [(row, row.text) for row in chosen if row.text is not None]
    images: list[tuple[OwnVector, Loaded]] = []
    with Sandbox(encoder.side_px) as sandbox:  # one for all: a worker takes longer to start than to decode
        for row in (one for one in chosen if one.text is None):
            loaded = _load(online[row.root_id], row, encoder, sandbox)
            if loaded.content_hash == row.content_hash and loaded.is_fresh:
                if loaded.text is not None:
                    texts.append((row, loaded.text))
                else:
                    images.append((row, loaded))
    strange: set[int] = set()
    for some in _batches(images):
        rows = [row for row, _ in some]
        blobs = encode_pictures(encoder, [loaded for _, loaded in some])
        strange |= _unlike(rows, from_blobs(blobs, encoder.dim).mu) | _without_moments(catalog, model, rows, blobs)
    for part in _batches(texts):
        strange |= _unlike([row for row, _ in part], encoder.encode_texts([text for _, text in part]).mu)
    return len(images) + len(texts), strange


class _Held:
    """The index file's vectors by id."""

    def __init__(self, live: LiveIndex) -> None:
        self._rows = live.index.rows
        self._change = live.change
        self._sorted: Int64Array = live.ids
        self._met = np.zeros(len(live.ids), np.bool_)
        self.compared = 0

    @property
    def strangers(self) -> int:
        """Vectors of the file that no row read so far accounts for."""
        return int((~self._met).sum())

    def differing(self, page: Sequence[StoredVector], usable: Sequence[StoredVector]) -> set[int]:
        """The ids of a page of rows whose vector in the file is another one, or missing."""
        if not len(self._sorted):
            return set()
        self._find(np.array([row.id for row in page], np.int64), mark=True)
        due = [row for row in usable if row.kind != HIDDEN and row.change <= self._change]  # others are replayed
        if not due:
            return set()
        ids = np.array([row.id for row in due], np.int64)
        places, there = self._find(ids)
        differ = set(ids[~there].tolist())
        if there.any():
            held = normalised(self._rows.take(places[there]), self._rows.dim)
            rows = [row for row, found in zip(due, there, strict=True) if found]
            self.compared += len(rows)
            stored = _unit([row.mu for row in rows], held.shape[1])
            cosines = np.einsum("nd,nd->n", stored, held)  # [n]
            is_zero = ~stored.any(axis=1)
            differ |= set(ids[there][(cosines < ALIKE) & ~is_zero].tolist())
        return differ

    def _find(self, ids: Int64Array, *, mark: bool = False) -> tuple[Int64Array, np.ndarray[Any, np.dtype[np.bool_]]]:
        places = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
        there = self._sorted[places] == ids
        if mark:
            self._met[places[there]] = True
        return places, there


def _usable(rows: Sequence[Vector], dim: int) -> list[Vector]:
    """The rows whose blobs have the model's length and hold a posterior."""
    whole = [row for row in rows if len(row.mu) == len(row.logvar) == 2 * dim]
    if not whole:
        return []
    posterior = from_blobs([Blobs(row.mu, row.logvar) for row in whole], dim)
    fine = np.isfinite(posterior.mu).all(axis=1) & (posterior.logvar <= LOGVAR_LIMIT).all(axis=1)  # NaN is not <=
    fine &= np.isfinite(posterior.logvar).all(axis=1)  # [n]
    return [whole[place] for place in np.flatnonzero(fine)]


def _unit(blobs: Sequence[bytes], dim: int) -> Float32Array:
    return normalised(np.frombuffer(b"".join(blobs), np.float16).reshape(-1, dim).astype(np.float32), dim)  # [n, d]


def _load(root: Path, row: OwnVector, encoder: Encoder, sandbox: Sandbox) -> Loaded:
    reader = Reader(
        root, encoder, {"image": (), "text": ()}, sandbox, DecodeJournal(root)
    )  # not opened: nothing is noted
    return load(reader, Job(row.rel_path, row.modality, None, None))


def _without_moments(catalog: Catalog, model: Model, rows: Sequence[OwnVector], fresh: Sequence[Blobs]) -> set[int]:
    """The ids of videos none of whose keyframes is on record."""
    with catalog.begin() as connection:
        videos = [row for row, blobs in zip(rows, fresh, strict=True) if blobs.frames]
        return {row.id for row in videos if not moments.of_asset(connection, model.id, row.asset_id)}


def _unlike(rows: Sequence[OwnVector], fresh: Float32Array) -> set[int]:
    dim = fresh.shape[1]
    cosines = np.einsum("nd,nd->n", _unit([row.mu for row in rows], dim), normalised(fresh, dim))  # [n]
    return {row.id for row, cosine, mu in zip(rows, cosines, fresh, strict=True) if cosine < SAME_MODEL and mu.any()}


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))
