"""Hubness of an item: how near it is to any query at all. Its score is reduced by that (QB-Norm).

In a space of many dimensions some items are among the nearest of very many queries: hubs (Radovanović, Nanopoulos &
Ivanović 2010, "Hubs in space", https://jmlr.org/papers/v11/radovanovic10a.html). A model trained by InfoNCE has learned
`p(query | item)`, a softmax over queries; a search by cosine alone leaves out its denominator, which is large for a
hub. Here it is taken over a bank of queries that the model was trained with: the inverted softmax (Smith et al. 2017,
https://arxiv.org/abs/1702.03859), in retrieval QB-Norm (Bogolin et al. 2022, https://arxiv.org/abs/2112.12777).

In: items `[n, d]`. Out: their hubness `[n]`, on the scale of cosines, 0 on average. Next: `live_index.py`, which ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np

from indexer.base.matmul import products
from indexer.base.types import Float32Array, Modality
from indexer.vectors.protocol import normalised

ROWS_AT_ONCE: Final = 4096
FEW: Final = 64  # at once, of what one search finds: small enough for `products` to leave OpenBLAS's threads asleep


@dataclass(frozen=True, eq=False)
class QueryBank:
    """What is usually asked, in clusters of like queries.

    Attributes:
        modality: of the queries; what they correct are the scores of items of the other one.
        centres: the mean of the unit vectors of each cluster, float32 `[q, d]`; shorter than one.
        shares: of all queries in each cluster, float32 `[q]`.
        sharpness: the inverse temperature of the softmax.
        level: hubness of the average item that the model was trained with; taken off, so that scores stay comparable.
    """

    modality: Modality
    centres: Float32Array
    shares: Float32Array
    sharpness: float
    level: float = 0.0

    def hubness(self, items: Float32Array) -> Float32Array:
        """Vectors of any length, `[n, d]` -> float32 `[n]`: `log(sum(shares * exp(b * cosine))) / b - level`."""
        if not len(items):
            return np.empty(0, np.float32)
        units = normalised(items, self.centres.shape[1])
        distinct, back = np.unique(units.view(f"V{units.itemsize * units.shape[1]}")[:, 0], return_inverse=True)
        rows = distinct.view(np.float32).reshape(len(distinct), -1)  # equal items get equal numbers, to the last bit
        logs = np.log(np.maximum(self.shares, 1e-12))
        found = np.empty(len(rows), np.float32)
        step = FEW if len(rows) <= 8 * FEW else ROWS_AT_ONCE
        for start in range(0, len(rows), step):
            powers = self.sharpness * products(rows[start : start + step], self.centres) + logs  # [n, q]
            most = powers.max(axis=1)
            sums = np.exp(powers - most[:, None]).sum(axis=1)
            found[start : start + step] = (most + np.log(sums)) / self.sharpness - self.level
        return np.asarray(found[back.reshape(-1)], np.float32)


@runtime_checkable
class KnowsQueries(Protocol):
    """An encoder that was shipped with the queries it was trained with."""

    def query_bank(self, modality: Modality) -> QueryBank | None:
        """The bank of queries of one modality; None where there is none."""


def bank_of(encoder: object, modality: Modality) -> QueryBank | None:
    """The bank of an encoder that may know none."""
    return encoder.query_bank(modality) if isinstance(encoder, KnowsQueries) else None
