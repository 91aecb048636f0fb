"""The numpy side of every model: the same product of experts as in torch, and rows in the order they were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.base.types import Posterior
from mmsearch.errors import DecodeError
from mmsearch.inference.posterior import concatenate, embed_images, embed_texts, product_of_experts
from mmsearch.models import gaussian
from tests.fakes import COLOURS, FakeEncoder, paint


def posteriors(m: int, n: int = 5, d: int = 7) -> list[Posterior]:
    rng = np.random.default_rng(m)
    return [
        Posterior(
            rng.normal(0, 2, (n, d)).astype(np.float32), rng.uniform(-6, -0.01, (n, d)).astype(np.float32)
        )
        for _ in range(m)
    ]  # fmt: skip


@pytest.mark.parametrize("m", [1, 2, 3])
def test_numpy_and_torch_multiply_alike(m: int) -> None:
    experts = posteriors(m)
    found = product_of_experts(experts)
    mus, logvars = ([torch.from_numpy(getattr(p, name)) for p in experts] for name in ("mu", "logvar"))
    mu, logvar = gaussian.product_of_experts(mus, logvars)
    np.testing.assert_allclose(found.mu, mu.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logvar, logvar.numpy(), rtol=1e-5, atol=1e-6)
    assert found.mu.dtype == found.logvar.dtype == np.float32


def test_the_prior_is_counted_once() -> None:
    """Two experts of precision 4 and 2: 4 + 2 - 1 = 5, means weighted by 4/5 and 2/5."""
    quarter, half = (np.full((1, 1), np.log(v), np.float32) for v in (0.25, 0.5))
    found = product_of_experts([Posterior(np.float32([[1]]), quarter), Posterior(np.float32([[-3]]), half)])
    np.testing.assert_allclose(found.mu, [[(4 - 6) / 5]], rtol=1e-6)
    np.testing.assert_allclose(np.exp(found.logvar), [[1 / 5]], rtol=1e-6)


def test_one_expert_comes_back_and_none_is_refused() -> None:
    (alone,) = posteriors(1)
    found = product_of_experts([alone])
    np.testing.assert_allclose(found.mu, alone.mu, rtol=1e-6)
    np.testing.assert_allclose(found.logvar, alone.logvar, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="at least one"):
        product_of_experts([])


def test_texts_keep_their_order_though_they_are_sorted_by_length() -> None:
    encoder = FakeEncoder()
    texts = [f"{'red ' * (1 + i * 7 % 5)}{i}" for i in range(70)]
    found = embed_texts(encoder, texts)
    one_by_one = FakeEncoder().encode_texts(texts)
    np.testing.assert_array_equal(found.mu, one_by_one.mu)
    np.testing.assert_array_equal(found.logvar, one_by_one.logvar)
    assert encoder.text_batches == [32, 32, 6]


def test_pictures_of_every_kind_in_one_list(tmp_path: Path) -> None:
    encoder, path = FakeEncoder(), paint(tmp_path / "red.png", "red")
    array = np.full((10, 20, 3), COLOURS["red"], np.uint8)
    found = embed_images(encoder, [path, str(path), array, Image.fromarray(array)])
    assert found.mu.shape == (4, encoder.dim)
    np.testing.assert_allclose(found.mu, np.repeat(found.mu[:1], 4, 0), atol=1e-5)
    with pytest.raises(DecodeError):
        embed_images(encoder, [tmp_path / "absent.png"])


def test_nothing_is_an_empty_posterior() -> None:
    for found in (embed_texts(FakeEncoder(), []), embed_images(FakeEncoder(), []), concatenate([], 16)):
        assert found.mu.shape == found.logvar.shape == (0, 16)
        assert found.mu.dtype == np.float32
