"""Archives that say they are small: what they would unpack to is known before it is unpacked."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.catalog.tables import BLOBS
from indexer.transfer import parquet, unpack
from indexer.transfer.archive import MANIFEST
from indexer.transfer.restore import restore
from tests.indexer.transfer.test_archive import archive, made, seal

__all__ = ["archive", "made"]


def refused(archive: Path, tmp_path: Path, words: str) -> str:
    with pytest.raises(LibraryError, match=words) as caught:
        restore(archive, tmp_path / "library")
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}
    return str(caught.value)


def count(archive: Path, table: str, rows: int) -> Path:
    said = json.loads((archive / MANIFEST).read_text())
    said["rows"][table] = rows
    (archive / MANIFEST).write_text(json.dumps(said))
    return seal(archive)


def notices(archive: Path, reasons: list[str], **options: Any) -> Path:
    path = archive / "notices.parquet"
    schema = pq.read_schema(path)
    row = pq.read_table(path).to_pylist()[0]
    rows = [{**row, "id": number, "reason": reason} for number, reason in enumerate(reasons, start=1)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd", **options)
    return count(archive, "notices", len(rows))


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


def tensors(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape: object, start: int, end: int, dtype: str = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def both(one: object, other: object) -> bytes:
    return json.dumps(dict(zip(BLOBS, (one, other), strict=True))).encode()


LIES = {
    "a header as long as the sea": tensors(b"{}", length=2**63),
    "longer than the file": tensors(b"{}", length=1 << 20),
    "more rows than bytes": tensors(both(entry([10**9, 16], 0, 32), entry([10**9, 16], 32, 64)), bytes(64)),
    "more bytes than the file": tensors(both(entry([10**9, 16], 0, 32 * 10**9), entry([0, 16], 0, 0)), bytes(64)),
    "the same bytes twice": tensors(both(entry([2, 16], 0, 64), entry([2, 16], 0, 64)), bytes(64)),
    "backwards": tensors(both(entry([2, 16], 64, 0), entry([2, 16], 64, 128)), bytes(128)),
    "a product beyond 64 bits": tensors(both(entry([2**62, 16], 0, 0), entry([2**62, 16], 0, 0))),
    "less than nothing": tensors(both(entry([-1, 16], 0, 0), entry([0, 16], 0, 0))),
    "no shape": tensors(both(entry([], 0, 2), entry([], 2, 4)), bytes(4)),
    "one dimension": tensors(both(entry([32], 0, 64), entry([32], 64, 128)), bytes(128)),
    "of another length": tensors(both(entry([2, 17], 0, 68), entry([2, 17], 68, 136)), bytes(136)),
    "another type": tensors(both(entry([2, 16], 0, 128, "F32"), entry([2, 16], 128, 256, "F32")), bytes(256)),
    "no type": tensors(both(entry([2, 16], 0, 64, "X"), entry([2, 16], 64, 128, "X")), bytes(128)),
    "a hundred thousand brackets": tensors(b"[" * 100_000),
    "words": tensors(b"not json"),
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_vectors_whose_header_lies(archive: Path, tmp_path: Path, lie: str) -> None:
    (archive / "vectors-1.safetensors").write_bytes(LIES[lie])
    refused(seal(archive), tmp_path, "damaged|does not hold")


def test_an_archive_larger_than_the_disk(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4711}))
    assert "where 4,711 are free" in refused(archive, tmp_path, "needs [0-9,]+ bytes")


def test_a_sparse_file_of_a_terabyte(archive: Path, tmp_path: Path) -> None:
    """Said to be as large as it is; the disk would be filled by nothing."""
    os.truncate(archive / "vectors-1.safetensors", 1 << 40)
    said = json.loads((archive / MANIFEST).read_text())
    said["files"]["vectors-1.safetensors"]["size_bytes"] = 1 << 40
    (archive / MANIFEST).write_text(json.dumps(said))
    refused(archive, tmp_path, r"needs 1,099,\d+,\d+,\d+ bytes")
