"""The table of contents of the indexer: how a folder becomes rows and vectors, in the order it happens.

In: a folder, an encoder, an open catalog. Out: an `IndexReport`; the catalog knows every file below the folder. Each
step commits by itself and starts from what the catalog says, so that a run may end at any point: the next one goes on.
Next: `roots.py`, `scan.py`, `plan.py`, `pipeline.py`, `batches.py`, `descriptions.py`, `sidecars.py`,
`captions.py`, `fusion.py`, in this order.
"""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, and_, delete, func, select, update

from indexer.base.failpoints import reach
from indexer.base.profile import Profiler
from indexer.base.types import Encoder, IndexReport, Progress, ProgressCallback
from indexer.catalog.database import Catalog, Model, now
from indexer.catalog.roots import Target, checked_folder, offline_reason, remember_device, targets_for
from indexer.catalog.schema import library, notices, roots
from indexer.files.excludes import Excludes
from indexer.files.scan import NO_EXCLUDES, Scan, scan
from indexer.ingest import captions, descriptions, fusion, rows, sidecars
from indexer.ingest.batches import Batches, Lost, Tally
from indexer.ingest.loader import load_all
from indexer.ingest.plan import Plan, count_live, plan_for, within
from indexer.search import index_files as generations

FIRST_CHECKPOINT = (
    20_000  # vectors; a search replays what the index file lacks, so a long first run writes it on the way
)

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
) -> IndexReport:
    """Bring `folder` into the catalog of the library in `where`. The caller holds the writer's lock.

    Raises: FolderNotFound, ModelMismatch. A file that cannot be read is a recorded skip and never raises.
    """
    clock = Profiler()
    tally, tell = Tally(), progress or (lambda _: None)
    lost: Lost = {}
    with catalog.begin() as connection:
        folder = checked_folder(connection, folder)
    model = catalog.claim(encoder, where)
    reach("ingest.claimed")
    with catalog.begin() as connection:
        targets = targets_for(connection, folder, where)
    reach("ingest.rooted")
    for target in targets:
        with catalog.begin() as connection:
            offline = offline_reason(connection, target.root)
            if offline:
                tally.offline += count_live(connection, target)
        if offline:
            log.warning("%s %s: its files stay in the library, hidden until they are back", target.root.path, offline)
            continue
        with clock.stage("scan") as scanned:
            seen = scan(
                target.root.path,
                target.prefix,
                leave_out=target.leave_out,
                excludes=excludes,
                heartbeat=lambda count, path: tell(Progress(0, None, 0, path)),
            )
            scanned.items += len(seen.found)
            with catalog.begin() as connection:
                plan = plan_for(connection, target, seen, model)
                due = _settle(connection, target, seen, plan, model, tally)
                reach("ingest.settling")
        reach("ingest.settled")
        _load_and_encode(catalog, where, target, plan, model, encoder, tally, lost, tell, batch_size, clock)
        with clock.stage("captions") as joined:
            due |= descriptions.catch_up(catalog, target, encoder.side_px) > 0
            if due:
                sidecars.read_sidecars(catalog, target, seen)
                captions.pair(catalog, target, seen)
                encoded = captions.encode_rows(catalog, model, encoder, batch_size)
                tally.encoded += encoded
                joined.items += encoded + fusion.fuse_photos(catalog, model, encoder)
                _settled(catalog, target, seen, model)
        tally.skipped += _notices(catalog, target)
    with clock.stage("index_file") as written:
        written.items += generations.refresh(catalog, where / generations.VECTORS_FOLDER, model)
    reach("ingest.saved")
    with catalog.begin() as connection:
        connection.execute(update(library).values(indexed_at=now()))
    profile = clock.profile()
    return IndexReport(**vars(tally), seconds=profile.seconds, profile=profile)


def _settle(connection: Connection, target: Target, seen: Scan, plan: Plan, model: Model, tally: Tally) -> bool:
    """Everything that needs no file opened, in one transaction; whether captions have to be looked at afterwards."""
    rows.mark(connection, plan.missing, missing=True)
    rows.mark(connection, plan.returned, missing=False)
    changed = {*plan.missing, *plan.returned}
    if changed:
        rows.refresh_kinds(connection, model, changed)
    tally.unchanged += plan.unchanged
    tally.skipped += plan.still_skipped
    tally.excluded += plan.excluded
    mine = roots.c.id == target.root.id
    record = connection.execute(select(roots.c.pairing_due, roots.c.captions_seen).where(mine)).one()
    other_captions = not target.prefix and record.captions_seen != captions.signature(seen)
    due = bool(plan.changes or record.pairing_due or target.prefix or other_captions)
    connection.execute(update(roots).where(mine).values(pairing_due=due))
    ours = (notices.c.root_id == target.root.id, notices.c.source == "scan")
    connection.execute(delete(notices).where(*ours, within(notices.c.rel_path, target.prefix)))
    for unseen in seen.unreadable:
        values = {"root_id": target.root.id, "rel_path": unseen.rel_path, "source": "scan", "reason": unseen.reason}
        connection.execute(notices.insert().values(values | {"noticed_at": now()}))
    remember_device(connection, target.root)
    return due


def _load_and_encode(
    catalog: Catalog,
    where: Path,
    target: Target,
    plan: Plan,
    model: Model,
    encoder: Encoder,
    tally: Tally,
    lost: Lost,
    tell: ProgressCallback,
    batch_size: int,
    clock: Profiler,
) -> None:
    """The long part: decode in threads, encode here, commit by the batch."""
    done = plan.unchanged + plan.still_skipped
    total = done + len(plan.jobs)
    skipped = tally.skipped
    tell(Progress(done, total, skipped))
    if not plan.jobs:
        return
    batches = Batches(catalog, target.root, model, encoder, batch_size, tally, lost, clock)
    checkpoint = max(FIRST_CHECKPOINT, 2 * tally.encoded)
    root, look_ahead = target.root.path, 2 * batch_size
    with closing(load_all(root, plan.jobs, encoder, batches.known, look_ahead, where, clock)) as loading:
        for loaded in loading:
            batches.take(loaded)
            done += 1
            skipped += loaded.error is not None
            tell(Progress(done, total, skipped, loaded.job.rel_path))
            if tally.encoded >= checkpoint:
                with clock.stage("index_file") as written:
                    written.items += generations.refresh(catalog, where / generations.VECTORS_FOLDER, model)
                checkpoint = 2 * tally.encoded  # doubling keeps the sum of all writes below twice the last
    batches.finish()


def _settled(catalog: Catalog, target: Target, seen: Scan, model: Model) -> None:
    """Captions and fusions are in step with the files again."""
    values: dict[str, object] = {"pairing_due": False}
    if not target.prefix:
        values["captions_seen"] = captions.signature(seen)
    with catalog.begin() as connection:
        rows.refresh_kinds(connection, model)
        connection.execute(update(roots).where(roots.c.id == target.root.id).values(values))
        reach("ingest.closing")
    reach("ingest.closed")


def _notices(catalog: Catalog, target: Target) -> int:
    with catalog.begin() as connection:
        mine = and_(notices.c.root_id == target.root.id, within(notices.c.rel_path, target.prefix))
        return int(connection.execute(select(func.count()).select_from(notices).where(mine)).scalar_one())
