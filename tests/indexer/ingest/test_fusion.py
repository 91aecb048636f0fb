"""A photo and its captions as one vector: the product of experts, each caption once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from indexer.base.types import Posterior
from indexer.catalog.schema import vectors
from indexer.ingest.fusion import caption_expert
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import found_with_text as found
from tests.indexer.ingest.samples import half, joint


def test_the_fusion_is_the_encoders(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.png", "red")
    (photos / "a.txt").write_text("blue sky")
    store.ingest(photos, encoder)
    image, text = half(encoder.embed_images([photos / "a.png"])), half(encoder.embed_texts(["blue sky"]))
    expected = joint(encoder, image, text)
    stored = store.posterior_of(photos / "a.png", encoder.fingerprint)
    assert stored is not None
    np.testing.assert_allclose(stored.mu, expected.mu, atol=0.01)
    np.testing.assert_allclose(stored.logvar, expected.logvar, atol=0.01)
    own = store.posterior_of(photos / "a.txt", encoder.fingerprint)
    assert own is not None
    np.testing.assert_array_equal(own.mu, text.mu)
    with store._catalog.begin() as connection:
        roles = sorted(connection.scalars(select(vectors.c.role)).all())
    assert roles == ["fused", "own", "own"]  # both experts stay beside their product


def test_every_caption_is_an_expert_and_counts_once(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.png", "red")
    rows = ["a.png,blue sky", "a.png,green grass", "a.png,blue sky"]
    (photos / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    store.ingest(photos, encoder)
    image = half(encoder.embed_images([photos / "a.png"]))
    expected = joint(encoder, image, *(half(encoder.embed_texts([text])) for text in ("blue sky", "green grass")))
    stored = store.posterior_of(photos / "a.png", encoder.fingerprint)
    assert stored is not None
    np.testing.assert_allclose(stored.mu, expected.mu, atol=0.01)
    np.testing.assert_allclose(stored.logvar, expected.logvar, atol=0.01)


def test_caption_experts_by_hand() -> None:
    """Lengths 3 and 1 become the photo's 5; precisions 2 and 4 make 1 + 1 + 3."""
    photo = Posterior(np.array([[3, 4]], np.float32), np.zeros((1, 2), np.float32))
    captions = Posterior(np.array([[3, 0], [0, -1]], np.float32), -np.log(np.array([[2, 2], [4, 4]], np.float32)))
    expert = caption_expert(photo, captions)
    np.testing.assert_allclose(expert.mu, [[2 * 5 / 5, 4 * -5 / 5]], rtol=1e-6)
    np.testing.assert_allclose(expert.logvar, [[-np.log(5)] * 2], rtol=1e-6)


def test_an_expert_without_a_direction_has_no_say() -> None:
    zero, some = np.zeros((1, 2), np.float32), np.array([[0, 2]], np.float32)
    half_sure = np.full((1, 2), -np.log(2), np.float32)
    np.testing.assert_array_equal(caption_expert(Posterior(some, half_sure), Posterior(zero, half_sure)).mu, zero)
    silent_photo = caption_expert(Posterior(zero, half_sure), Posterior(some, half_sure))
    np.testing.assert_allclose(silent_photo.mu, some)  # by its caption alone, rather than by nothing


def test_fusions_a_crash_left_out_are_made_up_for(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")

    class Dies(FakeEncoder):
        def fuse(self, posteriors: object) -> Posterior:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.ingest(photos, Dies())
    assert [name for name, *_ in found(store, encoder, "red", "image")] == ["a.jpg"]  # by the photo alone, so far
    report = store.ingest(photos, encoder)
    assert report.encoded == 0
    with store._catalog.begin() as connection:
        assert "fused" in connection.scalars(select(vectors.c.role)).all()
    assert found(store, encoder, "blue") == [("a.jpg", "image", None)]
