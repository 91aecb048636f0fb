"""An archive from anywhere into a new library: everything in it is checked, and nothing is there until all of it is.

In: a folder or a .tar that `export.py` wrote, or somebody who means harm. Out: a library. Only plain files with the
names of `archive.py` are read, whatever else a tar holds ends the import; what they say has to fit together: checksums,
row counts, references, values, paths below their root. Next: nothing; this is a leaf of `store.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from sqlalchemy import URL, Connection, Table, delete, func, select
from sqlalchemy.exc import IntegrityError, StatementError

from indexer import generations
from indexer.archive import (
    MANIFEST,
    MANIFEST_LIMIT_BYTES,
    MEMBER,
    ROW,
    ROWS_AT_ONCE,
    TABLES,
    TENSORS,
    Manifest,
    Member,
    arrow_schema,
    tensors_name,
)
from indexer.backup import CATALOG_FILE, CopyReport, new_folder
from indexer.catalog import Catalog, live_model
from indexer.errors import LibraryCorrupt, LibraryError
from indexer.generations import _sha256 as sha256_of
from indexer.schema import (
    CAPTION,
    FUSED,
    HIDDEN,
    IMAGE,
    LIVE,
    MISSING,
    OWN,
    SCHEMA_REVISION,
    SKIPPED,
    TEXT,
    PathBytes,
    about,
    frames,
    library,
    models,
    vectors,
)
from indexer.types import Modality

FILES_LIMIT: Final = 1000
BELOW_ROOT: Final = ("rel_path", "source")  # columns of paths that are joined to their root's
ALLOWED: Final[dict[str, frozenset[object]]] = {
    "assets.state": frozenset({LIVE, MISSING, SKIPPED}),
    "assets.modality": frozenset(get_args(Modality)),
    "vectors.role": frozenset({OWN, FUSED}),
    "vectors.kind": frozenset({HIDDEN, IMAGE, TEXT, CAPTION}),
}


def restore(source: Path, where: Path) -> CopyReport:
    """Make the library `where`, which must not be there yet, from the archive `source`.

    Raises: LibraryError when `where` is there, or `source` is not or cannot be read; LibraryCorrupt when the archive is
    damaged or holds what no archive holds. Nothing is left behind then.
    """
    started = time.perf_counter()
    where = Path(os.path.abspath(where))
    with new_folder(where) as partial:
        try:
            unpacked = partial / "archive"
            unpacked.mkdir()
            manifest = _unpack(source, unpacked)
            _fill(partial, unpacked, manifest)
        except LibraryCorrupt as error:
            raise LibraryCorrupt(f"{source} cannot be imported: {error}") from error
        except (
            ValueError,
            ArithmeticError,
            RecursionError,
            IntegrityError,
            StatementError,
            tarfile.TarError,
            SafetensorError,
        ) as error:
            reason = " ".join(str(getattr(error, "orig", error)).split())[:200]
            raise LibraryCorrupt(f"{source} is damaged, or no archive ({reason})") from error
        shutil.rmtree(unpacked)
        size_bytes = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    seconds = time.perf_counter() - started
    return CopyReport(where, manifest.rows["assets"], manifest.rows["vectors"], size_bytes, seconds)


def _unpack(source: Path, folder: Path) -> Manifest:
    """Copies of the archive's files in `folder`, each with the size and the checksum of the manifest."""
    opening = _open_folder(source) if source.is_dir() else _open_tar(source)
    with opening as members:
        with members.open(MANIFEST) as file:
            text = file.read(MANIFEST_LIMIT_BYTES + 1)
        if len(text) > MANIFEST_LIMIT_BYTES:
            raise LibraryCorrupt(f"{MANIFEST} is longer than any")
        manifest = Manifest.from_json(text)
        if manifest.schema > SCHEMA_REVISION:
            raise LibraryCorrupt(f"it has schema {manifest.schema[:20]}, this version reads {SCHEMA_REVISION}; update")
        for name, member in manifest.files.items():
            with members.open(name) as file:
                _copy(file, folder / name, name, member)
    return manifest


def _copy(file: IO[bytes], target: Path, name: str, member: Member) -> None:
    left = member.size_bytes
    with target.open("xb") as copy:
        while part := file.read(min(1 << 20, left + 1)):
            left -= len(part)
            if left < 0:
                break
            copy.write(part)
    if left or sha256_of(target) != member.sha256:
        raise LibraryCorrupt(f"{name} is not the file that {MANIFEST} describes")


class _Members:
    """The files of an archive by name; `open` gives only plain ones."""

    def __init__(self, folder: Path | None, tar: tarfile.TarFile | None, known: dict[str, tarfile.TarInfo]) -> None:
        self._folder, self._tar, self._known = folder, tar, known

    def open(self, name: str) -> IO[bytes]:
        """One file. Raises: LibraryCorrupt when it is not there, or is a link, a device or a pipe."""
        if self._folder is not None:
            return _open_plain(self._folder / name)
        file = self._tar.extractfile(self._known[name]) if self._tar and name in self._known else None
        if file is None:
            raise LibraryCorrupt(f"{name} is missing")
        return file


def _open_plain(path: Path) -> IO[bytes]:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise LibraryCorrupt(f"{path.name} is no plain file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise LibraryCorrupt(f"{path.name} is missing") from error
    return os.fdopen(descriptor, "rb")


@contextmanager
def _open_folder(source: Path) -> Iterator[_Members]:
    yield _Members(source, None, {})


@contextmanager
def _open_tar(source: Path) -> Iterator[_Members]:
    """Only an uncompressed tar: one that unpacks to a thousand times its size cannot be written that way."""
    if not source.is_file():
        raise LibraryError(f"{source} is not there; name a folder or a .tar that 'mmsearch export' wrote")
    known: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(source, "r:") as tar:
        for member in tar:
            if member.name != MANIFEST and not MEMBER.fullmatch(member.name):
                raise LibraryCorrupt(f"it holds {member.name[:80]!r}, which no archive holds")
            if not member.isreg() or member.issparse() or member.name in known or len(known) >= FILES_LIMIT:
                raise LibraryCorrupt(f"{member.name} is no plain file, or there twice")
            known[member.name] = member
        yield _Members(None, tar, known)


def _fill(where: Path, unpacked: Path, manifest: Manifest) -> None:
    """The catalog and the index file of the library in `where`."""
    catalog = Catalog.open(URL.create("sqlite", database=str(where / CATALOG_FILE)), migrate_schema=True)
    try:
        with catalog.begin() as connection:
            connection.execute(delete(library))
            for table in TABLES:
                _read_table(connection, table, unpacked, manifest)
            _check_library(connection)
        with catalog.begin() as connection:
            model = live_model(connection)
        if model is not None:
            generations.refresh(catalog, where / generations.VECTORS_FOLDER, model)
    finally:
        catalog.close()  # the last connection takes SQLite's log into the one file that is renamed next


def _check_library(connection: Connection) -> None:
    ids = connection.scalars(select(library.c.id)).all()
    if list(ids) != [1]:
        raise LibraryCorrupt(f"library.parquet has {len(ids)} rows, not one")
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise LibraryCorrupt(f"a row of {broken[0]} points to none of {broken[2]}")
    lengths = select(frames.c.id).join(models, models.c.id == frames.c.model_id)
    if connection.execute(lengths.where(func.length(frames.c.mu) != 2 * models.c.dim).limit(1)).first() is not None:
        raise LibraryCorrupt("frames.parquet holds a vector that is not as long as its model's")


def _read_table(connection: Connection, table: Table, unpacked: Path, manifest: Manifest) -> None:
    name = f"{table.name}.parquet"
    if name not in manifest.files and manifest.schema < SCHEMA_REVISION:
        return  # a table that came later
    file = pq.ParquetFile(unpacked / name)
    _check_schema(table, file.schema_arrow, manifest)
    if file.metadata.num_rows != manifest.rows.get(table.name):
        raise LibraryCorrupt(f"{name} has {file.metadata.num_rows} rows, not {manifest.rows.get(table.name)}")
    tensors = _Tensors(connection, unpacked) if table is vectors else None
    for part in file.iter_batches(batch_size=ROWS_AT_ONCE):
        rows = [_checked(table, row) for row in part.to_pylist()]
        if tensors is not None:
            tensors.put_into(rows)
        if rows:
            connection.execute(table.insert(), rows)
    if tensors is not None:
        tensors.finish()


def _check_schema(table: Table, found: pa.Schema, manifest: Manifest) -> None:
    expected = arrow_schema(table)
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0 and manifest.schema < SCHEMA_REVISION and table.c[field.name].nullable:
            continue  # a column that came later
        if at < 0 or found.field(at).type != field.type:
            raise LibraryCorrupt(f"{table.name}.parquet has no column {field.name} of {field.type}")
    strange = set(found.names) - set(expected.names)
    if strange:
        raise LibraryCorrupt(f"{table.name}.parquet has the column {sorted(strange)[0][:40]!r}, which no library has")


def _checked(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """One row as the catalog takes it. Raises: LibraryCorrupt."""
    for column in table.columns:
        value = row.get(column.name)
        if value is not None and isinstance(column.type, PathBytes):
            row[column.name] = value = os.fsdecode(value)
            is_sound = _is_below(value) if column.name in BELOW_ROOT else _is_absolute(value)
            if not is_sound:
                raise LibraryCorrupt(f"{table.name} has the path {value[:80]!r}, which leads out of its folder")
        allowed = ALLOWED.get(f"{table.name}.{column.name}")
        if allowed is not None and value not in allowed:
            raise LibraryCorrupt(f"{table.name}.{column.name} is {str(value)[:40]!r}")
    if table is about and row.get("keywords") is not None and not _are_words(json.loads(row["keywords"])):
        raise LibraryCorrupt(f"about.keywords is {row['keywords'][:40]!r}")
    if table is frames and not np.isfinite(np.frombuffer(row["mu"] or b"", np.float16)).all():
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


class _Tensors:
    """The vectors of every model, given out in the order of their rows."""

    def __init__(self, connection: Connection, unpacked: Path) -> None:
        self._files: dict[int, Any] = {}
        self._next: dict[int, int] = {}
        self._count: dict[int, int] = {}
        for model in connection.execute(select(models.c.id, models.c.dim)).all():
            opened: Any = safe_open(unpacked / tensors_name(model.id), framework="numpy")
            slices = {name: opened.get_slice(name) for name in TENSORS}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            count = shapes["mu"][0]
            if any(shapes[name] != (count, model.dim) or slices[name].get_dtype() != "F16" for name in TENSORS):
                raise LibraryCorrupt(f"{tensors_name(model.id)} does not hold float16 [n, {model.dim}] twice")
            self._files[model.id], self._next[model.id], self._count[model.id] = opened, 0, count

    def put_into(self, rows: list[dict[str, Any]]) -> None:
        """Exchange the number `row` of each row for its blobs."""
        named = {row["model_id"] for row in rows}
        if not named <= self._files.keys():
            strange = min(named - self._files.keys(), key=str)
            raise LibraryCorrupt(f"vectors.parquet speaks of model {strange}, which models.parquet has not")
        for model_id in named:
            mine = [row for row in rows if row["model_id"] == model_id and row[ROW] is not None]
            first = self._next[model_id]
            self._next[model_id] = last = first + len(mine)
            if [row[ROW] for row in mine] != list(range(first, last)) or last > self._count[model_id]:
                raise LibraryCorrupt(f"vectors.parquet and {tensors_name(model_id)} are not of one making")
            for name in TENSORS:
                part: NDArray[np.float16] = self._files[model_id].get_slice(name)[first:last]
                if not np.isfinite(part).all():
                    raise LibraryCorrupt(f"{tensors_name(model_id)} holds what is no number")
                for row, values in zip(mine, part, strict=True):
                    row[name] = values.tobytes()
        for row in rows:
            row.update({name: None for name in TENSORS if row[ROW] is None})
            del row[ROW]

    def finish(self) -> None:
        """Every vector must have found its row."""
        if self._next != self._count:
            raise LibraryCorrupt("there are vectors without a row in vectors.parquet")
