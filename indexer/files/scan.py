"""Scan a folder: find every picture, text, sidecar and captions.csv below it without opening any of them.

In: a folder. Out: `Scan`: the files in sorted order, and what could not be read, with the reason. Nothing here ends a
run: an unreadable folder, a loop of symbolic links and a broken link are recorded. When nothing has changed, a run
spends its time here, so each file costs little: one stat and one tuple.
Next: `ingest/plan.py`, which compares with the catalog.
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
from pathlib import Path
from typing import Final, NamedTuple

from indexer.files.excludes import IGNORE_NAME, Excludes, Rules, read_ignore
from indexer.files.kinds import Role, role_of
from indexer.files.opening import LEADS_OUT, PhotoFolder

NO_EXCLUDES: Final = Excludes()
_INODE_MASK: Final = (1 << 64) - 1  # inode numbers of Windows are longer

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """One file. `rel_path` is relative to the root, with '/'; bytes that are not UTF-8 are surrogates."""

    rel_path: str
    role: Role
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or folder that could not be read."""

    rel_path: str
    reason: str
    is_folder: bool


@dataclass
class Scan:
    """The files below a folder and what could not be read, both sorted by path; and the excluded paths.

    `outside` are links that lead out of the folder and were not followed: nothing is known of what is there.
    """

    found: list[Found] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    excluded: set[str] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)

    def excludes(self, rel_path: str) -> bool:
        """Whether a file or one of its folders is excluded."""
        while rel_path and rel_path not in self.excluded:
            rel_path = rel_path.rpartition("/")[0]
        return rel_path in self.excluded


@dataclass(frozen=True, slots=True)
class _Link:
    """A symbolic link, followed after all real folders have been walked."""

    path: str
    rel_path: str
    ancestors: frozenset[tuple[int, int]]
    rules: Rules


_Pending = list[tuple[str, str, frozenset[tuple[int, int]], Rules]]


def scan(
    root: Path,
    prefix: str = "",
    *,
    leave_out: Collection[Path] = (),
    excludes: Excludes = NO_EXCLUDES,
    follow_links: bool = False,
    heartbeat: Callable[[int, str], None] | None = None,
) -> Scan:
    """Walk `root / prefix` (all of `root` by default), without the folders in `leave_out` and what is excluded.

    Real files and folders are walked first; then symbolic links, each target once by (device, inode). So a file is
    listed by its own path rather than by a link to it. A link to a folder that holds it is a loop and is recorded.
    Links that lead out of `root` are followed with `follow_links`, and else not looked at.
    """
    walk = _Walk(PhotoFolder(root, follow_links), heartbeat, _keys_of(leave_out))
    top = os.path.join(root, prefix) if prefix else str(root)
    rules = walk.rules_at(root, prefix, Rules.of(excludes, prefix))
    if rules is not None:
        above = Path(os.path.realpath(top)).parents  # a link to one of them is a loop
        walk.folder(top, prefix, frozenset(_keys_of(above)), rules)
    walk.links()
    walk.result.found.sort(key=lambda file: file.rel_path)
    walk.result.unreadable.sort(key=lambda one: one.rel_path)
    return walk.result


def _keys_of(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """(device, inode) of the folders that are there."""
    keys: set[tuple[int, int]] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            status = os.stat(folder)
            keys.add((status.st_dev, status.st_ino))
    return keys


class _Walk:
    def __init__(
        self, root: PhotoFolder, heartbeat: Callable[[int, str], None] | None, leave_out: set[tuple[int, int]]
    ) -> None:
        self.result = Scan()
        self._root = root
        self._heartbeat = heartbeat
        self._folders = leave_out  # and those that were visited, by (st_dev, st_ino)
        # inodes of files by device: 8 bytes each until a link needs the set, which takes 150
        self._inodes: dict[int, array[int]] = {}
        self._files: dict[int, set[int]] | None = None
        self._links: list[_Link] = []

    def rules_at(self, root: Path, prefix: str, rules: Rules) -> Rules | None:
        """The rules that apply in the parent of `root / prefix`; None when they exclude `prefix` itself."""
        parts = prefix.split("/") if prefix else []
        for depth, name in enumerate(parts):
            folder = "/".join(parts[:depth])
            if os.path.lexists(os.path.join(root, folder, IGNORE_NAME)):
                inner = self._with_ignore(folder, rules)
                if inner is None:
                    return None
                rules = inner
            rel_path = f"{folder}/{name}" if folder else name
            if self._is_excluded(rel_path, rules, is_folder=True):
                log.warning(
                    "%s is excluded by a pattern or by its name; the line '!%s/' in %s includes it",
                    *(root / rel_path, name, root / folder / IGNORE_NAME),
                )
                return None
        return rules

    def folder(self, path: str, rel_path: str, ancestors: frozenset[tuple[int, int]], rules: Rules) -> None:
        """Walk one folder and the real folders below it; symbolic links are collected in `_links`."""
        # a stack: a tree may be deeper than Python's limit of recursion
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
                self._unreadable(rel_path, f"folder cannot be read ({error.strerror})", is_folder=True)
                continue
            inside = ancestors | {key}
            if any(entry.name == IGNORE_NAME for entry in entries):
                inner = self._with_ignore(rel_path, rules)
                if inner is None:
                    continue
                rules = inner
            self._entries(entries, f"{rel_path}/" if rel_path else "", inside, rules, pending)
            if self._heartbeat is not None:
                self._heartbeat(len(self.result.found), rel_path)

    def links(self) -> None:
        """Follow the symbolic links found so far, and those found behind them."""
        if self._links:
            self._files = {device: set(inodes) for device, inodes in self._inodes.items()}
        while self._links:
            batch, self._links = sorted(self._links, key=lambda link: link.rel_path), []
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
                        self._links.append(_Link(entry.path, rel_path, inside, rules))
                elif entry.is_dir(follow_symlinks=False):
                    if not self._is_excluded(rel_path, rules, is_folder=True):
                        pending.append((entry.path, rel_path, inside, rules))
                elif (role := role_of(entry.name)) is None or self._is_excluded(rel_path, rules, is_folder=False):
                    continue
                else:
                    self._file(rel_path, role, entry.stat(follow_symlinks=False), always=True)
            except OSError as error:
                self._unreadable(rel_path, f"cannot be looked at ({error.strerror})", is_folder=False)

    def _is_excluded(self, rel_path: str, rules: Rules, *, is_folder: bool) -> bool:
        excluded = rules.exclude(rel_path, is_folder=is_folder)
        if excluded:
            self.result.excluded.add(rel_path)
        return excluded

    def _follow(self, link: _Link) -> None:
        name = os.path.basename(link.path)
        role = role_of(name)
        try:
            if not self._root.follow_links and self._root.resolved(link.rel_path) is None:
                if self._is_excluded(link.rel_path, link.rules, is_folder=True):
                    return
                self.result.outside.append(link.rel_path)
                if role is not None or "." not in name:  # a picture, or by its name a folder of them
                    self._unreadable(link.rel_path, LEADS_OUT, is_folder=False)
                return
            status = os.stat(link.path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._unreadable(link.rel_path, "symbolic link to itself", is_folder=False)
            elif role is not None:
                self._unreadable(link.rel_path, f"symbolic link leads nowhere ({error.strerror})", is_folder=False)
            return
        if not stat.S_ISDIR(status.st_mode):
            if role is not None:
                self._file(link.rel_path, role, status, always=False)
        elif self._is_excluded(link.rel_path, link.rules, is_folder=True):
            return
        elif (status.st_dev, status.st_ino) in link.ancestors:
            self._unreadable(link.rel_path, "symbolic link to a folder that holds it (a loop)", is_folder=False)
        else:
            self.folder(link.path, link.rel_path, link.ancestors, link.rules)

    def _with_ignore(self, rel_path: str, rules: Rules) -> Rules | None:
        """The rules with those of the folder's .mmsearchignore; None, and no walk, where it cannot be read."""
        try:
            with self._root.open(f"{rel_path}/{IGNORE_NAME}") as file:
                spec, bad = read_ignore(file)
        except IsADirectoryError:
            return rules
        except OSError as error:
            self._unreadable(rel_path, f"{IGNORE_NAME} cannot be read ({error.strerror})", is_folder=True)
            return None
        for reason in bad:
            self._unreadable(f"{rel_path}/{IGNORE_NAME}" if rel_path else IGNORE_NAME, reason, is_folder=False)
        return rules.inside(rel_path, spec)

    def _file(self, rel_path: str, role: Role, status: os.stat_result, *, always: bool) -> None:
        """Keep a file; one that is reached by a link (not `always`) only if it is not listed yet."""
        if not stat.S_ISREG(status.st_mode):
            self._unreadable(rel_path, "not a regular file", is_folder=False)
            return
        device, inode = status.st_dev, status.st_ino & _INODE_MASK
        if self._files is None:
            self._inodes.setdefault(device, array("Q")).append(inode)
        else:
            known = self._files.setdefault(device, set())
            if not always and inode in known:
                return
            known.add(inode)
        self.result.found.append(Found(rel_path, role, status.st_size, status.st_mtime_ns))

    def _unreadable(self, rel_path: str, reason: str, *, is_folder: bool) -> None:
        self.result.unreadable.append(Unreadable(rel_path, reason, is_folder))
