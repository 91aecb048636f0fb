"""The model that ships, from a cold shell: quick, without torch, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmsearch
from indexer.search.query_bank import bank_of
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
    no_network = "import socket; socket.socket.connect = None; from mmsearch.cli import app as cli; "
    index = f"{no_network} assert cli.main(['index', {str(photos)!r}, '--json']) == 0"
    assert imported_by(home, index, HEAVY) == set()
    search = f"{no_network} assert cli.main(['search', 'a dog on the beach', '--in', 'text']) == 0"
    assert imported_by(home, search, HEAVY | {"rich", "alembic"}) == set()


def test_nothing_is_written_outside_of_our_own_home(home: Path, photos: Path, tmp_path: Path) -> None:
    """ONNX Runtime would write a device id below `~/.cache`, and look a host up."""
    (tmp_path / "person").mkdir()
    env = environment(home, HOME=str(tmp_path / "person"))
    env.pop("ORT_DISABLE_TELEMETRY", None)
    for arguments in (["index", str(photos)], ["search", "a dog"], ["doctor"]):
        subprocess.run([sys.executable, "-m", "mmsearch", *arguments], env=env, check=True, capture_output=True)
    assert list((tmp_path / "person").rglob("*")) == []


def test_scores_are_cosines_less_what_is_near_to_any_words(home: Path, photos: Path) -> None:
    model = mmsearch.load_model("default", "cpu")
    with mmsearch.Library.open(home / "library", model=model) as library:
        library.index(photos)
        hits = library.search("something red", k=9, within="image")
    bank = bank_of(model, "text")
    assert bank is not None
    query, means = model.embed_texts(["something red"]).mu, model.embed_images([hit.path for hit in hits]).mu
    cosines = (means @ query[0]) / np.linalg.norm(means, axis=1) / np.linalg.norm(query)
    hubness = bank.hubness(means)
    assert np.abs(hubness).min() > 0.01
    np.testing.assert_allclose([hit.score for hit in hits], cosines - hubness, atol=2e-3)  # stored in float16


def test_a_cold_search_takes_less_than_a_second_and_a_half(home: Path, photos: Path) -> None:
    program, env = [sys.executable, "-m", "mmsearch"], environment(home)
    subprocess.run([*program, "index", str(photos)], env=env, check=True, capture_output=True, timeout=120)
    search = [*program, "search", "a dog on the beach", "--json"]
    answer = subprocess.run(search, env=env, check=True, capture_output=True, timeout=120)
    hits = json.loads(answer.stdout)["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert hits[0]["text"] == "a dog running on the beach"
    assert seconds_of(search, env) < 1.5
