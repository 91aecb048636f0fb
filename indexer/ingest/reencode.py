"""Another model for a whole library: encode beside the live vectors, then switch in one transaction.

In: an encoder with a new fingerprint. Out: the same files under its vectors; searches answer from the old model until
the switch. What is encoded is committed batch by batch, so that an interrupted run goes on. Next: `generations.py`.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, delete, exists, select, update

from indexer.base.errors import LibraryError
from indexer.base.failpoints import reach
from indexer.base.profile import Profiler
from indexer.base.types import Encoder, IndexReport, Progress, ProgressCallback
from indexer.catalog.database import Catalog, Model, add_model
from indexer.catalog.roots import Root, all_roots, offline_reason
from indexer.catalog.schema import LIVE, OWN, assets, frames, library, vectors
from indexer.ingest import captions, fusion
from indexer.ingest.frames import encode_pictures
from indexer.ingest.loader import KnownHashes, Loaded, load_all
from indexer.ingest.plan import Job
from indexer.ingest.rows import Blobs, add_own, refresh_kinds, to_blobs
from indexer.search import index_files as generations


def reencode(
    catalog: Catalog, where: Path, encoder: Encoder, *, progress: ProgressCallback | None = None, batch_size: int = 32
) -> IndexReport:
    """Encode every file again and make `encoder`'s the live model. The caller holds the writer's lock.

    A file that changed since it was indexed, or cannot be read, is left to the next `ingest`.
    Raises: LibraryError while a root is offline, since its files would be lost to the search.
    """
    clock = Profiler()
    with catalog.begin() as connection:
        model = add_model(connection, encoder)
        for root in all_roots(connection):
            reason = offline_reason(connection, root)
            if reason:
                raise LibraryError(
                    f"{root.path} {reason}; connect it, then run 'mmsearch rebuild' again, "
                    f"or forget it by 'mmsearch prune --offline {root.path}'"
                )
        everything = [(root, job) for root in all_roots(connection) for job in _jobs(connection, root, model)]
    reach("reencode.begun")
    tell, done, encoded, left_out = progress or (lambda _: None), 0, 0, 0
    for root in dict.fromkeys(root for root, _ in everything):
        jobs = [job for owner, job in everything if owner == root]
        hashes = {job.rel_path: job.content_hash for job in jobs}
        blind = [Job(job.rel_path, job.modality, job.asset_id, None) for job in jobs]
        pending: list[Loaded] = []
        nothing_known: KnownHashes = {"image": (), "text": ()}
        with closing(load_all(root.path, blind, encoder, nothing_known, 2 * batch_size, where, clock)) as loading:
            for loaded in loading:
                done += 1
                if loaded.is_fresh and loaded.content_hash == hashes[loaded.job.rel_path]:
                    pending.append(loaded)
                else:
                    left_out += 1
                if len(pending) >= batch_size:
                    encoded += _encode(catalog, model, encoder, pending)
                    pending = []
                tell(Progress(done, len(everything), left_out, loaded.job.rel_path))
        encoded += _encode(catalog, model, encoder, pending)
    texts = captions.encode_rows(catalog, model, encoder, batch_size)
    fusion.fuse_photos(catalog, model, encoder)
    reach("reencode.fused")
    _switch(catalog, model)
    reach("reencode.switched")
    generations.refresh(catalog, where / generations.VECTORS_FOLDER, model)
    seconds = clock.profile().seconds
    return IndexReport(updated=encoded, skipped=left_out, encoded=encoded + texts, seconds=seconds)


def _jobs(connection: Connection, root: Root, model: Model) -> list[Job]:
    """The live files of a root that have no vector of this model yet."""
    own = exists().where(vectors.c.asset_id == assets.c.id, vectors.c.model_id == model.id, vectors.c.role == OWN)
    query = select(assets.c.rel_path, assets.c.modality, assets.c.id, assets.c.content_hash)
    query = query.where(assets.c.root_id == root.id, assets.c.state == LIVE, ~own).order_by(assets.c.rel_path)
    return [Job(*row) for row in connection.execute(query)]


def _encode(catalog: Catalog, model: Model, encoder: Encoder, pending: list[Loaded]) -> int:
    """Encode and commit one batch; the number of vectors."""
    blobs: dict[int | None, Blobs] = {}
    images = [one for one in pending if one.pixels is not None]
    if images:
        blobs.update(zip((one.job.asset_id for one in images), encode_pictures(encoder, images), strict=True))
    texts = [one for one in pending if one.text is not None]
    if texts:
        posterior = encoder.encode_texts([one.text for one in texts if one.text is not None])
        blobs.update(zip((one.job.asset_id for one in texts), to_blobs(posterior), strict=True))
    with catalog.begin() as connection:
        add_own(connection, model, {asset_id: pair for asset_id, pair in blobs.items() if asset_id is not None})
        reach("reencode.writing")
    reach("reencode.committed")
    return len(blobs)


def _switch(catalog: Catalog, model: Model) -> None:
    """All at once: the new vectors can be found, the old ones go, and so do those of a change that was given up."""
    with catalog.begin() as connection:
        refresh_kinds(connection, model)
        connection.execute(update(library).values(model_id=model.id))
        connection.execute(delete(vectors).where(vectors.c.model_id != model.id))
        connection.execute(delete(frames).where(frames.c.model_id != model.id))
        reach("reencode.switching")
