"""The rows of `generations`: which index files there are, what they hold, and what was measured of them.

In: a snapshot or a writer's connection. Out: `IndexFiles`. A row without facts was written by a version whose files had
another layout: its files are made again. Next: `changes.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import IndexFacts, Model, UInt8Array
from indexer.catalog.reader import read

if TYPE_CHECKING:  # SQLAlchemy is for those who write
    from sqlalchemy import Connection

    from indexer.catalog.reader import Snapshot

ENTRY_BYTES: Final = 9  # int64 id, uint8 kind
COLUMNS: Final = "generation, model_id, count, dim, change, file_name, sha256, size_bytes, facts, entries"


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written."""

    name: str
    checksum: str
    size_bytes: int


@dataclass(frozen=True, eq=False)
class IndexFiles:
    """One generation: the rows, and FAISS's index of them where there is one.

    Attributes:
        count: number of rows, of length `dim`.
        change: the last change they include.
        facts: how they are searched; None where the files are of an earlier version.
        entries: int64 ids, rising, then uint8 kinds.
    """

    generation: int
    model_id: int
    count: int
    dim: int
    change: int
    rows: StoredFile
    faiss: StoredFile | None
    facts: IndexFacts | None
    entries: bytes

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All of them."""
        return (self.rows,) if self.faiss is None else (self.rows, self.faiss)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The id of each row, int64 `[n]`. Raises: LibraryCorrupt."""
        if len(self.entries) != ENTRY_BYTES * self.count:
            raise LibraryCorrupt(f"the catalog lists {len(self.entries) // ENTRY_BYTES} ids for {self.count} vectors")
        return np.frombuffer(self.entries, "<i8", self.count).astype(np.int64)

    @property
    def kinds(self) -> UInt8Array:
        """The kind of each row, uint8 `[n]`."""
        return np.frombuffer(self.entries, np.uint8, self.count, offset=8 * self.count).copy()


def newest(snapshot: Snapshot, model: Model) -> IndexFiles | None:
    """The files in use for `model`."""
    query = f"SELECT {COLUMNS} FROM generations WHERE model_id = :model ORDER BY generation DESC LIMIT 1"
    for generation, model_id, count, dim, change, name, checksum, size_bytes, facts, entries in read(
        snapshot, query, model=model.id
    ):
        known, faiss = _parsed(facts)
        rows = StoredFile(name, checksum, size_bytes)
        return IndexFiles(generation, model_id, count, dim, change, rows, faiss, known, bytes(entries))
    return None


def stored_files(snapshot: Snapshot) -> list[StoredFile]:
    """All files that some row lists."""
    stored = []
    for name, checksum, size_bytes, facts in read(
        snapshot, "SELECT file_name, sha256, size_bytes, facts FROM generations"
    ):
        faiss = _parsed(facts)[1]
        stored += [StoredFile(name, checksum, size_bytes), *([] if faiss is None else [faiss])]
    return stored


def next_generation(connection: Connection) -> int:
    """Count up: the number of the files that are written next."""
    from sqlalchemy import select, update

    from indexer.catalog.schema import library

    connection.execute(update(library).values(generation=library.c.generation + 1))
    return int(connection.execute(select(library.c.generation)).scalar_one())


def put(connection: Connection, files: IndexFiles) -> None:
    """Make these files the ones in use; the others' rows go."""
    from sqlalchemy import delete

    from indexer.catalog.schema import generations

    assert files.facts is not None
    facts = asdict(files.facts) | {"faiss": None if files.faiss is None else asdict(files.faiss)}
    connection.execute(delete(generations))
    connection.execute(
        generations.insert().values(
            generation=files.generation,
            model_id=files.model_id,
            file_name=files.rows.name,
            sha256=files.rows.checksum,
            size_bytes=files.rows.size_bytes,
            count=files.count,
            dim=files.dim,
            change=files.change,
            entries=files.entries,
            facts=json.dumps(facts),
        )
    )


def _parsed(text: str) -> tuple[IndexFacts | None, StoredFile | None]:
    """Facts, and FAISS's file; neither where an earlier version wrote the row, or nobody who can be understood."""
    try:
        facts = json.loads(text)
        faiss = facts.pop("faiss")
        return IndexFacts(**facts), None if faiss is None else StoredFile(**faiss)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, None
