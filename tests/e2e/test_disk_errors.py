"""A disk that fails once, at some call of some command: one line, nothing set aside, and the next run arrives."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.base.disk_errors import NO_INODES
from tests.e2e.conftest import Run
from tests.e2e.disk import Disk
from tests.e2e.disk_errors import Scenes, sample
from tests.e2e.failing_disk import FailingDisk


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    folder = tmp_path_factory.mktemp("failing")
    with closing(FailingDisk(folder)) as disk:
        yield Scenes(folder / "scenes", disk)


@pytest.mark.parametrize("command", ["doctor", "repair", "search"])
def test_one_read_that_fails_condemns_nothing(scenes: Scenes, command: str) -> None:
    reads = scenes.count(command, "pread")
    assert reads
    scenes.fail(command, "pread", max(1, reads - 1), errno.EIO)


def test_some_of_all_errors(scenes: Scenes) -> None:
    """`python -m tests.bench.disk_errors` makes hundreds."""
    assert sum(sample(scenes, random.Random(8), 4).values()) == 4


def test_a_library_without_free_inodes(run: Run, photos: Path, disk: Disk) -> None:
    library = disk.path / "library"
    assert run("index", photos, "--library", library).code == 0
    asked = (("search", "red", "--json"), ("errors",), ("doctor", "--sample", "0"))
    expected = [run(*one, "--library", library) for one in asked]
    disk.use_up_inodes()
    assert [run(*one, "--library", library) for one in asked] == expected
    (photos / "new.txt").write_text("words")
    answer = run("index", photos, "--library", library)
    assert answer.code == 2
    assert NO_INODES.what in answer.err
    assert NO_INODES.remedy in answer.err
    assert len(answer.err.splitlines()) == 1
    disk.clear()
    assert run("index", photos, "--library", library).code == 0
    assert run("doctor", "--library", library).code == 0
