"""Match names across Unicode forms: 'é' is one character as typed (NFC), or 'e' and an accent as older macOS wrote it.

In: a name or path as a person typed it or another file mentions it. Out: the name on the disk. Files keep their bytes;
only copies are normalised, and an exact match always comes first.
Next: `catalog/roots.py`, `ingest/captions.py`, `ingest/sidecars.py`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def nfc(text: str) -> str:
    """The name in Unicode form NFC; bytes that are not UTF-8 stay as they are."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def by_spelling(names: Iterable[str]) -> dict[str, str]:
    """Names by their NFC form; a form that two names of the folder share is ambiguous and left out."""
    found: dict[str, str] = {}
    doubled = set()
    for name in names:
        key = nfc(name)
        if found.setdefault(key, name) != name:
            doubled.add(key)
    return {key: name for key, name in found.items() if key not in doubled}


def as_on_disk(path: Path) -> Path:
    """An absolute path with every name in the form in which its folder lists it."""
    if str(path).isascii():
        return path
    found = Path(path.anchor)
    for name in path.relative_to(path.anchor).parts:
        found /= name if name.isascii() else _listed(found, name)
    return found


def _listed(folder: Path, name: str) -> str:
    try:
        names = os.listdir(folder)
    except OSError:  # missing or unreadable: keep the name as given
        return name
    return name if name in names else by_spelling(names).get(nfc(name), name)
