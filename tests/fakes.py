"""A deterministic encoder in numpy that stands where a model would: pictures by their colours, texts by their words.

In: pictures and strings. Out: posteriors that behave like a model's (the word `red` lands near red pictures), and
counts of what was asked, so that a test can say "this was not encoded twice". Whoever needs a model starts here.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from indexer.base.types import Float32Array, Posterior, UInt8Array

COLOURS = {
    "red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "yellow": (230, 220, 30),
    "black": (10, 10, 10), "white": (245, 245, 245), "grey": (128, 128, 128), "purple": (140, 30, 160),
}  # fmt: skip


@dataclass(eq=False)
class FakeEncoder:
    """Satisfies `indexer.base.types.Encoder`; `log` gets one line a batch, so that counts survive a killed process."""

    name: str = "fake"
    seed: int = 0
    dim: int = 16
    side_px: int = 32
    delay_s: float = 0.0
    log: Path | None = None
    images_encoded: int = 0
    texts_encoded: int = 0
    image_batches: list[int] = field(default_factory=list)
    text_batches: list[int] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"fake {self.seed} {self.dim} {self.side_px}".encode()).hexdigest()

    @property
    def encoded(self) -> int:
        return self.images_encoded + self.texts_encoded

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        assert image.mode == "RGB", image.mode
        return np.asarray(image.resize((self.side_px, self.side_px), Image.Resampling.BILINEAR), np.uint8)

    def encode_images(self, batch: UInt8Array) -> Posterior:
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (self.side_px, self.side_px, 3)
        self.images_encoded += len(batch)
        self.image_batches.append(len(batch))
        self._account("image", len(batch))
        return self._posterior(self._image_features(batch), certainty=-2.0)

    def encode_texts(self, texts: Sequence[str]) -> Posterior:
        self.texts_encoded += len(texts)
        self.text_batches.append(len(texts))
        self._account("text", len(texts))
        features = np.zeros((len(texts), self.dim), np.float32)  # [n, d]
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                features[row] += self._word(word)
        return self._posterior(features, certainty=-1.0)

    def fuse(self, posteriors: Sequence[Posterior]) -> Posterior:
        precision = np.ones_like(posteriors[0].mu)  # [n, d]
        weighted = np.zeros_like(posteriors[0].mu)
        for posterior in posteriors:
            expert = np.exp(-posterior.logvar)
            precision += expert - 1
            weighted += expert * posterior.mu
        return Posterior(weighted / precision, -np.log(precision))

    def embed_texts(self, texts: list[str]) -> Posterior:
        return self.encode_texts(texts)

    def embed_images(self, images: Sequence[str | Path | Image.Image | UInt8Array]) -> Posterior:
        return self.encode_images(np.stack([self.prepare_image(_picture(image)) for image in images]))

    def _image_features(self, batch: UInt8Array) -> Float32Array:
        n = len(batch)
        cells = batch.reshape(n, 2, self.side_px // 2, 2, self.side_px // 2, 3).mean(axis=(2, 4)).reshape(n, 12)
        projection = np.random.default_rng(self.seed).standard_normal((12, self.dim))
        return np.asarray((cells / 127.5 - 1) @ projection, np.float32)  # [n, d]

    def _word(self, word: str) -> Float32Array:
        if word in COLOURS:
            return self._image_features(np.full((1, self.side_px, self.side_px, 3), COLOURS[word], np.uint8))[0]
        digest = hashlib.blake2b(f"{self.seed} {word}".encode(), digest_size=8).digest()
        noise = np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(self.dim)
        return np.asarray(0.3 * noise, np.float32)

    def _posterior(self, mu: Float32Array, certainty: float) -> Posterior:
        logvar = certainty - 0.5 * np.tanh(np.abs(mu))
        return Posterior(mu.astype(np.float32), logvar.astype(np.float32))

    def _account(self, kind: str, count: int) -> None:
        if self.log is not None:
            with self.log.open("a") as lines:
                lines.write(f"{kind} {count}\n")
        if self.delay_s:
            time.sleep(self.delay_s)


def _picture(image: str | Path | Image.Image | UInt8Array) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    return Image.fromarray(image) if isinstance(image, np.ndarray) else Image.open(image).convert("RGB")


def paint(path: Path, colour: str = "red", size: tuple[int, int] = (48, 40), *, seed: int | None = None) -> Path:
    """Write one picture of a colour (the suffix picks the format); a `seed` sprinkles noise so that files differ."""
    pixels = np.full((size[1], size[0], 3), COLOURS[colour], np.int16)  # [h, w, 3]
    if seed is not None:
        pixels += np.random.default_rng(seed).integers(-25, 26, pixels.shape, dtype=np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path
