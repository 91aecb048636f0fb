"""Products in slices are products."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.base.matmul import products


@pytest.mark.parametrize(("asked", "rows"), [(1, 1), (1, 5000), (3, 700), (200, 900), (300, 4000), (0, 9), (4, 0)])
def test_products_in_slices_are_products(asked: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((asked, 64)).astype(np.float32)
    vectors = rng.standard_normal((rows, 64)).astype(np.float32)
    np.testing.assert_allclose(products(queries, vectors), queries @ vectors.T, atol=1e-4)
