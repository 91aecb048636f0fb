"""The bank of queries is drawn as an epoch is, and its level is the average photo's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch.training import calibration_queries as bank_module
from mmsearch.training.calibration_queries import add_banks, bank, draw
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Export
from tests.fakes import COLOURS, FakeEncoder, paint


def corpus(shares: list[float], folder: Path = Path("photos")) -> Corpus:
    """As many training photos as shares, and three to validate with."""
    count = len(shares) + 3
    photos = tuple(folder / f"{number}.png" for number in range(count))
    captions = tuple((f"{number} one", f"{number} two") for number in range(count))
    return Corpus(photos, captions, np.array(shares), len(shares), len(shares))


def test_photos_are_drawn_by_their_shares() -> None:
    found, captions = draw(corpus([1.0] * 400 + [0.25] * 400 + [0.0] * 50), 300)
    numbers = [int(photo.stem) for photo in found]
    assert len(set(numbers)) == 300
    assert max(numbers) < 800
    assert 190 < sum(number < 400 for number in numbers) < 270
    assert [int(caption.split()[0]) for caption in captions] == numbers
    assert {caption.split()[1] for caption in captions} == {"one", "two"}
    assert draw(corpus([1.0] * 400 + [0.25] * 400 + [0.0] * 50), 300) == (found, captions)


def test_a_small_corpus_is_drawn_whole() -> None:
    found, _ = draw(corpus([1.0, 0.5, 0.0, 1.0]), 100)
    assert sorted(int(photo.stem) for photo in found) == [0, 1, 3]


def test_clusters_stand_for_their_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many clusters as queries: hubness is that of the queries themselves; fewer come near it. Items average 0."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((12, 24))
    queries = (topics[rng.integers(0, 12, 600)] + 0.4 * rng.standard_normal((600, 24))).astype(np.float32)
    items = (topics[rng.integers(0, 12, 200)] + 0.4 * rng.standard_normal((200, 24))).astype(np.float32)
    units = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    each = items / np.linalg.norm(items, axis=1, keepdims=True)
    truth = np.log(np.exp(10 * each @ units.T).mean(axis=1)) / 10
    whole = bank("text", queries, items, 5000, 10.0)
    with monkeypatch.context() as patch:
        patch.setattr(bank_module, "rounded", lambda centres: centres)
        unrounded, few = bank("text", queries, items, 5000, 10.0), bank("text", queries, items, 60, 10.0)
    assert len(few.shares) <= 60
    assert few.shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(unrounded.hubness(items), truth - truth.mean(), atol=1e-5)
    off = whole.hubness(items) - unrounded.hubness(items)
    of_one = np.abs(units).max(axis=1).mean() / 7 / np.sqrt(12)  # a cosine's error when numbers have four bits
    assert np.sqrt(np.mean(off**2)) < of_one / 4  # evened out over the fifty queries of a topic
    assert np.corrcoef(few.hubness(items), truth)[0, 1] > 0.95
    assert max(abs(float(one.hubness(items).mean())) for one in (whole, few)) < 1e-5


def test_a_folder_gets_both_banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder(FakeEncoder):
        def embed_images(self, paths: list[Path]):  # type: ignore[no-untyped-def]
            from mmsearch.inference.posterior import embed_images

            return embed_images(self, paths)

        def embed_texts(self, texts: list[str]):  # type: ignore[no-untyped-def]
            return self.encode_texts(texts)

    colours = list(COLOURS)[:5]
    for number, colour in enumerate(colours):
        paint(tmp_path / f"{number}.png", colour)
    (tmp_path / "model.json").write_text('{"architecture": {"latent_dim": 16}}')
    monkeypatch.setattr(bank_module, "load_model", lambda folder: Encoder())
    add_banks(tmp_path, corpus([1.0] * 5, tmp_path), Export(queries=64, clusters=4, sharpness=12.0))
    import json

    from mmsearch.inference.query_bank import QUERIES, load_bank

    described = json.loads((tmp_path / "model.json").read_text())
    assert QUERIES in described["files"]
    for modality in ("text", "image"):
        found = load_bank(tmp_path, described, modality)  # type: ignore[arg-type]
        assert found is not None
        assert (found.centres.shape[1], found.sharpness) == (16, 12.0)
        assert 1 <= len(found.shares) <= 4
