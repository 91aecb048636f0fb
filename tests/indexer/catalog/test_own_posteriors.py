"""What heads are fitted on: which photos count as captioned, with which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryError
from indexer.store import Store
from tests.fakes import FakeEncoder, paint


def test_captioned_photos_have_their_words_from_both_sources(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, name in enumerate(("bare", "beside", "both", "rows")):
        paint(photos / f"{name}.png", "red", seed=number)
    shutil.copy(photos / "rows.png", photos / "twin.png")
    (photos / "beside.txt").write_text("a boat\n on the  lake")
    (photos / "both.txt").write_text("a barn")
    (photos / "alone.txt").write_text("no photo of this name")
    rows = ["both.png,zebra", "both.png,a barn", "rows.png,a hill", "twin.png,a slope", "gone.png,nothing"]
    (photos / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    with Store.open(tmp_path / "library", create=True) as store:
        store.ingest(photos, FakeEncoder())
        found = {photo.path.name: photo for photo in store.captioned_photos()}
        assert {name: photo.captions for name, photo in found.items()} == {
            "beside.png": ("a boat on the lake",),
            "both.png": ("a barn", "zebra"),
            "rows.png": ("a hill",),
            "twin.png": ("a slope",),
        }
        assert found["rows.png"].content_hash == found["twin.png"].content_hash != found["both.png"].content_hash
        (photos / "both.png").unlink()
        (photos / "captions.csv").unlink()
        store.ingest(photos, FakeEncoder())
        assert [photo.path.name for photo in store.captioned_photos()] == ["beside.png"]


def test_own_posteriors_are_those_before_any_fusion(tmp_path: Path) -> None:
    photos, encoder = tmp_path / "photos", FakeEncoder()
    paint(photos / "red.png", "red", seed=1)
    (photos / "red.txt").write_text("green")
    (photos / "captions.csv").write_text("image,caption\nred.png,blue\n")
    with Store.open(tmp_path / "library", create=True) as store:
        with pytest.raises(LibraryError, match="holds no vectors"):
            store.own_posteriors()
        store.ingest(photos, encoder)
        images, texts = store.own_posteriors()
    np.testing.assert_allclose(images.mu, encoder.embed_images([photos / "red.png"]).mu, atol=2e-3)
    expected = encoder.embed_texts(["green", "blue"]).mu
    np.testing.assert_allclose(sorted(texts.mu.tolist()), sorted(expected.tolist()), atol=5e-3)
