"""What can be mended without loss: rows that lead nowhere, counters, vectors that are wrong, the index file.

In: an open catalog and the `Faults` that `examine.py` found. Out: the folders whose files have to be encoded again,
which `doctor.py` does. A wrong vector is forgotten where its file is at hand or its words are on record, and stays
where they are not. One transaction: a crash leaves the library as it was, or mended. Next: `salvage.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from indexer.base.failpoints import reach
from indexer.catalog import mending, visibility
from indexer.catalog.database import Catalog, Connection, live_model
from indexer.catalog.roots import all_roots, offline_reason
from indexer.maintenance.compare import Faults
from indexer.search import index_files as generations


def mend(catalog: Catalog, where: Path, faults: Faults) -> list[Path]:
    """Mend the library in folder `where`; the folders to bring up to date afterwards.

    The caller holds the writer's lock.
    """
    with catalog.begin() as connection:
        mending.counters(connection)
        mending.references(connection, where)
        model = live_model(connection)
        due: list[Path] = []
        if model is not None:
            online = _online(connection)
            removed = mending.drop_doubles(connection, model)
            certain = _replaceable(connection, online, faults.doubtful - faults.unusable)
            videos = _replaceable(connection, online, faults.videos)
            roots = mending.forget(connection, model, faults.unusable | certain | videos)
            due = [path for root_id, path in online.items() if root_id in roots]
            visibility.refresh(connection)
        reach("repair.mending")
    reach("repair.mended")
    if model is not None and faults.doubtful <= certain | faults.unusable | removed:
        generations.remake(catalog, where / generations.VECTORS_FOLDER, model)
        reach("repair.remade")
    return due


def _online(connection: Connection) -> dict[int, Path]:
    return {root.id: root.path for root in all_roots(connection) if offline_reason(connection, root) is None}


def _replaceable(connection: Connection, online: dict[int, Path], ids: set[int]) -> set[int]:
    """Those of the vectors that can be computed again now: from a file that is as it was indexed, or from words."""
    found: set[int] = set()
    for one in mending.origins(connection, ids):
        root = online.get(one.root_id)
        if one.follows or (root and _is_as_indexed(root / one.rel_path, one.size_bytes, one.mtime_ns)):
            found.add(one.id)
    return found


def _is_as_indexed(path: Path, size_bytes: int, mtime_ns: int) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size_bytes, mtime_ns)
