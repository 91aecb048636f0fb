"""An index out of its files: the rows mapped, and FAISS's index of them where this user's mmsearch wrote it.

In: the folder of index files and what a row of the catalog says of them. Out: a `LiveIndex`. The rows are plain
numbers, compared with a checksum that tells damage; those that were compared before, and whose file has the same times,
are compared again in the background, by a process that lives long enough. FAISS trusts what it reads, so its file is
read only with a checksum by this user's key (`base/personal.py`), and what is compared is what FAISS gets. Another user
of the library, or one who was given it, searches the rows exactly until an index run of his own has written a file.
Next: `index_writing.py`, which writes them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from indexer.base import compared, personal
from indexer.base.errors import LibraryCorrupt, NotPlainFile
from indexer.base.hashed_file import checked_content, checksum_of
from indexer.base.plain_files import check_folder, check_plain
from indexer.base.types import EXACT_SEARCH, IndexFacts, Model
from indexer.catalog.index_files import IndexFiles, OfFaiss, StoredFile, faiss_name
from indexer.search.live_index import LiveIndex
from indexer.vectors import choose
from indexer.vectors.choose import Device, index_over
from indexer.vectors.rows import Rows

CHECKED_BYTES: Final = 1 << 27  # rows compared with their checksum when they are opened: 0.1 s at 1.3 GB/s
CHECK_AFTER_S: Final = 2.0  # larger ones are compared in the background, by a process that lives longer than a search

log = logging.getLogger(__name__)
checksum = checksum_of  # what tells an index file from any other


@dataclass(frozen=True, eq=False)
class Opened:
    """An index, and what is wrong with this user's FAISS file, which it does without then."""

    live: LiveIndex
    damage: str | None = None


def sealed(rows_checksum: str, checksum: str, size_bytes: int, facts: IndexFacts) -> OfFaiss:
    """What a row says of FAISS's index of some rows, with this user's seal."""
    return OfFaiss(checksum, size_bytes, facts, _mac(rows_checksum, checksum, size_bytes, facts))


def own_faiss(files: IndexFiles) -> OfFaiss | None:
    """What this user's mmsearch said of FAISS's index of these rows; None where it said nothing."""
    if not files.of_faiss:
        return None  # without a look at the key
    one = files.of_faiss.get(personal.key_id())
    if one is None or not hmac.compare_digest(one.mac, _mac(files.checksum, one.checksum, one.size_bytes, one.facts)):
        return None
    return one


def own_file(files: IndexFiles) -> StoredFile | None:
    """FAISS's file that this user's mmsearch wrote; None where there is none."""
    return None if own_faiss(files) is None else files.faiss_file(personal.key_id())


def facts_of(files: IndexFiles) -> IndexFacts:
    """How this user searches the rows: by an index of his own, else exactly."""
    own = own_faiss(files)
    if own is not None:
        return own.facts
    return EXACT_SEARCH if files.facts is None or files.facts.form == "ivf" else files.facts


def _mac(rows_checksum: str, checksum: str, size_bytes: int, facts: IndexFacts) -> str:
    said = json.dumps(["index", rows_checksum, checksum, size_bytes, asdict(facts)])
    return personal.keyed_digest(hashlib.sha256(said.encode()).digest())


def load(folder: Path, files: IndexFiles, model: Model, device: Device, *, suspect: bool) -> Opened:
    """The index as its files have it. `suspect` rows are compared whatever their size, others that are large later.

    Raises: LibraryCorrupt when the rows are not those that `files` says; NotPlainFile; FileNotFoundError.
    """
    if files.facts is None:
        raise FileNotFoundError(2, "an earlier version wrote it", str(folder / files.rows.name))
    if files.dim != model.dim:
        raise LibraryCorrupt(f"{files.rows.name} holds vectors of {files.dim}, not of {model.dim}")
    check_folder(folder)
    path = folder / files.rows.name
    found = os.lstat(path)
    check_plain(path, found)
    if found.st_size != files.rows.size_bytes:
        raise LibraryCorrupt(f"{path} has {found.st_size} bytes, its row says {files.rows.size_bytes}")
    checked = suspect or (found.st_size <= CHECKED_BYTES and not compared.is_known(path, files.checksum, place=folder))
    if checked:
        verify(folder, files.rows)
    rows = Rows.open(path, files.ids, files.dim)
    facts, index, damage = EXACT_SEARCH, None, None
    own = own_faiss(files) if choose.has_faiss() else None
    if own is not None and own.size_bytes:  # none where everything is searched
        of_faiss = folder / faiss_name(files.generation, personal.key_id())
        try:
            content = checked_content(of_faiss, own.checksum, own.size_bytes)
            facts = own.facts
            index = index_over(rows, device, facts, content)
        except FileNotFoundError:
            damage = f"{of_faiss} is gone"
        except (LibraryCorrupt, NotPlainFile) as error:
            damage = str(error)
    elif files.facts.form == "ivf" and choose.has_faiss():
        log.info("%s has no index by FAISS that is yours; searching everything until 'mmsearch index' made one", path)
    index = index_over(rows, device) if index is None else index
    live = LiveIndex(model, index, rows.ids, files.kinds, files.change, facts if damage is None else EXACT_SEARCH)
    if not checked:
        timer = threading.Timer(CHECK_AFTER_S, _check, (folder, files.rows, live))
        timer.daemon = True
        timer.start()
    return Opened(live, damage)


def _check(folder: Path, file: StoredFile, live: LiveIndex) -> None:
    """Compare rows with their checksum; what is wrong with them is told by the next search."""
    try:
        verify(folder, file)
    except (LibraryCorrupt, NotPlainFile) as error:
        live.damage = str(error)
    except OSError as error:  # removed, since a newer generation is there
        log.info("%s was not compared with its checksum: %s", file.name, error)


def verify(folder: Path, file: StoredFile) -> None:
    """Raises: LibraryCorrupt when a file is not what it was; NotPlainFile, OSError."""
    path = folder / file.name
    found = os.stat(path)
    if found.st_size != file.size_bytes or checksum(path) != file.checksum:
        raise LibraryCorrupt(f"{path} has changed since it was written (its checksum differs)")
    compared.remember(path, file.checksum, found, place=folder)
