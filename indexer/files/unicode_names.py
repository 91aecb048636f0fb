"""Two spellings of one name: 'é' as one character, as people type it (NFC), or as 'e' and an accent, as macOS wrote it.

In: a name or a path as somebody typed it or another file names it. Out: the one that is on the disk. Files keep their
bytes: what is compared is a copy, and an exact name always comes first. Next: `roots.py`, `captions.py`, `sidecars.py`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def nfc(text: str) -> str:
    """The spelling that two ways of writing one name share; bytes that are no UTF-8 stay as they are."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def by_spelling(names: Iterable[str]) -> dict[str, str]:
    """Names by their shared spelling; of a folder that holds both ways of one, neither is meant."""
    found: dict[str, str] = {}
    doubled = set()
    for name in names:
        key = nfc(name)
        if found.setdefault(key, name) != name:
            doubled.add(key)
    return {key: name for key, name in found.items() if key not in doubled}


def as_on_disk(path: Path) -> Path:
    """An absolute path with every name as its folder lists it, also where the system opens it by another spelling."""
    if str(path).isascii():
        return path
    found = Path(path.anchor)
    for name in path.relative_to(path.anchor).parts:
        found /= name if name.isascii() else _listed(found, name)
    return found


def _listed(folder: Path, name: str) -> str:
    try:
        names = os.listdir(folder)
    except OSError:  # gone, or not to be read: the name as it came
        return name
    return name if name in names else by_spelling(names).get(nfc(name), name)
