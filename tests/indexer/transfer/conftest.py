"""A library with everything in it, and its archive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.crashing import ingest
from tests.indexer.folders import fill
from tests.indexer.test_crash import Crash, crash_at


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with everything in it, half way to another model, and its archive, both ways."""
    folder = tmp_path_factory.mktemp("made")
    fill(folder / "photos")
    paint(folder / "photos" / "gone.png", "red", seed=50)
    shutil.copy(folder / "photos" / "p00.png", folder / "photos" / os.fsdecode(b"caf\xe9.png"))
    ingest(folder / "library", folder / "photos", FakeEncoder())
    (folder / "photos" / "gone.png").unlink()
    ingest(folder / "library", folder / "photos", FakeEncoder())
    with pytest.MonkeyPatch.context() as patch, Store.open(folder / "library") as store:
        with crash_at(patch, 6, after=True), pytest.raises(Crash):
            store.rebuild(FakeEncoder(name="other", seed=4, dim=24), batch_size=4)
        store.export(folder / "archive")
        store.export(folder / "archive.tar")
    return folder


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "archive", tmp_path / "archive")
    return tmp_path / "archive"
