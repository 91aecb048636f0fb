"""Fusing and gathering posteriors in numpy, for every path that has no torch.

In: `Posterior`s. Out: one `Posterior`. The same product stands in `models/gaussian.py` for training; a test keeps the
two equal. Next: `load_model.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from indexer.base.types import Encoder, Posterior, UInt8Array
from mmsearch.errors import CheckpointError, MMSearchError
from mmsearch.inference.pictures import Picture, to_image

_BATCH = 32


@contextlib.contextmanager
def one_line_for(name: str) -> Iterator[None]:
    """Whatever a model's packages raise within, as a `CheckpointError` of one line."""
    try:
        yield
    except (MMSearchError, MemoryError, ImportError):
        raise
    except Exception as error:  # onnxruntime, torch and tokenizers have no base class in common
        if type(error).__name__ == "OutOfMemoryError":  # of a GPU: the model is not to blame
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"model {name!r} cannot encode this ({first}); copy the model again") from error


def product_of_experts(posteriors: Sequence[Posterior]) -> Posterior:
    """Exact product with the prior N(0, I): precision `1 + sum_m (1/sigma_m^2 - 1)`.

    Equation 4 of Wu & Goodman 2018, https://arxiv.org/abs/1802.05335.

    Args:
        posteriors: of the modalities present, each `[n, d]`.

    Raises:
        ValueError: where none is given.
    """
    if not posteriors:
        raise ValueError("nothing to fuse; give at least one posterior")
    precisions = [np.exp(-p.logvar) for p in posteriors]
    precision = sum(precisions[1:], precisions[0]) - np.float32(len(posteriors) - 1)  # [n, d], the prior counted once
    weighted = [p.mu * precision_m for p, precision_m in zip(posteriors, precisions, strict=True)]
    mu = sum(weighted[1:], weighted[0]) / precision
    return Posterior(mu.astype(np.float32), -np.log(precision).astype(np.float32))


def concatenate(parts: Sequence[Posterior], dim: int) -> Posterior:
    """Several posteriors as one `[n, d]`; none at all is `[0, d]`."""
    empty = np.zeros((0, dim), np.float32)
    return Posterior(
        np.concatenate([empty, *(p.mu for p in parts)]), np.concatenate([empty, *(p.logvar for p in parts)])
    )


def embed_images(encoder: Encoder, images: Sequence[Picture]) -> Posterior:
    """Pictures (paths, PIL images or uint8 arrays) -> posteriors `[n, d]`; decoding runs ahead in threads.

    Raises:
        DecodeError: a file that is not there, not a picture, or damaged.
        QueryError: an array of another type or shape.
    """
    with ThreadPoolExecutor() as pool:

        def submit(start: int) -> list[Future[UInt8Array]]:
            return [pool.submit(_prepared, encoder, picture) for picture in images[start : start + _BATCH]]

        parts, ahead = [], submit(0)
        for start in range(0, len(images), _BATCH):
            now, ahead = ahead, submit(start + _BATCH)  # one batch ahead: memory for two, however long the list
            parts.append(encoder.encode_images(np.stack([square.result() for square in now])))
        return concatenate(parts, encoder.dim)


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Posterior:
    """Strings -> posteriors `[n, d]`. Texts of like length are encoded together; the order of the rows is kept."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    batches = (order[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
    parts = [encoder.encode_texts([texts[i] for i in batch]) for batch in batches]
    return concatenate(parts, encoder.dim)[np.argsort(order)]


def _prepared(encoder: Encoder, picture: Picture) -> UInt8Array:
    return encoder.prepare_image(to_image(picture, encoder.side_px))
