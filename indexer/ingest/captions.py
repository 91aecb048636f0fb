"""Texts that speak of a photo: `photo.txt` beside `photo.jpg`, the rows of a `captions.csv`, the photo's own words.

In: a scan and the rows of its files. Out: rows of `captions`, a vector for each text out of a CSV, and the list of rows
that name no picture. A caption is never deleted: one that is gone is not live, and keeps its vector for when it
returns. Next: `fusion.py`, which joins a photo and its captions.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from indexer.base.errors import DecodeError
from indexer.base.failpoints import reach
from indexer.base.types import Encoder
from indexer.catalog.database import Catalog, Model, next_change, now
from indexer.catalog.roots import Target
from indexer.catalog.schema import HIDDEN, LIVE, MISSING, OWN, assets, captions, notices, vectors
from indexer.files.roles import CAPTIONS_NAME
from indexer.files.scan import Found, Scan
from indexer.files.unicode_names import by_spelling, nfc
from indexer.ingest.descriptions import said_of
from indexer.ingest.loader import HASH_BYTES
from indexer.ingest.plan import within
from indexer.ingest.rows import Blobs, chunked, drop_fused, to_blobs

IMAGES_FOLDER = "images"  # where many data sets keep the pictures that captions.csv names


@dataclass(frozen=True, slots=True)
class Wanted:
    """One caption as the disk has it; its key is everything but the words."""

    photo_id: int
    text_asset_id: int | None = None
    source: str | None = None
    text_hash: bytes | None = None
    text: str | None = None

    @property
    def key(self) -> tuple[int, int | None, str | None, bytes | None]:
        """What makes two captions the same."""
        return (self.photo_id, self.text_asset_id, self.source, self.text_hash)


def signature(scan: Scan) -> str:
    """Changes when a captions.csv or a sidecar does."""
    roles = ("captions", "sidecar")
    files = [(file.rel_path, file.size_bytes, file.mtime_ns) for file in scan.found if file.role in roles]
    return hashlib.blake2b(repr(files).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def pair(catalog: Catalog, target: Target, scan: Scan) -> None:
    """Bring the rows of `captions` in step with the disk, in one transaction."""
    sources = [file for file in scan.found if file.role == "captions"] + _above(target)
    with catalog.begin() as connection:
        photos, texts = _files(connection, target)
        alike = by_spelling(photos)
        wanted = dict((one.key, one) for one in _beside(photos, texts, target))
        reread = or_(
            within(notices.c.rel_path, target.prefix), notices.c.rel_path.in_([file.rel_path for file in sources])
        )
        ours = (notices.c.root_id == target.root.id, notices.c.source == "captions")
        connection.execute(delete(notices).where(*ours, reread))
        for file in sources:
            rows, reason = _read(target.root.path, file.rel_path, photos, alike)
            wanted.update((one.key, one) for one in rows)
            if reason:
                values = {"root_id": target.root.id, "rel_path": file.rel_path, "source": "captions", "reason": reason}
                connection.execute(notices.insert().values(values | {"noticed_at": now()}))
        said = {(one.photo_id, one.text_hash) for one in wanted.values()}
        for photo_id, source, text in said_of(connection, target):
            one = Wanted(photo_id, None, source, _digest(text), text)
            if (photo_id, one.text_hash) not in said:  # a photo and its sidecar often say the same
                said.add((photo_id, one.text_hash))
                wanted[one.key] = one
        _reconcile(connection, wanted, _recorded(connection, target, {file.rel_path for file in sources}))
        reach("captions.pairing")
    reach("captions.paired")


def encode_rows(catalog: Catalog, model: Model, encoder: Encoder, batch_size: int) -> int:
    """Give every live caption that is no file its vector; the number of texts encoded. Commits each batch."""
    encoded = 0
    with catalog.begin() as connection:
        pending = connection.execute(_without_vector(model)).all()
    for start in range(0, len(pending), batch_size):
        batch = pending[start : start + batch_size]
        with catalog.begin() as connection:
            known = _known_texts(connection, model, {row.text_hash for row in batch})
        fresh = {row.text_hash: row.text for row in batch if row.text_hash not in known}
        if fresh:
            known.update(zip(fresh, to_blobs(encoder.encode_texts(list(fresh.values()))), strict=True))
            encoded += len(fresh)
        with catalog.begin() as connection:
            change = next_change(connection)
            base = {"model_id": model.id, "role": OWN, "kind": HIDDEN, "change": change}
            rows: list[dict[str, Any]] = []
            for row in batch:
                values = base | {"mu": known[row.text_hash].mu, "logvar": known[row.text_hash].logvar}
                if row.vector_id is None:
                    rows.append(values | {"asset_id": row.asset_id, "caption_id": row.id})
                else:  # forgotten by a repair
                    connection.execute(update(vectors).where(vectors.c.id == row.vector_id).values(values))
            if rows:
                connection.execute(vectors.insert(), rows)
            reach("captions.writing")
        reach("captions.committed")
    return encoded


def parse(data: str) -> list[tuple[int, str, str]]:
    """The rows of a captions.csv as (line, image, caption). Raises: DecodeError without a header naming both."""
    reader = csv.reader(data.splitlines(keepends=True))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if "image" not in header or "caption" not in header:
            raise DecodeError(
                f"the first line names no columns image and caption but {', '.join(header)[:80] or 'none'}"
            )
        image, caption = header.index("image"), header.index("caption")
        rows = []
        for row in reader:
            if len(row) > max(image, caption) and row[image].strip() and row[caption].strip():
                rows.append((reader.line_num, row[image].strip(), row[caption].strip()))
        return rows
    except csv.Error as error:
        raise DecodeError(f"line {reader.line_num} is not CSV ({error})") from error


def _read(root: Path, source: str, photos: dict[str, _Photo], alike: dict[str, str]) -> tuple[list[Wanted], str | None]:
    """The captions of one CSV, and what to say about rows that name no picture."""
    try:
        data = (root / source).read_bytes()
        rows = parse(_decoded(data))
    except OSError as error:
        return [], f"cannot be read ({error.strerror or error})"
    except DecodeError as error:
        return [], str(error)
    folder = source.rpartition("/")[0]
    wanted: list[Wanted] = []
    lost: list[tuple[int, str]] = []
    for line, image, text in rows:
        photo = _resolve(folder, image, photos, alike)
        if photo is None:
            lost.append((line, image))
        elif photo.is_live:
            wanted.append(Wanted(photo.id, None, source, _digest(text), text))
    if not lost:
        return wanted, None
    line, image = lost[0]
    return wanted, f"{len(lost)} of {len(rows)} rows name no picture here, the first in line {line}: '{image[:80]}'"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _resolve(folder: str, image: str, photos: dict[str, _Photo], alike: dict[str, str]) -> _Photo | None:
    image = image.replace("\\", "/")
    for parts in ((folder, image), (folder, IMAGES_FOLDER, image)):
        path = os.path.normpath("/".join(part for part in parts if part)).replace(os.sep, "/")
        found = path if path in photos else alike.get(nfc(path))
        if found is not None:
            return photos[found]
    return None


@dataclass(frozen=True, slots=True)
class _Photo:
    id: int
    is_live: bool


def _files(connection: Connection, target: Target) -> tuple[dict[str, _Photo], dict[str, int]]:
    """Photos and .txt files of the whole root, by path: a CSV may name photos outside the part that was scanned."""
    columns = (assets.c.id, assets.c.rel_path, assets.c.modality, assets.c.state)
    query = select(*columns).where(assets.c.root_id == target.root.id, assets.c.state != MISSING)
    photos: dict[str, _Photo] = {}
    texts: dict[str, int] = {}
    for row in connection.execute(query.order_by(assets.c.id)):
        if row.modality == "image":
            photos[row.rel_path] = _Photo(row.id, row.state == LIVE)
        elif row.state == LIVE and row.rel_path.lower().endswith(".txt"):
            texts[row.rel_path] = row.id
    return photos, texts


def _beside(photos: dict[str, _Photo], texts: dict[str, int], target: Target) -> Iterator[Wanted]:
    """`photo.txt` and `photo.jpg.txt` speak of `photo.jpg`."""
    by_stem: dict[str, list[_Photo]] = {}
    for path, photo in photos.items():
        if photo.is_live and _within(path, target.prefix):
            by_stem.setdefault(path, []).append(photo)
            by_stem.setdefault(os.path.splitext(path)[0], []).append(photo)
    alike = by_spelling(by_stem)
    for path, text_id in texts.items():
        stem = os.path.splitext(path)[0]
        for photo in by_stem.get(stem if stem in by_stem else alike.get(nfc(stem), ""), ()):
            yield Wanted(photo.id, text_id)


def _within(path: str, prefix: str) -> bool:
    return not prefix or path.startswith(prefix + "/")


def _above(target: Target) -> list[Found]:
    """The captions.csv files of the folders above the scanned part: they may name its photos."""
    above: list[Found] = []
    folder = target.prefix
    while folder:
        folder = folder.rpartition("/")[0]
        path = f"{folder}/{CAPTIONS_NAME}" if folder else CAPTIONS_NAME
        if (target.root.path / path).is_file():
            above.append(Found(path, "captions", 0, 0))
    return above


def _recorded(connection: Connection, target: Target, sources: set[str]) -> list[Any]:
    """The rows this run may change: texts beside photos it scanned, and rows of CSV files it read or misses."""
    query = select(captions, assets.c.rel_path).join(assets, assets.c.id == captions.c.asset_id)
    rows = connection.execute(query.where(assets.c.root_id == target.root.id)).all()
    if not target.prefix:
        return list(rows)
    return [
        row
        for row in rows
        if (
            _within(row.rel_path, target.prefix) if row.source is None else _is_ours(row.source, sources, target.prefix)
        )
    ]


def _is_ours(source: str, sources: set[str], prefix: str) -> bool:
    return source in sources or _within(source, prefix)


def _reconcile(
    connection: Connection, wanted: dict[tuple[int, int | None, str | None, bytes | None], Wanted], recorded: list[Any]
) -> None:
    touched: set[int] = set()
    switch: dict[bool, list[int]] = {True: [], False: []}
    for row in recorded:
        is_wanted = wanted.pop((row.asset_id, row.text_asset_id, row.source, row.text_hash), None) is not None
        if is_wanted != row.live:
            switch[is_wanted].append(row.id)
            touched.add(row.asset_id)
    for live, ids in switch.items():
        for chunk in chunked(ids):
            connection.execute(update(captions).where(captions.c.id.in_(chunk)).values(live=live))
    if wanted:
        touched.update(one.photo_id for one in wanted.values())
        rows = [
            {"asset_id": one.photo_id, "text_asset_id": one.text_asset_id, "source": one.source, "text": one.text}
            | {"text_hash": one.text_hash, "live": True}
            for one in wanted.values()
        ]
        connection.execute(captions.insert(), rows)
    drop_fused(connection, touched)


def _without_vector(model: Model) -> Any:
    mine = and_(vectors.c.caption_id == captions.c.id, vectors.c.model_id == model.id)
    columns = (captions.c.id, captions.c.asset_id, captions.c.text, captions.c.text_hash)
    query = select(*columns, vectors.c.id.label("vector_id"))
    query = query.join(vectors, mine, isouter=True).where(captions.c.live, captions.c.source.is_not(None))
    # Texts of one length share a batch without padding, which is most of a transformer's work on short texts.
    return query.where(vectors.c.mu.is_(None)).order_by(func.length(captions.c.text), captions.c.id)


def _known_texts(connection: Connection, model: Model, hashes: set[bytes]) -> dict[bytes, Blobs]:
    query = select(captions.c.text_hash, vectors.c.mu, vectors.c.logvar).join(
        vectors, and_(vectors.c.caption_id == captions.c.id, vectors.c.model_id == model.id)
    )
    rows = connection.execute(query.where(captions.c.text_hash.in_(hashes)))
    return {row.text_hash: Blobs(row.mu, row.logvar) for row in rows if row.mu is not None}
