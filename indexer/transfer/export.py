"""A library into an archive: every row of the catalog and every vector, as of one moment, while a writer may go on.

In: an open catalog, a folder or a name that ends in .tar. Out: the archive of `archive.py`. Memory does not grow with
the library, but for one id a vector. Pictures and models are not in it. Next: `restore.py`, the way back.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.base.disk_errors import in_words
from indexer.base.durable import sha256_of, sync
from indexer.base.errors import LibraryError
from indexer.catalog import tables
from indexer.catalog.database import Catalog, Connection
from indexer.catalog.known_schema import SCHEMA_REVISION
from indexer.catalog.tables import Kind, WholeTable
from indexer.transfer.archive import MANIFEST, Manifest, Member, arrow_schema, tensors_name
from indexer.transfer.backup import CopyReport, new_folder
from indexer.transfer.tensors import write_tensors

TAR_SUFFIX = ".tar"


def export(catalog: Catalog, dest: Path) -> CopyReport:
    """Write the archive `dest`: one file where the name ends in .tar, else a new folder.

    Raises: LibraryError when `dest` is there already or cannot be written.
    """
    started = time.perf_counter()
    dest = Path(os.path.abspath(dest))
    if dest.suffix.lower() == TAR_SUFFIX:
        manifest = _write_tar(catalog, dest)
    else:
        with new_folder(dest) as folder:
            manifest = _write(catalog, folder)
    size_bytes = sum(member.size_bytes for member in manifest.files.values())
    seconds = time.perf_counter() - started
    return CopyReport(dest, manifest.rows["assets"], manifest.rows["vectors"], size_bytes, seconds)


def _write(catalog: Catalog, folder: Path) -> Manifest:
    rows: dict[str, int] = {}
    with catalog.begin() as connection:
        for table in tables.TABLES:
            rows[table.name] = _write_table(connection, table, folder / f"{table.name}.parquet")
        for model in tables.all_models(connection):
            write_tensors(connection, model, folder / tensors_name(model.id))
    files = {
        path.name: Member(path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir()) if path.is_file()
    }
    manifest = Manifest(SCHEMA_REVISION, rows, files)
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
    return manifest


def _write_table(connection: Connection, table: WholeTable, path: Path) -> int:
    schema, count = arrow_schema(table), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in tables.pages(connection, table):
            columns = {column.name: [_plain(row[column.name], column.kind) for row in rows] for column in table.columns}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(rows)
    return count


def _plain(value: Any, kind: Kind) -> Any:
    return os.fsencode(value) if value is not None and kind == "path" else value


def _write_tar(catalog: Catalog, dest: Path) -> Manifest:
    if os.path.lexists(dest):
        raise LibraryError(f"{dest} is there already; name a file that is not, nothing is ever written over")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent) as name:
            folder, packed = Path(name, "archive"), Path(name, "packed")
            folder.mkdir()
            manifest = _write(catalog, folder)
            _pack(folder, packed)
            sync(packed)
            os.replace(packed, dest)
            sync(dest.parent)
    except OSError as error:
        how = in_words(error, dest, "look at it, or name another file")
        raise LibraryError(f"{dest} cannot be written {how}") from error
    return manifest


def _pack(folder: Path, packed: Path) -> None:
    """The files in one tar, the manifest first."""
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.iterdir(), key=lambda one: (one.name != MANIFEST, one.name)):
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
