"""Many texts at once: the answers are those of one by one, from Python and from the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

import pytest

from mmsearch import Library
from mmsearch.cli import app as cli
from mmsearch.config import Config
from mmsearch.errors import LibraryNotFound, QueryError
from tests.e2e.runner import load_fake
from tests.fakes import COLOURS, FakeEncoder, paint

QUERIES = ["red", "a blue thing", "green wall", "red"]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mmsearch.model_choice.load_encoder", load_fake)
    for number, colour in enumerate(COLOURS):
        paint(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    (tmp_path / "photos" / "note.txt").write_text("words alone")
    with Library.open() as opened:
        opened.index(tmp_path / "photos")
        return opened.path


def test_the_answers_are_those_of_one_by_one(library: Path) -> None:
    with Library.open(library) as opened:
        for within in (None, "image", "text"):
            together = opened.search_many(QUERIES, k=3, within=within)
            assert [[(hit.path, hit.rank, hit.score) for hit in hits] for hits in together] == [
                [(hit.path, hit.rank, hit.score) for hit in opened.search(text, k=3, within=within)] for text in QUERIES
            ]
        assert together[0][0].modality == "text"
        assert opened.search_many([]) == []


def test_one_batch_for_the_model(library: Path) -> None:
    encoder = FakeEncoder(name="default")
    with Library.open(library, model=encoder) as opened:
        opened.search_many(QUERIES)
    assert encoder.text_batches == [len(QUERIES)]


def test_what_cannot_be_answered(library: Path, tmp_path: Path) -> None:
    with Library.open(library) as opened:
        with pytest.raises(QueryError, match="empty"):
            opened.search_many(["red", " "])
        with pytest.raises(QueryError, match="k is 0"):
            opened.search_many(["red"], k=0)
    with pytest.raises(LibraryNotFound), Library.open(tmp_path / "none") as nothing:
        nothing.search_many(["red"])


def test_the_command_line(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "queries.txt").write_text("red\n\n  a blue thing \n")
    assert cli.main(["search", "--queries", str(tmp_path / "queries.txt"), "--json", "-k", "2"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["query"], len(line["hits"])) for line in lines] == [("red", 2), ("a blue thing", 2)]
    assert Path(lines[0]["hits"][0]["path"]).name == "red.png"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"green\nwhite\n")))
    assert cli.main(["search", "--queries", "-", "--paths", "-k", "1"]) == 0
    assert [Path(line).name for line in capfd.readouterr().out.splitlines()] == ["green.png", "white.png"]
    assert cli.main(["search", "--queries", str(tmp_path / "queries.txt")]) == 0
    assert capfd.readouterr().out.splitlines()[0] == "red"


def test_wrong_use_is_one_line(library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    assert cli.main(["search", "--queries", str(tmp_path / "empty.txt")]) == 1
    assert "nothing found" in capfd.readouterr().err
    for arguments in (["red", "--queries", "x"], ["--queries", str(tmp_path / "none.txt")]):
        assert cli.main(["search", *arguments]) == 2
        assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("form", "device", "asked"),
    [("auto", "cuda", "flat"), ("cagra", "cuda", "cagra"), ("off", "cuda", None), ("flat", "cpu", None)],
)
def test_on_a_gpu_in_the_form_that_is_configured(
    library: Path, form: Literal["auto", "cagra", "off", "flat"], device: Literal["cuda", "cpu"], asked: str | None
) -> None:
    pytest.importorskip("faiss")
    from tests import gpu_stand_in

    with Library.open(library, device="cpu") as opened:
        expected = opened.search_many(QUERIES, k=3)
    with (
        gpu_stand_in.installed(cuvs=True) as calls,
        Library.open(library, device=device, config=Config(gpu_index=form)) as opened,
    ):
        assert opened.search_many(QUERIES, k=3) == expected
    assert {name for name, _, _ in calls} <= {asked}
    assert bool(calls) == (asked == "flat")  # for few files a graph is not asked
