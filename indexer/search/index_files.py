"""Index files: a cache of the catalog, written so that a crash at any moment leaves the old one or the new one.

In: a `LiveIndex`. Out: `vectors/index-<generation>.faiss` (or .npy) and the row that vouches for it. Write to a
temporary name, fsync, rename, fsync the folder, commit the row, remove the old. A file that does not match its row is
set aside, and the index comes out of the catalog instead. Next: `search.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from indexer.base.durable import set_aside, sha256_of, sync
from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.base.failpoints import reach
from indexer.base.types import CAPTION, IMAGE, TEXT, Float32Array, Model
from indexer.catalog.reader import last_change, read
from indexer.search.live_index import LiveIndex, from_catalog, means_of
from indexer.vectors.base import VectorIndex
from indexer.vectors.choose import Device, load_index, suffix_of
from indexer.vectors.file_index import FileIndex
from indexer.vectors.layout import IndexFile
from indexer.vectors.lists import FEWEST_QUESTIONS, LISTS_FROM, QUESTIONS, planned

if TYPE_CHECKING:  # SQLAlchemy is for those who write
    from indexer.catalog.database import Catalog

VECTORS_FOLDER = "vectors"
QUESTIONS_FILE = "questions-{fingerprint}.npy"
ENTRY_BYTES = 9  # int64 id, uint8 kind
LAG = 50  # a file may lack one vector in so many: a reader replays them sooner than a large file is written again

log = logging.getLogger(__name__)


class Transactions(Protocol):
    """A `Catalog` or a `CatalogReader`."""

    def begin(self) -> AbstractContextManager[Any]:
        """One transaction."""

    def close(self) -> None:
        """Release every connection."""


@dataclass(frozen=True)
class _Row:
    """A row of `generations`."""

    generation: int
    model_id: int
    file_name: str
    sha256: str
    size_bytes: int
    count: int
    dim: int
    change: int
    entries: bytes


def open_index(
    catalog: Transactions, folder: Path, model: Model, device: Device, *, suspect: bool = False
) -> tuple[LiveIndex, bool]:
    """The index as of now, and whether its file is sound; out of the catalog where it is not.

    A file is compared with its sums as it is read, which may be later (LibraryCorrupt, by a search); a
    `suspect` one is compared whole here.
    """
    with catalog.begin() as connection:
        row = _newest(connection, model)
        if row is not None:
            try:
                live = _load(folder, row, model, device, suspect)
                live.replay(connection)
                return live, True
            except LibraryCorrupt as error:
                log.warning("%s; searching the catalog instead", error)
            except FileNotFoundError:
                log.info("index file %s is gone; reading the catalog", row.file_name)
        return from_catalog(connection, model, device), row is None


def facts(connection: Any, folder: Path, model: Model) -> dict[str, Any]:
    """What was measured when the index file was written: empty where a search looks at everything."""
    row = _newest(connection, model)
    try:
        return dict(IndexFile.open(folder / row.file_name).facts) if row and row.file_name.endswith(".faiss") else {}
    except (LibraryCorrupt, OSError):
        return {}


def wants_questions(connection: Any, folder: Path, model: Model) -> bool:
    """Whether a library is large and has nothing its recall could be measured with."""
    row = _newest(connection, model)
    if row is None or row.count < LISTS_FROM or len(kept_questions(folder, model)):
        return False
    kinds = np.frombuffer(row.entries, np.uint8, row.count, offset=8 * row.count)
    return int(np.isin(kinds, (TEXT, CAPTION)).sum()) < FEWEST_QUESTIONS


def refresh(catalog: Catalog, folder: Path, model: Model, *, suspect: bool = False) -> int:
    """Bring the file up to date with the catalog; a `suspect` one is read whole. The caller holds the writer's lock.

    Returns how many vectors it wrote: none where the file is up to date.
    """
    with catalog.begin() as connection:
        row = _newest(connection, model)
        current = row is not None and _is_current(connection, row)
    if row is not None and current and not suspect and _is_sound(folder, row):
        return 0
    live, sound = open_index(catalog, folder, model, "cpu", suspect=suspect)
    if sound and row is not None and current:
        return 0  # another process has mended it
    _write_over(catalog, folder, live, None if sound else row)
    return len(live.ids)


def rewrite(catalog: Catalog, folder: Path, model: Model) -> None:
    """Write the file again whatever it holds. The caller holds the writer's lock."""
    with catalog.begin() as connection:
        row = _newest(connection, model)
    live, sound = open_index(catalog, folder, model, "cpu")
    _write_over(catalog, folder, live, None if sound else row)


def _write_over(catalog: Catalog, folder: Path, live: LiveIndex, bad: _Row | None) -> None:
    """A new file, after the `bad` one was set aside."""
    if bad is not None:
        set_aside(folder / bad.file_name)
    try:
        write(catalog, folder, live)
    except LibraryCorrupt as error:  # a part of the old file that nobody had looked at
        log.warning("%s; reading the catalog instead", error)
        with catalog.begin() as connection:
            row = _newest(connection, live.model)
        anew, sound = open_index(catalog, folder, live.model, "cpu", suspect=True)
        if not sound and row is not None:
            set_aside(folder / row.file_name)
        write(catalog, folder, anew)


def examine(connection: Any, folder: Path, model: Model) -> tuple[LiveIndex | None, str, bool]:
    """The index as its file has it, nothing replayed; the file in words; whether it is as its row says."""
    row = _newest(connection, model)
    if row is None:
        return None, "not written yet", True
    try:
        live = _load(folder, row, model, "cpu", suspect=True)
    except LibraryCorrupt as error:
        return None, str(error), False
    except FileNotFoundError:
        return None, f"{folder / row.file_name} is gone", False
    newer = last_change(connection) - row.change
    behind = f", {newer} changes behind, which a search makes up for" if newer > 0 else ""
    return live, f"{row.file_name} with {row.count} vectors{behind}", True


def leftovers(connection: Any, folder: Path) -> list[Path]:
    """Files that no row vouches for: of a run that was killed, or made by somebody else."""
    known = {name for (name,) in read(connection, "SELECT file_name FROM generations")}
    return sorted(path for path in folder.glob("index-*") if path.name not in known and ".bad-" not in path.name)


def write(catalog: Catalog, folder: Path, live: LiveIndex) -> Path:
    """Write a new generation and make it the one in use. The caller holds the writer's lock.

    Raises: LibraryError when the disk does not take it; the catalog has everything, and searches read it instead.
    """
    from sqlalchemy import delete, select, update

    from indexer.catalog.schema import generations, library

    with catalog.begin() as connection:
        connection.execute(update(library).values(generation=library.c.generation + 1))
        number = int(connection.execute(select(library.c.generation)).scalar_one())
    reach("save.numbered")
    path = folder / f"index-{number}{suffix_of(live.index)}"
    temporary = path.with_name(path.name + ".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reach("save.opening")
        _save(catalog, folder, live, temporary)
        reach("save.written")
        sync(temporary)
        reach("save.synced")
        os.replace(temporary, path)
        reach("save.renamed")
        sync(folder)
        reach("save.named")
    except (OSError, RuntimeError) as error:  # RuntimeError is how FAISS says that a write failed
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise LibraryError(
            f"the index file {path} cannot be written ({reason}); nothing is lost, run the same command again"
        ) from error
    try:
        with catalog.begin() as connection:
            connection.execute(delete(generations))
            connection.execute(generations.insert().values(_row(number, path, live)))
            reach("save.committing")
    except LibraryError:  # a full disk: a file that nobody vouches for only takes room
        path.unlink(missing_ok=True)
        raise
    reach("save.committed")
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


def _row(number: int, path: Path, live: LiveIndex) -> dict[str, Any]:
    return {
        "generation": number,
        "model_id": live.model.id,
        "file_name": path.name,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "count": len(live.ids),
        "dim": live.model.dim,
        "change": live.change,
        "entries": live.ids.astype("<i8").tobytes() + live.kinds.tobytes(),
    }


def _newest(connection: Any, model: Model) -> _Row | None:
    columns = ", ".join(field.name for field in fields(_Row))
    query = f"SELECT {columns} FROM generations WHERE model_id = :model ORDER BY generation DESC LIMIT 1"
    rows = read(connection, query, model=model.id)
    return _Row(*rows[0]) if rows else None


def _is_current(connection: Any, row: _Row) -> bool:
    """Whether the file holds all changes, or, where there are many vectors, all but a few."""
    newest = last_change(connection)
    if row.change == newest or row.count < LISTS_FROM:
        return row.change == newest
    query = "SELECT count(*) FROM vectors WHERE model_id = :model AND change > :change"
    return bool(read(connection, query, model=row.model_id, change=row.change)[0][0] * LAG < row.count)


def _save(catalog: Catalog, folder: Path, live: LiveIndex, path: Path) -> None:
    if not isinstance(live.index, FileIndex):
        live.index.save(path)
        return
    photos = live.ids[live.kinds == IMAGE]
    answers = photos if len(photos) < len(live.ids) else None
    with catalog.begin() as connection:
        originals = partial(means_of, connection, live.model)
        plan = planned(live.index, _questions(folder, live), answers, originals)
    live.index.save(path, plan)


def _questions(folder: Path, live: LiveIndex) -> Float32Array:
    """Vectors of texts, `[q, d]`: some of the library's own, else those that were kept for a library without texts."""
    assert isinstance(live.index, FileIndex)
    texts = live.ids[np.isin(live.kinds, (TEXT, CAPTION))]
    if len(texts) >= FEWEST_QUESTIONS:
        chosen = np.random.default_rng(0).choice(texts, min(QUESTIONS, len(texts)), replace=False)
        return live.index.vectors_of(np.sort(chosen))
    return kept_questions(folder, live.model)


def keep_questions(folder: Path, model: Model, questions: Float32Array) -> None:
    """Store vectors of texts `[q, d]` that recall is measured with where a library has no texts of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / QUESTIONS_FILE.format(fingerprint=model.fingerprint[:16])
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.save(file, np.asarray(questions, np.float32), allow_pickle=False)
    os.replace(temporary, path)


def kept_questions(folder: Path, model: Model) -> Float32Array:
    """What `keep_questions` stored, `[q, d]`; `[0, d]` where nothing usable was."""
    path = folder / QUESTIONS_FILE.format(fingerprint=model.fingerprint[:16])
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        found = np.empty(0)
    usable = found.ndim == 2 and found.shape[1] == model.dim and found.dtype == np.float32
    return found if usable else np.empty((0, model.dim), np.float32)


def _load(folder: Path, row: _Row, model: Model, device: Device, suspect: bool) -> LiveIndex:
    """Raises: LibraryCorrupt when the file is not the one the row describes; FileNotFoundError."""
    path = folder / row.file_name
    _verify_size(path, row)
    index: VectorIndex = load_index(path, device)
    if suspect or not (isinstance(index, FileIndex) and index.file is not None and index.file.is_checked):
        _verify(path, row)
    if index.dim != row.dim or row.dim != model.dim or len(index) != row.count:
        raise LibraryCorrupt(f"{path} holds {len(index)} vectors of {index.dim}, not {row.count} of {row.dim}")
    if len(row.entries) != ENTRY_BYTES * row.count:
        raise LibraryCorrupt(f"the catalog lists {len(row.entries) // ENTRY_BYTES} entries for {row.count} vectors")
    ids = np.frombuffer(row.entries, "<i8", row.count).astype(np.int64)
    kinds = np.frombuffer(row.entries, np.uint8, row.count, offset=8 * row.count).copy()  # not to hold the ids twice
    return LiveIndex(model, index, ids, kinds, row.change)


def _verify_size(path: Path, row: _Row) -> None:
    size_bytes = path.stat().st_size
    if size_bytes != row.size_bytes:
        raise LibraryCorrupt(f"{path} has {size_bytes} bytes, its row says {row.size_bytes}")


def _verify(path: Path, row: _Row) -> None:
    _verify_size(path, row)
    if sha256_of(path) != row.sha256:
        raise LibraryCorrupt(f"{path} has changed since it was written (sha256 differs)")


def _is_sound(folder: Path, row: _Row) -> bool:
    """Whether the file is there with its size: what a run with nothing to do can afford to check."""
    try:
        return bool((folder / row.file_name).stat().st_size == row.size_bytes)
    except OSError:
        return False


def _remove_others(folder: Path, current: Path) -> None:
    for path in folder.glob("index-*"):
        if path != current and ".bad-" not in path.name:
            with contextlib.suppress(PermissionError):  # Windows, while somebody has it open: the next run does it
                path.unlink(missing_ok=True)
