"""Archives that were changed by somebody who means harm, and what becomes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.base.errors import LibraryError
from indexer.transfer.archive import MANIFEST
from indexer.transfer.restore import restore


def seal(archive: Path) -> Path:
    """Give a manifest the checksums of files that were changed, as somebody who means harm would."""
    manifest = json.loads((archive / MANIFEST).read_text())
    for name in manifest["files"]:
        data = (archive / name).read_bytes()
        manifest["files"][name] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (archive / MANIFEST).write_text(json.dumps(manifest))
    return archive


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


def rewrite(archive: Path, table: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = archive / f"{table}.parquet"
    schema = pq.read_schema(path)
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def notices(archive: Path, reasons: list[str], **options: Any) -> Path:
    path = archive / "notices.parquet"
    schema = pq.read_schema(path)
    row = pq.read_table(path).to_pylist()[0]
    rows = [{**row, "id": number, "reason": reason} for number, reason in enumerate(reasons, start=1)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd", **options)
    return count(archive, "notices", len(rows))
