"""What a library holds, counted; how it is searched.

In: a snapshot of its catalog, its folder. Out: `Status`. Nothing here writes. Next: `prune.py`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from indexer.base.types import EXACT_SEARCH, IndexFacts
from indexer.catalog import assets, captions, library, notices
from indexer.catalog.database import Connection, live_model
from indexer.catalog.own_roots import standing
from indexer.catalog.roots import all_roots
from indexer.catalog.schema import LIVE, MISSING, SKIPPED
from indexer.search.index_files import facts as index_facts
from indexer.vectors.choose import backend


@dataclass(frozen=True)
class RootStatus:
    """One indexed folder; `reason` says why it is offline, in words.

    One that this user never indexed on this machine is not `yours`: it is shown and searched, and not looked at.
    """

    path: Path
    online: bool
    files: int
    reason: str | None = None
    yours: bool = True


@dataclass(frozen=True)
class Status:
    """What can be found (`images`, `texts`, `captions` of photos) and what cannot (`missing`, `offline`, `skipped`).

    `backend` is what searches a large library: `faiss` on a CPU, `faiss-gpu` on an NVIDIA GPU, `numpy` without FAISS.
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


def status(connection: Connection, where: Path) -> Status:
    """Counts of the library in folder `where`."""
    everything = all_roots(connection)
    now = standing(connection)
    reasons = {root.id: reason for root, reason in now.offline.items()}
    online = {root.id for root in everything} - reasons.keys()
    files = assets.count_by_state(connection)

    def live(modality: str, within: Collection[int]) -> int:
        return sum(files.get((root_id, modality, LIVE), 0) for root_id in within)

    def of_state(wanted: str) -> int:
        return sum(count for (_, _, state), count in files.items() if state == wanted)

    in_root = {root.id: live("image", [root.id]) + live("text", [root.id]) for root in everything}
    model = live_model(connection)
    measured = index_facts(connection, model) if model else EXACT_SEARCH
    return Status(
        images=live("image", online),
        texts=live("text", online),
        captions=captions.count_live(connection, online),
        missing=of_state(MISSING),
        offline=sum(count for root_id, count in in_root.items() if root_id not in online),
        skipped=of_state(SKIPPED) + notices.count(connection),
        roots=tuple(
            RootStatus(root.path, root.id in online, in_root[root.id], reasons.get(root.id), root not in now.strange)
            for root in everything
        ),
        size_bytes=_size_bytes(where),
        model_name=model.name if model else None,
        model_fingerprint=model.fingerprint if model else None,
        backend=backend(),
        search=_search(measured),
        recall_at_10=measured.recall_at_10,
        last_indexed_at=library.indexed_at(connection),
    )


def _search(facts: IndexFacts) -> str:
    """How a search goes, in words."""
    if facts.recall_at_10 is None or facts.recall_at_10_low is None:
        return "exact"
    recall = f"{facts.recall_at_10:.3f} (at least {facts.recall_at_10_low:.3f})"
    lists = f"{facts.nprobe} of {facts.lists} lists, the best {facts.depth} ranked again"
    return f"{lists}, recall@10 {recall} by {facts.questions} texts"


def _size_bytes(folder: Path) -> int:
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # SQLite and a writer may remove a file meanwhile
                found = os.lstat(os.path.join(inside, name))  # what a link leads to is not the library's
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
