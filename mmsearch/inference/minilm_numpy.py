"""The text encoder in numpy, for a query: opening ONNX Runtime takes far longer than it does.

In: token ids `[n, t]`, padded with 0, and `model.safetensors` as it lies on disk. Out: the posterior that `text.onnx`
computes, up to rounding. Matrices stay int8 until they are used, of the words only the rows asked for are read.
Sources: `../models/minilm.py`, `../models/heads.py`, written out once more without torch; a test holds them equal.
Next: `load_model.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.matmul import FEWEST_ROWS, ONE_THREAD_PRODUCTS
from indexer.base.safetensors_header import TensorPlace, tensor_places
from indexer.base.types import Float32Array, Posterior

HEAD_WIDTH: Final = 32  # of the attention
EPSILON: Final = 1e-12
MASKED: Final = np.float32(-1e4)
KINDS: Final[dict[str, np.dtype[Any]]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I8": np.dtype("i1")}


class NumpyTextEncoder:
    """Weights are read at the first text and kept as they are stored."""

    def __init__(self, weights: Path) -> None:
        self._file = weights
        self._places: dict[str, TensorPlace] = {}
        self._kept: dict[str, NDArray[Any]] = {}

    def encode(self, ids: NDArray[np.int64]) -> Posterior:
        """Token ids `[n, t]` -> posteriors `[n, d]`. Raises: OSError, KeyError, ValueError: the file is another's."""
        mask = ids != 0  # [n, t]
        x = self._words(ids) + self._tensor("transformer.positions.weight")[: ids.shape[1]]
        x = self._norm(x, "transformer.norm")
        layer = 0
        while f"encoders.text.transformer.layers.{layer}.query.bias" in self._places:
            x = self._layer(x, mask, f"transformer.layers.{layer}.")
            layer += 1
        features = self._pooled(x, mask)  # [n, w]
        x = (features - self._tensor("head.mean")) / self._tensor("head.spread")
        h = _gelu(self._linear(x, "head.hidden"))
        mu = self._linear(h, "head.mu") + self._linear(x, "head.linear")
        logvar = -np.logaddexp(0, self._linear(h, "head.logvar"))
        return Posterior(mu.astype(np.float32), logvar.astype(np.float32))

    def _layer(self, x: Float32Array, mask: NDArray[np.bool_], name: str) -> Float32Array:
        n, t, w = x.shape
        heads = (n, t, w // HEAD_WIDTH, HEAD_WIDTH)
        q, k, v = (self._linear(x, name + part).reshape(heads).swapaxes(1, 2) for part in ("query", "key", "value"))
        scores = (q @ k.swapaxes(2, 3)) * np.float32(HEAD_WIDTH**-0.5)  # [n, heads, t, t]
        attended = _softmax(np.where(mask[:, None, None, :], scores, MASKED), -1) @ v
        attended = attended.swapaxes(1, 2).reshape(n, t, w)
        x = self._norm(x + self._linear(attended, name + "out"), name + "norm_attention")
        return self._norm(x + self._linear(_gelu(self._linear(x, name + "up")), name + "down"), name + "norm_out")

    def _pooled(self, x: Float32Array, mask: NDArray[np.bool_]) -> Float32Array:
        n, t, w = x.shape
        scores = np.where(mask[:, :, None], self._linear(x, "pool.score"), MASKED)  # [n, t, g]
        weights = _softmax(scores, 1)[..., None]
        pooled: Float32Array = (weights * x.reshape(n, t, -1, w // scores.shape[2])).sum(1).reshape(n, w)
        return pooled

    def _linear(self, x: Float32Array, name: str) -> Float32Array:
        """Rows of int8 become float32 a slice at a time, which stays in the cache, and is so small that OpenBLAS leaves
        it to one thread: half the time of whole matrices, and on a busy machine a tenth, where its threads wait. The
        few tokens stand on the right of the product: on the left they cost a quarter more."""
        weight = self._raw(f"{name}.weight")  # [out, in]
        columns = x.reshape(-1, x.shape[-1]).T  # [in, n * t]
        out = np.empty((len(weight), columns.shape[1]), np.float32)
        step = max(FEWEST_ROWS, ONE_THREAD_PRODUCTS // max(1, columns.size) // FEWEST_ROWS * FEWEST_ROWS)
        for start in range(0, len(weight), step):
            part = weight[start : start + step].astype(np.float32)
            np.matmul(part, columns, out=out[start : start + step])
        if self._has(f"{name}.weight::scale"):
            out *= self._raw(f"{name}.weight::scale")[:, None]
        if self._has(f"{name}.bias"):
            out += self._tensor(f"{name}.bias")[:, None]
        return np.ascontiguousarray(out.T).reshape(*x.shape[:-1], -1)

    def _norm(self, x: Float32Array, name: str) -> Float32Array:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(EPSILON))
        normed: Float32Array = centred / spread * self._tensor(f"{name}.weight") + self._tensor(f"{name}.bias")
        return normed

    def _words(self, ids: NDArray[np.int64]) -> Float32Array:
        """The rows of the embedding that are asked for, `[n, t, w]`."""
        name = "transformer.words.weight"
        place, wanted = self._place(name), np.array(sorted(set(ids.ravel().tolist())))  # np.unique loads numpy.ma
        kind, width = KINDS[place.dtype], place.shape[1]
        if wanted[-1] >= place.shape[0]:
            raise ValueError(f"token {wanted[-1]} of a vocabulary of {place.shape[0]}")
        rows = np.empty((len(wanted), width), np.float32)
        with self._file.open("rb") as file:
            for row, number in zip(rows, wanted.tolist(), strict=True):
                file.seek(place.start + number * width * kind.itemsize)
                row[:] = np.frombuffer(file.read(width * kind.itemsize), kind)
        if self._has(f"{name}::scale"):
            rows *= self._raw(f"{name}::scale")[wanted, None]
        return rows[np.searchsorted(wanted, ids)]

    def _tensor(self, name: str) -> Float32Array:
        return np.asarray(self._raw(name), np.float32)

    def _raw(self, name: str) -> NDArray[Any]:
        if name not in self._kept:
            place = self._place(name)
            with self._file.open("rb") as file:
                file.seek(place.start)
                data = file.read(place.size_bytes)
            self._kept[name] = np.frombuffer(data, KINDS[place.dtype]).reshape(place.shape)
        return self._kept[name]

    def _has(self, name: str) -> bool:
        return f"encoders.text.{name}" in self._places

    def _place(self, name: str) -> TensorPlace:
        self._places = self._places or tensor_places(self._file)
        return self._places[f"encoders.text.{name}"]


def _softmax(scores: Float32Array, axis: int) -> Float32Array:
    powers = np.exp(scores - scores.max(axis, keepdims=True))
    shares: Float32Array = powers / powers.sum(axis, keepdims=True)
    return shares


def _gelu(x: Float32Array) -> Float32Array:
    """The exact one, `x Phi(x)`; erf after Abramowitz & Stegun 7.1.26, wrong by at most 1.5e-7."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    return np.asarray(0.5 * x * (1 + erf), np.float32)
