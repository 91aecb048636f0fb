"""Loaded files to vectors, one a file: a text, a picture, or several frames of an animation or a video.

In: what was loaded. Out: blobs for the catalog, and of a video those of its keyframes. Frames are not experts that each
add evidence about one scene, as a photo and its captions are: they show what comes one after another. So they mix with
equal weight, and the Gaussian with the mixture's mean and variance stands for it (MMVAE's mixture of experts, Shi et
al. 2019, https://arxiv.org/abs/1911.03393, matched by moments). Next: `batches.py`, which stores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from indexer.base.types import Encoder, Posterior
from indexer.catalog.vectors import Blobs, to_blobs
from indexer.ingest.loader import Loaded

MAX_LOGVAR = -1e-3  # below the prior's, so that the file still counts as an expert beside its captions


def encode(encoder: Encoder, loaded: Sequence[Loaded]) -> list[Blobs]:
    """Encode texts and pictures -> blobs, one a file, in their order."""
    texts = [one.text for one in loaded if one.text is not None]
    pictures = [one for one in loaded if one.pixels is not None]
    of_texts = iter(to_blobs(encoder.encode_texts(texts)) if texts else ())
    of_pictures = iter(encode_pictures(encoder, pictures) if pictures else ())
    return [next(of_texts if one.text is not None else of_pictures) for one in loaded]


def encode_pictures(encoder: Encoder, loaded: Sequence[Loaded]) -> list[Blobs]:
    """Encode pictures with all their frames -> blobs, one a file, in batches of about as many frames as files."""
    files = [[one.pixels, *(() if one.later is None else one.later)] for one in loaded if one.pixels is not None]
    frames, counts = [frame for file in files for frame in file], [len(file) for file in files]
    size = max(1, len(loaded))
    parts = [encoder.encode_images(np.stack(frames[start : start + size])) for start in range(0, len(frames), size)]
    whole = Posterior(np.concatenate([one.mu for one in parts]), np.concatenate([one.logvar for one in parts]))
    if len(frames) == len(counts) and not any(one.picture and one.picture.times_s for one in loaded):
        return to_blobs(whole)
    blobs, ends = to_blobs(mixture(whole, counts)), np.cumsum(counts)
    for row, one in enumerate(loaded):
        times_s = one.picture.times_s if one.picture else ()
        if times_s:
            mus = whole.mu[ends[row] - counts[row] : ends[row]].astype(np.float16)  # [f, d]
            moments = ((round(1000 * time_s), mu.tobytes()) for time_s, mu in zip(times_s, mus, strict=True))
            blobs[row] = replace(blobs[row], frames=tuple(moments))
    return blobs


def mixture(frames: Posterior, counts: Sequence[int]) -> Posterior:
    """Posteriors of frames `[sum(counts), d]`, file after file -> one a file `[len(counts), d]`."""
    mu, logvar = np.empty((len(counts), frames.mu.shape[1]), np.float32), np.empty_like(frames.mu[: len(counts)])
    start = 0
    for row, count in enumerate(counts):
        part = frames[start : start + count]
        start += count
        if count == 1:
            mu[row], logvar[row] = part.mu[0], part.logvar[0]
            continue
        mean = part.mu.mean(axis=0)
        variance = np.exp(part.logvar).mean(axis=0) + part.mu.var(axis=0)
        mu[row], logvar[row] = mean, np.minimum(np.log(variance), MAX_LOGVAR)
    return Posterior(mu, logvar)
