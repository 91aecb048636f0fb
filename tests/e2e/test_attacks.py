"""Whatever somebody gives away, commands treat it as data: every edit of `tests/attacks`, by every command that meets it.

For each: nothing outside of the library changes, nothing private is read, no code runs, no socket is opened, at most
ten seconds and 1 GB, an exit code from 0 to 3, one line without "unexpected". `python -m tests.bench.fuzz` goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.edits import EDITS
from tests.attacks.stage import Stage

READING = (["status"], ["search", "red", "--json"], ["errors"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("attacks") / "stage") as made:
        yield made


def commands(stage: Stage) -> tuple[list[str | Path], ...]:
    """Every command that opens a library or reads a folder."""
    return (
        ["status"], ["search", "red"], ["search", "red", "--json"], ["similar", stage.photos / "red.png"], ["errors"],
        ["index", stage.photos], ["index", stage.more], ["doctor"], ["doctor", "--repair"],
        ["rebuild", "--model", "other"], ["prune"], ["backup", stage.dest], ["export", stage.dest],
        ["relocate", stage.photos, stage.more],
    )  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_what_is_given_gives_no_orders(stage: Stage, name: str) -> None:
    wrong = []
    for command in commands(stage):
        stage.reset(given=True)
        EDITS[name](stage)
        wrong += stage.attack(*command)
    assert wrong == []
