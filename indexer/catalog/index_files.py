"""The rows of `generations`: which index files there are, what they hold, and what was measured of them.

In: a snapshot or a writer's connection. Out: `IndexFiles`. Nothing of a row is believed: names of files are made from
its numbers, and a row that is not of this version's form, or that nobody can understand, has no facts: its files are
made again from the catalog. Next: `changes.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import IndexFacts, Model, UInt8Array
from indexer.catalog.reader import read

if TYPE_CHECKING:  # SQLAlchemy is for those who write
    from sqlalchemy import Connection

    from indexer.catalog.reader import Snapshot

ENTRY_BYTES: Final = 9  # int64 id, uint8 kind
ROWS_SUFFIX: Final = ".f16"
FACTS_BYTES: Final = 1 << 16  # of the facts of a row; those of four users take 2,000
MOST_USERS: Final = 4  # that have an index by FAISS in one library: the newest
MOST: Final = 1 << 48  # of any count
DIGEST: Final = re.compile("[0-9a-f]{64}")
KEY_ID: Final = re.compile("[0-9a-f]{16}")
NUMBERS: Final = ("generation", "model_id", "count", "dim", "change")
COLUMNS: Final = f"""{", ".join(f"CASE typeof({name}) WHEN 'integer' THEN {name} END" for name in NUMBERS)},
 CASE WHEN length(sha256) = 64 THEN sha256 END,
 CASE WHEN length(facts) <= {FACTS_BYTES} THEN facts END,
 CASE WHEN length(entries) = {ENTRY_BYTES} * count AND size_bytes = 2 * dim * count THEN entries END"""


@dataclass(frozen=True)
class StoredFile:
    """A file as it was written."""

    name: str
    checksum: str
    size_bytes: int


@dataclass(frozen=True)
class OfFaiss:
    """FAISS's index of the rows as one user wrote it, or that everything is to be searched (`facts`; no file then).

    `mac` is by that user's key over everything else; only its owner can tell whether it is right.
    """

    checksum: str
    size_bytes: int
    facts: IndexFacts
    mac: str


@dataclass(frozen=True, eq=False)
class IndexFiles:
    """One generation: the rows, and FAISS's indexes of them.

    Attributes:
        count: number of rows, of length `dim`.
        change: the last change they include.
        checksum: of the file of rows.
        facts: how the user who wrote the rows searches them; None where they are not to be used.
        entries: int64 ids, rising, then uint8 kinds.
        of_faiss: by the id of their user's key, the newest last.
    """

    generation: int
    model_id: int
    count: int
    dim: int
    change: int
    checksum: str
    facts: IndexFacts | None
    entries: bytes
    of_faiss: Mapping[str, OfFaiss] = field(default_factory=dict)

    @property
    def rows(self) -> StoredFile:
        """The file of rows."""
        return StoredFile(rows_name(self.generation), self.checksum, 2 * self.dim * self.count)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All of them, of every user."""
        return (self.rows, *(one for key in self.of_faiss if (one := self.faiss_file(key)) is not None))

    def faiss_file(self, key_id: str) -> StoredFile | None:
        """The file of one user; None where there is none."""
        one = self.of_faiss.get(key_id)
        if one is None or not one.size_bytes:
            return None
        return StoredFile(faiss_name(self.generation, key_id), one.checksum, one.size_bytes)

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


def rows_name(generation: int) -> str:
    """The file of vectors of a generation."""
    return f"index-{generation}{ROWS_SUFFIX}"


def faiss_name(generation: int, key_id: str) -> str:
    """FAISS's index of them, as the user with that key wrote it."""
    return f"index-{generation}-{key_id}.faiss"


def newest(snapshot: Snapshot, model: Model) -> IndexFiles | None:
    """The files in use for `model`."""
    query = f"SELECT {COLUMNS} FROM generations WHERE model_id = :model ORDER BY generation DESC LIMIT 1"
    rows = read(snapshot, query, model=model.id)
    return _files(rows[0]) if rows else None


def stored_files(snapshot: Snapshot) -> list[StoredFile]:
    """All files that some row lists."""
    query = f"SELECT {COLUMNS} FROM generations ORDER BY generation DESC LIMIT 100"
    return [file for row in read(snapshot, query) for file in _files(row).files]


def _files(row: tuple[Any, ...]) -> IndexFiles:
    """What a row says, without facts where it says what none of ours does."""
    generation, model_id, count, dim, change, checksum, said, entries = row
    facts, of_faiss = _parsed(said)
    if not (
        all(_is_count(number) for number in (generation, model_id, count, dim, change))
        and isinstance(entries, bytes)
        and isinstance(checksum, str)
        and DIGEST.fullmatch(checksum)
    ):
        return IndexFiles(generation if _is_count(generation) else 0, model_id, 0, 0, 0, "", None, b"")
    return IndexFiles(generation, model_id, count, dim, change, checksum, facts, entries, of_faiss)


def next_generation(connection: Connection) -> int:
    """Count up: the number of the files that are written next."""
    from sqlalchemy import select, update

    from indexer.catalog.schema import library

    number = int(connection.execute(select(library.c.generation)).scalar_one()) + 1  # held to its rule as it is read
    connection.execute(update(library).values(generation=number))
    return number


def put(connection: Connection, files: IndexFiles) -> None:
    """Make these files the ones in use; the others' rows go."""
    from sqlalchemy import delete

    from indexer.catalog.schema import generations

    connection.execute(delete(generations))
    connection.execute(
        generations.insert().values(
            generation=files.generation,
            model_id=files.model_id,
            file_name=files.rows.name,  # earlier versions ask for it
            sha256=files.checksum,
            size_bytes=files.rows.size_bytes,
            count=files.count,
            dim=files.dim,
            change=files.change,
            entries=files.entries,
            facts=_as_text(files),
        )
    )


def put_facts(connection: Connection, files: IndexFiles) -> bool:
    """Change what the row says of FAISS's indexes; whether the row is still there."""
    from sqlalchemy import update

    from indexer.catalog.schema import generations

    mine = (generations.c.generation == files.generation) & (generations.c.sha256 == files.checksum)
    return connection.execute(update(generations).where(mine).values(facts=_as_text(files))).rowcount == 1


def with_faiss(files: IndexFiles, key_id: str, one: OfFaiss) -> IndexFiles:
    """The same files and one user's index, as the newest of at most `MOST_USERS`."""
    kept = {key: value for key, value in files.of_faiss.items() if key != key_id}
    return replace(files, of_faiss=dict([*kept.items(), (key_id, one)][-MOST_USERS:]))


def _as_text(files: IndexFiles) -> str:
    assert files.facts is not None
    of_faiss = {
        key: {"checksum": one.checksum, "size_bytes": one.size_bytes, "mac": one.mac, "facts": asdict(one.facts)}
        for key, one in files.of_faiss.items()
    }
    return json.dumps({**asdict(files.facts), "faiss": of_faiss})


def _parsed(text: object) -> tuple[IndexFacts | None, dict[str, OfFaiss]]:
    """Facts, and FAISS's indexes by their users' keys; neither where nobody can understand the row.

    An earlier version had one index for all, with a checksum that anybody can make: it counts as none.
    """
    try:
        said: Any = json.loads(text) if isinstance(text, str) else None
        faiss = said.pop("faiss") or {}
        facts = _facts(said)
        parsed = {key: _of_faiss(one) for key, one in faiss.items() if KEY_ID.fullmatch(key)}
        return facts, dict([*parsed.items()][-MOST_USERS:])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, {}


def _of_faiss(said: dict[str, Any]) -> OfFaiss:
    one = OfFaiss(said["checksum"], said["size_bytes"], _facts(said["facts"]), said["mac"])
    has_file = one.facts.form == "ivf"
    is_sound = (
        _is_count(one.size_bytes) and DIGEST.fullmatch(one.mac) and (not has_file or DIGEST.fullmatch(one.checksum))
    )
    if not is_sound or (one.size_bytes > 0) != has_file:
        raise ValueError("no description of a file")
    return one


def _facts(said: dict[str, Any]) -> IndexFacts:
    facts = IndexFacts(**said)
    counts = (facts.lists, facts.nprobe, facts.depth, facts.trained_on, facts.questions)
    shares = [one for one in (facts.recall_at_10, facts.recall_at_10_low) if one is not None]
    is_sound = facts.form in ("exact", "ivf") and all(_is_count(one) for one in counts)
    if not is_sound or not all(isinstance(one, float | int) and -1 <= one <= 1 for one in shares):
        raise ValueError("no facts")
    return facts


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST
