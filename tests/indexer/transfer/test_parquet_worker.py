"""The process that reads Parquet: schema and rows of one file after another, and files over a limit refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.transfer.parquet_worker import _Reader

LIMITS = {"footer": 1 << 20, "table_bytes": 1 << 24, "group_bytes": 1 << 22, "batch_rows": 100, "batch_bytes": 1 << 20}


def table(rows: int) -> pa.Table:
    return pa.table({"id": list(range(rows)), "text": [f"text {number % 7}" for number in range(rows)]})


def written(path: Path, rows: int = 250, **options: Any) -> Path:
    pq.write_table(table(rows), path, **options)
    return path


def read(reader: _Reader, path: Path, **limits: int) -> pa.Table:
    answer, (schema,) = reader.answer({"path": str(path), "limits": {**LIMITS, **limits}}, {})
    batches = []
    while True:
        said, parts = reader.answer({}, {})
        assert said == {}
        if not parts:
            break
        batches += list(pa.ipc.open_stream(parts[0]))
    found = pa.Table.from_batches(batches, pa.ipc.read_schema(pa.py_buffer(schema)))
    assert answer == {"rows": found.num_rows}
    return found


def test_the_rows_of_one_file_after_another(tmp_path: Path) -> None:
    reader = _Reader()
    for name, rows in (("a", 250), ("b", 100), ("c", 0)):
        found = read(reader, written(tmp_path / name, rows))
        assert found.to_pydict() == table(rows).to_pydict()
    assert reader.answer({}, {}) == ({}, ()), "nothing is left"


def test_texts_come_as_dictionaries_in_batches_of_a_bounded_size(tmp_path: Path) -> None:
    reader = _Reader()
    reader.answer({"path": str(written(tmp_path / "a")), "limits": LIMITS}, {})
    _, (part,) = reader.answer({}, {})
    (batch,) = pa.ipc.open_stream(part)
    assert batch.num_rows == 100
    assert pa.types.is_dictionary(batch.schema.field("text").type)
    assert pa.types.is_int64(batch.schema.field("id").type)


@pytest.mark.parametrize("limit", ["group_bytes", "table_bytes"])
def test_more_than_a_limit_is_refused_before_it_is_read(tmp_path: Path, limit: str) -> None:
    request = {"path": str(written(tmp_path / "a")), "limits": {**LIMITS, limit: 100}}
    answer, parts = _Reader().answer(request, {})
    assert "unpacks to far more than any library's" in answer["refused"]
    assert parts == ()


def test_a_batch_that_grows_is_refused(tmp_path: Path) -> None:
    reader = _Reader()
    reader.answer({"path": str(written(tmp_path / "a")), "limits": {**LIMITS, "batch_bytes": 100}}, {})
    answer, _ = reader.answer({}, {})
    assert "bytes at once" in answer["refused"]


def test_an_encoding_that_no_library_writes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a", use_dictionary=False, column_encoding={"id": "DELTA_BINARY_PACKED", "text": "PLAIN"})
    answer, _ = _Reader().answer({"path": str(path), "limits": LIMITS}, {})
    assert answer == {"refused": "holds a page as no library writes one"}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_is_an_error_with_a_reason(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    answer, parts = _Reader().answer({"path": str(tmp_path / "a"), "limits": LIMITS}, {})
    assert answer["error"]
    assert parts == ()
