"""What a search is narrowed to besides a modality: a folder, a span of days.

In: `Filters`, a snapshot of the catalog. Out: the ids of the vectors that may be found. They are looked up before the
search, not sifted from its answer, so that there are as many hits as were asked for. Next: `search.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.base.types import Model
from indexer.catalog.hits import Int64Array, vectors_within
from indexer.catalog.roots import known_targets

if TYPE_CHECKING:
    from indexer.catalog.reader import Snapshot


@dataclass(frozen=True, slots=True)
class Filters:
    """Files at or below `folder`, taken from `since` to `until`, both days included; None narrows nothing.

    The day is the one on the camera's clock. A file without a date is in no span of days.
    """

    folder: Path | None = None
    since: date | None = None
    until: date | None = None


NO_FILTERS = Filters()


def allowed_ids(connection: Snapshot, model: Model, filters: Filters) -> Int64Array | None:
    """The vectors of the files that pass, and of captions about them, int64 `[n]` rising; None where everything does.

    Raises: LibraryError when nothing of the folder is in the library.
    """
    if filters == NO_FILTERS:
        return None
    targets = None if filters.folder is None else known_targets(connection, filters.folder)
    return vectors_within(connection, model, targets, filters.since, filters.until)
