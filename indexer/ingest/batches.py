"""Loaded files to rows: encode in full batches, commit each batch with everything that belongs to it.

In: `Loaded` files. Out: rows of files and their own vectors. What is committed is never encoded again; what a crash
interrupts is one batch. Files whose content is on record already (touched, moved, copied) need no encoder and are
committed with the next batch, or after `COMMIT_S`. Next: `catalog/assets.py`, the rows.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from indexer.base.failpoints import reach
from indexer.base.types import Modality
from indexer.catalog import assets, fused, metadata, root_updates, vectors
from indexer.catalog.assets import Description, FileState
from indexer.catalog.database import Connection
from indexer.catalog.roots import Root, all_roots, offline_reason
from indexer.catalog.vectors import Blobs, Donor
from indexer.decoding.decode import EXCERPT_CHARS
from indexer.ingest.encode import encode
from indexer.ingest.loader import Loaded
from indexer.ingest.run import Run

COMMIT_S = 2.0
READY_LIMIT = 1000


@dataclass(frozen=True)
class Content:
    """What rows of the same content have in common: the vector, and what is shown of it."""

    blobs: Blobs
    description: Description


Lost = dict[tuple[Modality, bytes], Content]  # content that lost its row in this run, and may turn up again


@dataclass
class _Lane:
    """Content of one modality that waits for its batch to fill, and the files that hold the same content again."""

    fresh: dict[bytes, Loaded] = field(default_factory=dict)
    copies: list[Loaded] = field(default_factory=list)


class Batches:
    """Takes loaded files one by one; `finish` commits the rest. Used from one thread."""

    def __init__(self, run: Run, root: Root, lost: Lost) -> None:
        self._run = run
        self._root = root
        self._lost = lost
        self._lanes: dict[Modality, _Lane] = {"image": _Lane(), "text": _Lane()}
        self._ready: list[Loaded] = []
        self._committed_at = time.monotonic()
        with run.catalog.begin() as connection:
            self.known = assets.known_hashes(connection, run.model)
        for lost_modality, content_hash in lost:
            self.known[lost_modality].add(content_hash)

    def take(self, loaded: Loaded) -> None:
        """Sort one file into its lane; encode and commit when the lane is full."""
        lane = self._lanes[loaded.job.modality]
        if loaded.content_hash is not None and loaded.content_hash in lane.fresh and not loaded.error:
            lane.copies.append(replace(loaded, pixels=None, later=None, text=None))
        elif loaded.is_fresh and loaded.content_hash in self.known[loaded.job.modality]:
            # encoded since a thread began to read it
            self._ready.append(replace(loaded, pixels=None, later=None, text=None))
        elif loaded.is_fresh:
            assert loaded.content_hash is not None
            lane.fresh[loaded.content_hash] = loaded
        else:
            self._ready.append(loaded)
        if len(lane.fresh) >= self._run.batch_size:
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
        blobs: list[Blobs] = []
        if fresh:
            with self._run.clock.stage("encode") as count:
                blobs = encode(self._run.encoder, fresh)
                count.items += len(fresh)
            reach("batch.encoded")
        self._commit(dict(zip(lane.fresh, blobs, strict=True)), [*fresh, *lane.copies])
        self._run.tally.encoded += len(fresh)
        self.known[modality].update(lane.fresh)
        self._lanes[modality] = _Lane()

    def _commit(self, blobs: dict[bytes, Blobs], batch: list[Loaded]) -> None:
        """One transaction for a batch and everything that was ready before it."""
        ready = [*self._ready, *batch]
        if ready:
            with self._run.clock.stage("store") as stored:
                with self._run.catalog.begin() as connection:
                    _Write(connection, self._run, self._root, self._lost).all(ready, blobs)
                    reach("batch.writing")
                stored.items += len(ready)
            reach("batch.committed")
        self._ready = []
        self._committed_at = time.monotonic()


class _Write:
    """The rows of one batch, inside its transaction."""

    def __init__(self, connection: Connection, run: Run, root: Root, lost: Lost) -> None:
        self._connection = connection
        self._model = run.model
        self._root = root
        self._tally = run.tally
        self._lost = lost
        self._own: dict[int, Blobs | None] = {}
        self._encoded: dict[bytes, Content] = {}  # in this batch
        self._touched: set[int] = set()  # assets that may have become live, or hidden, with the vector they have

    def all(self, batch: list[Loaded], blobs: dict[bytes, Blobs]) -> None:
        """Write every file, then the vectors, then what follows from them."""
        for loaded in batch:
            if loaded.error is not None:
                self._skip(loaded)
            elif loaded.is_touched:
                assert loaded.job.asset_id is not None
                assets.keep(self._connection, loaded.job.asset_id, self._root, _state(loaded))
                self._touched.add(loaded.job.asset_id)
                self._tally.unchanged += 1
            elif loaded.is_fresh:
                assert loaded.content_hash is not None
                encoded = Content(blobs[loaded.content_hash], _description(loaded))
                self._encoded[loaded.content_hash] = encoded
                self._put(loaded, encoded)
            else:
                self._reuse(loaded)
        vectors.set_own(self._connection, self._model, self._own)
        changed = self._own.keys() | self._touched
        fused.drop(self._connection, self._own.keys() | fused.captioned_by(self._connection, changed))

    def _skip(self, loaded: Loaded) -> None:
        asset_id = loaded.job.asset_id
        if loaded.content_hash is None and asset_id is not None:
            assets.unopened(self._connection, asset_id, _state(loaded))
        else:
            asset_id = self._write(loaded, Description())
        if loaded.content_hash is not None:
            self._own[asset_id] = None
        self._touched.add(asset_id)
        self._tally.skipped += 1

    def _put(self, loaded: Loaded, content: Content) -> None:
        self._own[self._write(loaded, content.description)] = content.blobs
        if loaded.job.asset_id is None:
            self._tally.added += 1
        else:
            self._tally.updated += 1

    def _write(self, loaded: Loaded, description: Description) -> int:
        """The row of a file with its content, and what a picture says of itself; its id."""
        said = loaded.picture.metadata if loaded.picture else None  # None: `catch_up` asks the copy
        asset_id = loaded.job.asset_id
        if asset_id is None:
            asset_id = assets.insert(self._connection, self._root, _state(loaded), description)
            if said is not None:
                metadata.add(self._connection, asset_id, said)
        else:
            self._keep_old(loaded, asset_id)
            assets.replace(self._connection, asset_id, self._root, _state(loaded), description)
            metadata.write(self._connection, asset_id, said)
        return asset_id

    def _keep_old(self, loaded: Loaded, asset_id: int) -> None:
        """Before other content takes a row: its content may have moved to a path that comes later in this run."""
        if loaded.job.content_hash is not None:
            content = self._content_of(asset_id)
            if content is not None:
                self._lost[loaded.job.modality, loaded.job.content_hash] = content

    def _content_of(self, asset_id: int) -> Content | None:
        blobs = vectors.own(self._connection, self._model, asset_id)
        return None if blobs is None else Content(blobs, assets.description_of(self._connection, asset_id))

    def _reuse(self, loaded: Loaded) -> None:
        """Content that has a vector: the file moved here, or is one more copy."""
        content_hash, modality = loaded.content_hash, loaded.job.modality
        assert content_hash is not None
        if content_hash in self._encoded:
            self._put(loaded, self._encoded[content_hash])
            return
        donors = vectors.donors(self._connection, self._model, content_hash, modality)
        gone = next((donor for donor in donors if self._is_gone(donor, loaded)), None)
        if gone is not None and loaded.job.asset_id is None:
            assets.keep(self._connection, gone.id, self._root, _state(loaded))
            self._touched.add(gone.id)
            self._tally.moved += 1
            if gone.root_id != self._root.id:
                root_updates.set_pairing_due(self._connection, [gone.root_id])
        else:
            given = self._content_of(donors[0].id) if donors else self._lost[modality, content_hash]
            assert given is not None
            self._put(loaded, given)

    def _is_gone(self, donor: Donor, loaded: Loaded) -> bool:
        """Whether a file has left its path, in a root that is there without it."""
        root = next(one for one in all_roots(self._connection) if one.id == donor.root_id)
        if offline_reason(self._connection, root) is not None:
            return False
        old = root.path / donor.rel_path
        if not os.path.lexists(old):
            return True
        # Where the case of letters makes no difference, the old spelling still leads to the file; the scan missed it.
        return donor.is_missing and _is_same(old, self._root.path / loaded.job.rel_path)


def _state(loaded: Loaded) -> FileState:
    job = loaded.job
    return FileState(job.rel_path, job.modality, loaded.size_bytes, loaded.mtime_ns, loaded.content_hash, loaded.error)


def _description(loaded: Loaded) -> Description:
    """What an encoded file shows of itself."""
    if loaded.picture is None:
        return Description(excerpt=None if loaded.text is None else loaded.text[:EXCERPT_CHARS])
    picture, said = loaded.picture, loaded.picture.metadata
    return Description(
        picture.width_px, picture.height_px, said.taken_at, said.camera, said.latitude_deg, said.longitude_deg
    )


def _is_same(old: Path, new: Path) -> bool:
    try:
        return old.samefile(new)
    except OSError:
        return False
