"""Loaded files to rows: encode in full batches, commit each batch with everything that belongs to it.

In: `Loaded` files. Out: rows of files and their own vectors. What is committed is never encoded again; what a crash
interrupts is one batch. Files whose content is on record already (touched, moved, copied) need no encoder and are
committed with the next batch, or after `COMMIT_S`. Next: `catalog/assets.py`, the rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from indexer.base.failpoints import reach
from indexer.base.types import Modality
from indexer.catalog import assets, fused, metadata, root_updates, vectors
from indexer.catalog.assets import Description, FileState
from indexer.catalog.database import Connection
from indexer.catalog.roots import Target
from indexer.catalog.vectors import Blobs
from indexer.decoding.decode import EXCERPT_CHARS
from indexer.decoding.metadata import Metadata
from indexer.ingest.contents import Content, Contents, Lost, content_of
from indexer.ingest.encode import encode
from indexer.ingest.loader import Loaded
from indexer.ingest.run import Run

COMMIT_S = 2.0
READY_LIMIT = 1000


@dataclass
class _Lane:
    """Content of one modality that waits for its batch to fill, and the files that hold the same content again."""

    fresh: dict[bytes, Loaded] = field(default_factory=dict)
    copies: list[Loaded] = field(default_factory=list)


class Batches:
    """Takes loaded files one by one; `finish` commits the rest. Used from one thread."""

    def __init__(self, run: Run, target: Target, lost: Lost) -> None:
        self._run = run
        self._target = target
        self._contents = Contents(run.model, target, lost)
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
                    _Write(connection, self._run, self._target, self._contents).all(ready, blobs)
                    reach("batch.writing")
                stored.items += len(ready)
            reach("batch.committed")
        self._ready = []
        self._committed_at = time.monotonic()


class _Write:
    """The rows of one batch, inside its transaction."""

    def __init__(self, connection: Connection, run: Run, target: Target, contents: Contents) -> None:
        self._connection = connection
        self._model = run.model
        self._root = target.root
        self._tally = run.tally
        self._contents = contents
        self._own: dict[int, Blobs | None] = {}
        self._touched: set[int] = set()  # assets that may have become live, or hidden, with the vector they have

    def all(self, batch: list[Loaded], blobs: dict[bytes, Blobs]) -> None:
        """Write every file, then the vectors, then what follows from them."""
        self._contents.look_up(self._connection, [one for one in batch if one.is_reused])
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
                said = loaded.picture.metadata if loaded.picture else None
                encoded = Content(blobs[loaded.content_hash], _description(loaded), said)
                self._contents.keep(loaded, encoded)
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
            asset_id = self._write(loaded, Description(), None)
        if loaded.content_hash is not None:
            self._own[asset_id] = None
        self._touched.add(asset_id)
        self._tally.skipped += 1
        self._tally.postponed += loaded.is_postponed

    def _put(self, loaded: Loaded, content: Content) -> None:
        self._own[self._write(loaded, content.description, content.said)] = content.blobs
        if loaded.job.asset_id is None:
            self._tally.added += 1
        else:
            self._tally.updated += 1

    def _write(self, loaded: Loaded, description: Description, said: Metadata | None) -> int:
        """The row of a file with its content, and what a picture says of itself (None: `catch_up` asks it); its id."""
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
            content = content_of(self._connection, self._model, asset_id)
            if content is not None:
                self._contents.lose(loaded.job, content)

    def _reuse(self, loaded: Loaded) -> None:
        """Content that has a vector: the file moved here, or is one more copy."""
        gone = self._contents.take_gone(loaded) if loaded.job.asset_id is None else None
        if gone is None:
            self._put(loaded, self._contents.given(self._connection, loaded))
            return
        assets.keep(self._connection, gone.id, self._root, _state(loaded))
        self._touched.add(gone.id)
        self._tally.moved += 1
        if gone.root_id != self._root.id:
            root_updates.set_pairing_due(self._connection, [gone.root_id])


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
