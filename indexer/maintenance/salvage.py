"""A damaged SQLite file: every row that can still be read goes into a new one, and the damaged one is kept aside.

In: the library's folder. Out: a catalog that opens, and how many rows were saved of each table. What is lost is found
again by `mmsearch index`: files are new to the catalog, folders have to be named again. The index file is not carried
over; it is a cache. Next: `../doctor.py`, the order of all this.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from indexer.base.durable import aside_name
from indexer.base.failpoints import reach
from indexer.catalog import damaged, mending, tables
from indexer.catalog.database import Catalog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Salvaged:
    """Rows saved by table, and where the damaged file lies now."""

    rows: dict[str, int]
    aside: Path


def salvage(catalog_file: Path) -> Salvaged:
    """Replace a damaged catalog by what can be read of it. The caller holds the writer's lock."""
    fresh = catalog_file.with_name(catalog_file.name + ".new")
    for leftover in _family(fresh):
        leftover.unlink(missing_ok=True)
    catalog = Catalog.open(fresh, migrate_schema=True)
    try:
        with catalog.begin() as connection:
            with tables.bulk(connection):
                saved = damaged.recover(catalog_file, connection)
            mending.salvaged(connection, catalog_file.parent)
    finally:
        catalog.close()
    reach("salvage.copied")
    aside = _swap(catalog_file, fresh)
    log.warning("%s is damaged; kept as %s", catalog_file, aside.name)
    return Salvaged(saved, aside)


def _swap(catalog_file: Path, fresh: Path) -> Path:
    """The damaged file gets a second name before the new one takes its first: there is a catalog at every moment."""
    aside = aside_name(catalog_file)
    for path, kept in zip(_family(catalog_file), _family(aside), strict=True):
        if path.exists() and path.stat().st_size and not path.name.endswith("-shm"):
            try:
                os.link(path, kept)
            except OSError:  # a file system without links
                shutil.copy2(path, kept)
    for path in _family(catalog_file)[1:]:
        path.unlink(missing_ok=True)  # a log of the old file must never be read into the new one
    reach("salvage.aside")
    os.replace(fresh, catalog_file)
    return aside


def _family(path: Path) -> list[Path]:
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
