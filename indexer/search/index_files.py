"""Index files: a cache of the catalog. Which are read, which are set aside, when they are written again.

In: the catalog, the folder of the files. Out: a `LiveIndex`. Files that are not what their row says are set aside, and
the index comes out of the catalog instead. Next: `stored_index.py` reads them, `index_writing.py` writes them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from indexer.base import personal
from indexer.base.disk_errors import in_words, twice
from indexer.base.durable import set_aside
from indexer.base.errors import LibraryCorrupt, NotPlainFile, RowCorrupt
from indexer.base.plain_files import TEMPORARY, check_folder
from indexer.base.types import CAPTION, EXACT_SEARCH, TEXT, IndexFacts, Model
from indexer.catalog import changes
from indexer.catalog import index_files as table
from indexer.catalog.index_files import IndexFiles, StoredFile
from indexer.catalog.reader import last_change
from indexer.search.index_writing import add_faiss, sweep, write
from indexer.search.live_index import LiveIndex, from_catalog
from indexer.search.questions import kept_questions
from indexer.search.stored_index import facts_of, load, own_faiss, own_file, verify
from indexer.vectors import choose, form
from indexer.vectors.choose import Device

if TYPE_CHECKING:  # SQLAlchemy is for those who write
    from indexer.catalog.database import Catalog
    from indexer.catalog.reader import Snapshot

VECTORS_FOLDER = "vectors"
LAG: Final = (
    50  # a file may lack one vector in as many: a reader replays them sooner than a large file is written again
)

log = logging.getLogger(__name__)


class Transactions(Protocol):
    """A `Catalog` or a `CatalogReader`."""

    def begin(self) -> AbstractContextManager[Snapshot]:
        """One transaction."""

    def close(self) -> None:
        """Release every connection."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """The index as of now, the files it should come from, and which of them are wrong."""

    live: LiveIndex
    files: IndexFiles | None
    wrong: tuple[StoredFile, ...] = ()


def open_index(
    catalog: Transactions, folder: Path, model: Model, device: Device, *, suspect: bool = False
) -> tuple[LiveIndex, bool]:
    """The index as of now, and whether its files are sound; out of the catalog where the rows' is not.

    Large files of rows are compared with their checksums later, in the background (LibraryCorrupt, by a search);
    `suspect` ones are compared here, whatever their size.
    """
    opened = _open(catalog, folder, model, device, suspect=suspect, level=logging.WARNING)
    return opened.live, not opened.wrong


def _open(
    catalog: Transactions, folder: Path, model: Model, device: Device, *, suspect: bool, level: int = logging.INFO
) -> _Opened:
    """What is wrong is said at `level`: who writes the files anew says it by setting the old ones aside."""
    with catalog.begin() as snapshot:
        files = table.newest(snapshot, model)
        if files is None:
            return _Opened(from_catalog(snapshot, model, device), None)
        try:
            opened = twice(partial(load, folder, files, model, device, suspect=suspect))
            opened.live.replay(snapshot)
        except RowCorrupt:  # of the catalog itself
            raise
        except (LibraryCorrupt, NotPlainFile) as error:
            log.log(level, "%s; searching the catalog instead", error)
        except FileNotFoundError:
            log.info("index file %s is gone; reading the catalog", files.rows.name)
        except OSError as error:  # the disk's word on a file is no word on what it holds
            log.log(level, "%s; searching the catalog instead", _unreadable(error, folder / files.rows.name))
        else:
            own = own_file(files)
            if opened.damage is None or own is None:
                return _Opened(opened.live, files)
            log.log(level, "%s; searching everything instead", opened.damage)
            return _Opened(opened.live, files, (own,))
        return _Opened(from_catalog(snapshot, model, device), files, (files.rows,))


def facts(snapshot: Snapshot, model: Model) -> IndexFacts:
    """What was measured when the index files were written."""
    files = table.newest(snapshot, model)
    return EXACT_SEARCH if files is None else facts_of(files)


def wants_questions(snapshot: Snapshot, folder: Path, model: Model) -> bool:
    """Whether a library is large and has nothing its recall could be measured with."""
    files = table.newest(snapshot, model)
    if files is None or files.count < form.IVF_FROM or len(kept_questions(folder, model)):
        return False
    return int(np.isin(files.kinds, (TEXT, CAPTION)).sum()) < form.FEWEST_QUESTIONS


def refresh(catalog: Catalog, folder: Path, model: Model, *, suspect: bool = False) -> int:
    """Bring the files up to date with the catalog; `suspect` ones are read whole. The caller holds the writer's lock.

    Returns how many vectors it wrote: none where the files are up to date.
    """
    with catalog.begin() as snapshot:
        files = table.newest(snapshot, model)
        current = files is not None and _is_current(snapshot, files, model)
        lacking = files is not None and current and _lacks_faiss(snapshot, folder, files, model)
    if files is not None and current and not lacking and not suspect and _are_there(folder, files):
        sweep(folder, files)  # what a run left that was cut off
        return 0
    opened = _open(catalog, folder, model, "cpu", suspect=suspect)
    if files is not None and current and not lacking and not opened.wrong:
        return 0  # another process has mended it
    _set_aside(folder, opened)
    if files is None or not current or files.rows in opened.wrong:
        write(catalog, folder, opened.live)
    else:
        add_faiss(catalog, folder, files, load(folder, files, model, "cpu", suspect=False).live)
    return len(opened.live.ids)


def rewrite(catalog: Catalog, folder: Path, model: Model) -> None:
    """Write the files again whatever they hold. The caller holds the writer's lock."""
    opened = _open(catalog, folder, model, "cpu", suspect=True)
    _set_aside(folder, opened)
    write(catalog, folder, opened.live)


def remake(catalog: Catalog, folder: Path, model: Model) -> None:
    """Write the files anew from the catalog alone; damaged ones are set aside. The caller holds the writer's lock."""
    with catalog.begin() as snapshot:
        files, live = table.newest(snapshot, model), from_catalog(snapshot, model, "cpu")
    own = None if files is None else own_file(files)
    listed = () if files is None else (files.rows,) if own is None else (files.rows, own)
    _set_aside(folder, _Opened(live, files, listed))
    write(catalog, folder, live)


def examine(snapshot: Snapshot, folder: Path, model: Model) -> tuple[LiveIndex | None, str, bool]:
    """The index as its files have it, nothing replayed; the files in words; whether they are as their row says."""
    files = table.newest(snapshot, model)
    if files is None:
        return None, "not written yet", True
    try:
        opened = twice(partial(load, folder, files, model, "cpu", suspect=True))
    except (LibraryCorrupt, NotPlainFile) as error:
        return None, str(error), False
    except FileNotFoundError as error:
        return None, f"{error.filename} is gone", False
    except OSError as error:
        return None, _unreadable(error, folder / files.rows.name), False
    if opened.damage is not None:
        return opened.live, opened.damage, False
    newer = last_change(snapshot) - files.change
    behind = f", {newer} changes behind, which a search makes up for" if newer > 0 else ""
    return opened.live, f"{(own_file(files) or files.rows).name} with {files.count} vectors{behind}", True


def leftovers(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Files that no row lists and the next run removes only when it writes: made by somebody else.

    Temporary files are not among them: of a run that is killed they stay until the next one.
    """
    stored = table.stored_files(snapshot)
    known = {file.name for file in stored} | {Path(file.name).with_suffix(".faiss").name for file in stored}  # earlier
    strange = (path for path in folder.glob("index-*") if path.name not in known and ".bad-" not in path.name)
    return sorted(path for path in strange if path.suffix != TEMPORARY)


def _is_current(snapshot: Snapshot, files: IndexFiles, model: Model) -> bool:
    """Whether the files hold all changes, or, where there are many vectors, all but a few."""
    if files.facts is None:
        return False
    if files.change == last_change(snapshot) or files.count < form.IVF_FROM:
        return files.change == last_change(snapshot)
    return changes.count_since(snapshot, model.id, files.change) * LAG < files.count


def _lacks_faiss(snapshot: Snapshot, folder: Path, files: IndexFiles, model: Model) -> bool:
    """Whether this user could have an index by FAISS and has none: FAISS or questions were not there when the rows
    were written, or another user wrote them."""
    if files.count < form.IVF_FROM or not choose.has_faiss() or own_faiss(files) is not None:
        return False
    was_measured = files.facts is not None and files.facts.form == "exact" and files.facts.questions > 0
    return not was_measured and personal.is_lasting() and not wants_questions(snapshot, folder, model)


def _set_aside(folder: Path, opened: _Opened) -> None:
    """Those that are not what their row says; what an earlier version wrote is no damage. Raises: NotPlainFile."""
    check_folder(folder)
    if opened.files is None or opened.files.facts is None:
        return
    for file in opened.wrong:
        try:
            verify(folder, file)
        except (LibraryCorrupt, NotPlainFile):
            set_aside(folder / file.name)
        except OSError as error:  # gone, or the disk failed: nothing is known of it
            log.info("%s is not set aside: %s", file.name, error)


def _unreadable(error: OSError, path: Path) -> str:
    return f"{error.filename or path} cannot be read {in_words(error, path, 'look at it')}"


def _are_there(folder: Path, files: IndexFiles) -> bool:
    """Whether the files are there with their sizes: what a run with nothing to do can afford to check."""
    own = own_file(files) if choose.has_faiss() else None
    with contextlib.suppress(OSError):
        return all(
            os.lstat(folder / one.name).st_size == one.size_bytes for one in (files.rows, own) if one is not None
        )
    return False
