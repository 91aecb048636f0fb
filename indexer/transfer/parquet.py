"""Parquet files from anywhere, read in a process that may die of them: kilobytes may unpack to terabytes.

In: Parquet files. Out: their schemas, and their rows some thousands at a time. pyarrow unpacks them in a worker with
`MEMORY_BYTES` of memory and `TIMEOUT_S` for each batch, so it does not matter whether a footer or a page tells the
truth. A text that is repeated by reference, one long one a million times, comes here as a dictionary, and is counted
before it is repeated in memory. Next: `parquet_worker.py`, the other end; `restore.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.base.worker import Message, Worker, WorkerDied
from indexer.catalog.tables import ROWS_AT_ONCE, Row

TIMEOUT_S: Final = 60.0
MEMORY_BYTES: Final = 2 << 30  # pyarrow itself, a group of rows, a batch, and that batch as it is sent
GROUP_LIMIT_BYTES: Final = 256 << 20  # of one group of rows, unpacked; `export.py` writes 8,192 rows a group
SMALL_BYTES: Final = 256 << 20  # a table may always be this large
RATIO: Final = 200  # and beyond that this many times its file; file names and times of real libraries reach 20
BATCH_LIMIT_BYTES: Final = 512 << 20  # of the rows that are in memory together
FOOTER_LIMIT: Final = 8 << 20  # bytes of one string in the footer, and entries of one list
WORKER = ("-m", "indexer.transfer.parquet_worker")


class ParquetReader:
    """One worker for the files of an archive; a context manager."""

    def __init__(self) -> None:
        self._worker = Worker(WORKER, {}, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES)
        self._asked: list[Message] = []  # since the file was opened: a fresh worker answers them first

    def open(self, path: Path) -> tuple[pa.Schema, int]:
        """The schema of a file, and how many rows it says it has.

        Raises: LibraryCorrupt where the file is too large by its own account; ValueError.
        """
        limits = {
            "group_bytes": GROUP_LIMIT_BYTES,
            "table_bytes": _allowed_bytes(path),
            "batch_bytes": BATCH_LIMIT_BYTES,
            "batch_rows": ROWS_AT_ONCE,
            "footer": FOOTER_LIMIT,
        }
        self._asked = []
        said, (schema,) = self._ask(path, {"path": str(path), "limits": limits})
        return pa.ipc.read_schema(pa.py_buffer(schema)), int(said["rows"])

    def rows_of(self, path: Path) -> Iterator[list[Row]]:
        """The rows of the file opened last, `ROWS_AT_ONCE` at a time. Raises: LibraryCorrupt where it is too large."""
        left = _allowed_bytes(path)
        while parts := self._ask(path, {})[1]:
            batch = pa.ipc.open_stream(parts[0]).read_next_batch()
            batch.validate(full=True)
            size_bytes = sum(_unpacked_bytes(column) for column in batch.columns)
            left -= size_bytes
            if size_bytes > BATCH_LIMIT_BYTES or left < 0:
                raise LibraryCorrupt(
                    f"{path.name} unpacks to far more than any library's, {size_bytes:,} bytes at once"
                )
            yield batch.to_pylist()

    def _ask(self, path: Path, request: Message) -> tuple[Message, list[bytes]]:
        try:
            said, parts = self._worker.request(request, self._asked)
        except WorkerDied as died:
            if died.from_outside:
                raise LibraryError(
                    f"{path.name} was not read: the process for it was ended from outside ({died}); "
                    "nothing is wrong with the file by that, run the same command again"
                ) from died
            how = f"longer than {TIMEOUT_S:.0f} s" if died.timed_out else str(died)
            raise LibraryCorrupt(f"{path.name} cannot be read, or takes more than any library's ({how})") from died
        if "refused" in said:
            raise LibraryCorrupt(f"{path.name} {said['refused']}")
        if "error" in said:
            raise ValueError(f"{path.name}: {said['error']}")
        self._asked.append(request)
        return said, parts

    def __enter__(self) -> ParquetReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()


def _allowed_bytes(path: Path) -> int:
    return max(SMALL_BYTES, RATIO * path.stat().st_size)


def _unpacked_bytes(column: Any) -> int:
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return 8 * len(column) + int(pc.sum(lengths).as_py() or 0)
