"""The files of an archive, from a folder or a .tar that need not be trusted, copied and checked on the way.

In: what `export.py` wrote, or somebody who means harm. Out: plain files with the names of `archive.py`, each with the
size and the checksum of the manifest; a link, a device, a path that leads out, anything else ends it. What the files
say is `restore.py`'s part. Next: `restore.py`.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from indexer.base.durable import sha256_of
from indexer.base.errors import LibraryCorrupt, LibraryError
from indexer.catalog.schema import SCHEMA_REVISION
from indexer.transfer.archive import MANIFEST, MANIFEST_LIMIT_BYTES, MEMBER, Manifest, Member

FILES_LIMIT: Final = 1000

Open = Callable[[str], IO[bytes]]  # a member by its name. Raises: LibraryCorrupt where it is missing or no plain file


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
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise LibraryCorrupt(f"{path.name} is missing") from error
    return os.fdopen(descriptor, "rb")


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
