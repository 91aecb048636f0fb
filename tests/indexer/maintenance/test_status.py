"""What a library holds, counted: files that can be found, and those that cannot, and why."""

from __future__ import annotations

from pathlib import Path

from indexer.store import Store
from tests.fakes import FakeEncoder
from tests.indexer.folders import change, fill


def test_counts_follow_the_folders(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    fill(photos)
    (photos / "more").mkdir()
    store.ingest(photos, encoder)
    status = store.status()
    assert (status.images, status.texts, status.captions) == (15, 8, 13)
    assert (status.missing, status.offline, status.skipped) == (0, 0, 2)
    assert (status.search, status.recall_at_10) == ("exact", None)
    (photos / "p02.png").unlink()
    (photos / "p03.txt").unlink()
    store.ingest(photos, encoder)
    status = store.status()
    assert (status.images, status.texts, status.captions, status.missing) == (14, 7, 11, 2)
    photos.rename(photos.with_name("away"))
    status = store.status()
    assert (status.images, status.texts, status.captions, status.missing) == (0, 0, 0, 2)
    assert status.offline == 21
    ((path, online, files, reason),) = [(one.path, one.online, one.files, one.reason) for one in status.roots]
    assert (path, online, files, reason) == (photos, False, 21, "is not there")


def test_folders_are_counted_one_by_one(store: Store, photos: Path, encoder: FakeEncoder, tmp_path: Path) -> None:
    fill(photos)
    fill(tmp_path / "other")
    change(tmp_path / "other", captions=True)
    for folder in (photos, tmp_path / "other"):
        store.ingest(folder, encoder)
    (tmp_path / "other").rename(tmp_path / "away")
    status = store.status()
    counts = {root.path.name: (root.online, root.files) for root in status.roots}
    assert counts["photos"] == (True, 23)
    assert not counts["other"][0]
    assert (status.images + status.texts, status.offline) == (23, counts["other"][1])
