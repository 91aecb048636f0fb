"""The nearest of very many centroids, without looking at all of them.

In: centroids. Out: for each vector the list it belongs to. Ten million vectors against six thousand centroids are ten
minutes of two cores; so the centroids are grouped, and a vector is held against those near its own group alone. One in
so many vectors ends in a list that is only nearly the nearest, which costs a little recall, and is measured with the
rest (`lists.py`). Next: `lists.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from indexer.base.types import Float32Array
from indexer.vectors.base import Int64Array, normalised

FEW: Final = 2500  # centroids; looking at all of them is quick enough
SHARE: Final = 4  # of the centroids, one in so many is near a group
ROUNDS: Final = 4


@dataclass(frozen=True, eq=False)
class Guide:
    """`groups` float32 `[g, d]` and `near` int64 `[g, s]`: the centroids a vector of each group is held against."""

    centroids: Float32Array
    groups: Float32Array
    near: Int64Array

    @classmethod
    def to(cls, centroids: Float32Array) -> Guide:
        """The way to `centroids` `[c, d]`: one group where they are few, else about the root of their number."""
        count, dim = centroids.shape
        if count <= FEW:
            return cls(centroids, np.zeros((1, dim), np.float32), np.arange(count)[None, :])
        rng = np.random.default_rng(0)
        groups = centroids[rng.choice(count, round(math.sqrt(count)), replace=False)]
        for _ in range(ROUNDS):
            sums = np.zeros_like(groups)
            np.add.at(sums, np.argmax(centroids @ groups.T, axis=1), centroids)
            groups = normalised(sums, dim)
        near = np.argpartition(-(groups @ centroids.T), count // SHARE, axis=1)[:, : count // SHARE]
        return cls(centroids, groups, near)

    def nearest(self, vectors: Float32Array) -> Int64Array:
        """The list of each of `vectors` `[n, d]`, int64 `[n]`."""
        found = np.empty(len(vectors), np.int64)
        if not len(vectors):
            return found
        group_of = np.argmax(vectors @ self.groups.T, axis=1)  # [n]
        order = np.argsort(group_of, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1):
            near = self.near[group_of[members[0]]]
            found[members] = near[np.argmax(vectors[members] @ self.centroids[near].T, axis=1)]
        return found
