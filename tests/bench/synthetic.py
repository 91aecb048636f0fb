"""Libraries of any size without a photo or a model run: vectors made up, written straight into a catalog.

    python -m tests.bench.synthetic ./library --count 100000

The vectors imitate what a two-tower model gives: the items stand in clusters of a space of 48 of the 256 dimensions,
with a little of everything else; texts lie off to one side of the photos (the gap between modalities), near what they
speak of, so that a search for words is a search from outside the distribution of the photos.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from indexer.base.types import IMAGE, TEXT, Float32Array
from indexer.catalog.schema import LIVE, OWN, about, assets, library, models, roots, vectors
from indexer.ingest.loader import HASH_BYTES
from indexer.search.index_files import VECTORS_FOLDER, refresh
from indexer.store import Store
from mmsearch.inference.load_model import load_model

ROWS_AT_ONCE = 10_000
CLUSTERS = 1000  # at least
FILES_A_CLUSTER = 100
RANK = 48
FILES_A_FOLDER = 1000
SIZE_BYTES, MTIME_NS = 0, 1  # of every file


@dataclass(frozen=True)
class World:
    """What all vectors of one run are drawn from."""

    centres: Float32Array  # [clusters, rank]
    spread: Float32Array  # [rank], falling
    basis: Float32Array  # [rank, d]
    photo_side: Float32Array  # [d]
    text_side: Float32Array  # [d]

    @classmethod
    def of_size(cls, dim: int, count: int, seed: int = 0) -> World:
        """One for `count` files: a larger library shows more different things, else its search would look easier."""
        return cls.of(dim, seed, max(CLUSTERS, count // FILES_A_CLUSTER))

    @classmethod
    def of(cls, dim: int, seed: int = 0, clusters: int = CLUSTERS) -> World:
        """The same for the same seed."""
        rng = np.random.default_rng(seed)
        rank = min(RANK, dim)
        spread = (1 / np.sqrt(np.arange(1, rank + 1))).astype(np.float32)
        basis = np.linalg.qr(rng.standard_normal((dim, rank)))[0].T.astype(np.float32)
        centres = (rng.standard_normal((clusters, rank)) * spread).astype(np.float32)
        sides = 0.8 * rng.standard_normal((2, dim)) / np.sqrt(dim)
        return cls(centres, spread, basis, *sides.astype(np.float32))

    def photos(self, rng: np.random.Generator, count: int) -> Float32Array:
        """Means `[count, d]`."""
        return self._vectors(rng, self._meanings(rng, count), self.photo_side)

    def texts(self, rng: np.random.Generator, count: int) -> Float32Array:
        """Means `[count, d]` of texts about photos nobody took."""
        return self._vectors(rng, self._meanings(rng, count), self.text_side)

    def _meanings(self, rng: np.random.Generator, count: int) -> Float32Array:
        chosen = self.centres[rng.integers(0, len(self.centres), count)]
        own = rng.standard_normal(chosen.shape, np.float32) * self.spread
        return np.asarray(chosen + 0.7 * own, np.float32)  # [n, rank]

    def _vectors(self, rng: np.random.Generator, meanings: Float32Array, side: Float32Array) -> Float32Array:
        dim = self.basis.shape[1]
        noise = rng.standard_normal((len(meanings), dim), np.float32) / np.sqrt(np.float32(dim))
        return np.asarray(meanings @ self.basis + side + 0.5 * noise, np.float32)


def make_library(
    where: Path, count: int, *, texts: int = 0, dim: int = 256, model: str = "", world: World | None = None
) -> None:
    """A library of `count` files, of which the last `texts` are texts; `model` its fingerprint."""
    rng, world = np.random.default_rng(0), world or World.of_size(dim, count)
    root = where.parent / "photos"
    root.mkdir(parents=True, exist_ok=True)
    (root / "here").touch()  # a root that is empty would be taken for an unplugged drive
    with Store.open(where, create=True) as store:
        with store._catalog.begin() as connection:
            connection.execute(models.insert().values(id=1, fingerprint=model, name="default", dim=dim))
            connection.execute(library.update().values(model_id=1, change=1))
            connection.execute(roots.insert().values(id=1, path=str(root), pairing_due=False))
        for first, means, kind in _parts(rng, world, count, texts):
            _write(store, first, means, kind)
        live = store._catalog.model()
        assert live is not None
        refresh(store._catalog, where / VECTORS_FOLDER, live)


def make_files(root: Path, count: int, *, texts: int = 0) -> None:
    """The files of such a library, which nobody opens: empty, with the time that the catalog has."""
    for one in range(1, count + 1):
        path = root / name_of(one, "jpg" if one <= count - texts else "txt")
        if one % FILES_A_FOLDER == 0 or one == 1:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, ns=(MTIME_NS, MTIME_NS))


def name_of(one: int, suffix: str) -> str:
    """The path of a file below its root."""
    return f"{one // FILES_A_FOLDER:05d}/{one:08d}.{suffix}"


def _hash(one: int) -> bytes:
    return hashlib.blake2b(one.to_bytes(8), digest_size=HASH_BYTES).digest()


def _parts(rng: np.random.Generator, world: World, count: int, texts: int) -> Iterator[tuple[int, Float32Array, int]]:
    for start, stop, kind in ((0, count - texts, IMAGE), (count - texts, count, TEXT)):
        for first in range(start, stop, ROWS_AT_ONCE):
            size = min(ROWS_AT_ONCE, stop - first)
            yield first, world.photos(rng, size) if kind == IMAGE else world.texts(rng, size), kind


def _write(store: Store, first: int, means: Float32Array, kind: int) -> None:
    modality, suffix = ("image", "jpg") if kind == IMAGE else ("text", "txt")
    ids = range(first + 1, first + 1 + len(means))
    certain = np.full(means.shape[1], -1, np.float16).tobytes()
    files = {"root_id": 1, "modality": modality, "state": LIVE, "size_bytes": SIZE_BYTES, "mtime_ns": MTIME_NS}
    rows = {"model_id": 1, "role": OWN, "kind": kind, "change": 1, "logvar": certain}
    with store._catalog.begin() as connection:
        files["seen_at"] = datetime(2026, 1, 1)
        named = [{"id": one, "rel_path": name_of(one, suffix), "content_hash": _hash(one)} for one in ids]
        connection.execute(assets.insert(), [files | one for one in named])
        if kind == IMAGE:  # what was asked and said nothing is not asked again
            connection.execute(about.insert(), [{"asset_id": one} for one in ids])
        blobs = means.astype(np.float16)
        connection.execute(
            vectors.insert(),
            [rows | {"id": one, "asset_id": one, "mu": mu.tobytes()} for one, mu in zip(ids, blobs, strict=True)],
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A library of made-up vectors.")
    parser.add_argument("library", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=0, help="how many of them are texts")
    parser.add_argument("--files", action="store_true", help="make the files, too, in 'photos' beside the library")
    options = parser.parse_args()
    encoder = load_model("default", "cpu")
    make_library(options.library, options.count, texts=options.texts, dim=encoder.dim, model=encoder.fingerprint)
    if options.files:
        make_files(options.library.parent / "photos", options.count, texts=options.texts)
