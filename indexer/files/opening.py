"""Files of a photo folder, opened so that nothing in the folder leads out of it, and nothing hangs.

A photo folder may come from another person, too, and a path of the catalog from anybody. So links lead no further than
the folder itself, unless the user said otherwise of it (`mmsearch index --follow-links`). A path is followed part by
part, and what lies outside is not even looked at: a look at a network share opens a connection. And what is opened is a
regular file: a pipe would never end, a device is read by nobody.

In: a folder, paths below it. Out: files, open for reading. Next: `scan.py`; `../ingest/loader.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Final

LEADS_OUT: Final = "link that leads out of the folder: 'mmsearch index --follow-links FOLDER' follows it"
MOST_LINKS: Final = 40  # on the way to one file, as in Linux
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


class LinkLeadsOut(OSError):
    """A path leads out of its folder."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EXDEV, LEADS_OUT, path)


@dataclass(frozen=True)
class PhotoFolder:
    """A root, and whether links may lead out of it."""

    root: Path
    follow_links: bool = False

    def open(self, rel_path: str) -> BufferedReader:
        """The regular file at a path below the root. Raises: LinkLeadsOut, OSError."""
        return open_regular(self.path(rel_path), follow_links=self.follow_links)

    def path(self, rel_path: str) -> str:
        """Where that file is. Raises: LinkLeadsOut, OSError."""
        parts = [part for part in rel_path.split("/") if part not in ("", ".")]
        if self.follow_links and ".." not in parts:
            return os.path.join(self.root, *parts)
        real = self.resolved(rel_path)
        if real is None or not _is_at_or_below(real, self._top):
            raise LinkLeadsOut(os.path.join(self.root, *parts))
        return real

    def resolved(self, rel_path: str) -> str | None:
        """The path without links; None where it leads out, to anything but a folder that holds the root.

        Raises: OSError for links without end. A path that is not there has a name, too.
        """
        if os.name == "nt":
            real = os.path.realpath(self.root / rel_path)
            return real if self._may_be_looked_at(real) else None
        here, links = self._top, 0
        left = rel_path.split("/")[::-1]
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            here = os.path.dirname(here) if part == ".." else os.path.join(here, part)
            if here == self._named:
                here = self._top
            if not self._may_be_looked_at(here):
                return None
            target = _target(here) if _is_at_or_below(here, self._top) else None  # above it nothing is a link
            if target is not None:
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
                here = os.sep if target.startswith(os.sep) else os.path.dirname(here)
                left.extend(target.split("/")[::-1])
        return here

    def _may_be_looked_at(self, path: str) -> bool:
        tops = (self._top, self._named)
        return any(_is_at_or_below(path, top) or _is_at_or_below(top, path) for top in tops)

    @cached_property
    def _named(self) -> str:
        return os.path.abspath(self.root)

    @cached_property
    def _top(self) -> str:
        return os.path.realpath(self.root)


def open_regular(path: str | Path, *, follow_links: bool = True) -> BufferedReader:
    """A regular file, open for reading; a pipe or a device is neither opened nor waited for. Raises: OSError."""
    _check_regular(path, os.stat(path, follow_symlinks=follow_links))

    def opened(name: str, _: int) -> int:
        descriptor = os.open(name, _FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0)))
        try:
            _check_regular(name, os.fstat(descriptor))  # it may be another one by now
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, "rb", opener=opened)


def _check_regular(path: str | Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _target(path: str) -> str | None:
    """Where a link leads; None for what is no link, or not there."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _is_at_or_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
