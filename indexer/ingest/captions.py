"""Texts that speak of a photo: `photo.txt` beside `photo.jpg`, the rows of a `captions.csv`, the photo's own words.

In: a scan and the rows of its files. Out: rows of `captions`, a vector for each text out of a CSV, and the list of rows
that name no picture. A caption is never deleted: one that is gone is not live, and keeps its vector for when it
returns. Next: `fusion.py`, which joins a photo and its captions.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from indexer.base.errors import DecodeError
from indexer.base.failpoints import reach
from indexer.catalog import assets, captions, fused, metadata, notices, vectors
from indexer.catalog.assets import PresentFile
from indexer.catalog.captions import CaptionRow, Key
from indexer.catalog.database import Connection
from indexer.catalog.roots import Target
from indexer.catalog.vectors import to_blobs
from indexer.decoding.camera_phrases import captions_of
from indexer.files.kinds import CAPTIONS_NAME
from indexer.files.opening import PhotoFolder
from indexer.files.scan import Scan
from indexer.files.unicode_names import by_spelling, nfc
from indexer.ingest.loader import HASH_BYTES
from indexer.ingest.run import Run

IMAGES_FOLDER = "images"  # where many data sets keep the pictures that captions.csv names
CAPTIONS_BYTES = 256 << 20  # of one captions.csv: about three million rows
LINE_CHARS = 1 << 20
CAPTIONS_A_PHOTO = 1000

Wanted = dict[Key, str | None]  # captions as the disk has them, with their words; a text file keeps its own


def signature(scan: Scan) -> str:
    """Changes when a captions.csv or a sidecar does."""
    roles = ("captions", "sidecar")
    files = [(file.rel_path, file.size_bytes, file.mtime_ns) for file in scan.found if file.role in roles]
    return hashlib.blake2b(repr(files).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def pair(run: Run, target: Target, folder: PhotoFolder, scan: Scan) -> None:
    """Bring the rows of `captions` in step with the disk, in one transaction."""
    sources = [file.rel_path for file in scan.found if file.role == "captions"] + _above(target)
    with run.catalog.begin() as connection:
        photos, texts = _files(connection, target)
        alike = by_spelling(photos)
        wanted: Wanted = dict.fromkeys(_beside(photos, texts, target))
        notices.forget_below(connection, target, "captions", sources)
        for source in sources:
            found, reason = _read(folder, source, photos, alike)
            wanted.update(found)
            if reason:
                notices.add(connection, target.root, "captions", source, reason)
        wanted.update(_said(connection, target, wanted))
        _reconcile(connection, wanted, _recorded(connection, target, set(sources)))
        reach("captions.pairing")
    reach("captions.paired")


def encode_captions(run: Run) -> int:
    """Give every live caption that is no file its vector; the number of texts encoded. Commits each batch."""
    encoded = 0
    with run.catalog.begin() as connection:
        pending = captions.pending(connection, run.model)
    for start in range(0, len(pending), run.batch_size):
        batch = pending[start : start + run.batch_size]
        with run.catalog.begin() as connection:
            known = vectors.of_texts(connection, run.model, {one.text_hash for one in batch})
        fresh = {one.text_hash: one.text for one in batch if one.text_hash not in known}
        if fresh:
            known.update(zip(fresh, to_blobs(run.encoder.encode_texts(list(fresh.values()))), strict=True))
            encoded += len(fresh)
        with run.catalog.begin() as connection:
            vectors.add_texts(connection, run.model, [(one, known[one.text_hash]) for one in batch])
            reach("captions.writing")
        reach("captions.committed")
    return encoded


def parse(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """The rows of a captions.csv as (line, image, caption). Raises: DecodeError without a header naming both."""
    reader = csv.reader(lines)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if "image" not in header or "caption" not in header:
            raise DecodeError(
                f"the first line names no columns image and caption but {', '.join(header)[:80] or 'none'}"
            )
        image, caption = header.index("image"), header.index("caption")
        for row in reader:
            if len(row) > max(image, caption) and row[image].strip() and row[caption].strip():
                yield reader.line_num, row[image].strip(), row[caption].strip()
    except csv.Error as error:
        raise DecodeError(f"line {reader.line_num} is not CSV ({error})") from error


def _read(
    folder: PhotoFolder, source: str, photos: dict[str, PresentFile], alike: dict[str, str]
) -> tuple[Wanted, str | None]:
    """The captions of one CSV, and what to say about rows that name no picture.

    It is read line by line, and no more of it than somebody may have written: a line of a gigabyte would take four.
    """
    above = source.rpartition("/")[0]
    wanted: Wanted = {}
    count = lost = 0
    first: tuple[int, str] | None = None
    of_photo: Counter[int] = Counter()
    try:
        with folder.open(source) as file:
            for line, image, text in parse(_lines(file)):
                count += 1
                photo = _resolve(above, image, photos, alike)
                if photo is None:
                    lost += 1
                    first = first or (line, image[:80])
                elif photo.is_live:
                    of_photo[photo.id] += 1
                    if of_photo[photo.id] > CAPTIONS_A_PHOTO:
                        raise DecodeError(f"line {line}: more than {CAPTIONS_A_PHOTO:,} captions of '{image[:80]}'")
                    wanted[Key(photo.id, None, source, _digest(text))] = text
    except OSError as error:
        return {}, f"cannot be read ({error.strerror or error})"
    except DecodeError as error:
        return {}, str(error)
    if first is None:
        return wanted, None
    return wanted, f"{lost} of {count} rows name no picture here, the first in line {first[0]}: '{first[1]}'"


def _lines(file: BinaryIO) -> Iterator[str]:
    """The lines of a text of UTF-8, else of Latin-1. Raises: DecodeError where it, or a line of it, is too long."""
    size = os.fstat(file.fileno()).st_size
    if size > CAPTIONS_BYTES:
        raise DecodeError(
            f"a table of {size:,} bytes, at most {CAPTIONS_BYTES:,} are read; divide it among the folders"
        )
    encoding = "utf-8-sig" if _is_utf8(file) else "latin-1"
    file.seek(0)
    text = io.TextIOWrapper(file, encoding, errors="replace", newline="")  # replace: it may be written to meanwhile
    number = 0
    while line := text.readline(LINE_CHARS + 1):
        number += 1
        if len(line) > LINE_CHARS:
            raise DecodeError(f"line {number} is longer than {LINE_CHARS:,} characters")
        yield line


def _is_utf8(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while part := file.read(1 << 20):
            decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def _resolve(folder: str, image: str, photos: dict[str, PresentFile], alike: dict[str, str]) -> PresentFile | None:
    image = image.replace("\\", "/")
    for parts in ((folder, image), (folder, IMAGES_FOLDER, image)):
        path = os.path.normpath("/".join(part for part in parts if part)).replace(os.sep, "/")
        found = path if path in photos else alike.get(nfc(path))
        if found is not None:
            return photos[found]
    return None


def _files(connection: Connection, target: Target) -> tuple[dict[str, PresentFile], dict[str, int]]:
    """Photos and .txt files of the whole root, by path: a CSV may name photos outside the part that was scanned."""
    photos: dict[str, PresentFile] = {}
    texts: dict[str, int] = {}
    for file in assets.present(connection, target.root):
        if file.modality == "image":
            photos[file.rel_path] = file
        elif file.is_live and file.rel_path.lower().endswith(".txt"):
            texts[file.rel_path] = file.id
    return photos, texts


def _beside(photos: dict[str, PresentFile], texts: dict[str, int], target: Target) -> Iterator[Key]:
    """`photo.txt` and `photo.jpg.txt` speak of `photo.jpg`."""
    by_stem: dict[str, list[PresentFile]] = {}
    for path, photo in photos.items():
        if photo.is_live and _within(path, target.prefix):
            by_stem.setdefault(path, []).append(photo)
            by_stem.setdefault(os.path.splitext(path)[0], []).append(photo)
    alike = by_spelling(by_stem)
    for path, text_id in texts.items():
        stem = os.path.splitext(path)[0]
        for photo in by_stem.get(stem if stem in by_stem else alike.get(nfc(stem), ""), ()):
            yield Key(photo.id, text_id)


def _within(path: str, prefix: str) -> bool:
    return not prefix or path.startswith(prefix + "/")


def _above(target: Target) -> list[str]:
    """The captions.csv files of the folders above the scanned part: they may name its photos."""
    parts = target.prefix.split("/") if target.prefix else []
    above = ["/".join([*parts[:depth], CAPTIONS_NAME]) for depth in reversed(range(len(parts)))]
    return [path for path in above if (target.root.path / path).is_file()]


def _said(connection: Connection, target: Target, wanted: Wanted) -> Wanted:
    """What pictures and their sidecars say in words, where nothing else says the same of the picture."""
    said = {(key.asset_id, key.text_hash) for key in wanted}
    found: Wanted = {}
    for one in metadata.with_words(connection, target):
        for text in captions_of(one.metadata, one.rel_path.rpartition("/")[2]):
            key = Key(one.asset_id, None, one.source, _digest(text))
            if (key.asset_id, key.text_hash) not in said:  # a photo and its sidecar often say the same
                said.add((key.asset_id, key.text_hash))
                found[key] = text
    return found


def _recorded(connection: Connection, target: Target, sources: set[str]) -> Iterator[CaptionRow]:
    """The rows this run may change: texts beside photos it scanned, and rows of CSV files it read or misses."""
    for row in captions.recorded(connection, target.root):
        source = row.key.source
        if source in sources or _within(row.photo_path if source is None else source, target.prefix):
            yield row


def _reconcile(connection: Connection, wanted: Wanted, recorded: Iterator[CaptionRow]) -> None:
    """Captions come, go and return; the photos they speak of have to be fused again."""
    touched: set[int] = set()
    switch: dict[bool, list[int]] = {True: [], False: []}
    for row in recorded:
        is_wanted = row.key in wanted
        wanted.pop(row.key, None)
        if is_wanted != row.is_live:
            switch[is_wanted].append(row.id)
            touched.add(row.key.asset_id)
    for live, ids in switch.items():
        captions.set_live(connection, ids, live)
    captions.insert(connection, wanted.items())
    touched.update(key.asset_id for key in wanted)
    fused.drop(connection, touched)
