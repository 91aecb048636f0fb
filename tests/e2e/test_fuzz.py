"""Every fuzzer for a few seconds, from a new seed in each run; `python -m tests.bench.fuzz` goes on for hours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.fuzzers import FUZZERS
from tests.attacks.stage import Stage
from tests.bench.fuzz import fuzz

EACH_S = 4.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("fuzz") / "stage") as made:
        yield made


@pytest.mark.parametrize("name", FUZZERS)
def test_nothing_at_random_gives_orders(stage: Stage, name: str) -> None:
    cases, found = fuzz(stage, name, EACH_S, seed=time.time_ns() % 10**9)
    assert cases > 0
    assert not found, "python -m tests.bench.fuzz " + "\n".join(found)


def test_a_case_is_made_again_by_its_seed(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        made = []
        for _ in range(2):
            fuzz(stage, "index", 0, seed=1, first=3, most=1)
            made.append([path.read_bytes() for path in sorted((stage.library / "vectors").iterdir())])
    assert made[0] == made[1]
