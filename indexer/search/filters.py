"""What a search is narrowed to besides a modality: a folder, a span of days.

In: `Among`, a catalog. Out: the ids of the vectors that may be found. They are looked up before the search and not
sifted from its answer, so that there are as many hits as were asked for. Next: `search.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from indexer.base.types import HIDDEN, Model
from indexer.catalog.reader import read
from indexer.catalog.roots import Target, known_targets
from indexer.vectors.base import Int64Array


@dataclass(frozen=True)
class Among:
    """Files at or below `folder`, taken from `since` to `until`, both days included; None narrows nothing.

    The day is the one on the camera's clock. A file without a date is in no span of days.
    """

    folder: Path | None = None
    since: date | None = None
    until: date | None = None

    @property
    def is_everything(self) -> bool:
        """Whether it narrows nothing."""
        return self.folder is None and self.since is None and self.until is None


def ids_among(connection: Any, model: Model, among: Among) -> Int64Array:
    """The vectors of the files in `among`, and of what is said of them, int64 `[n]` rising.

    Raises: LibraryError when nothing of its folder is in the library.
    """
    conditions = ["v.model_id = :model", "v.kind <> :hidden"]
    given: dict[str, object] = {"model": model.id, "hidden": HIDDEN}
    if among.folder is not None:
        conditions.append(_below(known_targets(connection, among.folder), given))
    if among.since is not None:
        conditions.append("a.taken_at >= :since")
        given["since"] = among.since.isoformat()
    if among.until is not None:
        conditions.append("a.taken_at <= :until")  # stored as text, '2019-05-31 18:00:00.000000', which sorts like time
        given["until"] = f"{among.until.isoformat()} ~"  # behind every time of that day
    query = f"SELECT v.id FROM vectors v JOIN assets a ON a.id = v.asset_id WHERE {' AND '.join(conditions)}"
    return np.sort(np.array([one for (one,) in read(connection, query, **given)], np.int64))


def _below(targets: list[Target], given: dict[str, object]) -> str:
    """The condition that an asset lies in one of `targets`; its values go into `given`."""
    parts = []
    for number, target in enumerate(targets):
        given[f"root{number}"] = target.root.id
        part = f"a.root_id = :root{number}"
        if target.prefix:
            prefix = os.fsencode(target.prefix)
            given |= {f"is{number}": prefix, f"from{number}": prefix + b"/", f"to{number}": prefix + b"0"}
            part += f" AND (a.rel_path = :is{number} OR (a.rel_path > :from{number} AND a.rel_path < :to{number}))"
        parts.append(f"({part})")
    return f"({' OR '.join(parts)})"
