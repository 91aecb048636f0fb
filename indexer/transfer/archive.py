"""A library as files that any program reads: Parquet for rows, safetensors for vectors, JSON that lists them.

    manifest.json             format, schema, rows of each table, size and sha256 of each file
    <table>.parquet           one for each table of the catalog but `generations`
    vectors-<model>.safetensors   `mu` and `logvar`, float16 [n, d]; the column `row` of vectors.parquet points there

In: tables and their columns. Out: names, types and checks that `export.py` and `restore.py` share. Nothing is pickled.
Next: `export.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final

import pyarrow as pa

from indexer.base.errors import LibraryCorrupt
from indexer.catalog.tables import Kind, WholeTable

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MEMBER: Final = re.compile(r"[a-z_]{1,40}\.parquet|vectors-[0-9]{1,18}\.safetensors")
MANIFEST_LIMIT_BYTES: Final = 1 << 20
ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    "path": pa.binary(),  # names that are not UTF-8 survive here too
    "bytes": pa.binary(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "time": pa.timestamp("us"),
    "text": pa.string(),
}


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an archive holds; `rows` by table, `files` by name."""

    schema: str
    rows: dict[str, int]
    files: dict[str, Member]

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """The manifest of an archive from anywhere. Raises: LibraryCorrupt when it says what none may say."""
        try:
            said = json.loads(text)
            if not isinstance(said, dict) or said.get("format") != FORMAT:
                found = said.get("format") if isinstance(said, dict) else None
                raise LibraryCorrupt(f"format {str(found)[:20]!r}, this version reads {FORMAT}")
            rows = {str(name): _count(number) for name, number in said["rows"].items()}
            files = {name: Member(_count(one["size_bytes"]), str(one["sha256"])) for name, one in said["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LibraryCorrupt(f"{MANIFEST} is not one ({type(error).__name__})") from error
        strange = [name for name in files if not MEMBER.fullmatch(name)]
        if strange:
            raise LibraryCorrupt(f"{MANIFEST} names the file {strange[0][:80]!r}, which no archive holds")
        return cls(str(said.get("schema")), rows, files)


def arrow_schema(table: WholeTable) -> pa.Schema:
    """The Parquet schema of a table."""
    return pa.schema([pa.field(column.name, ARROW_TYPES[column.kind]) for column in table.columns])


def tensors_name(model_id: int) -> str:
    """The file of a model's vectors."""
    return f"vectors-{model_id}.safetensors"


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 48:
        raise ValueError(f"{str(value)[:20]!r} is no count")
    return value
