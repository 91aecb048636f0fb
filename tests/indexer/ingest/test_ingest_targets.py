"""Which roots, or parts of a root, one run is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base.errors import FolderNotFound
from indexer.store import Store
from tests.fakes import FakeEncoder, paint
from tests.indexer.ingest.samples import counts


def test_a_part_of_a_root_and_roots_in_roots(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a" / "1.jpg", "red", seed=1)
    paint(photos / "b" / "2.jpg", "red", seed=2)
    store.ingest(photos / "a", encoder)
    assert counts(store.ingest(photos, encoder)) == {"added": 1, "unchanged": 1, "encoded": 1}
    paint(photos / "b" / "3.jpg", "red", seed=3)
    (photos / "a" / "1.jpg").unlink()
    assert counts(store.ingest(photos / "b", encoder)) == {"added": 1, "unchanged": 1, "encoded": 1}
    assert store.status().missing == 0  # 1.jpg lies outside the part that was looked at
    assert [root.path for root in store.status().roots] == [photos, photos / "a"]


@pytest.mark.parametrize("name", ["absent", "file.txt"])
def test_no_such_folder(store: Store, tmp_path: Path, encoder: FakeEncoder, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FolderNotFound, match="mmsearch index"):
        store.ingest(tmp_path / name, encoder)
    assert store.status().roots == ()
