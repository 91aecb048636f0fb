"""The tables of the catalog: what is on disk, what was said about it, and the vectors of both.

In: nothing. Out: SQLAlchemy tables, the values of their `state` and `role` columns. A change here needs a migration,
a new revision in `known_schema.py` and rules in `columns.py`; tests compare them. Next: `database.py`, which opens one.

    roots ── assets ── captions          a folder; a file in it; a text about a photo (photo.txt, a CSV's row)
               │ ├──── frames            the vectors of a video's keyframes, with their times
               │ └──── about             what a picture, or a sidecar, says of the picture
                │          │
                └─ vectors ┘── models    q(z|x) of a file, of a caption, or of a photo fused with its captions
    library ── generations               the live model, the change counter; the index files written so far

`vectors.id` is the id in the index. Only `prune` deletes a row while its model is live: what cannot be found any more
gets kind HIDDEN, so that an index file written earlier catches up by the rows whose `change` is newer than itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from indexer.base.types import HIDDEN
from indexer.catalog.cells import row_corrupt
from indexer.catalog.columns import RULES

LIVE: Final = "live"  # on disk when last looked
MISSING: Final = "missing"  # was there once; its vectors wait for it
SKIPPED: Final = "skipped"  # there, but could not be read; `error` says why

OWN: Final = "own"  # q(z|x) of the file or caption itself
FUSED: Final = "fused"  # product of the photo's expert and its captions'


class PathBytes(TypeDecorator[str]):
    """A path as the bytes the file system knows it by: names that are not UTF-8 survive (surrogateescape)."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Str -> bytes."""
        return None if value is None else os.fsencode(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Bytes -> str."""
        return None if value is None else os.fsdecode(value)


class Cell(TypeDecorator[Any]):
    """A column whose values are checked as they are read, before anything is made of them.

    Raises RowCorrupt without the number of the row, which `Catalog.begin` finds.
    """

    impl = TypeEngine
    cache_ok = True

    def __init__(self, impl: TypeEngine[Any], table: str, column: str) -> None:
        self.impl = impl  # type: ignore[assignment]  # SQLAlchemy's own way: a class for all, an instance for each
        self.table = table
        self.column = column

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """The rule, then what the type makes of a value."""
        rule, made = RULES[self.table][self.column], self.impl_instance.result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            if not (rule.optional if value is None else rule.holds(value)):
                raise row_corrupt(self.table, None, self.column, value, rule)
            return value if made is None else made(value)

        return process


Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only in a column declared INTEGER
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("id", Id, primary_key=True),
    Column("fingerprint", String(128), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("dim", Integer, nullable=False),
)

library = Table(
    "library",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("model_id", ForeignKey("models.id")),
    Column("change", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),  # the last number given out, written or not
    Column("indexed_at", DateTime),
)

roots = Table(
    "roots",
    metadata,
    Column("id", Id, primary_key=True),
    Column("path", PathBytes, nullable=False, unique=True),
    Column("device", BigInteger),  # files.roots.device_of; in older libraries the system's device number
    Column("captions_seen", String(64)),  # digest of the captions.csv files as last read
    Column("pairing_due", Boolean, nullable=False),  # set before files change, cleared when captions are in step again
    sqlite_autoincrement=True,
)

assets = Table(
    "assets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("root_id", ForeignKey("roots.id"), nullable=False),
    Column("rel_path", PathBytes, nullable=False),  # with '/' on every system
    Column("modality", String(8), nullable=False),
    Column("state", String(8), nullable=False),
    Column("error", Text),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("content_hash", LargeBinary, index=True),
    Column("width_px", Integer),
    Column("height_px", Integer),
    Column("taken_at", DateTime),
    Column("camera", Text),
    Column("latitude_deg", Float),
    Column("longitude_deg", Float),
    Column("excerpt", Text),  # the beginning of a text
    Column("seen_at", DateTime, nullable=False),
    UniqueConstraint("root_id", "rel_path"),
    sqlite_autoincrement=True,
)

about = Table(
    "about",
    metadata,
    Column("id", Id, primary_key=True),
    Column("asset_id", ForeignKey("assets.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("source", PathBytes),  # the sidecar, below the root; NULL: the file itself, whose row says it was asked
    Column("size_bytes", BigInteger),  # of the sidecar as last read
    Column("mtime_ns", BigInteger),
    Column("taken_at", DateTime),
    Column("camera", Text),
    Column("lens", Text),
    Column("latitude_deg", Float),
    Column("longitude_deg", Float),
    Column("title", Text),
    Column("description", Text),
    Column("keywords", Text),  # a JSON list
)

captions = Table(
    "captions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("asset_id", ForeignKey("assets.id"), nullable=False, index=True),  # the photo
    Column("text_asset_id", ForeignKey("assets.id"), index=True),  # photo.txt, or
    Column("source", PathBytes),  # the captions.csv, the sidecar or the photo itself, below the root, and
    Column("text", Text),  # the words it has
    Column("text_hash", LargeBinary, index=True),
    Column("live", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

vectors = Table(
    "vectors",
    metadata,
    Column("id", Id, primary_key=True),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("asset_id", ForeignKey("assets.id"), nullable=False),
    Column("caption_id", ForeignKey("captions.id")),
    Column("role", String(8), nullable=False),
    Column("kind", SmallInteger, nullable=False, default=HIDDEN),  # kept by triggers, see visibility.py
    Column("change", BigInteger, nullable=False),
    Column("mu", LargeBinary),  # float16 [d]; NULL: to be computed again
    Column("logvar", LargeBinary),  # float16 [d]
    Index(None, "asset_id", "model_id", "role"),
    Index(None, "caption_id", "model_id"),
    Index(None, "change"),  # without the model: SQLite would take (model_id, ...) for joins it makes quadratic
    sqlite_autoincrement=True,
)

frames = Table(
    "frames",
    metadata,
    Column("id", Id, primary_key=True),
    Column("asset_id", ForeignKey("assets.id", ondelete="CASCADE"), nullable=False, index=True),  # a video
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("mu", LargeBinary, nullable=False),  # float16 [d]; the video's own vector mixes them
)

generations = Table(
    "generations",
    metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("file_name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("change", BigInteger, nullable=False),  # the last change the file includes
    Column("entries", LargeBinary, nullable=False),  # int64 ids, then uint8 kinds: filters without a scan of `vectors`
    Column("facts", Text, nullable=False, server_default="{}"),  # JSON: IndexFacts; {}: a file not to trust
)

notices = Table(
    "notices",
    metadata,
    Column("id", Id, primary_key=True),
    Column("root_id", ForeignKey("roots.id"), nullable=False, index=True),
    Column("rel_path", PathBytes, nullable=False),
    Column("source", String(8), nullable=False),  # scan | captions | sidecar
    Column("reason", Text, nullable=False),
    Column("noticed_at", DateTime, nullable=False),
)

for _table in metadata.sorted_tables:
    for _column in _table.columns:
        if not _column.primary_key:
            _column.type = Cell(_column.type, _table.name, _column.name)
