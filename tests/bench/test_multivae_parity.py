"""Our objectives against those of the package `multivae`: one batch, the same weights, the same noise.

Runs with `make bench` where the package is installed; `multivae_parity.py` says how.
"""

from __future__ import annotations

import pytest

from tests.bench.multivae_models import NAMES, Name, disagreement, import_multivae
from tests.bench.multivae_parity import PACKAGES

pytestmark = pytest.mark.skipif(not (PACKAGES / "multivae").is_dir(), reason=f"no multivae in {PACKAGES}")


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_agree_when_the_conventions_do(name: Name) -> None:
    loss, gradient = disagreement(import_multivae(PACKAGES), name)
    assert abs(loss) < 1e-6  # the package weighs subsets and counts modalities in float32
    assert gradient < 1e-6  # the package weighs subsets and counts modalities in float32


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_own_conventions_are_another_objective(name: Name) -> None:
    loss, _ = disagreement(import_multivae(PACKAGES), name, "package")
    assert abs(loss) > 1e-2
