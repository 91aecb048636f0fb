"""Loaded files to rows: encode in full batches, commit each batch with everything that belongs to it.

In: `Loaded` files. Out: rows of files and their own vectors. What is committed is never encoded again; what a crash
interrupts is one batch. Files whose content is on record already (touched, moved, copied) need no encoder and are
committed with the next batch, or after `COMMIT_S`. Next: `assets.py`, the rows.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Connection, select, update

from indexer.base.failpoints import reach
from indexer.base.profile import Profiler
from indexer.base.types import Encoder, Modality
from indexer.catalog.database import Catalog, Model
from indexer.catalog.roots import Root, all_roots, offline_reason
from indexer.catalog.schema import MISSING, assets, roots
from indexer.ingest import rows
from indexer.ingest.frames import encode_pictures
from indexer.ingest.loader import Loaded

COMMIT_S = 2.0
READY_LIMIT = 1000

Lost = dict[tuple[Modality, bytes], rows.Kept]  # content that lost its row in this run, and may turn up again


@dataclass
class Tally:
    """The counts of an `IndexReport` while they grow."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    skipped: int = 0
    offline: int = 0
    excluded: int = 0
    encoded: int = 0


@dataclass
class _Lane:
    """Content of one modality that waits for its batch to fill, and the files that hold the same content again."""

    fresh: dict[bytes, Loaded] = field(default_factory=dict)
    copies: list[Loaded] = field(default_factory=list)


class Batches:
    """Takes loaded files one by one; `finish` commits the rest. Used from one thread."""

    def __init__(
        self,
        catalog: Catalog,
        root: Root,
        model: Model,
        encoder: Encoder,
        batch_size: int,
        tally: Tally,
        kept: Lost,
        clock: Profiler,
    ) -> None:
        self._catalog = catalog
        self._root = root
        self._model = model
        self._encoder = encoder
        self._batch_size = batch_size
        self._tally = tally
        self._lanes: dict[Modality, _Lane] = {"image": _Lane(), "text": _Lane()}
        self._ready: list[Loaded] = []
        self._kept = kept
        self._clock = clock
        self._committed_at = time.monotonic()
        with catalog.begin() as connection:
            self.known = rows.known_hashes(connection, model)
        for lost_modality, content_hash in kept:
            self.known[lost_modality].add(content_hash)

    def take(self, loaded: Loaded) -> None:
        """Sort one file into its lane; encode and commit when the lane is full."""
        lane = self._lanes[loaded.job.modality]
        if loaded.content_hash is not None and loaded.content_hash in lane.fresh and not loaded.error:
            lane.copies.append(replace(loaded, pixels=None, later=None, text=None))
        elif loaded.is_fresh and loaded.content_hash in self.known[loaded.job.modality]:
            self._ready.append(
                replace(loaded, pixels=None, later=None, text=None)
            )  # encoded since a thread began to read it
        elif loaded.is_fresh:
            assert loaded.content_hash is not None
            lane.fresh[loaded.content_hash] = loaded
        else:
            self._ready.append(loaded)
        if len(lane.fresh) >= self._batch_size:
            self._encode(loaded.job.modality)
        elif len(self._ready) >= READY_LIMIT or time.monotonic() - self._committed_at > COMMIT_S:
            self._commit({}, [])

    def finish(self) -> None:
        """Encode and commit what is left."""
        self._encode("image")
        self._encode("text")

    def _encode(self, modality: Modality) -> None:
        lane = self._lanes[modality]
        fresh = list(lane.fresh.values())
        blobs: list[rows.Blobs] = []
        if fresh:
            with self._clock.stage("encode") as count:
                blobs = self._blobs(modality, fresh)
                count.items += len(fresh)
            reach("batch.encoded")
        self._commit(dict(zip(lane.fresh, blobs, strict=True)), [*fresh, *lane.copies])
        self._tally.encoded += len(fresh)
        self.known[modality].update(lane.fresh)
        self._lanes[modality] = _Lane()

    def _blobs(self, modality: Modality, fresh: list[Loaded]) -> list[rows.Blobs]:
        if modality == "text":
            return rows.to_blobs(self._encoder.encode_texts([one.text for one in fresh if one.text is not None]))
        return encode_pictures(self._encoder, fresh)

    def _commit(self, blobs: dict[bytes, rows.Blobs], batch: list[Loaded]) -> None:
        """One transaction for a batch and everything that was ready before it."""
        ready, counts = [*self._ready, *batch], Tally()
        if ready:
            with self._clock.stage("store") as stored:
                with self._catalog.begin() as connection:
                    _Write(connection, self._root, self._model, counts, self._kept).all(ready, blobs)
                    reach("batch.writing")
                stored.items += len(ready)
            reach("batch.committed")
            for name, count in vars(counts).items():
                setattr(self._tally, name, getattr(self._tally, name) + count)
        self._ready = []
        self._committed_at = time.monotonic()


class _Write:
    """The rows of one batch, inside its transaction."""

    def __init__(
        self,
        connection: Connection,
        root: Root,
        model: Model,
        tally: Tally,
        kept: Lost,
    ) -> None:
        self._connection = connection
        self._root = root
        self._model = model
        self._tally = tally
        self._kept = kept
        self._own: dict[int, rows.Blobs | None] = {}
        self._touched: set[int] = set()  # assets whose vectors may be found under another kind now

    def all(self, batch: list[Loaded], blobs: dict[bytes, rows.Blobs]) -> None:
        """Write every file, then the vectors, then what follows from them."""
        for loaded in batch:
            if loaded.error is not None:
                self._skip(loaded)
            elif loaded.is_touched:
                rows.touch(self._connection, loaded)
                assert loaded.job.asset_id is not None
                self._touched.add(loaded.job.asset_id)
                self._tally.unchanged += 1
            elif loaded.is_fresh:
                assert loaded.content_hash is not None
                self._put(loaded, blobs[loaded.content_hash])
            else:
                self._reuse(loaded, blobs)
        rows.set_own(self._connection, self._model, self._own)
        changed = self._own.keys() | self._touched
        rows.drop_fused(self._connection, self._own.keys() | rows.captioned_by(self._connection, changed))
        photos = rows.captioned_by(self._connection, changed)
        rows.refresh_kinds(self._connection, self._model, changed | photos)

    def _skip(self, loaded: Loaded) -> None:
        if loaded.content_hash is not None:
            self._keep(loaded)
        asset_id = rows.put(self._connection, self._root.id, loaded)
        if loaded.content_hash is not None:
            self._own[asset_id] = None
        self._touched.add(asset_id)
        self._tally.skipped += 1

    def _put(self, loaded: Loaded, blobs: rows.Blobs, like: rows.Description | None = None) -> None:
        self._keep(loaded)
        asset_id = rows.put(self._connection, self._root.id, loaded, like=like)
        self._own[asset_id] = blobs
        if loaded.job.asset_id is None:
            self._tally.added += 1
        else:
            self._tally.updated += 1

    def _reuse(self, loaded: Loaded, blobs: dict[bytes, rows.Blobs]) -> None:
        """Content that has a vector: the file moved here, or is one more copy."""
        assert loaded.content_hash is not None
        if loaded.content_hash in blobs:
            self._put(loaded, blobs[loaded.content_hash], self._first_row(loaded))
            return
        candidates = rows.donors(self._connection, loaded, self._model)
        gone = next((donor for donor in candidates if self._is_gone(donor, loaded)), None)
        if gone is not None and loaded.job.asset_id is None:
            rows.move(self._connection, gone, self._root.id, loaded)
            self._touched.add(gone.id)
            self._tally.moved += 1
            if gone.root_id != self._root.id:
                other = update(roots).where(roots.c.id == gone.root_id)
                self._connection.execute(other.values(pairing_due=True))
        elif candidates:
            self._put(
                loaded,
                rows.with_frames(self._connection, self._model, candidates[0]),
                rows.described(self._connection, candidates[0].id),
            )
        else:
            kept = self._kept[loaded.job.modality, loaded.content_hash]
            self._put(loaded, kept.blobs, kept.description)

    def _first_row(self, loaded: Loaded) -> rows.Description:
        """What the file that was encoded in this batch says of itself."""
        same = (assets.c.content_hash == loaded.content_hash, assets.c.modality == loaded.job.modality)
        first = self._connection.execute(select(assets.c.id).where(*same).limit(1)).scalar_one()
        return rows.described(self._connection, first)

    def _keep(self, loaded: Loaded) -> None:
        """Before other content takes a row: its content may have moved to a path that comes later in this run."""
        old = loaded.job.content_hash
        if old is not None and loaded.job.asset_id is not None:
            kept = rows.keep(self._connection, self._model, loaded.job.asset_id)
            if kept is not None:
                self._kept[loaded.job.modality, old] = kept

    def _is_gone(self, donor: rows.Donor, loaded: Loaded) -> bool:
        """Whether a file has left its path, in a root that is there without it."""
        root = next(one for one in all_roots(self._connection) if one.id == donor.root_id)
        if offline_reason(self._connection, root) is not None:
            return False
        old = root.path / donor.rel_path
        if not os.path.lexists(old):
            return True
        # Where the case of letters makes no difference, the old spelling still leads to the file; the scan missed it.
        return donor.state == MISSING and _is_same(old, self._root.path / loaded.job.rel_path)


def _is_same(old: Path, new: Path) -> bool:
    try:
        return old.samefile(new)
    except OSError:
        return False
