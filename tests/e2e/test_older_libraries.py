"""The command line on libraries that earlier versions wrote: every command works, and `index` encodes nothing again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsearch.cli.options import EXIT_ERROR, EXIT_SKIPPED
from tests.e2e import runner
from tests.e2e.conftest import Run
from tests.frozen import LIBRARIES, RECORDED, Frozen


@pytest.fixture(params=LIBRARIES, ids=lambda one: one.name)
def frozen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Frozen:
    monkeypatch.setitem(runner.SEEDS, "fake", 0)  # the name of the model in them
    return request.param


@pytest.fixture
def photos(frozen: Frozen, home: Path) -> Path:
    """The library is this user's own; the photos have moved, and the library was told."""
    frozen.unpack(home)
    return home / "photos"


def test_every_command(frozen: Frozen, photos: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ("--library", photos.parent / "library")
    assert run("relocate", RECORDED, photos, *library).code == 0
    status = run("status", "--json", *library)
    assert status.code == 0, status.err
    assert json.loads(status.out)["images"] == frozen.images

    unnamed = run("index", photos, *library)  # earlier versions kept no account of what was named
    assert unnamed.code == EXIT_ERROR
    assert "never named here, called 'fake'" in unnamed.err
    assert run("search", "red", "--model", "fake", *library).code == 0
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    index = run("index", photos, "--json", *library)
    assert index.code == EXIT_SKIPPED, index.err
    assert (json.loads(index.out)["encoded"], json.loads(index.out)["unchanged"]) == (0, frozen.images + frozen.texts)
    assert not log.exists()

    search = run("search", "red", "-k", "3", "--in", "image", "--json", *library)
    assert search.code == 0, search.err
    assert {Path(hit["path"]).name for hit in hits(search.out)} == {"red-0.png", "red-1.png", "red-2.png"}
    similar = run("similar", photos / "blue-0.png", "-k", "2", "--in", "image", "--json", *library)
    assert {Path(hit["path"]).name for hit in hits(similar.out)} == {"blue-1.png", "blue-2.png"}, similar.err
    doctor = run("doctor", *library)
    assert doctor.code == 0, doctor.out
    for command in ("backup", "export"):
        copied = run(command, tmp_path / command, *library)
        assert copied.code == 0, copied.err
    again = run("search", "red", "-k", "3", "--in", "image", "--json", "--library", tmp_path / "backup")
    assert hits(again.out) == hits(search.out)


def hits(out: str) -> list[dict[str, str]]:
    return json.loads(out)["hits"]
