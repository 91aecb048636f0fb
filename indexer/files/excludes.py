"""Exclude files from a scan: hidden files, caches that programs leave beside photos, and the user's patterns.

In: names and paths, patterns as in a .gitignore. Out: whether a scan excludes a file or folder. The last pattern that
matches decides, and `!` includes again. Precedence: the patterns of the run, then the .mmsearchignore nearest to the
file, then those above it, then the configuration's, then the built-in list.
Next: `scan.py`; `catalog/roots.py`, for which a folder with excluded names only is empty.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from indexer.files.linear import itself
from indexer.files.unicode_names import nfc

IGNORE_NAME: Final = ".mmsearchignore"
IGNORE_LIMIT_BYTES: Final = 1 << 20
MOST_PATTERNS: Final = 2000  # of one file, or of one run
MOST_CHARS: Final = 1000  # of one of them
DEFAULT_NAMES: Final = frozenset(
    {
        *("__pycache__", "node_modules"),
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@tmp"),  # Synology, QNAP
        *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information", "desktop.ini", "Thumbs.db"),
        *("lost+found", "iPod Photo Cache"),
    }
)
DEFAULT_SUFFIXES: Final = (".lrdata",)  # Lightroom's previews


@dataclass(frozen=True)
class Excludes:
    """Patterns of this run (`given`, relative to its folder) and of the configuration (`always`)."""

    given: tuple[str, ...] = ()
    always: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patterns:
    """The lines of one file, the last first: whether each excludes or includes, and its regular expression."""

    lines: tuple[tuple[bool, re.Pattern[str]], ...]

    def verdict(self, path: str) -> bool | None:
        """Whether `path` (NFC, a folder's ends with '/') is excluded (True), included (False) or not matched (None)."""
        for excluded, expression in self.lines:
            if expression.match(path) is not None:
                return excluded
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns that apply in one folder: (base folder with its '/', patterns); the first match decides."""

    specs: tuple[tuple[str, Patterns], ...] = ()
    given: int = 0  # the number of entries at the front that precede every .mmsearchignore

    @classmethod
    def of(cls, excludes: Excludes, prefix: str) -> Rules:
        """The rules at the top of a root when the run is for the folder `prefix` in it. Raises: ValueError."""
        given = ((f"{prefix}/" if prefix else "", compiled(excludes.given)),) if excludes.given else ()
        always = (("", compiled(excludes.always)),) if excludes.always else ()
        return cls(given + always, len(given))

    def inside(self, folder: str, spec: Patterns) -> Rules:
        """The rules in `folder` (relative to the root), whose .mmsearchignore holds `spec`."""
        base = f"{folder}/" if folder else ""
        return replace(self, specs=(*self.specs[: self.given], (base, spec), *self.specs[self.given :]))

    def exclude(self, rel_path: str, *, is_folder: bool) -> bool:
        """Whether the file or folder at `rel_path` (relative to the root) is excluded."""
        for base, spec in self.specs:
            if rel_path.startswith(base):  # patterns of the run apply inside its folder only
                verdict = spec.verdict(nfc(rel_path[len(base) :]) + ("/" if is_folder else ""))
                if verdict is not None:
                    return verdict
        return is_excluded_by_default(rel_path.rpartition("/")[2])


def is_excluded_by_default(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or on the built-in list."""
    return name.startswith(".") or name in DEFAULT_NAMES or name.endswith(DEFAULT_SUFFIXES)


def compiled(patterns: Sequence[str]) -> Patterns:
    """Compile lines of a .gitignore. Raises: ValueError, naming the invalid pattern."""
    if len(patterns) > MOST_PATTERNS:
        raise ValueError(f"{len(patterns)} patterns, at most {MOST_PATTERNS} are taken; join some of them")
    return Patterns(tuple(reversed([one for line in patterns for one in _expressions(line)])))


def _expressions(line: str) -> list[tuple[bool, re.Pattern[str]]]:
    """What one line excludes (True) or includes; nothing for an empty line and a comment. Raises: ValueError."""
    from pathspec import GitIgnoreSpec  # imported only where there are patterns

    if len(line) > MOST_CHARS:
        raise ValueError(f"'{line[:80]}...' is no pattern: it is longer than {MOST_CHARS} characters")
    try:
        patterns = GitIgnoreSpec.from_lines([nfc(line)]).patterns
    except ValueError as error:
        raise ValueError(f"'{line}' is no pattern; write it as in a .gitignore, such as '*.gif'") from error
    return [
        (pattern.include, itself(pattern.regex.pattern) or pattern.regex)
        for pattern in patterns
        if pattern.include is not None and pattern.regex is not None
    ]


def read_ignore(file: BinaryIO) -> tuple[Patterns, list[str]]:
    """Read a .mmsearchignore; also a message for each line that is no valid pattern.

    Raises: OSError, also for one with more than anybody writes: half of it could show what the rest was to hide.
    """
    data = file.read(IGNORE_LIMIT_BYTES + 1)
    lines = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).splitlines()
    if len(data) > IGNORE_LIMIT_BYTES or len(lines) > MOST_PATTERNS:
        raise OSError(errno.EFBIG, f"more than {MOST_PATTERNS} lines or {IGNORE_LIMIT_BYTES} bytes")
    good: list[tuple[bool, re.Pattern[str]]] = []
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            good += _expressions(line)
        except ValueError:
            bad.append(f"line {number} is no pattern: '{line[:80]}'")
    return Patterns(tuple(reversed(good))), bad
