"""The model that ships, from a cold shell: quick, without torch, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mmsearch
from tests.e2e.processes import environment, imported_by, seconds_of
from tests.fakes import paint

MODEL = Path(mmsearch.__file__).parent / "pretrained" / "default" / "model.json"
HEAVY = {"torch", "sentence_transformers", "transformers"}

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason="this checkout holds no default model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        paint(tmp_path / "photos" / f"{colour}.jpg", colour, (320, 240), seed=number)
    (tmp_path / "photos" / "note.txt").write_text("a dog running on the beach", encoding="utf-8")
    return tmp_path / "photos"


def test_index_and_search_without_torch_or_a_network(home: Path, photos: Path) -> None:
    no_network = "import socket; socket.socket.connect = None; from mmsearch import cli; "
    index = f"{no_network} assert cli.main(['index', {str(photos)!r}, '--json']) == 0"
    assert imported_by(home, index, HEAVY) == set()
    search = f"{no_network} assert cli.main(['search', 'a dog on the beach', '--in', 'text']) == 0"
    assert imported_by(home, search, HEAVY | {"rich", "alembic"}) == set()


def test_a_cold_search_takes_less_than_a_second_and_a_half(home: Path, photos: Path) -> None:
    program, env = [sys.executable, "-m", "mmsearch.cli"], environment(home)
    subprocess.run([*program, "index", str(photos)], env=env, check=True, capture_output=True, timeout=120)
    search = [*program, "search", "a dog on the beach", "--json"]
    answer = subprocess.run(search, env=env, check=True, capture_output=True, timeout=120)
    hits = json.loads(answer.stdout)["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert hits[0]["text"] == "a dog running on the beach"
    assert seconds_of(search, env) < 1.5
