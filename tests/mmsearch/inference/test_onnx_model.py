"""Batches on ONNX Runtime go in parts, a thread each: the same rows in the same order, whatever the cores."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.errors import CheckpointError
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.onnx_model import ROWS_PER_RUN, OnnxModel

DESCRIBED = {"fingerprint": "ab", "architecture": {"latent_dim": 2, "side_px": 4}}


class Session:
    """Rows in, their sums and their negatives out; `meet` holds runs until so many are under way."""

    def __init__(self, meet: int = 1) -> None:
        self.sizes: list[int] = []
        self._barrier = threading.Barrier(meet, timeout=30)

    def run(self, outputs: None, feeds: dict[str, Any]) -> list[Any]:
        (rows,) = feeds.values()
        self.sizes.append(len(rows))
        self._barrier.wait()
        sums = rows.sum(axis=(1, 2, 3), dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
        return [sums, -sums]


def model(session: Session, cores: int) -> OnnxModel:
    made = OnnxModel("mine", Path("nowhere"), DESCRIBED)
    made._cores, made._sessions = cores, {"image": session}
    return made


def pixels(count: int) -> Any:
    return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("count", "cores", "sizes"),
    [
        (32, 2, [ROWS_PER_RUN] * 8),
        (7, 2, [3, 4]),  # 4 and 3, in whatever order they begin
        (6, 16, [1] * 6),
        (5, 1, [1, 4]),
        (1, 2, [1]),
        (0, 2, [0]),
    ],
)
def test_the_rows_come_back_in_order(count: int, cores: int, sizes: list[int]) -> None:
    session = Session()
    found = model(session, cores).encode_images(pixels(count))
    assert sorted(session.sizes) == sizes
    np.testing.assert_array_equal(found.mu[:, 0], 48.0 * np.arange(count))
    np.testing.assert_array_equal(found.logvar, -found.mu)


def test_the_parts_run_at_once() -> None:
    """Each waits for the others: one after the other, they would wait for ever."""
    assert len(model(Session(meet=3), 3).encode_images(pixels(6))) == 6


def test_what_fails_in_a_thread_fails_here() -> None:
    session = Session()
    session._barrier.abort()
    with pytest.raises(CheckpointError) as told:
        model(session, 2).encode_images(pixels(8))
    assert isinstance(told.value.__cause__, threading.BrokenBarrierError)


@pytest.mark.skipif(not (PRETRAINED / "default").exists(), reason="this checkout holds no default model")
def test_a_picture_has_the_same_vector_in_any_batch() -> None:
    shipped = load_model("default", "cpu")
    batch = np.random.default_rng(0).integers(0, 256, (6, shipped.side_px, shipped.side_px, 3), np.uint8)
    whole = shipped.encode_images(batch)
    alone = [shipped.encode_images(batch[row : row + 1]) for row in range(6)]
    np.testing.assert_allclose(whole.mu, np.concatenate([one.mu for one in alone]), atol=1e-4)
    np.testing.assert_allclose(whole.logvar, np.concatenate([one.logvar for one in alone]), atol=1e-4)


def test_what_the_packages_raise_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a tokenizer knows more words than the weights, which no trial with a few texts finds out."""
    made = model(Session(), 1)

    class Tokenizer:
        def encode_batch(self, texts: list[str]) -> list[Any]:
            raise Exception("no such word\nat line 3")

    made._tokenizer = Tokenizer()
    with pytest.raises(CheckpointError, match=r"'mine' cannot encode this \(no such word\)") as told:
        made.encode_texts(["red"])
    assert "\n" not in str(told.value)
    made._sessions = {"image": object()}
    with pytest.raises(CheckpointError, match="cannot encode this"):
        made.encode_images(pixels(1))
