"""The files of a model folder, which may come from anybody: plain files of bounded size, and nothing outside of it.

In: a folder, names of files in it. Out: their bytes, a list of them, a digest. A pipe in the place of `model.json`
would hang a run and `/dev/zero` fill the memory, so both are refused. Links may lead from a file to another of the same
folder, or of the hub's cache that the folder is a part of (`snapshots/` links into `blobs/`), but not elsewhere.
Next: `digest.py`, what a folder says of itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple

from mmsearch.errors import CheckpointError

CONFIG_BYTES: Final = 4 << 20  # as Python objects JSON takes up to 30 times its size
TEXT_BYTES: Final = 64 << 20  # a tokenizer of 250,000 words has 17 MB
WEIGHTS_BYTES: Final = 64 << 30
SHIPPED: Final = Path(__file__).parents[1] / "pretrained" / "default"  # ours: its files may be links of an installer
MOST_FILES: Final = 500
MOST_DEPTH: Final = 4
WEIGHTS_SUFFIX: Final = ".safetensors"
_READ: Final = frozenset({".json", ".txt", ".model", ".spm", ".jinja", ".onnx", WEIGHTS_SUFFIX})  # by any loader
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


class ModelFile(NamedTuple):
    """One file: its name within the folder with `/`, where it lies, its size, and what of that the disk keeps."""

    name: str
    path: Path
    size_bytes: int
    stored_bytes: int


def read_file(folder: Path, name: str, limit_bytes: int = TEXT_BYTES) -> bytes:
    """The content of a plain file in a model folder. Raises: CheckpointError; OSError, FileNotFoundError among them."""
    path = _inside(folder, folder / name)
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise _not_plain(folder / name) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_plain(folder / name)
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise CheckpointError(
            f"{folder / name} is larger than {limit_bytes >> 20} MiB, which none of a model is; copy it again"
        )
    return data


def read_json(folder: Path, name: str, limit_bytes: int = CONFIG_BYTES) -> Any:
    """A JSON file of a model folder. Raises: as `read_file`; CheckpointError where it is no JSON."""
    try:
        return json.loads(read_file(folder, name, limit_bytes))
    except (ValueError, RecursionError) as error:  # a text that is not UTF-8 is a ValueError too
        found = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{folder / name} cannot be read as a model ({found}); copy the model again") from error


def files_of(folder: Path) -> list[ModelFile]:
    """Every file of the folder that a loader may read, in order of names.

    Raises: CheckpointError: one is no plain file, leads out of the folder or is too large, or there are too many.
    """
    found: list[ModelFile] = []
    waiting = [("", folder)]
    while waiting:
        prefix, place = waiting.pop()
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            name = prefix + entry.name
            if entry.is_dir():
                if entry.name.startswith("."):  # of git, or of a download
                    continue
                if entry.is_symlink() or name.count("/") >= MOST_DEPTH:
                    raise CheckpointError(f"{entry.path} is a link or lies too deep; name the folder of a model")
                waiting.append((f"{name}/", Path(entry.path)))
            elif Path(name).suffix.lower() in _READ:
                found.append(look_at(folder, name))
            if len(found) + len(waiting) > MOST_FILES:
                raise CheckpointError(f"{folder} holds more than {MOST_FILES} files; name a folder of one model")
    return sorted(found, key=lambda file: file.name)


def digest_of(folder: Path) -> str:
    """sha256 over all that decides what loading the folder does: every file but weights, of those names and sizes, hex.

    Weights are numbers; that they are the right ones is what the fingerprint tells.
    """
    digest = hashlib.sha256()
    for file in files_of(folder):
        digest.update(f"{file.name}\n{file.size_bytes}\n".encode(errors="surrogateescape"))
        if not file.name.endswith(WEIGHTS_SUFFIX):
            digest.update(hashlib.sha256(read_file(folder, file.name)).digest())
    return digest.hexdigest()


def look_at(folder: Path, name: str) -> ModelFile:
    """A file of the folder, before it is opened. Raises: CheckpointError; OSError."""
    path = _inside(folder, folder / name)
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise _not_plain(folder / name)
    limit = WEIGHTS_BYTES if name.endswith(WEIGHTS_SUFFIX) else TEXT_BYTES
    if found.st_size > limit:
        raise CheckpointError(f"{folder / name} is larger than {limit >> 20} MiB, which none of a model is")
    stored = getattr(found, "st_blocks", 1 + found.st_size // 512) * 512
    return ModelFile(name, path, found.st_size, min(found.st_size, stored))


def _inside(folder: Path, path: Path) -> Path:
    """Where `path` really lies. Raises: CheckpointError when it leads out of the folder; FileNotFoundError."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    homes = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if folder != SHIPPED and not any(real.is_relative_to(one) for one in homes):
        raise CheckpointError(f"{path} leads out of the model's folder; put a copy of the file in its place")
    return real


def _not_plain(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is no plain file (a device, a pipe or a folder); copy the model again")
