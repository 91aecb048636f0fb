"""What a search gives back.

In: the store's hits, best first. Out: `Hit`, numbered from 1, with a `Path`. Next: `../cli/render.py`, which prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `serve`'s client reads hits without numpy
    from indexer.base.types import Modality
    from indexer.catalog.hits import StoredHit


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        path: the file, absolute; for a row of `captions.csv` its photo.
        score: cosine of the query's mean and the file's, -1 to 1, higher is nearer; where the model knows what is
            usually asked, less the hubness of the file (`indexer/search/query_bank.py`).
        rank: 1 for the best.
        modality: `image` or `text`: what the file is.
        text: for a text, what it says.
        taken_at: when the picture was taken, by its camera's clock; out of Google Takeout, UTC.
        latitude_deg, longitude_deg: where, degrees north and east.
        camera: with what.
        time_s: of a video, the seconds at which it comes nearest to the query.
    """

    path: Path
    score: float
    rank: int
    modality: Modality
    text: str | None = None
    taken_at: datetime | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    camera: str | None = None
    time_s: float | None = None


def to_hits(found: Iterable[StoredHit]) -> list[Hit]:
    """The store's hits, numbered from 1."""
    return [
        Hit(
            *(one.path, float(one.score), rank, one.modality, one.text),
            *(one.taken_at, one.latitude_deg, one.longitude_deg, one.camera, one.time_s),
        )
        for rank, one in enumerate(found, start=1)
    ]
