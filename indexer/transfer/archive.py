"""A library as files that any program reads: Parquet for rows, safetensors for vectors, JSON that lists them.

    manifest.json             format, schema, rows of each table, size and sha256 of each file
    <table>.parquet           one for each table of the catalog but `generations`
    vectors-<model>.safetensors   `mu` and `logvar`, float16 [n, d]; the column `row` of vectors.parquet points there

In: tables and their columns; an archive from `export.py`, or from somebody who means harm. Out: names and types that
`export.py` and `restore.py` share; plain files with these names, each with the size and the checksum of the manifest. A
link, a device, a path that leads out, anything else ends it. Nothing is pickled. Next: `export.py`, `restore.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from indexer.base.durable import sha256_of
from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.catalog.known_schema import SCHEMA_REVISION
from indexer.catalog.tables import Kind, WholeTable

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MEMBER: Final = re.compile(r"[a-z_]{1,40}\.parquet|vectors-[0-9]{1,18}\.safetensors")
MANIFEST_LIMIT_BYTES: Final = 1 << 20
FILES_LIMIT: Final = 1000  # of a tar
ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    "path": pa.binary(),  # names that are not UTF-8 survive here too
    "bytes": pa.binary(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "time": pa.timestamp("us"),
    "text": pa.string(),
}

Open = Callable[[str], IO[bytes]]  # a member by its name. Raises: LibraryCorrupt where it is missing or no plain file


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an archive holds; `rows` by table, `files` by name."""

    schema: str
    rows: dict[str, int]
    files: dict[str, Member]

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """The manifest of an archive from anywhere. Raises: LibraryCorrupt when it says what none may say."""
        try:
            said = json.loads(text)
            if not isinstance(said, dict) or said.get("format") != FORMAT:
                found = said.get("format") if isinstance(said, dict) else None
                raise LibraryCorrupt(f"format {str(found)[:20]!r}, this version reads {FORMAT}")
            rows = {str(name): _count(number) for name, number in said["rows"].items()}
            files = {name: Member(_count(one["size_bytes"]), str(one["sha256"])) for name, one in said["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LibraryCorrupt(f"{MANIFEST} is not one ({type(error).__name__})") from error
        strange = [name for name in files if not MEMBER.fullmatch(name)]
        if strange:
            raise LibraryCorrupt(f"{MANIFEST} names the file {strange[0][:80]!r}, which no archive holds")
        return cls(str(said.get("schema")), rows, files)


def arrow_schema(table: WholeTable) -> pa.Schema:
    """The Parquet schema of a table."""
    return pa.schema([pa.field(column.name, ARROW_TYPES[column.kind]) for column in table.columns])


def tensors_name(model_id: int) -> str:
    """The file of a model's vectors."""
    return f"vectors-{model_id}.safetensors"


def unpack(source: Path, folder: Path) -> Manifest:
    """Copies of the archive's files in `folder`, each with the size and the checksum of the manifest.

    Raises: LibraryError when `source` is not there; LibraryCorrupt, OSError, tarfile.TarError.
    """
    opening = _open_folder(source) if source.is_dir() else _open_tar(source)
    with opening as open_member:
        with open_member(MANIFEST) as file:
            text = file.read(MANIFEST_LIMIT_BYTES + 1)
        if len(text) > MANIFEST_LIMIT_BYTES:
            raise LibraryCorrupt(f"{MANIFEST} is longer than any")
        manifest = Manifest.from_json(text)
        if manifest.schema > SCHEMA_REVISION:
            raise LibraryCorrupt(f"it has schema {manifest.schema[:20]}, this version reads {SCHEMA_REVISION}; update")
        needed, free = sum(member.size_bytes for member in manifest.files.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise LibraryError(f"{source} needs {needed:,} bytes at {folder.parent.parent}, where {free:,} are free")
        for name, member in manifest.files.items():
            with open_member(name) as file:
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


def _open_plain(path: Path) -> IO[bytes]:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise LibraryCorrupt(f"{path.name} is no plain file")
        flags = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
        file = os.fdopen(os.open(path, os.O_RDONLY | flags), "rb")  # names of its own (hard links) are no matter here
    except FileNotFoundError as error:
        raise LibraryCorrupt(f"{path.name} is missing") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # exchanged meanwhile
        file.close()
        raise LibraryCorrupt(f"{path.name} is no plain file")
    return file


@contextmanager
def _open_folder(source: Path) -> Iterator[Open]:
    yield lambda name: _open_plain(source / name)


@contextmanager
def _open_tar(source: Path) -> Iterator[Open]:
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

        def open_member(name: str) -> IO[bytes]:
            file = tar.extractfile(known[name]) if name in known else None
            if file is None:
                raise LibraryCorrupt(f"{name} is missing")
            return file

        yield open_member


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 48:
        raise ValueError(f"{str(value)[:20]!r} is no count")
    return value
