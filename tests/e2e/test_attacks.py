"""Whatever somebody gives away, commands treat it as data: every edit of `tests/attacks`, met by command after command.

For each: nothing outside of the library changes, nothing private is read, no code runs, no socket is opened, at most
ten seconds and 1 GB, an exit code from 0 to 3, one line without "unexpected". `python -m tests.bench.fuzz` goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.edits import EDITS
from tests.attacks.stage import Stage, state_of


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("attacks") / "stage") as made:
        yield made


def commands(stage: Stage, turn: int) -> list[list[str | Path]]:
    """What opens a library in every way, and two by turns of what else is done with one."""
    always: list[list[str | Path]] = [["status"], ["search", "red", "--json"], ["index", stage.photos]]
    others: list[list[str | Path]] = [
        ["doctor"], ["doctor", "--repair"], ["rebuild", "--model", "other"], ["backup", stage.dest],
        ["export", stage.dest], ["errors"], ["similar", stage.photos / "red.png"], ["prune"], ["index", stage.more],
        ["search", "red"], ["relocate", stage.photos, stage.more],
    ]  # fmt: skip
    return always + [others[(2 * turn + one) % len(others)] for one in range(2)]


@pytest.mark.parametrize("name", EDITS)
def test_what_is_given_gives_no_orders(stage: Stage, name: str) -> None:
    wrong = []
    for command in commands(stage, list(EDITS).index(name)):
        stage.reset(given=True)
        EDITS[name](stage)
        real = "model" in name  # who may load one is asked of the real loader
        named = ["default" if word == "other" and real else word for word in command]
        wrong += stage.attack(*named, fake=not real)
    assert not wrong, "\n".join(wrong)


def test_the_stage_sees_what_it_looks_for(stage: Stage) -> None:
    """A command that does everything that must not be is told of everything."""
    stage.reset(given=True)
    assert any("it reads" in one for one in stage.attack("similar", stage.outside / "private" / "secret.png"))
    before = state_of(stage.outside)
    (stage.outside / "victim").write_bytes(b"yours")
    assert before != state_of(stage.outside)
