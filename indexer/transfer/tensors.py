"""The vectors of one model as a file of safetensors: `mu` and `logvar`, float16 [n, d], in the order of their rows.

In: rows of `vectors`, or a file from anywhere. Out: the file; or the blobs of those rows, after all that the file says
of itself was checked. Next: `export.py` and `restore.py`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from indexer.base.errors import LibraryCorrupt
from indexer.base.types import Model
from indexer.catalog import tables
from indexer.catalog.database import Connection
from indexer.catalog.tables import BLOBS, NUMBER, Row
from indexer.transfer.archive import tensors_name


def write_tensors(connection: Connection, model: Model, path: Path) -> None:
    """Every computed vector of a model, in the layout written here: its library wants whole matrices in memory."""
    count = tables.count_blobs(connection, model)
    size_bytes = 2 * count * model.dim
    header: dict[str, Any] = {
        name: {"dtype": "F16", "shape": [count, model.dim], "data_offsets": [at * size_bytes, (at + 1) * size_bytes]}
        for at, name in enumerate(BLOBS)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in BLOBS:
            file.writelines(tables.blobs(connection, model, name))


class Tensors:
    """The vectors of every model of an archive, given out in the order of their rows."""

    def __init__(self, models: list[Model], unpacked: Path) -> None:
        self._files: dict[int, Any] = {}
        self._next: dict[int, int] = {}
        self._count: dict[int, int] = {}
        for model in models:
            opened: Any = safe_open(unpacked / tensors_name(model.id), framework="numpy")
            slices = {name: opened.get_slice(name) for name in BLOBS}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            count = shapes["mu"][0] if shapes["mu"] else 0
            if any(shapes[name] != (count, model.dim) or slices[name].get_dtype() != "F16" for name in BLOBS):
                raise LibraryCorrupt(f"{tensors_name(model.id)} does not hold float16 [n, {model.dim}] twice")
            self._files[model.id], self._next[model.id], self._count[model.id] = opened, 0, count

    def put_into(self, rows: list[Row]) -> None:
        """Exchange the number `row` of each row for its blobs."""
        named = {row["model_id"] for row in rows}
        if not named <= self._files.keys():
            strange = min(named - self._files.keys(), key=str)
            raise LibraryCorrupt(f"vectors.parquet names model {strange}, which models.parquet has not")
        for model_id in named:
            mine = [row for row in rows if row["model_id"] == model_id and row[NUMBER] is not None]
            first = self._next[model_id]
            self._next[model_id] = last = first + len(mine)
            if [row[NUMBER] for row in mine] != list(range(first, last)) or last > self._count[model_id]:
                raise LibraryCorrupt(f"vectors.parquet and {tensors_name(model_id)} are not of one making")
            for name in BLOBS:
                part: NDArray[np.float16] = self._files[model_id].get_slice(name)[first:last]
                if not np.isfinite(part).all():
                    raise LibraryCorrupt(f"{tensors_name(model_id)} holds what is no number")
                for row, values in zip(mine, part, strict=True):
                    row[name] = values.tobytes()
        for row in rows:
            row.update({name: None for name in BLOBS if row[NUMBER] is None})
            del row[NUMBER]

    def finish(self) -> None:
        """Every vector must have found its row."""
        if self._next != self._count:
            raise LibraryCorrupt("there are vectors without a row in vectors.parquet")
