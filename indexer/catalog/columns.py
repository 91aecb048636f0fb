"""The rule of each column of the catalog, as plain data: a search needs it, and imports no SQLAlchemy.

In: nothing. Out: `RULES`, by table and column; checks of rows that plain SQL has read. A column that is added to
`schema.py` needs a rule here; a test compares the two. Next: `schema.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from indexer.base.types import CAPTION, HIDDEN
from indexer.catalog.cells import (
    HIGHEST,
    MOST,
    Rule,
    data,
    folder,
    json_words,
    moment,
    number,
    one_of,
    relative_path,
    row_corrupt,
    whole,
    words,
)

MOST_DIM: Final = 1 << 16
WORDS_CHARS: Final = 1 << 20  # a sidecar is smaller, a field of a CSV file too
REASON_CHARS: Final = 1 << 16
DIGEST_BYTES: Final = 64
NAME: Final = "0-9A-Za-z_. -"  # of a fingerprint, which becomes part of a file's name
MOST_ROOTS: Final = 10_000  # no person named more folders; each is looked at by every search

_ID: Final = whole(1)
_TIME_NS: Final = whole(-HIGHEST, HIGHEST)
_SIZE: Final = whole(0, HIGHEST)
_PIXELS: Final = whole(0, 2**31).or_nothing()
_MU: Final = data(2 * MOST_DIM, "numbers at half precision, in bytes")
_PLACE: Final = {"latitude_deg": number(-90, 90).or_nothing(), "longitude_deg": number(-180, 180).or_nothing()}
_WORDS: Final = words(WORDS_CHARS).or_nothing()

RULES: Final[dict[str, dict[str, Rule]]] = {
    "models": {
        "id": _ID,
        "fingerprint": words(128, NAME),
        "name": words(4096),
        "dim": whole(1, MOST_DIM),
    },
    "library": {
        "id": _ID,
        "model_id": _ID.or_nothing(),
        "change": whole(0),
        "generation": whole(0),
        "indexed_at": moment().or_nothing(),
    },
    "roots": {
        "id": _ID,
        "path": folder(),
        "device": whole(-HIGHEST, HIGHEST).or_nothing(),
        "captions_seen": words(64).or_nothing(),
        "pairing_due": whole(0, 1),
    },
    "assets": {
        "id": _ID,
        "root_id": _ID,
        "rel_path": relative_path(),
        "modality": one_of("image", "text"),
        "state": one_of("live", "missing", "skipped"),
        "error": words(REASON_CHARS).or_nothing(),
        "size_bytes": _SIZE,
        "mtime_ns": _TIME_NS,
        "content_hash": data(DIGEST_BYTES).or_nothing(),
        "width_px": _PIXELS,
        "height_px": _PIXELS,
        "taken_at": moment().or_nothing(),
        "camera": _WORDS,
        **_PLACE,
        "excerpt": _WORDS,
        "seen_at": moment(),
    },
    "about": {
        "id": _ID,
        "asset_id": _ID,
        "source": relative_path().or_nothing(),
        "size_bytes": _SIZE.or_nothing(),
        "mtime_ns": _TIME_NS.or_nothing(),
        "taken_at": moment().or_nothing(),
        "camera": _WORDS,
        "lens": _WORDS,
        **_PLACE,
        "title": _WORDS,
        "description": _WORDS,
        "keywords": json_words(WORDS_CHARS).or_nothing(),
    },
    "captions": {
        "id": _ID,
        "asset_id": _ID,
        "text_asset_id": _ID.or_nothing(),
        "source": relative_path().or_nothing(),
        "text": _WORDS,
        "text_hash": data(DIGEST_BYTES).or_nothing(),
        "live": whole(0, 1),
    },
    "vectors": {
        "id": _ID,
        "model_id": _ID,
        "asset_id": _ID,
        "caption_id": _ID.or_nothing(),
        "role": one_of("own", "fused"),
        "kind": whole(HIDDEN, CAPTION),
        "change": whole(0),
        "mu": _MU.or_nothing(),
        "logvar": _MU.or_nothing(),
    },
    "frames": {
        "id": _ID,
        "asset_id": _ID,
        "model_id": _ID,
        "time_ms": whole(0, 2**48),
        "mu": _MU,
    },
    "generations": {
        "generation": whole(1),
        "model_id": _ID,
        "file_name": words(255),
        "sha256": words(64, NAME),
        "size_bytes": _SIZE,
        "count": whole(0),
        "dim": whole(1, MOST_DIM),
        "change": whole(0),
        "entries": data(HIGHEST),
        "facts": words(REASON_CHARS),
    },
    "notices": {
        "id": _ID,
        "root_id": _ID,
        "rel_path": relative_path(whole_folder=True),
        "source": one_of("scan", "captions", "sidecar"),
        "reason": words(REASON_CHARS),
        "noticed_at": moment(),
    },
    "sqlite_sequence": {"seq": whole(0, MOST)},  # the highest id so far: what comes next has to fit
}


def check(table: str, row: int, **values: object) -> None:
    """Raises: RowCorrupt where one of these values of a row, by column, breaks its rule."""
    rules = RULES[table]
    for column, value in values.items():
        rule = rules[column]
        if not (rule.optional if value is None else rule.holds(value)):
            raise row_corrupt(table, row, column, value, rule)


def check_columns(table: str, rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> None:
    """The same of many rows at once, the first of whose columns is `id`. Raises: RowCorrupt."""
    for values, column in zip(zip(*rows, strict=True), columns, strict=False):
        if column == "id":  # SQLite's own number of the row
            continue
        rule = RULES[table][column]
        if not rule.all_hold([value for value in values if value is not None] if rule.optional else values):
            for row, value in zip(rows, values, strict=True):
                check(table, row[0], **{column: value})
