"""What is passed over: hidden files, the caches that programs leave beside photos, and what the user excludes.

In: names and paths, patterns as in a .gitignore. Out: whether a scan passes over a file or folder. The last pattern
that matches decides, `!` takes in again; the patterns of one run win over the .mmsearchignore nearest to the file, that
over those above it, these over the configuration's, and all over what is passed over by default.
Next: `roots.py`, where a folder that holds nothing else counts as empty; `scan.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from indexer.files.unicode_names import nfc

IGNORE_NAME: Final = ".mmsearchignore"
IGNORE_LIMIT_BYTES: Final = 1 << 20
PASSED_OVER: Final = frozenset(
    {
        *("__pycache__", "node_modules"),
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "@tmp"),  # Synology, QNAP
        *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information", "desktop.ini", "Thumbs.db"),
        *("lost+found", "iPod Photo Cache"),
    }
)
PASSED_OVER_SUFFIXES: Final = (".lrdata",)  # Lightroom's previews of everything in its catalog


@dataclass(frozen=True)
class Excludes:
    """Patterns from outside the folders: of this run (`given`, below the folder named), of every run (`always`)."""

    given: tuple[str, ...] = ()
    always: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patterns:
    """The lines of one file, the last first: whether each excludes or takes in, and the expression for paths."""

    lines: tuple[tuple[bool, re.Pattern[str]], ...]

    def verdict(self, path: str) -> bool | None:
        """Whether `path` (NFC; a folder's with its '/') is excluded (True), taken in (False) or not meant (None)."""
        for excluded, expression in self.lines:
            match = expression.match(path)
            if match is not None and _is_itself(match, path):
                return excluded
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns in force in one folder: (the folder they are relative to, with its '/', patterns), first decides."""

    specs: tuple[tuple[str, Patterns], ...] = ()
    given: int = 0  # how many of them, at the front, no .mmsearchignore comes before

    @classmethod
    def of(cls, excludes: Excludes, prefix: str) -> Rules:
        """The rules at the top of a root, of whose part `prefix` the run was told. Raises: ValueError."""
        given = ((f"{prefix}/" if prefix else "", compiled(excludes.given)),) if excludes.given else ()
        always = (("", compiled(excludes.always)),) if excludes.always else ()
        return cls(given + always, len(given))

    def inside(self, folder: str, spec: Patterns) -> Rules:
        """The rules in `folder`, below the root, whose .mmsearchignore says `spec`."""
        base = f"{folder}/" if folder else ""
        return replace(self, specs=(*self.specs[: self.given], (base, spec), *self.specs[self.given :]))

    def exclude(self, rel_path: str, *, is_folder: bool) -> bool:
        """Whether the file or folder at `rel_path`, below the root, is passed over."""
        for base, spec in self.specs:
            if rel_path.startswith(base):  # a run's patterns say nothing of what lies outside the folder it was told
                verdict = spec.verdict(nfc(rel_path[len(base) :]) + ("/" if is_folder else ""))
                if verdict is not None:
                    return verdict
        return is_passed_over(rel_path.rpartition("/")[2])


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is by default none of the user's own pictures or texts."""
    return name.startswith(".") or name in PASSED_OVER or name.endswith(PASSED_OVER_SUFFIXES)


def compiled(patterns: Sequence[str]) -> Patterns:
    """Lines of a .gitignore, ready to match. Raises: ValueError, naming the pattern that is none."""
    from pathspec import GitIgnoreSpec  # a library without patterns does not load it

    expressions: list[tuple[bool, re.Pattern[str]]] = []
    for line in patterns:
        try:
            spec = GitIgnoreSpec.from_lines([nfc(line)])
        except ValueError as error:
            raise ValueError(f"'{line}' is no pattern; write it as in a .gitignore, such as '*.gif'") from error
        for pattern in spec.patterns:
            if pattern.include is not None and pattern.regex is not None:  # neither empty nor a comment
                expressions.append((pattern.include, pattern.regex))
    return Patterns(tuple(reversed(expressions)))


def _is_itself(match: re.Match[str], path: str) -> bool:
    """Whether a pattern speaks of the path and not of a folder above it, of which the walk has asked already.

    '!.scans/' takes in the folder, and says nothing of '.scans/.cache/'. The library marks the '/' after a folder's
    name as the group ps_d; 'a/**' has no such group, and speaks of everything in the folder but not of itself.
    """
    if match.groupdict().get("ps_d") is not None:
        return match.end("ps_d") == len(path)
    return not (path.endswith("/") and match.end() == len(path))


def read_ignore(path: str) -> tuple[Patterns, list[str]]:
    """A .mmsearchignore, and what to say about its lines that are no patterns. Raises: OSError."""
    with open(path, "rb") as file:
        lines = os.fsdecode(file.read(IGNORE_LIMIT_BYTES).removeprefix(b"\xef\xbb\xbf")).splitlines()
    good: list[str] = []
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            compiled([line])
            good.append(line)
        except ValueError:
            bad.append(f"line {number} is no pattern: '{line[:80]}'")
    return compiled(good), bad
