"""A person's captioned photos as pairs to learn from and pairs to judge by.

In: `CaptionedPhoto`s of a library. Out: `Pair`s, each content once, and which of them are held out. The division
depends on bytes and words alone: the same library divides the same way in every run, whatever its folders are called.
Photos that share bytes or a caption fall on the same side, or what is asked would have been told. Next: `tune.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from indexer.store import CaptionedPhoto

BoolArray = NDArray[np.bool_]
_COMMON = 0.1  # a caption of more than this share of the photos is a label: it never decides who is held out


@dataclass(frozen=True)
class Pair:
    """One photo, by content, and the different things said of it."""

    path: Path
    content_hash: bytes
    captions: tuple[str, ...]


def pairs_of(photos: Sequence[CaptionedPhoto]) -> list[Pair]:
    """Each content once, with the captions of all its copies, in the order of the content hashes."""
    paths: dict[bytes, Path] = {}
    said: dict[bytes, dict[str, str]] = {}
    for photo in photos:
        paths.setdefault(photo.content_hash, photo.path)
        words = said.setdefault(photo.content_hash, {})
        for caption in photo.captions:
            words.setdefault(wording(caption), caption)
    return [Pair(paths[key], key, tuple(said[key].values())) for key in sorted(paths)]


def wording(caption: str) -> str:
    """Equal for captions that differ in capitals and spaces alone."""
    return " ".join(caption.lower().split())


def digest(pairs: Sequence[Pair]) -> str:
    """Changes when a photo or a caption does; hex."""
    lines = (f"{pair.content_hash.hex()} {sorted(map(wording, pair.captions))!r}" for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def held_out(pairs: Sequence[Pair], share: float, fewest: int, salt: str = "") -> BoolArray:
    """Which pairs are judged by, bool `[n]`: about `share` of them and at least `fewest`, whole groups at a time.

    A group is what shares captions, directly or through others. `salt` gives another division. A group larger than a
    tenth of the pairs is learned from: held out, it would leave too little.
    """
    groups = _groups(pairs)
    place = {}
    for rows in groups:
        key = min(pairs[row].content_hash for row in rows)
        place[int.from_bytes(hashlib.sha256(salt.encode() + key).digest()[:8], "big") / 2**64] = rows
    held = np.zeros(len(pairs), np.bool_)
    for position in sorted(place):
        if position >= share and held.sum() >= fewest:
            break
        if len(place[position]) <= max(1.0, _COMMON * len(pairs)):
            held[place[position]] = True
    return held


def _groups(pairs: Sequence[Pair]) -> list[NDArray[np.intp]]:
    """Rows that share captions, directly or through others: connected components of rows and words."""
    numbers: dict[str, int] = {}
    rows = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
    words = [numbers.setdefault(wording(c), len(pairs) + len(numbers)) for pair in pairs for c in pair.captions]
    nodes = len(pairs) + len(numbers)
    graph = coo_array((np.ones(len(rows)), (rows, words)), shape=(nodes, nodes))
    part = connected_components(graph, directed=False)[1][: len(pairs)]  # [n], numbered from 0 on
    return np.split(np.argsort(part, kind="stable"), np.cumsum(np.bincount(part))[:-1])
