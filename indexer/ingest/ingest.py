"""The table of contents of the indexer: how a folder becomes rows and vectors, in the order it happens.

In: a folder, an encoder, an open catalog. Out: an `IndexReport`; the catalog knows every file below the folder. Each
step commits by itself and starts from what the catalog says, so that a run may end at any point: the next one goes on.
Next: `files/scan.py`, `plan.py`, `loader.py`, `encode.py`, `batches.py`, `contents.py`,
`sidecars.py`, `captions.py`, `fusion.py`, in this order.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from indexer.base.failpoints import reach
from indexer.base.profile import Profiler
from indexer.base.types import Encoder, IndexReport, Progress, ProgressCallback
from indexer.catalog import assets, library, notices, own_roots, root_updates
from indexer.catalog.database import Catalog, Connection
from indexer.catalog.roots import Target, checked_folder, offline_reason
from indexer.files.excludes import Excludes
from indexer.files.opening import PhotoFolder
from indexer.files.roots import device_of
from indexer.files.scan import NO_EXCLUDES, Scan, scan
from indexer.ingest.batches import Batches
from indexer.ingest.captions import encode_captions, pair, signature
from indexer.ingest.contents import Lost
from indexer.ingest.fusion import fuse_photos
from indexer.ingest.loader import load_all
from indexer.ingest.plan import Plan, plan_for
from indexer.ingest.run import Run
from indexer.ingest.sidecars import catch_up, read_sidecars

# vectors; a search replays what the index file lacks, so a long first run writes it on the way
FIRST_CHECKPOINT = 20_000

log = logging.getLogger(__name__)


def ingest(
    catalog: Catalog,
    where: Path,
    folder: Path,
    encoder: Encoder,
    *,
    progress: ProgressCallback | None = None,
    batch_size: int = 32,
    excludes: Excludes = NO_EXCLUDES,
    named: bool = True,
) -> IndexReport:
    """Bring `folder` into the catalog of the library in `where`. The caller holds the writer's lock.

    Args:
        named: whether a person named the folder just now: it is this user's from then on, see `own_roots.py`.

    Raises: FolderNotFound, ModelMismatch. A file that cannot be read is a recorded skip and never raises.
    """
    clock = Profiler()
    with catalog.begin() as connection:
        folder = checked_folder(connection, folder)
        model = library.claim(connection, encoder, where)
    reach("ingest.claimed")
    run = Run(catalog, where, model, encoder, batch_size, progress or (lambda _: None), clock)
    with catalog.begin() as connection:
        targets = root_updates.targets_for(connection, folder, where)
        own = own_roots.name(connection, folder) if named else own_roots.own_folders(connection)
    reach("ingest.rooted")
    lost: Lost = {}
    if strange := own_roots.left_out(target.root for target in targets if not own.hold(target.root, target.prefix)):
        log.warning("%s", strange)
    for target in targets:
        if not own.hold(target.root, target.prefix) or _is_offline(run, target):
            continue
        photos = PhotoFolder(target.root.path, own.follow_links(target.root))
        with clock.stage("scan") as scanned:
            seen = _scan(run, target, photos, excludes)
            scanned.items += len(seen.found)
            with catalog.begin() as connection:
                plan = plan_for(connection, target, seen, model)
                due = _settle(connection, run, target, seen, plan)
                reach("ingest.settling")
        reach("ingest.settled")
        _load_and_encode(run, target, photos, plan, lost)
        with clock.stage("captions") as joined:
            due |= catch_up(run, target, photos) > 0
            if due:
                read_sidecars(run, target, photos, seen)
                pair(run, target, photos, seen)
                encoded = encode_captions(run)
                run.tally.encoded += encoded
                joined.items += encoded + fuse_photos(run)
                with catalog.begin() as connection:
                    root_updates.paired(connection, target.root, None if target.prefix else signature(seen))
                    reach("ingest.closing")
                reach("ingest.closed")
        with catalog.begin() as connection:
            run.tally.skipped += notices.count(connection, target)
    run.write_index()
    reach("ingest.saved")
    with catalog.begin() as connection:
        library.indexed(connection)
    return run.tally.report(clock.profile())


def _is_offline(run: Run, target: Target) -> bool:
    with run.catalog.begin() as connection:
        reason = offline_reason(connection, target.root)
        if reason is None:
            return False
        run.tally.offline += assets.count_live(connection, target)
    log.warning("%s %s: its files stay in the library, hidden until they are back", target.root.path, reason)
    return True


def _scan(run: Run, target: Target, photos: PhotoFolder, excludes: Excludes) -> Scan:
    return scan(
        target.root.path,
        target.prefix,
        leave_out=target.leave_out,
        excludes=excludes,
        follow_links=photos.follow_links,
        heartbeat=lambda count, path: run.progress(Progress(0, None, 0, path)),
    )


def _settle(connection: Connection, run: Run, target: Target, seen: Scan, plan: Plan) -> bool:
    """Everything that needs no file opened, in one transaction; whether captions have to be looked at afterwards."""
    assets.mark(connection, plan.missing, missing=True)
    assets.mark(connection, plan.returned, missing=False)
    run.tally.unchanged += plan.unchanged
    run.tally.skipped += plan.still_skipped
    run.tally.excluded += plan.excluded
    is_due, captions_seen = root_updates.pairing_of(connection, target.root)
    other_captions = not target.prefix and captions_seen != signature(seen)
    due = bool(plan.jobs or plan.returned or plan.missing or is_due or target.prefix or other_captions)
    root_updates.set_pairing_due(connection, [target.root.id], due=due)
    notices.forget_below(connection, target, "scan")
    for unseen in seen.unreadable:
        notices.add(connection, target.root, "scan", unseen.rel_path, unseen.reason)
    root_updates.remember_device(connection, target.root, device_of(target.root.path))
    return due


def _load_and_encode(run: Run, target: Target, photos: PhotoFolder, plan: Plan, lost: Lost) -> None:
    """The long part: decode in threads, encode here, commit by the batch."""
    done = plan.unchanged + plan.still_skipped
    total = done + len(plan.jobs)
    skipped = run.tally.skipped
    run.progress(Progress(done, total, skipped))
    if not plan.jobs:
        return
    batches = Batches(run, target, lost)
    checkpoint = max(FIRST_CHECKPOINT, 2 * run.tally.encoded)
    look_ahead = 2 * run.batch_size
    loading = load_all(photos, plan.jobs, run.encoder, batches.known, look_ahead, run.library, run.clock)
    with closing(loading):
        for loaded in loading:
            batches.take(loaded)
            done += 1
            skipped += loaded.error is not None
            run.progress(Progress(done, total, skipped, loaded.job.rel_path))
            if run.tally.encoded >= checkpoint:
                run.write_index()
                checkpoint = 2 * run.tally.encoded  # doubling keeps the sum of all writes below twice the last
    batches.finish()
