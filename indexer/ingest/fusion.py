"""Photos that have captions, as one vector: the product of the photo's expert and its captions'.

In: photos whose fusion is missing. Out: a FUSED vector for each. Every caption is an expert of its own, its
mean as long as the photo's: `mmsearch eval --fusion` measures this against averages, and against captions pooled into
one expert, which find less. Next: `search/index_files.py`, where vectors become an index.
"""

from __future__ import annotations

import numpy as np

from indexer.base.failpoints import reach
from indexer.base.types import Posterior
from indexer.catalog import fused
from indexer.catalog.vectors import from_blobs, to_blobs
from indexer.ingest.run import Run

BATCH = 256


def caption_expert(photo: Posterior, captions: Posterior) -> Posterior:
    """The captions of one photo as one expert: their product with the prior N(0, I), over means as long as the photo's.

    Multiplied with the photo this is the product of all experts (Wu & Goodman 2018, equation 4,
    https://arxiv.org/abs/1802.05335): the product is associative. Training contrasts directions alone, which leaves the
    lengths of the means to chance; taken as they come, the shorter modality has the smaller say.

    Args:
        photo: `[1, d]`, whose length the means take; where it is zero they keep their own.
        captions: `[c, d]`, at least one.
    """
    precision = np.exp(-captions.logvar.astype(np.float64))  # [c, d]
    means = captions.mu.astype(np.float64)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)  # [c, 1]
    wanted = float(np.linalg.norm(photo.mu.astype(np.float64)))
    means *= np.where(lengths > 0, wanted, 1.0) / np.where(lengths > 0, lengths, 1.0) if wanted else 1.0
    product = 1 + (precision - 1).sum(axis=0, keepdims=True)  # [1, d]
    mu = (precision * means).sum(axis=0, keepdims=True) / product
    return Posterior(mu.astype(np.float32), -np.log(product).astype(np.float32))


def fuse_photos(run: Run) -> int:
    """Compute every missing fusion; how many. Commits each batch; what a crash leaves out is found missing again."""
    model = run.model
    with run.catalog.begin() as connection:
        pending = fused.unfused(connection, model)
    for start in range(0, len(pending), BATCH):
        with run.catalog.begin() as connection:
            photos = fused.photos(connection, model, pending[start : start + BATCH])
            experts = fused.experts(connection, model, list(photos))
        images = from_blobs(list(photos.values()), model.dim)  # [n, d]
        said = [
            caption_expert(images[i : i + 1], from_blobs(experts[photo_id], model.dim))
            for i, photo_id in enumerate(photos)
        ]
        texts = Posterior(np.concatenate([one.mu for one in said]), np.concatenate([one.logvar for one in said]))
        blobs = to_blobs(run.encoder.fuse([images, texts]))
        with run.catalog.begin() as connection:
            fused.store(connection, model, dict(zip(photos, blobs, strict=True)))
            reach("fusion.writing")
        reach("fusion.committed")
    return len(pending)
