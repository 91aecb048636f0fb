"""Contents that are on record: looked up by the batch, each file looked for once, however many copies there are."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from indexer.catalog import vectors
from indexer.ingest import contents
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import counts, fill, found, hits, painted, rows, said


def _counting(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is asked of the catalog and of the disk."""
    calls: Counter[str] = Counter()

    def counted(module: object, name: str) -> None:
        original = getattr(module, name)

        def call(*values: object) -> object:
            calls[name] += 1
            return original(*values)

        monkeypatch.setattr(module, name, call)

    counted(vectors, "donors")
    counted(vectors, "holder")
    counted(contents, "standing")
    counted(contents.os.path, "lexists")
    return calls


def test_moved_files_are_looked_up_together(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(photos / "old", 40)
    store.ingest(photos, encoder)
    (photos / "old").rename(photos / "new")
    calls = _counting(monkeypatch)
    assert counts(store.ingest(photos, encoder)) == {"moved": 40}
    assert calls["donors"] + calls["standing"] <= 4  # batches end by time, too
    assert calls["lexists"] == 40


def test_copies_cost_no_look_at_the_files_that_are_there(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(photos / "0", 4)
    store.ingest(photos, encoder)
    for turn in range(1, 11):
        shutil.copytree(photos / "0", photos / str(turn))
    calls = _counting(monkeypatch)
    assert counts(store.ingest(photos, encoder)) == {"added": 40, "unchanged": 4}
    assert calls["holder"] <= 4
    assert calls["lexists"] == calls["standing"] == 0
    assert len(found(store, encoder)) == 44


def test_more_contents_than_are_kept(
    store: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "KEPT", 3)
    fill(photos / "old", 8)
    store.ingest(photos, encoder, batch_size=2)
    (photos / "old").rename(photos / "new")
    shutil.copytree(photos / "new", photos / "more")
    assert counts(store.ingest(photos, encoder, batch_size=2)) == {"moved": 8, "added": 8}
    assert encoder.images_encoded == 8


def test_a_copy_says_what_the_picture_says_and_not_what_a_sidecar_said_of_the_other(
    store: Store, photos: Path, encoder: FakeEncoder
) -> None:
    painted(photos / "a.jpg", "a title")
    (photos / "a.jpg.xmp").write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:DateTimeOriginal="2019-05-31T18:00:00"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    store.ingest(photos, encoder)
    shutil.copy(photos / "a.jpg", photos / "b.jpg")
    store.ingest(photos, encoder)
    shown = {hit.path.name: (hit.camera, hit.taken_at) for hit in hits(store, encoder, "red", "image")}
    assert shown["a.jpg"][1] is not None
    assert shown["b.jpg"] == ("X100", None)
    assert said(store, encoder) == [("a.jpg", "a title"), ("b.jpg", "a title")]
    assert rows(store, "SELECT count(*) FROM about WHERE source IS NULL") == [(2,)]
