"""Parquet files that say they are small: read within limits of memory and time, or refused."""

from __future__ import annotations

import random
import resource
import struct
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.base.worker import Worker
from indexer.transfer import parquet
from indexer.transfer.parquet import ParquetReader
from indexer.transfer.restore import restore
from tests.indexer.transfer.archives import count, notices, refused, seal


def test_one_long_text_many_times(archive: Path, tmp_path: Path) -> None:
    """A gigabyte of strings in a file of kilobytes, by reference to one of them."""
    path = archive / "notices.parquet"
    table = pa.Table.from_pylist(pq.read_table(path).to_pylist()[:1] * 8192, schema=pq.read_schema(path))
    long = pa.DictionaryArray.from_arrays(np.zeros(8192, np.int32), ["x" * (1 << 17)])
    pq.write_table(table.set_column(table.schema.get_field_index("reason"), "reason", long), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(count(archive, "notices", 8192), tmp_path, r"notices\.parquet unpacks to far more .*, 1,07\d,\d+,\d+ bytes")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 300_000


def test_pages_of_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices(archive, [f"{number}" + "x" * 300_000 for number in range(16)], use_dictionary=False)
    assert (archive / "notices.parquet").stat().st_size < 20_000
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "GROUP_LIMIT_BYTES", 4 << 20)
        refused(archive, tmp_path, r"notices\.parquet unpacks to far more than any library's, 4,8\d\d,\d+ bytes")
    with monkeypatch.context() as patch:  # many groups that are small each
        patch.setattr(parquet, "SMALL_BYTES", 1 << 20)
        patch.setattr(parquet, "RATIO", 20)
        notices(archive, ["x" * 300_000] * 16, use_dictionary=False, row_group_size=1)
        refused(archive, tmp_path, "unpacks to far more")
        notices(archive, [str(number) for number in range(16)])
        restore(archive, tmp_path / "library")


def varint(number: int) -> bytes:
    """An i64 of Thrift's compact protocol: zigzag, seven bits a byte."""
    zigzag, out = number << 1, b""
    while zigzag > 127:
        out, zigzag = out + bytes([zigzag & 127 | 128]), zigzag >> 7
    return out + bytes([zigzag])


def lie(path: Path) -> None:
    """Every size in the footer that says how much there is when it is unpacked becomes 1, written as long as it was."""
    footer, data = pq.read_metadata(path), path.read_bytes()
    (length,) = struct.unpack("<I", data[-8:-4])
    start = len(data) - 8 - length
    told, sizes = data[start:], set()
    for group in (footer.row_group(at) for at in range(footer.num_row_groups)):
        columns = (group.column(at).total_uncompressed_size for at in range(group.num_columns))
        sizes |= {group.total_byte_size, *(size for size in columns if size > 100_000)}
    for size in sizes:
        true = varint(size)
        assert true in told
        told = told.replace(true, bytes([130, *[128] * (len(true) - 2), 0]))
    path.write_bytes(data[:start] + told)
    footer = pq.read_metadata(path)
    assert footer.row_group(0).total_byte_size == 1


def test_a_footer_that_lies_lets_no_more_through(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_LIMIT_BYTES", 4 << 20)
    notices(archive, ["x" * 300_000] * 16, use_dictionary=False)
    lie(archive / "notices.parquet")
    refused(count(archive, "notices", 16), tmp_path, r"notices\.parquet unpacks to far more .*, 4,8\d\d,\d+ bytes")


def test_pages_that_take_all_memory_end_a_worker_and_no_more(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte in one batch, of which the footer says that it is a byte."""
    path = archive / "notices.parquet"
    table = pq.read_table(path)
    some, column = (
        pa.Table.from_pylist(table.to_pylist()[:1] * 8, schema=table.schema),
        table.schema.names.index("reason"),
    )
    with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
        for first in range(0, 1024, 8):
            long = pa.array([f"{number:4}" + "x" * (1 << 20) for number in range(first, first + 8)])
            writer.write_table(some.set_column(column, table.schema.field(column), long))
    lie(path)
    assert path.stat().st_size < 1 << 20
    count(archive, "notices", 1024)
    monkeypatch.setattr(parquet, "MEMORY_BYTES", 1 << 30)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(archive, tmp_path, r"notices\.parquet (unpacks to far|cannot be read, or takes) more")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100_000


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_values_that_grow_by_reference_to_others(archive: Path, tmp_path: Path, encoding: str) -> None:
    notices(archive, ["x" * 9] * 9, use_dictionary=False, column_encoding={"reason": encoding})
    refused(archive, tmp_path, "a page as no library writes one")


def test_any_byte_of_a_table(archive: Path, tmp_path: Path) -> None:
    """With the checksum that belongs to it: read, or refused in one line."""
    dice, path = random.Random(5), archive / "assets.parquet"
    whole = path.read_bytes()
    refusals = 0
    for number in range(24):
        data = bytearray(whole)
        place = dice.randrange(len(data)) if number % 3 else len(data) - 1 - dice.randrange(1500)  # the footer
        data[place] = dice.randrange(256)
        path.write_bytes(data)
        reason = ""
        try:
            restore(seal(archive), tmp_path / f"library{number}")
        except LibraryCorrupt as error:
            reason = str(error)
        assert "\n" not in reason
        refusals += bool(reason)
    assert refusals > 3


def test_a_worker_that_is_killed_is_started_again_where_it_was(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 2)
    path = archive / "assets.parquet"
    with ParquetReader() as reader:
        reader.open(path)
        expected = list(reader.rows_of(path))
        assert len(expected) > 2
        reader.open(path)
        batches = reader.rows_of(path)
        found = [next(batches)]
        assert reader._worker.process is not None
        reader._worker.process.kill()
        assert found + list(batches) == expected


def test_one_that_is_killed_again_says_nothing_of_the_archive(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    real = Worker._start

    def start(self: Worker) -> subprocess.Popen[bytes]:
        process = real(self)
        process.kill()
        killed.append(process.pid)
        return process

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "_start", start)
        with pytest.raises(LibraryError, match=r"ended from outside .*SIGKILL.*run the same command again") as caught:
            restore(archive, tmp_path / "library")
    assert not isinstance(caught.value, LibraryCorrupt)
    assert len(killed) == 2
    assert not (tmp_path / "library").exists()
    restore(archive, tmp_path / "library")
