"""Animations: every frame counts, once, and a still picture's vector is what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from indexer.base.types import Posterior
from indexer.ingest.encode import MAX_LOGVAR, mixture
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.ingest.samples import animation


def test_the_moments_are_those_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    mu, variance = 0.3 * rng.standard_normal((3, 5)), rng.uniform(0.05, 0.2, (3, 5))
    found = mixture(Posterior(mu.astype(np.float32), np.log(variance).astype(np.float32)), [3])
    drawn = mu[:, None] + np.sqrt(variance)[:, None] * rng.standard_normal((3, 200_000, 5))
    np.testing.assert_allclose(found.mu[0], drawn.mean(axis=(0, 1)), atol=0.005)
    np.testing.assert_allclose(np.exp(found.logvar[0]), drawn.var(axis=(0, 1)), rtol=0.02)


def test_files_stay_apart_and_single_frames_as_they_are() -> None:
    mu = np.arange(8, dtype=np.float32).reshape(4, 2)
    logvar = np.full((4, 2), -1.5, np.float32)
    found = mixture(Posterior(mu, logvar), [1, 2, 1])
    np.testing.assert_array_equal(found.mu, [mu[0], (mu[1] + mu[2]) / 2, mu[3]])
    np.testing.assert_array_equal(found.logvar[[0, 2]], logvar[[0, 3]])
    assert (found.logvar[1] == np.float32(MAX_LOGVAR)).all()  # frames as far apart as this: no surer than the prior


def test_an_animation_is_found_by_each_of_its_colours(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    animation(photos / "a.gif", "red", "black", "blue", "black", "green")
    animation(photos / "b.webp", "red", "yellow")
    paint(photos / "c.png", "yellow")
    assert store.ingest(photos, encoder, batch_size=2).encoded == 3
    assert encoder.images_encoded == 3 + 2 + 1
    expected = {}
    for name, colours in (("a.gif", ("red", "blue", "green")), ("b.webp", ("red", "yellow")), ("c.png", ("yellow",))):
        expected[name] = encoder.embed_images([Image.new("RGB", (40, 40), COLOURS[one]) for one in colours]).mu.mean(0)
    for name, mean in expected.items():
        stored = store.posterior_of(photos / name, encoder.fingerprint)
        assert stored is not None
        np.testing.assert_allclose(stored.mu[0], mean, atol=0.02)  # float16, and the noise-free colours of a palette
    assert store.ingest(photos, encoder).encoded == 0
    other = FakeEncoder(seed=1)
    store.rebuild(other)
    assert other.images_encoded == 6
