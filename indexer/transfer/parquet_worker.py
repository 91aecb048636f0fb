"""The process behind `parquet.py`: pyarrow reads one Parquet file after another within limits, and may crash.

In: requests `{"path", "limits"}` to open a file, and `{}` for its next rows. Out: its schema and how many rows it has;
then batches in Arrow's IPC format, texts as dictionaries, until an answer without one. Next: `base/worker.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.base.worker import Message, serve

ENCODINGS = frozenset({"PLAIN", "PLAIN_DICTIONARY", "RLE", "RLE_DICTIONARY", "BIT_PACKED"})  # what `export.py` writes


class _Refused(Exception):
    """The file asks for more than the limits allow."""


class _Reader:
    """The file that was opened last."""

    def __init__(self) -> None:
        self._batches: Iterator[Any] = iter(())
        self._batch_bytes = 0

    def answer(self, request: Message, _options: Message) -> tuple[Message, Sequence[Any]]:
        try:
            return self._open(request["path"], request["limits"]) if "path" in request else self._next()
        except _Refused as error:
            return {"refused": str(error)}, ()
        except MemoryError:
            return {"refused": "unpacks to far more than any library's"}, ()
        except Exception as error:  # whatever pyarrow says of a damaged file
            return {"error": str(error)}, ()

    def _open(self, path: str, limits: dict[str, int]) -> tuple[Message, Sequence[Any]]:
        footer_limits = dict.fromkeys(("thrift_string_size_limit", "thrift_container_size_limit"), limits["footer"])
        with pq.ParquetFile(path, **footer_limits) as first:
            footer = first.metadata
        left = limits["table_bytes"]
        for at in range(footer.num_row_groups):
            group = footer.row_group(at)
            columns = [group.column(number) for number in range(group.num_columns)]
            if not all(ENCODINGS.issuperset(column.encodings) for column in columns):
                raise _Refused("holds a page as no library writes one")  # values that grow by reference to others
            size_bytes = sum(column.total_uncompressed_size for column in columns)
            left -= size_bytes
            if size_bytes > limits["group_bytes"] or left < 0:
                raise _too_large(size_bytes)
        columns = [footer.schema.column(at) for at in range(footer.num_columns)]
        texts = [column.name for column in columns if column.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False, **footer_limits)
        self._batches = file.iter_batches(batch_size=limits["batch_rows"], use_threads=False)
        self._batch_bytes = limits["batch_bytes"]
        return {"rows": footer.num_rows}, [file.schema_arrow.serialize()]

    def _next(self) -> tuple[Message, Sequence[Any]]:
        batch = next(self._batches, None)
        if batch is None:
            return {}, ()
        if batch.nbytes > self._batch_bytes:
            raise _too_large(batch.nbytes)
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, batch.schema) as stream:
            stream.write_batch(batch)
        return {}, [memoryview(out.getvalue())]


def _too_large(size_bytes: int) -> _Refused:
    return _Refused(f"unpacks to far more than any library's, {size_bytes:,} bytes at once")


def main() -> None:
    """Serve stdin. The argument is JSON: `timeout_s`, `memory_bytes`."""
    pa.set_memory_pool(pa.system_memory_pool())  # it asks for what it needs; the others reserve address space
    serve(_Reader().answer)


if __name__ == "__main__":
    main()
