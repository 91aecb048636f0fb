"""The rows that a search shows and the rows that it leaves out, over sqlite3 or SQLAlchemy alike (see `reader.py`).

In: a snapshot of the catalog, ids of vectors or of assets. Out: frozen dataclasses and arrays of ids. Nothing here
writes. Next: `../search/search.py`, which puts them together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from indexer.base.errors import RowCorrupt
from indexer.base.types import HIDDEN, Float32Array, Modality, Model, Posterior
from indexer.catalog.changes import finite
from indexer.catalog.columns import check
from indexer.catalog.own_roots import standing
from indexer.catalog.reader import listed, read, read_by_ids
from indexer.catalog.roots import as_known, sound_roots

if TYPE_CHECKING:
    from indexer.catalog.reader import Snapshot
    from indexer.catalog.roots import Target

Int64Array = NDArray[np.int64]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredHit:
    """What is shown of one vector: its file, or the caption that it stands for (`is_caption`, then `text` is that).

    For a row of captions.csv `path` is its photo. The search fills in the `score`, a cosine, less the hubness, and for
    a video `time_s`, the moment that comes nearest to the query.
    """

    asset_id: int
    path: Path
    modality: Modality
    text: str | None
    is_caption: bool
    taken_at: datetime | None
    latitude_deg: float | None
    longitude_deg: float | None
    camera: str | None
    score: float = 0.0
    time_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Keyframes:
    """The keyframes of one video, by time: seconds `[f]` and means float32 `[f, d]`."""

    times_s: tuple[float, ...]
    means: Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class IndexedFile:
    """A live file; `posterior` `[1, d]` is the one it is found by, None where the file has changed since."""

    asset_id: int
    modality: Modality
    posterior: Posterior | None


def hit_rows(connection: Snapshot, vector_ids: Sequence[int]) -> dict[int, StoredHit | None]:
    """The row of each vector that is still there, by its id; None for one that cannot be shown as it is."""
    query = (
        "SELECT v.id, v.caption_id, c.text, r.id, r.path, a.id, a.rel_path, a.modality, a.excerpt, "
        "a.taken_at, a.latitude_deg, a.longitude_deg, a.camera FROM vectors v "
        "JOIN assets a ON a.id = v.asset_id JOIN roots r ON r.id = a.root_id "
        "LEFT JOIN captions c ON c.id = v.caption_id WHERE v.id IN ({ids})"
    )
    rows: dict[int, StoredHit | None] = {}
    wrong: list[RowCorrupt] = []
    for vector_id, *cells in read_by_ids(connection, query, vector_ids):
        try:
            rows[vector_id] = _hit(*cells)
        except RowCorrupt as error:
            rows[vector_id] = None
            wrong.append(error)
    _warn(wrong, "cannot be shown")
    return rows


def _hit(
    caption_id: int | None, caption: str | None, root_id: int, root: bytes, asset_id: int, rel_path: bytes, *shown: Any
) -> StoredHit:
    modality, excerpt, taken_at, latitude_deg, longitude_deg, camera = shown
    is_caption = caption_id is not None
    check("roots", root_id, path=root)
    check("assets", asset_id, rel_path=rel_path, modality=modality, excerpt=excerpt, taken_at=taken_at, camera=camera)
    check("assets", asset_id, latitude_deg=latitude_deg, longitude_deg=longitude_deg)
    if caption_id is not None:
        check("captions", caption_id, text=caption)
    path = Path(os.fsdecode(root)) / os.fsdecode(rel_path)
    moment = None if taken_at is None else datetime.fromisoformat(taken_at)
    of: Modality = "text" if is_caption else modality
    text = caption if is_caption else excerpt
    return StoredHit(asset_id, path, of, text, is_caption, moment, latitude_deg, longitude_deg, camera)


def keyframes(connection: Snapshot, model: Model, asset_ids: Sequence[int]) -> dict[int, Keyframes]:
    """The keyframes of those assets that are videos, by the asset's id."""
    found: dict[int, list[tuple[int, bytes]]] = {}
    wrong: list[RowCorrupt] = []
    columns = f"id, asset_id, time_ms, {_sized('mu')}"
    query = f"SELECT {columns} FROM frames WHERE asset_id IN ({{ids}}) AND model_id = :model"
    rows = read_by_ids(connection, query, asset_ids, model=model.id, length_bytes=2 * model.dim)
    for number, asset_id, time_ms, mu in rows:
        try:
            check("frames", number, time_ms=time_ms, mu=mu)
            found.setdefault(asset_id, []).append((time_ms, _finite(mu, "frames", number)))
        except RowCorrupt as error:
            wrong.append(error)
    _warn(wrong, "is left out")
    return {
        asset_id: Keyframes(
            tuple(time_ms / 1000 for time_ms, _ in sorted(frames)), _matrix([mu for _, mu in sorted(frames)], model.dim)
        )
        for asset_id, frames in found.items()
    }


def vectors_of_offline_roots(connection: Snapshot, model: Model) -> Int64Array:
    """The visible vectors of every root that is offline now, or cannot be told where it is, ids `[n]`."""
    roots, wrong = sound_roots(connection)
    _warn(list(wrong.values()), "is passed over, with its files")
    offline = [*wrong, *(root.id for root in standing(connection, roots).offline)]
    if not offline:
        return np.empty(0, np.int64)
    query = (
        "SELECT v.id FROM vectors v JOIN assets a ON a.id = v.asset_id "
        f"WHERE v.model_id = :model AND v.kind <> :hidden AND a.root_id IN ({listed(offline)})"
    )
    return _ids(connection, query, model=model.id, hidden=HIDDEN)


def vectors_of_files(connection: Snapshot, model: Model, asset_ids: Sequence[int]) -> Int64Array:
    """The vectors of the files themselves, ids `[n]`; those of captions about them are not among these."""
    if not asset_ids:
        return np.empty(0, np.int64)
    query = (
        f"SELECT id FROM vectors WHERE asset_id IN ({listed(asset_ids)}) AND model_id = :model AND caption_id IS NULL"
    )
    return _ids(connection, query, model=model.id)


def vectors_within(
    connection: Snapshot, model: Model, targets: Sequence[Target] | None, since: date | None, until: date | None
) -> Int64Array:
    """The visible vectors of files in `targets` (None: anywhere) and taken on these days, ids `[n]` rising."""
    conditions = ["v.model_id = :model", "v.kind <> :hidden"]
    values: dict[str, object] = {"model": model.id, "hidden": HIDDEN}
    if targets is not None:
        conditions.append(_in_targets(targets, values))
    if since is not None:
        conditions.append("a.taken_at >= :since")
        values["since"] = since.isoformat()
    if until is not None:
        conditions.append("a.taken_at <= :until")  # stored as text, '2019-05-31 18:00:00.000000', which sorts like time
        values["until"] = f"{until.isoformat()} ~"  # sorts behind every time of that day
    query = f"SELECT v.id FROM vectors v JOIN assets a ON a.id = v.asset_id WHERE {' AND '.join(conditions)}"
    return np.sort(_ids(connection, query, **values))


def indexed_file(connection: Snapshot, model: Model, path: Path) -> IndexedFile | None:
    """The live file at `path`, also where a link leads there or its name is spelt otherwise; None for no such file."""
    absolute = Path(os.path.abspath(path))
    query = (
        "SELECT id, modality, size_bytes, mtime_ns FROM assets "
        "WHERE root_id = :root AND rel_path = :path AND state = 'live'"
    )
    roots = sorted(sound_roots(connection)[0], key=lambda root: -len(root.path.parts))  # the nearest first
    for name in dict.fromkeys((absolute, Path(os.path.realpath(path)), as_known(connection, absolute))):
        for root in roots:
            if root.path not in name.parents:
                continue
            rel_path = os.fsencode(name.relative_to(root.path).as_posix())
            for asset_id, modality, *stamp in read(connection, query, root=root.id, path=rel_path):
                posterior = posterior_of(connection, model, asset_id) if _stamp(path) == stamp else None
                return IndexedFile(asset_id, modality, posterior)
    return None


def _stamp(path: Path) -> list[int] | None:
    """Size in bytes and time of the file at `path`, by which a change is told."""
    try:
        now = path.stat()
    except OSError:
        return None
    return [now.st_size, now.st_mtime_ns]


def posterior_of(connection: Snapshot, model: Model, asset_id: int) -> Posterior | None:
    """The posterior `[1, d]` by which a file is found: the fused one where it has captions; None for none of use."""
    query = (
        f"SELECT id, {_sized('mu')}, {_sized('logvar')} FROM vectors WHERE asset_id = :asset AND model_id = :model "
        "AND caption_id IS NULL AND mu IS NOT NULL ORDER BY role <> 'fused' LIMIT 1"
    )
    for number, *blobs in read(connection, query, asset=asset_id, model=model.id, length_bytes=2 * model.dim):
        try:
            mu, logvar = (_finite(blob, "vectors", number) for blob in blobs)
            return Posterior(_matrix([mu], model.dim), _matrix([logvar], model.dim))
        except RowCorrupt as error:
            _warn([error], "is not used")
    return None


def _in_targets(targets: Sequence[Target], values: dict[str, object]) -> str:
    """The condition that an asset lies in one of `targets`; what it is compared with goes into `values`."""
    parts = []
    for number, target in enumerate(targets):
        values[f"root{number}"] = target.root.id
        part = f"a.root_id = :root{number}"
        if target.prefix:
            prefix = os.fsencode(target.prefix)
            # '0' follows '/': everything below the folder sorts between the two
            values |= {f"is{number}": prefix, f"from{number}": prefix + b"/", f"to{number}": prefix + b"0"}
            part += f" AND (a.rel_path = :is{number} OR (a.rel_path > :from{number} AND a.rel_path < :to{number}))"
        parts.append(f"({part})")
    return f"({' OR '.join(parts)})"


def _ids(connection: Snapshot, query: str, **values: object) -> Int64Array:
    return np.array([number for (number,) in read(connection, query, **values)], np.int64)


def _sized(column: str) -> str:
    """The vector in a column; nothing where it is not as long as the model's, which is not fetched."""
    return f"CASE WHEN typeof({column}) = 'blob' AND length({column}) = :length_bytes THEN {column} END"


def _finite(blob: bytes | None, table: str, row: int) -> bytes:
    """Raises: RowCorrupt for a vector that is not as long as the model's, or holds NaN or infinity."""
    if blob is None or not finite(np.frombuffer(blob, np.float16)[None, :]).all():
        raise RowCorrupt(f"row {row} of {table} holds no vector; run 'mmsearch doctor --repair'")
    return bytes(blob)


def _warn(wrong: Sequence[RowCorrupt], what: str) -> None:
    if wrong:
        log.warning("%s (%d of the rows that were asked for, which %s)", wrong[0], len(wrong), what)


def _matrix(blobs: Sequence[bytes], dim: int) -> Float32Array:
    return cast(Float32Array, np.frombuffer(b"".join(blobs), np.float16).reshape(-1, dim).astype(np.float32))
