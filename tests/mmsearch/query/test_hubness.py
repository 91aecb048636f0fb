"""A library searched with a model that knows what is usually asked: files near to everything no longer stand first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Modality
from indexer.search.query_bank import QueryBank
from mmsearch import Library
from mmsearch.config import Config
from tests.fakes import COLOURS, FakeEncoder, paint


class Asked(FakeEncoder):
    """Whose queries are mostly about two colours, in words and in pictures."""

    def query_bank(self, modality: Modality) -> QueryBank | None:
        usual = self.encode_texts(["grey", "white"]).mu
        centres = usual / np.linalg.norm(usual, axis=1, keepdims=True)
        return QueryBank(modality, centres.astype(np.float32), np.full(2, 0.5, np.float32), 15.0, level=0.1)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    for number, colour in enumerate(COLOURS):
        paint(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    (tmp_path / "photos" / "note.txt").write_text("grey words alone")
    (tmp_path / "photos" / "other.txt").write_text("something red")
    return tmp_path / "photos"


@pytest.fixture
def libraries(photos: Path) -> Iterator[tuple[Library, Library]]:
    """The same library with a model that knows no queries, and with one that does."""
    with Library.open(model=FakeEncoder(), config=Config()) as plain:
        plain.index(photos)
        with Library.open(model=Asked(), config=Config()) as asked:
            yield plain, asked


def scores(library: Library, *question: object, **options: object) -> dict[str, float]:
    return {hit.path.name: hit.score for hit in library.search(*question, k=20, **options)}  # type: ignore[arg-type]


def hubness_of_text(path: Path) -> float:
    """For searches by a picture."""
    encoder = Asked()
    bank = encoder.query_bank("image")
    assert bank is not None
    return float(bank.hubness(encoder.encode_texts([path.read_text()]).mu)[0])


def test_words_are_answered_by_what_is_not_near_to_all_words(libraries: tuple[Library, Library]) -> None:
    plain, asked = libraries
    before, after = scores(plain, "grey and red", within="image"), scores(asked, "grey and red", within="image")
    assert before.keys() == after.keys()
    taken = {name: before[name] - after[name] for name in before}
    assert min(taken, key=lambda name: -taken[name]) in ("grey.png", "white.png")
    assert list(after.values()) == sorted(after.values(), reverse=True)
    assert before["grey.png"] - before["red.png"] > after["grey.png"] - after["red.png"] + 0.1


def test_texts_are_not_corrected_for_words(libraries: tuple[Library, Library]) -> None:
    plain, asked = libraries
    assert scores(plain, "grey and red", within="text") == scores(asked, "grey and red", within="text")
    mixed = scores(asked, "grey and red")
    assert mixed["note.txt"] == scores(plain, "grey and red")["note.txt"]
    assert mixed["grey.png"] == scores(asked, "grey and red", within="image")["grey.png"]


def test_a_picture_corrects_texts_and_no_pictures(libraries: tuple[Library, Library], photos: Path) -> None:
    plain, asked = libraries
    before, after = scores(plain, None, photos / "red.png"), scores(asked, None, photos / "red.png")
    for name in before:
        off = hubness_of_text(photos / name) if name.endswith("txt") else 0.0
        assert before[name] - after[name] == pytest.approx(off, abs=2e-3)  # the library keeps means in float16
    assert abs(hubness_of_text(photos / "note.txt")) > 0.1


def test_words_with_a_picture_are_by_cosine(libraries: tuple[Library, Library], photos: Path) -> None:
    plain, asked = libraries
    assert scores(plain, "grey", photos / "red.png") == scores(asked, "grey", photos / "red.png")


def test_files_like_a_file_are_those_of_a_search_for_it(libraries: tuple[Library, Library], photos: Path) -> None:
    plain, asked = libraries
    for name, question in (("red.png", (None, photos / "red.png")), ("other.txt", ("something red", None))):
        similar = {hit.path.name: hit.score for hit in asked.similar(photos / name, k=20)}
        searched = scores(asked, *question)
        assert similar.keys() == searched.keys() - {name}
        for other, score in similar.items():  # the library keeps means in float16
            assert score == pytest.approx(searched[other], abs=2e-3)
    like_a_photo = [
        {hit.path.name: hit.score for hit in one.similar(photos / "red.png", k=20)} for one in (plain, asked)
    ]
    taken = {name: like_a_photo[0][name] - like_a_photo[1][name] for name in like_a_photo[0]}
    assert abs(taken["note.txt"]) > 0.1
    assert all(off == 0 for name, off in taken.items() if name.endswith("png"))


def test_many_texts_at_once_are_ranked_alike(libraries: tuple[Library, Library]) -> None:
    _, asked = libraries
    texts = ["grey and red", "blue", "white wall"]
    together = asked.search_many(texts, k=3)
    one_by_one = [asked.search(text, k=3) for text in texts]
    assert [[hit.path for hit in hits] for hits in together] == [[hit.path for hit in hits] for hits in one_by_one]
    for many, alone in zip(together, one_by_one, strict=True):
        assert [hit.score for hit in many] == pytest.approx([hit.score for hit in alone], abs=1e-6)
