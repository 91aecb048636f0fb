"""Stored vectors compared with the index file, which has a checksum, and with the model.

In: rows of `vectors`, the index file as it lies there, an encoder. Out: the ids that are not right. An own vector is
encoded again from its file, a caption's from its words; a fused one follows from both. Next: `examine.py`, which mends
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.base.types import HIDDEN, Encoder, Float32Array
from indexer.catalog import checks
from indexer.catalog import keyframes as moments
from indexer.catalog.checks import OwnVector, StoredVector
from indexer.catalog.database import Catalog, Connection, Model
from indexer.catalog.own_roots import standing
from indexer.catalog.vectors import Blobs, from_blobs, hold_posteriors
from indexer.decoding.sandbox import DecodeJournal, Sandbox
from indexer.files.opening import PhotoFolder
from indexer.ingest.encode import encode_pictures
from indexer.ingest.loader import Loaded, Reader, load
from indexer.ingest.plan import Job
from indexer.search import index_files as generations
from indexer.search.live_index import LiveIndex
from indexer.vectors.protocol import normalised
from indexer.vectors.rows import Int64Array

MEND: Final = "mmsearch doctor --repair"
ALIKE: Final = 0.9999  # cosine of a vector in the index with the float16 row it was made from
SAME_MODEL: Final = 0.98  # cosine of a vector encoded in float32 here and in int8 on another machine, at the least
AT_ONCE: Final = 32  # pictures encoded together

Item = TypeVar("Item")
Vector = TypeVar("Vector", StoredVector, OwnVector)


@dataclass(frozen=True)
class Check:
    """One thing looked at. `faults` counts what is wrong, `found` says it in words, `remedy` is what to type."""

    name: str
    faults: int
    found: str
    remedy: str = ""
    mended: bool = False


@dataclass
class Faults:
    """Ids of vectors that are wrong, for `examine.mend`."""

    unusable: set[int] = field(default_factory=set)  # no search can use them
    doubtful: set[int] = field(default_factory=set)  # usable, and not what the index or the file says
    videos: set[int] = field(default_factory=set)  # own vectors that the keyframes beside them do not make


def with_index(connection: Connection, folder: Path, model: Model, faults: Faults) -> list[Check]:
    """Read every vector of `model` once: can it be used, and is it the one in the index file?"""
    live, index, is_sound = generations.examine(connection, folder, model)
    count = compared = recognised = 0
    for page in checks.stored_vectors(connection, model):
        kept = [row for row in page if not row.is_due]
        usable = _usable(kept, model.dim)
        faults.unusable.update({row.id for row in kept} - {row.id for row in usable})
        count += len(kept)
        if live is not None and len(live.ids):
            recognised += int(_places(live, page)[1].sum())
            found, differing = _in_index(live, usable)
            compared += found
            faults.doubtful.update(differing)
    if live is not None and recognised < len(live.ids):
        is_sound, index = False, f"{len(live.ids) - recognised} vectors of the index file are not the catalog's"
    bad, other = len(faults.unusable), len(faults.doubtful)
    usability = f"{bad} of {count} vectors cannot be used" if bad else f"{count} vectors can be used"
    return [
        Check("vectors", bad, usability, MEND),
        Check("index file", int(not is_sound), index, MEND),
        Check("comparison", other, f"{other} of {compared} vectors differ from the index file", MEND),
    ]


def sample(catalog: Catalog, model: Model, encoder: Encoder, count: int) -> tuple[int, set[int]]:
    """Encode `count` files and captions again, chosen by chance: how many could be, and the ids of those that differ.

    A file that is away, or not this user's, or changed since it was indexed says nothing about its vector.
    """
    with catalog.begin() as connection:
        now = standing(connection)
        online = now.whole
        folders = {root.id: PhotoFolder(root.path, now.own.follow_links(root)) for root in now.online}
        chosen = _usable(checks.sample(connection, model, online, count), model.dim)
    texts = [(row, row.text) for row in chosen if row.text is not None]
    images: list[tuple[OwnVector, Loaded]] = []
    with Sandbox(encoder.side_px) as sandbox:  # one for all: a worker takes longer to start than to decode
        for row in (one for one in chosen if one.text is None):
            loaded = _load(folders[row.root_id], row, encoder, sandbox)
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


def _in_index(live: LiveIndex, usable: Sequence[StoredVector]) -> tuple[int, set[int]]:
    """How many of these vectors the index file has; the ids of those that it has otherwise, or lacks."""
    due = [row for row in usable if row.kind != HIDDEN and row.change <= live.change]  # newer ones are replayed
    if not due:
        return 0, set()
    places, there = _places(live, due)
    ids = np.array([row.id for row in due], np.int64)
    differing = set(ids[~there].tolist())
    if there.any():
        rows = live.index.rows
        held = normalised(rows.take(places[there]), rows.dim)
        stored = _unit([row.mu for row, found in zip(due, there, strict=True) if found], rows.dim)
        cosines = np.einsum("nd,nd->n", stored, held)  # [n]
        differing |= set(ids[there][(cosines < ALIKE) & stored.any(axis=1)].tolist())
    return int(there.sum()), differing


def _places(live: LiveIndex, rows: Sequence[StoredVector]) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Where each of these vectors is in the index, and whether it is there, `[n]` each."""
    ids = np.array([row.id for row in rows], np.int64)
    places = np.minimum(np.searchsorted(live.ids, ids), len(live.ids) - 1)
    return places, live.ids[places] == ids


def _usable(rows: Sequence[Vector], dim: int) -> list[Vector]:
    """The rows whose blobs have the model's length and hold a posterior."""
    return [row for row, holds in zip(rows, hold_posteriors(rows, dim), strict=True) if holds]


def _unit(blobs: Sequence[bytes], dim: int) -> Float32Array:
    return normalised(np.frombuffer(b"".join(blobs), np.float16).reshape(-1, dim).astype(np.float32), dim)  # [n, d]


def _load(folder: PhotoFolder, row: OwnVector, encoder: Encoder, sandbox: Sandbox) -> Loaded:
    journal = DecodeJournal(folder.root)  # not opened: nothing is noted
    reader = Reader(folder, encoder, {"image": (), "text": ()}, sandbox, journal)
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
