"""Index files: a cache of the catalog, written so that a crash at any moment leaves the old ones or the new ones.

In: a `LiveIndex`. Out: `vectors/index-<generation>.f16`, the vectors at half precision, for a large library
`index-<generation>.faiss`, FAISS's index of them, and the row that lists both. Write to temporary names, fsync, rename,
fsync the folder, commit the row, remove the old. A file that does not match its row is set aside, and the index comes
out of the catalog instead. Next: `search.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from indexer.base.durable import set_aside, sha256_of, sync
from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.base.failpoints import reach
from indexer.base.types import CAPTION, EXACT_SEARCH, IMAGE, TEXT, Float32Array, IndexFacts, Model
from indexer.catalog import changes
from indexer.catalog import index_files as table
from indexer.catalog.index_files import IndexFiles, StoredFile
from indexer.catalog.reader import last_change
from indexer.search.live_index import LiveIndex, from_catalog
from indexer.vectors.choose import Device, has_faiss, index_over
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.form import FEWEST_QUESTIONS, IVF_FROM, QUESTIONS, planned
from indexer.vectors.rows import SUFFIX, Rows, write_rows

if TYPE_CHECKING:  # SQLAlchemy is for those who write
    from indexer.catalog.database import Catalog
    from indexer.catalog.reader import Snapshot

VECTORS_FOLDER = "vectors"
QUESTIONS_FILE = "questions-{fingerprint}.npy"
LAG = 50  # a file may lack one vector in as many: a reader replays them sooner than a large file is written again
CHECKED_BYTES: Final = 1 << 27  # files compared with their checksum when they are opened: 0.1 s at 1.3 GB/s
CHECK_AFTER_S: Final = 2.0  # larger ones are compared in the background, by a process that lives longer than a search

log = logging.getLogger(__name__)


class Transactions(Protocol):
    """A `Catalog` or a `CatalogReader`."""

    def begin(self) -> AbstractContextManager[Snapshot]:
        """One transaction."""

    def close(self) -> None:
        """Release every connection."""


def checksum(path: Path) -> str:
    """What tells an index file from any other. Raises: FileNotFoundError."""
    return sha256_of(path)


def open_index(
    catalog: Transactions, folder: Path, model: Model, device: Device, *, suspect: bool = False
) -> tuple[LiveIndex, bool]:
    """The index as of now, and whether its files are sound; out of the catalog where they are not.

    Large files are compared with their checksums later, in the background (LibraryCorrupt, by a search); `suspect`
    ones are compared here, whatever their size.
    """
    with catalog.begin() as snapshot:
        files = table.newest(snapshot, model)
        if files is not None:
            try:
                live = _load(folder, files, model, device, suspect)
                live.replay(snapshot)
                return live, True
            except LibraryCorrupt as error:
                log.warning("%s; searching the catalog instead", error)
            except FileNotFoundError:
                log.info("index file %s is gone; reading the catalog", files.rows.name)
        return from_catalog(snapshot, model, device), files is None


def facts(snapshot: Snapshot, model: Model) -> IndexFacts:
    """What was measured when the index files were written."""
    files = table.newest(snapshot, model)
    return EXACT_SEARCH if files is None or files.facts is None else files.facts


def wants_questions(snapshot: Snapshot, folder: Path, model: Model) -> bool:
    """Whether a library is large and has nothing its recall could be measured with."""
    files = table.newest(snapshot, model)
    if files is None or files.count < IVF_FROM or len(kept_questions(folder, model)):
        return False
    return int(np.isin(files.kinds, (TEXT, CAPTION)).sum()) < FEWEST_QUESTIONS


def refresh(catalog: Catalog, folder: Path, model: Model, *, suspect: bool = False) -> int:
    """Bring the files up to date with the catalog; `suspect` ones are read whole. The caller holds the writer's lock.

    Returns how many vectors it wrote: none where the files are up to date.
    """
    with catalog.begin() as snapshot:
        files = table.newest(snapshot, model)
        current = files is not None and _is_current(snapshot, folder, files, model)
    if files is not None and current and not suspect and _are_there(folder, files):
        return 0
    live, sound = open_index(catalog, folder, model, "cpu", suspect=suspect)
    if sound and files is not None and current:
        return 0  # another process has mended it
    if not sound and files is not None:
        _set_aside(folder, files)
    write(catalog, folder, live)
    return len(live.ids)


def rewrite(catalog: Catalog, folder: Path, model: Model) -> None:
    """Write the files again whatever they hold. The caller holds the writer's lock."""
    with catalog.begin() as snapshot:
        files = table.newest(snapshot, model)
    live, sound = open_index(catalog, folder, model, "cpu", suspect=True)
    if not sound and files is not None:
        _set_aside(folder, files)
    write(catalog, folder, live)


def remake(catalog: Catalog, folder: Path, model: Model) -> None:
    """Write the files anew from the catalog alone; damaged ones are set aside. The caller holds the writer's lock."""
    with catalog.begin() as snapshot:
        files, live = table.newest(snapshot, model), from_catalog(snapshot, model, "cpu")
    if files is not None:
        _set_aside(folder, files)
    write(catalog, folder, live)


def examine(snapshot: Snapshot, folder: Path, model: Model) -> tuple[LiveIndex | None, str, bool]:
    """The index as its files have it, nothing replayed; the files in words; whether they are as their row says."""
    files = table.newest(snapshot, model)
    if files is None:
        return None, "not written yet", True
    try:
        live = _load(folder, files, model, "cpu", suspect=True)
    except LibraryCorrupt as error:
        return None, str(error), False
    except FileNotFoundError as error:
        return None, f"{error.filename} is gone", False
    newer = last_change(snapshot) - files.change
    behind = f", {newer} changes behind, which a search makes up for" if newer > 0 else ""
    return live, f"{files.files[-1].name} with {files.count} vectors{behind}", True


def leftovers(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Files that no row lists: of a run that was killed, or made by somebody else."""
    known = {file.name for file in table.stored_files(snapshot)}
    return sorted(path for path in folder.glob("index-*") if path.name not in known and ".bad-" not in path.name)


def write(catalog: Catalog, folder: Path, live: LiveIndex) -> Path:
    """Write a new generation and make it the one in use. The caller holds the writer's lock.

    Returns: the file of the vectors.

    Raises: LibraryError when the disk does not take it; the catalog has everything, and searches read it instead.
    """
    with catalog.begin() as connection:
        number = table.next_generation(connection)
    reach("save.numbered")
    path = folder / f"index-{number}{SUFFIX}"
    temporary = {path: _temporary(path)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reach("save.opening")
        write_rows(temporary[path], live.parts())
        index, measured = _planned(folder, live, temporary[path])
        if index is not None:
            import faiss

            of_faiss = path.with_suffix(".faiss")
            temporary[of_faiss] = _temporary(of_faiss)
            faiss.write_index(index.faiss, str(temporary[of_faiss]))
            del index  # Windows renames no file that is mapped
        reach("save.written")
        for one in temporary.values():
            sync(one)
        reach("save.synced")
        for final, one in temporary.items():
            os.replace(one, final)
        reach("save.renamed")
        sync(folder)
        reach("save.named")
    except (OSError, RuntimeError) as error:  # RuntimeError is how FAISS says that a write failed
        for one in (*temporary, *temporary.values()):
            one.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise LibraryError(
            f"the index file {path} cannot be written ({reason}); nothing is lost, run the same command again"
        ) from error
    stored = [StoredFile(one.name, checksum(one), one.stat().st_size) for one in temporary]
    entries = live.ids.astype("<i8").tobytes() + live.kinds.tobytes()
    of_rows, of_faiss_ = stored[0], stored[1] if len(stored) > 1 else None
    sizes = (len(live.ids), live.model.dim, live.change)
    try:
        with catalog.begin() as connection:
            table.put(connection, IndexFiles(number, live.model.id, *sizes, of_rows, of_faiss_, measured, entries))
            reach("save.committing")
    except LibraryError:  # a full disk: files that no row lists only take room
        for one in temporary:
            one.unlink(missing_ok=True)
        raise
    reach("save.committed")
    _remove_others(folder, set(temporary))
    reach("save.swept")
    return path


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _planned(folder: Path, live: LiveIndex, path: Path) -> tuple[FaissIndex | None, IndexFacts]:
    """FAISS's index of the vectors in the file at `path`, and its facts, see `form.planned`."""
    if len(live.ids) < IVF_FROM or not has_faiss():
        return None, EXACT_SEARCH
    photos = live.ids[live.kinds == IMAGE]
    old = (live.index, live.facts) if isinstance(live.index, FaissIndex) else None
    rows = Rows.open(path, live.ids, live.model.dim)
    return planned(rows, _questions(folder, live), photos if len(photos) < len(live.ids) else None, old)


def _is_current(snapshot: Snapshot, folder: Path, files: IndexFiles, model: Model) -> bool:
    """Whether the files hold all changes, or, where there are many vectors, all but a few, in the form they should."""
    if files.facts is None or _could_be_planned(snapshot, folder, files, model):
        return False
    if files.change == last_change(snapshot) or files.count < IVF_FROM:
        return files.change == last_change(snapshot)
    return changes.count_since(snapshot, model.id, files.change) * LAG < files.count


def _could_be_planned(snapshot: Snapshot, folder: Path, files: IndexFiles, model: Model) -> bool:
    """Whether nothing was measured, since FAISS or questions were not there, and they are now."""
    unplanned = files.count >= IVF_FROM and files.facts == EXACT_SEARCH
    return unplanned and has_faiss() and not wants_questions(snapshot, folder, model)


def _questions(folder: Path, live: LiveIndex) -> Float32Array:
    """Vectors of texts, `[q, d]`: some of the library's own, else those that were kept for a library without texts."""
    texts = live.ids[np.isin(live.kinds, (TEXT, CAPTION))]
    if len(texts) >= FEWEST_QUESTIONS:
        chosen = np.random.default_rng(0).choice(texts, min(QUESTIONS, len(texts)), replace=False)
        return live.index.rows.vectors_of(np.sort(chosen)).astype(np.float32)
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


def _load(folder: Path, files: IndexFiles, model: Model, device: Device, suspect: bool) -> LiveIndex:
    """Raises: LibraryCorrupt when the files are not those the row describes; FileNotFoundError."""
    if files.facts is None:
        raise FileNotFoundError(2, "an earlier version wrote it", str(folder / files.rows.name))
    if files.dim != model.dim:
        raise LibraryCorrupt(f"{files.rows.name} holds vectors of {files.dim}, not of {model.dim}")
    later = []
    for file in files.files if has_faiss() else (files.rows,):
        path = folder / file.name
        if path.stat().st_size != file.size_bytes:
            raise LibraryCorrupt(f"{path} has {path.stat().st_size} bytes, its row says {file.size_bytes}")
        if suspect or file.size_bytes <= CHECKED_BYTES:
            _verify(path, file)
        else:
            later.append(file)
    rows = Rows.open(folder / files.rows.name, files.ids, files.dim)
    of_faiss = None if files.faiss is None else folder / files.faiss.name
    index = index_over(rows, device, files.facts, of_faiss)
    live = LiveIndex(model, index, rows.ids, files.kinds, files.change, files.facts)
    if later:
        timer = threading.Timer(CHECK_AFTER_S, _check, (folder, later, live))
        timer.daemon = True
        timer.start()
    return live


def _check(folder: Path, files: list[StoredFile], live: LiveIndex) -> None:
    """Compare files with their checksums; what is wrong with them is told by the next search."""
    for file in files:
        try:
            _verify(folder / file.name, file)
        except LibraryCorrupt as error:
            live.damage = str(error)
        except OSError as error:  # removed, since a newer generation is there
            log.info("%s was not compared with its checksum: %s", file.name, error)


def _verify(path: Path, file: StoredFile) -> None:
    if checksum(path) != file.checksum:
        raise LibraryCorrupt(f"{path} has changed since it was written (its checksum differs)")


def _set_aside(folder: Path, files: IndexFiles) -> None:
    """Those that are not what their row says; what an earlier version wrote is no damage."""
    for file in files.files if files.facts is not None else ():
        with contextlib.suppress(FileNotFoundError):
            if checksum(folder / file.name) != file.checksum:
                set_aside(folder / file.name)


def _are_there(folder: Path, files: IndexFiles) -> bool:
    """Whether the files are there with their sizes: what a run with nothing to do can afford to check."""
    try:
        return all((folder / file.name).stat().st_size == file.size_bytes for file in files.files)
    except OSError:
        return False


def _remove_others(folder: Path, current: set[Path]) -> None:
    for path in folder.glob("index-*"):
        if path not in current and ".bad-" not in path.name:
            with contextlib.suppress(PermissionError):  # Windows, while somebody has it open: the next run does it
                path.unlink(missing_ok=True)
