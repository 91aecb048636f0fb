"""An archive from anywhere into a new library: everything in it is checked, and nothing is there until all of it is.

In: a folder or a .tar that `export.py` wrote, or somebody who means harm. Out: a library. `archive.py` gives only plain
files that are what the manifest says, `parquet.py` and `tensors.py` read them; what stands in them has to fit together:
row counts, references, values, paths below their root, a vector for every row. Next: nothing; a leaf of `store.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Final, get_args

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError

from indexer.base.errors import LibraryCorrupt
from indexer.base.plain_files import check_name
from indexer.base.types import CAPTION, HIDDEN, IMAGE, TEXT, Modality
from indexer.catalog import tables, wrong_rows
from indexer.catalog.checks import dangling
from indexer.catalog.database import Catalog, Connection, live_model
from indexer.catalog.known_schema import SCHEMA_REVISION
from indexer.catalog.schema import FUSED, LIVE, MISSING, OWN, SKIPPED
from indexer.catalog.tables import Row, WholeTable
from indexer.search import index_files as generations
from indexer.search.search import CATALOG_FILE
from indexer.transfer.archive import ARROW_TYPES, Manifest, unpack
from indexer.transfer.backup import CopyReport, new_folder
from indexer.transfer.parquet import ParquetReader
from indexer.transfer.tensors import Tensors

BELOW_ROOT: Final = ("rel_path", "source")  # columns of paths that are joined to their root's
ALLOWED: Final[dict[str, frozenset[object]]] = {
    "assets.state": frozenset({LIVE, MISSING, SKIPPED}),
    "assets.modality": frozenset(get_args(Modality)),
    "vectors.role": frozenset({OWN, FUSED}),
    "vectors.kind": frozenset({HIDDEN, IMAGE, TEXT, CAPTION}),
}
DAMAGE: Final = (  # what the libraries raise of damaged files; of a header without what it must have, LookupError
    *(ValueError, ArithmeticError, LookupError, MemoryError, RecursionError),
    *(pa.ArrowException, tarfile.TarError, SafetensorError),
)


def restore(source: Path, where: Path) -> CopyReport:
    """Make the library `where`, which must not be there yet, from the archive `source`.

    Raises: LibraryError when `where` is there, or `source` is not or cannot be read; LibraryCorrupt when the archive is
    damaged or holds what no archive holds. Nothing is left behind then.
    """
    started = time.perf_counter()
    where = Path(os.path.abspath(where))
    with new_folder(where) as partial:
        check_name(partial)
        try:
            unpacked = partial / "archive"
            unpacked.mkdir()
            manifest = unpack(source, unpacked)
            _fill(partial, unpacked, manifest)
        except LibraryCorrupt as error:
            raise LibraryCorrupt(f"{source} cannot be imported: {error}") from error
        except (OSError, *DAMAGE) as error:
            if isinstance(error, OSError) and error.errno is not None:  # pyarrow's, of what is not Parquet, has none
                raise
            reason = " ".join(str(error).split())[:200].replace("unexpected end of data", "it ends too early")
            raise LibraryCorrupt(f"{source} is damaged, or no archive ({reason})") from error
        shutil.rmtree(unpacked)
        size_bytes = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    seconds = time.perf_counter() - started
    return CopyReport(where, manifest.rows["assets"], manifest.rows["vectors"], size_bytes, seconds)


def _fill(where: Path, unpacked: Path, manifest: Manifest) -> None:
    """The catalog and the index file of the library in `where`."""
    catalog = Catalog.open(where / CATALOG_FILE, migrate_schema=True)
    try:
        with catalog.begin() as connection, ParquetReader() as parquet:
            tables.make_room(connection)
            with tables.bulk(connection):
                for table in tables.TABLES:
                    _read_table(connection, parquet, table, unpacked, manifest)
            _check_library(connection)
        with catalog.begin() as connection:
            model = live_model(connection)
        if model is not None:
            generations.refresh(catalog, where / generations.VECTORS_FOLDER, model)
    finally:
        catalog.close()  # the last connection takes SQLite's log into the one file that is renamed next


def _check_library(connection: Connection) -> None:
    """What no single row shows. Raises: LibraryCorrupt."""
    ids = tables.library_ids(connection)
    if ids != [1]:
        raise LibraryCorrupt(f"library.parquet has {len(ids)} rows, not one")
    for table, column, count in dangling(connection):
        raise LibraryCorrupt(f"{count} rows of {table} have a {column} that is not there")
    if tables.has_odd_frames(connection):
        raise LibraryCorrupt("frames.parquet holds a vector that is not as long as its model's")
    wrong = wrong_rows.find(connection)
    if wrong:
        raise LibraryCorrupt(wrong_rows.summary(connection, wrong))


def _read_table(
    connection: Connection, parquet: ParquetReader, table: WholeTable, unpacked: Path, manifest: Manifest
) -> None:
    name = f"{table.name}.parquet"
    if name not in manifest.files and manifest.schema < SCHEMA_REVISION:
        return  # a table that came later
    schema, count = parquet.open(unpacked / name)
    _check_schema(table, schema, manifest)
    if count != manifest.rows.get(table.name):
        raise LibraryCorrupt(f"{name} has {count} rows, not {manifest.rows.get(table.name)}")
    tensors = Tensors(tables.all_models(connection), unpacked) if table.name == "vectors" else None
    for part in parquet.rows_of(unpacked / name):
        rows = [_checked(table, row) for row in part]
        if tensors is not None:
            tensors.put_into(rows)
        tables.insert(connection, table, rows)
    if tensors is not None:
        tensors.finish()


def _check_schema(table: WholeTable, found: pa.Schema, manifest: Manifest) -> None:
    for column in table.columns:
        at = found.get_field_index(column.name)
        if at < 0 and manifest.schema < SCHEMA_REVISION and column.nullable:
            continue  # a column that came later
        kind = found.field(at).type if at >= 0 else None
        if getattr(kind, "value_type", kind) != ARROW_TYPES[column.kind]:  # texts come as dictionaries
            raise LibraryCorrupt(f"{table.name}.parquet has no column {column.name} of {ARROW_TYPES[column.kind]}")
    strange = set(found.names) - {column.name for column in table.columns}
    if strange:
        raise LibraryCorrupt(f"{table.name}.parquet has the column {sorted(strange)[0][:40]!r}, which no library has")


def _checked(table: WholeTable, row: Row) -> Row:
    """One row as the catalog takes it. Raises: LibraryCorrupt."""
    for column in table.columns:
        value = row.get(column.name)
        if value is not None and column.kind == "path":
            row[column.name] = value = os.fsdecode(value)
            is_sound = _is_below(value) if column.name in BELOW_ROOT else _is_absolute(value)
            if not is_sound:
                raise LibraryCorrupt(f"{table.name} has the path {value[:80]!r}, which leads out of its folder")
        allowed = ALLOWED.get(f"{table.name}.{column.name}")
        if allowed is not None and value not in allowed:
            raise LibraryCorrupt(f"{table.name}.{column.name} is {str(value)[:40]!r}")
    if table.name == "about" and row.get("keywords") is not None and not _are_words(json.loads(row["keywords"])):
        raise LibraryCorrupt(f"about.keywords is {row['keywords'][:40]!r}")
    if table.name == "frames" and not np.isfinite(np.frombuffer(row["mu"] or b"", np.float16)).all():
        raise LibraryCorrupt("frames.parquet holds what is no number")
    return row


def _are_words(said: object) -> bool:
    return isinstance(said, list) and all(isinstance(word, str) for word in said)


def _is_below(path: str) -> bool:
    """Whether a path with '/' stays below the folder it is joined to, on every system; '' is the folder."""
    parts = path.split("/") if path else []
    if os.name == "nt" and ("\\" in path or ":" in path):
        return False
    return "\0" not in path and not {"", ".", ".."}.intersection(parts)


def _is_absolute(path: str) -> bool:
    return "\0" not in path and os.path.isabs(path) and os.path.normpath(path) == path
