"""What pictures say of themselves, and files beside them: Takeout's JSON, XMP of Lightroom, darktable, digiKam.

In: a scan. Out: rows of `about`; a sidecar is read again only when its size or time changes. Takeout names sidecars
after the picture, then cuts the name at 46 characters, moves its number and knows nothing of edited copies; all of that
is undone here. Next: `captions.py`, which makes captions of what they say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from indexer.base.errors import DecodeError, DecodeInterrupted
from indexer.base.profile import cores
from indexer.catalog import assets, metadata, notices, root_updates
from indexer.catalog.database import Connection
from indexer.catalog.metadata import Sidecar
from indexer.catalog.roots import Target
from indexer.decoding.decode import read_metadata
from indexer.decoding.metadata import Metadata, clean, from_packet, keywords, place
from indexer.decoding.sandbox import Sandbox
from indexer.decoding.xmp import read_xmp
from indexer.files.kinds import HEAD_BYTES, kind_of
from indexer.files.opening import PhotoFolder
from indexer.files.scan import Found, Scan
from indexer.files.unicode_names import by_spelling, nfc
from indexer.ingest.run import Run

SIDECAR_BYTES: Final = 1 << 20
TAKEOUT_CHARS: Final = 46  # of a name, before '.json'
_TAKEOUT_TAIL: Final = "supplemental-metadata"
_EDITED: Final = ("-edited", "-bearbeitet", "-modifié", "-editado", "-editada", "-modificato", "-bewerkt", "-edytowane")
_PARSED_IN_C: Final = ("heif", "avif", "video")  # the headers of all others are read in Python
CHUNK: Final = 400  # files read in one transaction


def catch_up(run: Run, target: Target, photos: PhotoFolder) -> int:
    """Read the metadata of the pictures of `target` whose metadata was never read; how many. Commits as it goes.

    They came from an older version, or are copies. Each file is opened once, for its header; nothing is encoded again
    but the words that turn up, so a library of 100,000 photos pays minutes once.
    """
    done = 0
    with run.catalog.begin() as connection:
        unread = metadata.unread(connection, target)
    if not unread:
        return 0
    side_px = run.encoder.side_px
    with ThreadPoolExecutor(cores(), thread_name_prefix="metadata") as pool, Sandbox(side_px) as sandbox:
        for start in range(0, len(unread), CHUNK):
            chunk = unread[start : start + CHUNK]
            answers = pool.map(lambda one: _read_header(photos, one[1], sandbox), chunk)
            said = {asset_id: one for (asset_id, _), one in zip(chunk, answers, strict=True) if one is not None}
            with run.catalog.begin() as connection:
                metadata.record(connection, said)
                root_updates.set_pairing_due(connection, [target.root.id])
            done += len(said)
    return done


def read_sidecars(run: Run, target: Target, photos: PhotoFolder, scan: Scan) -> None:
    """Bring the rows of sidecars in step with the disk. Commits as it goes; an interrupted run is taken up again."""
    found = list(_pairs(scan))
    with run.catalog.begin() as connection:
        there = {file.rel_path for file in scan.found}
        for rel_path in notices.paths(connection, target, "sidecar"):
            if rel_path not in there:  # it may have gone with its picture, whose row stays, hidden
                notices.forget(connection, target.root, "sidecar", rel_path)
        ids = {one.rel_path: one.id for one in assets.present(connection, target.root) if one.modality == "image"}
        wanted = {(ids[photo], file.rel_path): file for photo, file in found if photo in ids}
        recorded = {(row.asset_id, row.sidecar.rel_path): row for row in metadata.sidecars(connection, target)}
        for key, row in recorded.items():
            if key not in wanted:
                metadata.forget_sidecar(connection, row)
                notices.forget(connection, target.root, "sidecar", row.sidecar.rel_path)
    known = {key: row.sidecar for key, row in recorded.items()}
    due = [(key[0], file) for key, file in wanted.items() if known.get(key) != _as_found(file)]
    for start in range(0, len(due), CHUNK):
        chunk = [(asset_id, file, _read(photos, file)) for asset_id, file in due[start : start + CHUNK]]
        with run.catalog.begin() as connection:
            for asset_id, file, said in chunk:
                _keep(connection, target, asset_id, file, said)
    with run.catalog.begin() as connection:
        metadata.show(connection, target)


def _read_header(photos: PhotoFolder, rel_path: str, sandbox: Sandbox) -> Metadata | None:
    """What a picture says; None where the file cannot be read now."""
    try:
        with photos.open(rel_path) as file:
            kind = kind_of(file.read(HEAD_BYTES))
            file.seek(0)
            return sandbox.read_metadata(Path(file.name)) if kind in _PARSED_IN_C else read_metadata(file)
    except (OSError, DecodeInterrupted):
        return None
    except DecodeError:
        return Metadata()


def parse_takeout(data: bytes) -> Metadata | None:
    """What Google Takeout says of a picture; None for JSON of another kind. Raises: DecodeError for no JSON."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON ({str(error)[:80]})") from error
    if not isinstance(said, dict) or not said.keys() & {"photoTakenTime", "geoData", "googlePhotosOrigin"}:
        return None
    where = _place(said.get("geoData")) or _place(said.get("geoDataExif")) or (None, None)
    people = said.get("people")
    names = [one.get("name") for one in people if isinstance(one, dict)] if isinstance(people, list) else []
    return Metadata(
        taken_at=_moment(said.get("photoTakenTime")),
        latitude_deg=where[0],
        longitude_deg=where[1],
        description=clean(said.get("description")),  # the title is the file's name
        keywords=keywords(names),
    )


def pictures_of(name: str, pictures: Mapping[str, list[str]], names: frozenset[str]) -> list[str]:
    """The pictures in a sidecar's folder that it may speak of.

    Args:
        name: the sidecar's file name.
        pictures: the folder's pictures by name without suffix.
        names: the same pictures by whole name.
    """
    base, _, suffix = name.rpartition(".")
    if suffix.lower() == "xmp":
        return [base] if base in names else pictures.get(base, [])
    numbered = re.search(r"\(\d{1,4}\)$", base)
    number = numbered[0] if numbered else ""
    base = base.removesuffix(number)
    is_cut = len(base) >= TAKEOUT_CHARS
    head, dot, tail = base.rpartition(".")
    if dot and head and _TAKEOUT_TAIL.startswith(tail.lower()):
        base, is_cut = head, False
    stem, dot, ending = base.rpartition(".")
    exact = f"{stem}{number}.{ending}" if dot else base + number
    if exact in names:
        return [exact, *_edited(exact, pictures)]
    if is_cut:
        cut = [one for one in names if one.startswith(base) and one.rpartition(".")[0].endswith(number)]
        return cut if len(cut) == 1 else []
    return pictures.get(exact, [])


def _edited(name: str, pictures: Mapping[str, list[str]]) -> Iterator[str]:
    stem, _, _ = name.rpartition(".")
    for mark in _EDITED:
        yield from pictures.get(stem + mark, ())


def _pairs(scan: Scan) -> Iterator[tuple[str, Found]]:
    """(path of a picture, sidecar) for every sidecar that may speak of one."""
    folders: dict[str, dict[str, list[str]]] = {}
    for file in scan.found:
        if file.role == "image":
            folder, _, name = file.rel_path.rpartition("/")
            folders.setdefault(folder, {}).setdefault(name.rpartition(".")[0], []).append(name)
    whole = {folder: frozenset(name for names in stems.values() for name in names) for folder, stems in folders.items()}
    for file in scan.found:
        if file.role == "sidecar":
            folder, _, name = file.rel_path.rpartition("/")
            stems, names = folders.get(folder, {}), whole.get(folder, frozenset())
            for picture in pictures_of(name, stems, names) or _spelt_otherwise(name, names):
                yield (f"{folder}/{picture}" if folder else picture), file


def _spelt_otherwise(name: str, names: frozenset[str]) -> list[str]:
    """The same question with all names in one spelling: Takeout packs names as they were typed, disks may not."""
    if name.isascii() and all(one.isascii() for one in names):
        return []
    alike = by_spelling(names)
    stems: dict[str, list[str]] = {}
    for one in alike:
        stems.setdefault(one.rpartition(".")[0], []).append(one)
    return [alike[one] for one in pictures_of(nfc(name), stems, frozenset(alike))]


def _as_found(file: Found) -> Sidecar:
    return Sidecar(file.rel_path, file.size_bytes, file.mtime_ns)


def _read(photos: PhotoFolder, file: Found) -> Metadata | str | None:
    """What a sidecar says, or the reason why it cannot be read; None where it is no sidecar."""
    try:
        if file.size_bytes > SIDECAR_BYTES:
            return f"a sidecar of {file.size_bytes:,} bytes, at most {SIDECAR_BYTES:,} are read"
        with photos.open(file.rel_path) as opened:
            data = opened.read(SIDECAR_BYTES + 1)
        if len(data) > SIDECAR_BYTES:
            return f"a sidecar that has grown, at most {SIDECAR_BYTES:,} bytes are read"
        return from_packet(read_xmp(data)) if file.rel_path.lower().endswith(".xmp") else parse_takeout(data)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except (DecodeError, ValueError) as error:
        return f"sidecar: {error}"


def _keep(connection: Connection, target: Target, asset_id: int, file: Found, said: Metadata | str | None) -> None:
    """The row of a sidecar, empty where it says nothing, so that it is read again only when it changes."""
    notices.forget(connection, target.root, "sidecar", file.rel_path)
    if isinstance(said, str):
        notices.add(connection, target.root, "sidecar", file.rel_path, said)
    metadata.write(connection, asset_id, said if isinstance(said, Metadata) else Metadata(), _as_found(file))


def _moment(value: object) -> datetime | None:
    """Seconds since 1970 as UTC: Takeout knows no clock of the camera's."""
    stamp = value.get("timestamp") if isinstance(value, dict) else None
    try:
        return datetime.fromtimestamp(int(str(stamp)[:20]), UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None


def _place(value: object) -> tuple[float, float] | None:
    return place(value.get("latitude"), value.get("longitude")) if isinstance(value, dict) else None
