"""What is on disk: every picture, text, sidecar and captions.csv below a folder, without opening any of them.

In: a folder. Out: `Scan`: files in sorted order, and what could not be looked at, with the reason. Nothing here ends a
run: an unreadable folder, a loop of symbolic links, a broken link are recorded. A run without changes spends its time
here, so what is done for every file is little: one stat, one tuple. Next: `plan.py`, which compares with the catalog.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from array import array
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

from indexer.base.types import Modality
from indexer.files.excludes import IGNORE_NAME, Excludes, Rules, read_ignore
from indexer.files.kinds import has_extra

IMAGE_SUFFIXES: Final = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
        ".hif", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef",
        ".srw", ".x3f", ".mrw", ".erf", ".3fr", ".iiq", ".kdc", ".dcr",
    }
)  # fmt: skip
VIDEO_SUFFIXES: Final = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
)
TEXT_SUFFIXES: Final = frozenset({".txt", ".md"})
SIDECAR_SUFFIXES: Final = frozenset({".json", ".xmp"})
CAPTIONS_NAME: Final = "captions.csv"
NOTHING_MORE: Final = Excludes()
_INODE: Final = (1 << 64) - 1  # Windows has longer numbers

log = logging.getLogger(__name__)

Role = Modality | Literal["captions", "sidecar"]


_ROLES: Final[dict[str, Role]] = {
    **{suffix[1:]: "image" for suffix in IMAGE_SUFFIXES},
    **{suffix[1:]: "text" for suffix in TEXT_SUFFIXES},
    **{suffix[1:]: "sidecar" for suffix in SIDECAR_SUFFIXES},
}  # by the name's end, in small letters


class Found(NamedTuple):
    """One file. `rel_path` is below the root, with '/'; bytes that are not UTF-8 are surrogates."""

    rel_path: str
    role: Role
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unseen:
    """A file or folder that could not be looked at."""

    rel_path: str
    reason: str
    is_folder: bool


@dataclass
class Scan:
    """The files below a folder, and what stayed unseen, both sorted by path; and which paths patterns pass over."""

    found: list[Found] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    excluded: set[str] = field(default_factory=set)

    def excludes(self, rel_path: str) -> bool:
        """Whether a file is excluded, or a folder that holds it."""
        while rel_path and rel_path not in self.excluded:
            rel_path = rel_path.rpartition("/")[0]
        return rel_path in self.excluded


@dataclass(frozen=True, slots=True)
class _Link:
    """A symbolic link, kept until everything that is really there has been walked."""

    path: str
    rel_path: str
    ancestors: frozenset[tuple[int, int]]
    rules: Rules


_Pending = list[tuple[str, str, frozenset[tuple[int, int]], Rules]]


def role_of(name: str) -> Role | None:
    """What a file's name makes it, or None for a file of no interest."""
    stem, _, ending = name.rpartition(".")  # os.path.splitext takes as long as the stat of the file
    role = _ROLES.get(ending.lower()) if stem else None
    if role is not None:
        return role
    if name.lower() == CAPTIONS_NAME:
        return "captions"
    return "image" if stem and f".{ending.lower()}" in VIDEO_SUFFIXES and _reads_video() else None


@cache
def _reads_video() -> bool:
    """Videos count where they can be read: nobody asked for a thousand skips of files that never were pictures."""
    return has_extra("video")


def scan(
    root: Path,
    prefix: str = "",
    *,
    leave_out: Collection[Path] = (),
    excludes: Excludes = NOTHING_MORE,
    heartbeat: Callable[[int, str], None] | None = None,
) -> Scan:
    """Walk `root / prefix` (all of `root` by default), without what is excluded and the folders in `leave_out`.

    Real files and folders come first; then symbolic links, each target once by (device, inode), so that a link never
    takes the place of what it points to. A link to a folder that holds it is a loop and is recorded.
    """
    walk = _Walk(heartbeat)
    for folder in leave_out:
        walk.leave_out(folder)
    top = os.path.join(root, prefix) if prefix else str(root)
    rules = walk.rules_at(root, prefix, Rules.of(excludes, prefix))
    if rules is not None:
        walk.folder(top, prefix, _above(top), rules)
    walk.links()
    walk.result.found.sort(key=lambda file: file.rel_path)
    walk.result.unseen.sort(key=lambda unseen: unseen.rel_path)
    return walk.result


def _above(top: str) -> frozenset[tuple[int, int]]:
    """The folders that really hold `top`: a link to one of them leads around in a circle, and over the whole disk."""
    above: set[tuple[int, int]] = set()
    for folder in Path(os.path.realpath(top)).parents:
        with contextlib.suppress(OSError):
            status = os.stat(folder)
            above.add((status.st_dev, status.st_ino))
    return frozenset(above)


class _Walk:
    def __init__(self, heartbeat: Callable[[int, str], None] | None) -> None:
        self.result = Scan()
        self._heartbeat = heartbeat
        self._folders: set[tuple[int, int]] = set()  # visited, by (st_dev, st_ino)
        # files by device and inode: 8 bytes each until a link asks, where a set of pairs would take 150
        self._inodes: dict[int, array[int]] = {}
        self._files: dict[int, set[int]] | None = None
        self._later: list[_Link] = []

    def leave_out(self, folder: Path) -> None:
        try:
            status = os.stat(folder)
        except OSError:
            return
        self._folders.add((status.st_dev, status.st_ino))

    def rules_at(self, root: Path, prefix: str, rules: Rules) -> Rules | None:
        """The rules in the folder that holds `root / prefix`; None where `prefix` itself is excluded by them."""
        parts = prefix.split("/") if prefix else []
        for depth, name in enumerate(parts):
            folder = "/".join(parts[:depth])
            if os.path.isfile(os.path.join(root, folder, IGNORE_NAME)):
                inner = self._with_ignore(os.path.join(root, folder), folder, rules)
                if inner is None:
                    return None
                rules = inner
            rel_path = f"{folder}/{name}" if folder else name
            if self._is_excluded(rel_path, rules, is_folder=True):
                log.warning(
                    "%s is passed over, by a pattern or by its name; the line '!%s/' in %s takes it in",
                    *(root / rel_path, name, root / folder / IGNORE_NAME),
                )
                return None
        return rules

    def folder(self, path: str, rel_path: str, ancestors: frozenset[tuple[int, int]], rules: Rules) -> None:
        """Walk one folder and what is really below it; its symbolic links wait in `_later`."""
        # a stack, since a tree may be deeper than Python's recursion
        pending: _Pending = [(path, rel_path, ancestors, rules)]
        while pending:
            path, rel_path, ancestors, rules = pending.pop()
            try:
                status = os.stat(path)
                key = (status.st_dev, status.st_ino)
                if key in self._folders:
                    continue
                self._folders.add(key)
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self._unseen(rel_path, f"folder cannot be read ({error.strerror})", is_folder=True)
                continue
            inside = ancestors | {key}
            if any(entry.name == IGNORE_NAME and entry.is_file() for entry in entries):
                inner = self._with_ignore(path, rel_path, rules)
                if inner is None:
                    continue
                rules = inner
            self._entries(entries, f"{rel_path}/" if rel_path else "", inside, rules, pending)
            if self._heartbeat is not None:
                self._heartbeat(len(self.result.found), rel_path)

    def links(self) -> None:
        """Follow the symbolic links met so far, and those met behind them."""
        if self._later:
            self._files = {device: set(inodes) for device, inodes in self._inodes.items()}
        while self._later:
            batch, self._later = sorted(self._later, key=lambda link: link.rel_path), []
            for link in batch:
                self._follow(link)

    def _entries(
        self,
        entries: Iterable[os.DirEntry[str]],
        base: str,
        inside: frozenset[tuple[int, int]],
        rules: Rules,
        pending: _Pending,
    ) -> None:
        for entry in entries:
            rel_path = base + entry.name
            try:
                if entry.is_symlink():
                    if not self._is_excluded(rel_path, rules, is_folder=False):
                        self._later.append(_Link(entry.path, rel_path, inside, rules))
                elif entry.is_dir(follow_symlinks=False):
                    if not self._is_excluded(rel_path, rules, is_folder=True):
                        pending.append((entry.path, rel_path, inside, rules))
                elif (role := role_of(entry.name)) is None or self._is_excluded(rel_path, rules, is_folder=False):
                    continue
                else:
                    self._file(rel_path, role, entry.stat(follow_symlinks=False), always=True)
            except OSError as error:
                self._unseen(rel_path, f"cannot be looked at ({error.strerror})", is_folder=False)

    def _is_excluded(self, rel_path: str, rules: Rules, *, is_folder: bool) -> bool:
        excluded = rules.exclude(rel_path, is_folder=is_folder)
        if excluded:
            self.result.excluded.add(rel_path)
        return excluded

    def _follow(self, link: _Link) -> None:
        role = role_of(os.path.basename(link.path))
        try:
            status = os.stat(link.path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._unseen(link.rel_path, "symbolic link to itself", is_folder=False)
            elif role is not None:
                self._unseen(link.rel_path, f"symbolic link leads nowhere ({error.strerror})", is_folder=False)
            return
        if not stat.S_ISDIR(status.st_mode):
            if role is not None:
                self._file(link.rel_path, role, status, always=False)
        elif self._is_excluded(link.rel_path, link.rules, is_folder=True):
            return
        elif (status.st_dev, status.st_ino) in link.ancestors:
            self._unseen(link.rel_path, "symbolic link to a folder that holds it (a loop)", is_folder=False)
        else:
            self.folder(link.path, link.rel_path, link.ancestors, link.rules)

    def _with_ignore(self, path: str, rel_path: str, rules: Rules) -> Rules | None:
        """The rules with those of the folder's .mmsearchignore; None where it cannot be read: then nothing is sure."""
        try:
            spec, bad = read_ignore(os.path.join(path, IGNORE_NAME))
        except OSError as error:
            self._unseen(rel_path, f"{IGNORE_NAME} cannot be read ({error.strerror})", is_folder=True)
            return None
        for reason in bad:
            self._unseen(f"{rel_path}/{IGNORE_NAME}" if rel_path else IGNORE_NAME, reason, is_folder=False)
        return rules.inside(rel_path, spec)

    def _file(self, rel_path: str, role: Role, status: os.stat_result, *, always: bool) -> None:
        """Keep a file; reached by a link (not `always`), only if nothing else has led to it."""
        if not stat.S_ISREG(status.st_mode):
            self._unseen(rel_path, "not a regular file", is_folder=False)
            return
        device, inode = status.st_dev, status.st_ino & _INODE
        if self._files is None:
            self._inodes.setdefault(device, array("Q")).append(inode)
        else:
            known = self._files.setdefault(device, set())
            if not always and inode in known:
                return
            known.add(inode)
        self.result.found.append(Found(rel_path, role, status.st_size, status.st_mtime_ns))

    def _unseen(self, rel_path: str, reason: str, *, is_folder: bool) -> None:
        self.result.unseen.append(Unseen(rel_path, reason, is_folder))
