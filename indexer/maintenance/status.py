"""What a library holds, counted; which files it could not read; one file looked up by its path.

In: an open catalog. Out: `Status`, `SkippedFile`s. Nothing here writes. Next: nothing; this is a leaf of `store.py`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, true

from indexer.catalog.database import live_model
from indexer.catalog.roots import all_roots, offline_reason
from indexer.catalog.schema import LIVE, MISSING, SKIPPED, assets, captions, library, notices, roots
from indexer.search.index_files import VECTORS_FOLDER
from indexer.search.index_files import facts as index_facts
from indexer.vectors.choose import backend


@dataclass(frozen=True)
class RootStatus:
    """One indexed folder; `reason` says why it is offline, in words."""

    path: Path
    online: bool
    files: int
    reason: str | None = None


@dataclass(frozen=True)
class Status:
    """What can be found (`images`, `texts`, `captions` of photos) and what cannot (`missing`, `offline`, `skipped`).

    `backend` is what counts: `numpy` on a CPU, with FAISS installed or without, `faiss-gpu` on an NVIDIA GPU.
    `search` says whether a search looks at every vector, and if not, how many of the 10 nearest it finds:
    `recall_at_10`, measured with texts when the index file was written; None where it is exact.
    """

    images: int
    texts: int
    captions: int
    missing: int
    offline: int
    skipped: int
    roots: tuple[RootStatus, ...]
    size_bytes: int
    model_name: str | None
    model_fingerprint: str | None
    backend: str
    search: str
    recall_at_10: float | None
    last_indexed_at: datetime | None


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not in the library, and why; `when` is UTC."""

    path: Path
    reason: str
    when: datetime


def status(connection: Connection, where: Path) -> Status:
    """Counts of the library in folder `where`."""
    everything = all_roots(connection)
    reasons = {root.id: offline_reason(connection, root) for root in everything}
    counted = select(assets.c.root_id, assets.c.modality, assets.c.state, func.count().label("files"))
    rows = connection.execute(counted.group_by(assets.c.root_id, assets.c.modality, assets.c.state)).all()

    def count(state: str, *, modality: str | None = None, online: bool | None = None) -> int:
        return sum(
            row.files
            for row in rows
            if row.state == state
            and modality in (None, row.modality)
            and (online is None or online == (reasons[row.root_id] is None))
        )

    model = live_model(connection)
    measured = index_facts(connection, where / VECTORS_FOLDER, model) if model else {}
    indexed_at = connection.execute(select(library.c.indexed_at)).scalar_one()
    return Status(
        images=count(LIVE, modality="image", online=True),
        texts=count(LIVE, modality="text", online=True),
        captions=_captions(connection, [root.id for root in everything if reasons[root.id] is None]),
        missing=count(MISSING),
        offline=count(LIVE, online=False),
        skipped=count(SKIPPED) + _count(connection, select(func.count()).select_from(notices)),
        roots=tuple(
            RootStatus(
                root.path,
                reasons[root.id] is None,
                sum(row.files for row in rows if row.root_id == root.id and row.state == LIVE),
                reasons[root.id],
            )
            for root in everything
        ),
        size_bytes=_size_bytes(where),
        model_name=model.name if model else None,
        model_fingerprint=model.fingerprint if model else None,
        backend=backend(),
        search=_search(measured),
        recall_at_10=measured.get("recall_at_10"),
        last_indexed_at=indexed_at.replace(tzinfo=UTC) if indexed_at else None,
    )


def _search(measured: dict[str, Any]) -> str:
    """How a search goes, in words."""
    if not measured:
        return "exact"
    recall = f"{measured['recall_at_10']:.3f} (at least {measured['recall_at_10_low']:.3f})"
    lists = f"{measured['probes']} of {measured['lists']} lists"
    if measured.get("bits") == 8:
        lists += " in 8 bits, the best ranked again by the catalog"
    return f"{lists}, recall@10 {recall} by {measured['questions']} texts"


def errors(connection: Connection) -> list[SkippedFile]:
    """Every recorded skip, by path: files that could not be decoded, folders and rows that led nowhere."""
    files = select(roots.c.path, assets.c.rel_path, assets.c.error, assets.c.seen_at)
    files = files.join(roots, roots.c.id == assets.c.root_id).where(assets.c.state == SKIPPED)
    others = select(roots.c.path, notices.c.rel_path, notices.c.reason, notices.c.noticed_at)
    others = others.join(roots, roots.c.id == notices.c.root_id)
    rows = [*connection.execute(files), *connection.execute(others)]
    skipped = [
        SkippedFile(Path(root) / rel_path, reason, when.replace(tzinfo=UTC)) for root, rel_path, reason, when in rows
    ]
    return sorted(skipped, key=lambda one: (one.path, one.reason))


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # SQLite and a writer may remove a file meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def _captions(connection: Connection, root_ids: list[int]) -> int:
    query = select(func.count()).select_from(captions.join(assets, assets.c.id == captions.c.asset_id))
    of_live = query.where(captions.c.live, assets.c.state == LIVE)
    return _count(connection, of_live.where(assets.c.root_id.in_(root_ids) if root_ids else ~true()))


def _count(connection: Connection, query: Any) -> int:
    return int(connection.execute(query).scalar_one())
