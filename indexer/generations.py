"""Index files: a cache of the catalog, written so that a crash at any moment leaves the old one or the new one.

In: a `LiveIndex`. Out: `vectors/index-<generation>.faiss` (or .npy) and the row that vouches for it. Write to a
temporary name, fsync, rename, fsync the folder, commit the row, remove the old. A file that does not match its row is
set aside, and the index comes out of the catalog instead. Next: `search.py`.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, delete, select, update

from indexer.catalog import Catalog, Model, last_change
from indexer.errors import LibraryCorrupt, LibraryError
from indexer.failpoints import reach
from indexer.rebuild import LiveIndex, from_catalog
from indexer.schema import generations, library
from indexer.vectors.base import VectorIndex
from indexer.vectors.choose import Device, load_index, suffix_of

VECTORS_FOLDER = "vectors"
ENTRY_BYTES = 9  # int64 id, uint8 kind

log = logging.getLogger(__name__)


def open_index(catalog: Catalog, folder: Path, model: Model, device: Device) -> tuple[LiveIndex, bool]:
    """The index as of now, and whether its file is sound; out of the catalog where it is not."""
    with catalog.begin() as connection:
        row = _newest(connection, model)
        if row is not None:
            try:
                live = _load(folder, row, model, device)
                live.replay(connection)
                return live, True
            except LibraryCorrupt as error:
                log.warning("%s; searching the catalog instead", error)
            except FileNotFoundError:
                log.info("index file %s is gone; reading the catalog", row.file_name)
        return from_catalog(connection, model, device), row is None


def refresh(catalog: Catalog, folder: Path, model: Model, *, suspect: bool = False) -> None:
    """Bring the file up to date with the catalog; a `suspect` one is read whole. The caller holds the writer's lock."""
    with catalog.begin() as connection:
        row = _newest(connection, model)
        current = row is not None and row.change == last_change(connection)
    if row is not None and current and not suspect and _is_sound(folder, row):
        return
    live, sound = open_index(catalog, folder, model, "cpu")
    if sound and row is not None and current:
        return  # another process has mended it
    if not sound and row is not None:
        set_aside(folder / row.file_name)
    write(catalog, folder, live)


def examine(connection: Connection, folder: Path, model: Model) -> tuple[LiveIndex | None, str, bool]:
    """The index as its file has it, nothing replayed; the file in words; whether it is as its row says."""
    row = _newest(connection, model)
    if row is None:
        return None, "not written yet", True
    try:
        live = _load(folder, row, model, "cpu")
    except LibraryCorrupt as error:
        return None, str(error), False
    except FileNotFoundError:
        return None, f"{folder / row.file_name} is gone", False
    newer = last_change(connection) - row.change
    behind = f", {newer} changes behind, which a search makes up for" if newer > 0 else ""
    return live, f"{row.file_name} with {row.count} vectors{behind}", True


def leftovers(connection: Connection, folder: Path) -> list[Path]:
    """Files that no row vouches for: of a run that was killed, or made by somebody else."""
    known = set(connection.scalars(select(generations.c.file_name)))
    return sorted(path for path in folder.glob("index-*") if path.name not in known and ".bad-" not in path.name)


def write(catalog: Catalog, folder: Path, live: LiveIndex) -> Path:
    """Write a new generation and make it the one in use. The caller holds the writer's lock.

    Raises: LibraryError when the disk does not take it; the catalog has everything, and searches read it instead.
    """
    with catalog.begin() as connection:
        connection.execute(update(library).values(generation=library.c.generation + 1))
        number = int(connection.execute(select(library.c.generation)).scalar_one())
    reach("save.numbered")
    path = folder / f"index-{number}{suffix_of(live.index)}"
    temporary = path.with_name(path.name + ".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reach("save.opening")
        live.index.save(temporary)
        reach("save.written")
        _sync(temporary)
        reach("save.synced")
        os.replace(temporary, path)
        reach("save.renamed")
        _sync(folder)
        reach("save.named")
    except (OSError, RuntimeError) as error:  # RuntimeError is how FAISS says that a write failed
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise LibraryError(
            f"the index file {path} cannot be written ({reason}); nothing is lost, run 'mmsearch index' again"
        ) from error
    with catalog.begin() as connection:
        connection.execute(delete(generations))
        connection.execute(generations.insert().values(_row(number, path, live)))
        reach("save.vouching")
    reach("save.vouched")
    _remove_others(folder, path)
    reach("save.swept")
    return path


def remake(catalog: Catalog, folder: Path, model: Model) -> None:
    """Write the file anew from the catalog alone; a damaged one is set aside. The caller holds the writer's lock."""
    with catalog.begin() as connection:
        row, live = _newest(connection, model), from_catalog(connection, model, "cpu")
    if row is not None:
        try:
            _verify(folder / row.file_name, row)
        except LibraryCorrupt:
            set_aside(folder / row.file_name)
        except FileNotFoundError:
            log.info("index file %s is gone", row.file_name)
    write(catalog, folder, live)


def set_aside(path: Path) -> None:
    """Rename a file that is not to be trusted; it is kept for whoever wants to know why."""
    if path.exists():
        aside = aside_name(path)
        os.replace(path, aside)
        log.warning("%s is damaged; kept as %s", path, aside.name)


def aside_name(path: Path) -> Path:
    """A name beside `path` that no file has, with the time: two in one second, or a clock set back, stay two."""
    stem = f"{path.name}.bad-{time.strftime('%Y%m%dT%H%M%S')}"
    taken = {one.name for one in path.parent.glob(f"{glob.escape(path.name)}.bad-*")}
    names = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
    return path.with_name(next(name for name in names if name not in taken))


def _row(number: int, path: Path, live: LiveIndex) -> dict[str, Any]:
    return {
        "generation": number,
        "model_id": live.model.id,
        "file_name": path.name,
        "sha256": _sha256(path),
        "size_bytes": path.stat().st_size,
        "count": len(live.ids),
        "dim": live.model.dim,
        "change": live.change,
        "entries": live.ids.astype("<i8").tobytes() + live.kinds.tobytes(),
    }


def _newest(connection: Connection, model: Model) -> Any:
    query = select(generations).where(generations.c.model_id == model.id)
    return connection.execute(query.order_by(generations.c.generation.desc())).first()


def _load(folder: Path, row: Any, model: Model, device: Device) -> LiveIndex:
    """Raises: LibraryCorrupt when the file is not the one the row describes; FileNotFoundError."""
    path = folder / row.file_name
    _verify(path, row)
    index: VectorIndex = load_index(path, device)
    if index.dim != row.dim or row.dim != model.dim or len(index) != row.count:
        raise LibraryCorrupt(f"{path} holds {len(index)} vectors of {index.dim}, not {row.count} of {row.dim}")
    if len(row.entries) != ENTRY_BYTES * row.count:
        raise LibraryCorrupt(f"the catalog lists {len(row.entries) // ENTRY_BYTES} entries for {row.count} vectors")
    ids = np.frombuffer(row.entries, "<i8", row.count).astype(np.int64)
    kinds = np.frombuffer(row.entries, np.uint8, row.count, offset=8 * row.count)
    return LiveIndex(model, index, ids, kinds, row.change)


def _verify(path: Path, row: Any) -> None:
    size_bytes = path.stat().st_size
    if size_bytes != row.size_bytes:
        raise LibraryCorrupt(f"{path} has {size_bytes} bytes, its row says {row.size_bytes}")
    if _sha256(path) != row.sha256:  # the file is about to be read whole anyway
        raise LibraryCorrupt(f"{path} has changed since it was written (sha256 differs)")


def _is_sound(folder: Path, row: Any) -> bool:
    """Whether the file is there with its size: what a run with nothing to do can afford to check."""
    try:
        return bool((folder / row.file_name).stat().st_size == row.size_bytes)
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders, and keeps names in order by itself
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_others(folder: Path, current: Path) -> None:
    for path in folder.glob("index-*"):
        if path != current and ".bad-" not in path.name:
            path.unlink(missing_ok=True)
