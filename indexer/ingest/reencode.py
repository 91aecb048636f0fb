"""Another model for a whole library: encode beside the live vectors, then switch in one transaction.

In: an encoder with a new fingerprint. Out: the same files under its vectors; searches answer from the old model until
the switch. What is encoded is committed batch by batch, so that an interrupted run goes on.
Next: `search/index_files.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from indexer.base.errors import LibraryError
from indexer.base.failpoints import reach
from indexer.base.profile import Profiler
from indexer.base.types import Encoder, IndexReport, Progress, ProgressCallback
from indexer.catalog import assets, vectors
from indexer.catalog.assets import PresentFile
from indexer.catalog.database import Catalog, Connection
from indexer.catalog.library import add_model
from indexer.catalog.own_roots import OwnFolders, left_out, standing
from indexer.catalog.roots import Root, all_roots
from indexer.files.opening import PhotoFolder
from indexer.ingest.captions import encode_captions
from indexer.ingest.encode import encode
from indexer.ingest.fusion import fuse_photos
from indexer.ingest.loader import KnownHashes, Loaded, load_all
from indexer.ingest.plan import Job
from indexer.ingest.run import Run

NOTHING_KNOWN: KnownHashes = {"image": (), "text": ()}


def reencode(
    catalog: Catalog, where: Path, encoder: Encoder, *, progress: ProgressCallback | None = None, batch_size: int = 32
) -> IndexReport:
    """Encode every file again and make `encoder`'s the live model. The caller holds the writer's lock.

    A file that changed since it was indexed, or cannot be read, is left to the next `ingest`.
    Raises: LibraryError while a root is offline, or holds files that are not this user's to read and have no vector of
    the new model: they would be lost to the search.
    """
    clock = Profiler()
    with catalog.begin() as connection:
        model = add_model(connection, encoder)
        files = {root: assets.unencoded(connection, root, model) for root in all_roots(connection)}
        own = _own(connection, files)
    reach("reencode.begun")
    run = Run(catalog, where, model, encoder, batch_size, progress or (lambda _: None), clock)
    total = sum(map(len, files.values()))
    for root, due in files.items():
        if due:
            _encode_files(run, PhotoFolder(root.path, own.follow_links(root)), due, total)
    texts = encode_captions(run)
    fuse_photos(run)
    reach("reencode.fused")
    with catalog.begin() as connection:  # all at once: new vectors can be found, the old ones and given-up ones go
        vectors.switch(connection, model)
        reach("reencode.switching")
    reach("reencode.switched")
    run.write_index()
    counts, seconds = run.tally, clock.profile().seconds
    skipped, encoded = (counts.skipped, counts.postponed), counts.updated + texts
    return IndexReport(0, counts.updated, 0, 0, *skipped, encoded=encoded, seconds=seconds)


def _own(connection: Connection, files: Mapping[Root, Sequence[PresentFile]]) -> OwnFolders:
    """The user's folders. Raises: LibraryError where not all of these files can be read now."""
    now = standing(connection)
    for root, reason in now.offline.items():
        raise LibraryError(
            f"{root.path} {reason}; connect it, then run 'mmsearch rebuild' again, "
            f"or forget it by 'mmsearch prune --offline {root.path}'"
        )
    strange = [root for root, due in files.items() if not all(now.own.hold(root, file.rel_path) for file in due)]
    if strange:
        raise LibraryError(
            f"{left_out(strange)}, then run 'mmsearch rebuild' again, "
            f"or forget it by 'mmsearch prune --offline {strange[0].path}'"
        )
    return now.own


def _encode_files(run: Run, photos: PhotoFolder, due: list[PresentFile], total: int) -> None:
    """Encode the files of a root that are as they were indexed, and commit them by the batch."""
    hashes = {file.rel_path: file.content_hash for file in due}
    jobs = [Job(file.rel_path, file.modality, file.id, None) for file in due]
    look_ahead = 2 * run.batch_size
    pending: list[Loaded] = []
    loading = load_all(photos, jobs, run.encoder, NOTHING_KNOWN, look_ahead, run.library, run.clock)
    with closing(loading):
        for loaded in loading:
            if loaded.is_fresh and loaded.content_hash == hashes[loaded.job.rel_path]:
                pending.append(loaded)
            else:
                run.tally.skipped += 1
                run.tally.postponed += loaded.is_postponed
            if len(pending) >= run.batch_size:
                _encode(run, pending)
                pending = []
            done = run.tally.updated + run.tally.skipped + len(pending)
            run.progress(Progress(done, total, run.tally.skipped, loaded.job.rel_path))
    _encode(run, pending)


def _encode(run: Run, pending: list[Loaded]) -> None:
    """Encode and commit one batch."""
    found = zip((one.job.asset_id for one in pending), encode(run.encoder, pending), strict=True)
    blobs = {asset_id: one for asset_id, one in found if asset_id is not None}
    with run.catalog.begin() as connection:
        vectors.add_own(connection, run.model, blobs)
        reach("reencode.writing")
    reach("reencode.committed")
    run.tally.updated += len(blobs)
