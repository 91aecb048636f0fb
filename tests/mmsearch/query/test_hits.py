"""What a search gives back: the store's hits, numbered, nothing lost."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from mmsearch.query.hits import Hit, to_hits

FIRST = SimpleNamespace(
    path=Path("/photos/a.jpg"), score=0.5, modality="image", text=None, taken_at=datetime(2019, 7, 6, 5, 4, 3),
    latitude_deg=47.4, longitude_deg=8.5, camera="X100", time_s=None, asset_id=7,
)  # fmt: skip


def test_hits_are_numbered_from_one_and_keep_every_value() -> None:
    second = SimpleNamespace(**{**vars(FIRST), "path": Path("/b.txt"), "score": 1, "modality": "text", "text": "words"})
    first, last = to_hits([FIRST, second])
    assert (first.rank, last.rank) == (1, 2)
    for field in fields(Hit):
        if field.name != "rank":
            assert getattr(first, field.name) == getattr(FIRST, field.name), field.name
    assert (last.path, last.modality, last.text) == (Path("/b.txt"), "text", "words")
    assert isinstance(last.score, float)
    assert to_hits([]) == []
