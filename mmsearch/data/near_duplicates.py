"""Near-duplicate detection: what is trained on must not be what is measured on.

In: the photos of training and those of validation. Out: pairs of near-duplicates: equal files, and one picture saved
again in another quality, size or format; crops and mirror images are not recognised. Every photo is decoded once on the
way, so that one which cannot be is told before hours of training, not after. Next: `training/corpus.py`, which refuses.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsearch.errors import DataError, DecodeError
from mmsearch.inference.pictures import to_image

log = logging.getLogger(__name__)

SMALL_PX, LARGE_PX = 16, 64
# Measured on 250 photos saved again (JPEG quality 30 to 90, half to 1.6 times the side, PNG) and on the 20 million
# pairs of the default recipe. Small thumbnails of copies differ by a root mean square of at most 8.1 levels of 255,
# the nearest two different photos by 14.
_ALIKE = 8.5
# Drawings differ in few pixels: 16x16 takes a circle for a square of its colour. At 64x64 all but 0.5 % of a copy's
# pixels differ by at most 36 levels (99 of 100 copies), of two such drawings by 41 or more.
_DIFFERENT_SHARE, _LEVELS = 0.5, 36.0
_LOOKED_AT = 16  # of the pictures that look alike from afar: a thousand scanned pages all do
_CHUNK_PAIRS = 16_000_000
_CACHE_FROM = 1000  # photos: fewer are decoded again in a second or two
_DECODE_AHEAD = 4

Thumbnails = NDArray[np.uint8]


def near_duplicates(photos: Sequence[Path], held_out: Sequence[Path], cache: Path) -> list[tuple[Path, Path]]:
    """Pairs of a photo and its copy among those held out, in the order of `held_out`.

    Args:
        photos: what is trained on.
        held_out: what is measured on.
        cache: folder where thumbnails of large sets stay for the next run.

    Raises:
        DataError: photos that cannot be decoded.
    """
    small = _thumbnails([*photos, *held_out], cache)  # [n, 768]
    found = []
    for at, near in _candidates(small[: len(photos)], small[len(photos) :]):
        twin = next((photos[row] for row in near if _same(photos[row], held_out[at])), None)
        if twin is not None:
            found.append((twin, held_out[at]))
    return found


def _candidates(trained: Thumbnails, held_out: Thumbnails) -> Iterator[tuple[int, list[int]]]:
    """Each row held out that has rows nearer than `_ALIKE` among those trained on, with these, the nearest first."""
    wide = trained.astype(np.float32)  # [t, f]
    own = (wide**2).sum(1)
    least = trained.shape[1] * _ALIKE**2
    chunk = max(1, _CHUNK_PAIRS // max(1, len(trained)))
    for start in range(0, len(held_out), chunk):
        part = held_out[start : start + chunk].astype(np.float32)  # [c, f]
        squares = (part**2).sum(1)[:, None] + own - 2 * part @ wide.T  # [c, t]
        for row in np.flatnonzero((squares <= least).any(axis=1)):
            near = np.flatnonzero(squares[row] <= least)
            order = np.argsort(squares[row, near], kind="stable")[:_LOOKED_AT]
            yield start + int(row), near[order].tolist()


def _same(one: Path, other: Path) -> bool:
    """Whether two pictures that look alike from afar are alike from near."""
    a, b = (_thumbnail(path, LARGE_PX).astype(np.int16) for path in (one, other))
    return bool(np.percentile(np.abs(a - b).max(axis=2), 100 - _DIFFERENT_SHARE) <= _LEVELS)


def _thumbnails(photos: Sequence[Path], cache: Path) -> Thumbnails:
    """All photos as rows of `SMALL_PX` squared RGB pixels, uint8 `[n, 768]`; kept on disk where there are many."""
    if len(photos) < _CACHE_FROM:
        return _decode_all(photos)
    file = cache / f"thumbnails-{_key(photos)}.npy"
    if not file.exists():
        log.info("looking for unreadable and doubled photos among %d", len(photos))
        found = _decode_all(photos)
        cache.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp.npy")
        np.save(temporary, found)
        os.replace(temporary, file)
    rows: Thumbnails = np.load(file)
    return rows


def _decode_all(photos: Sequence[Path]) -> Thumbnails:
    with ThreadPoolExecutor(_DECODE_AHEAD) as pool:  # Pillow decodes outside the interpreter's lock
        found = list(pool.map(_small_or_error, photos))
    broken = [error for error in found if isinstance(error, DecodeError)]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(photos)} photos cannot be read, the first {broken[0]}; take them out of the data"
        )
    rows = [row for row in found if not isinstance(row, DecodeError)]
    return np.stack(rows) if rows else np.zeros((0, SMALL_PX * SMALL_PX * 3), np.uint8)


def _small_or_error(path: Path) -> Thumbnails | DecodeError:
    try:
        return _thumbnail(path, SMALL_PX).ravel()
    except DecodeError as error:
        return error


def _thumbnail(path: Path, side_px: int) -> Thumbnails:
    """The whole picture, upright, as uint8 `[side, side, 3]`; decoded at twice the side, so that it is averaged."""
    image = to_image(path, max(side_px, 24))
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR))


def _key(photos: Sequence[Path]) -> str:
    """Another photo, or another state of its file, is another cache."""
    digest = hashlib.sha256()
    for photo in photos:
        found = photo.stat()
        digest.update(f"{photo.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
