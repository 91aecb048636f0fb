"""Everyday wording: each variant word for word, and the losses of a model that knows plain captions only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer.base.types import Posterior
from mmsearch.data.datasets import Example
from mmsearch.evaluation.phrasing import (
    FUNCTION_WORDS,
    VARIANTS,
    Phrased,
    evaluate_phrasing,
    first_half,
    keywords,
    no_punctuation,
    photo_of,
    plural,
    typos,
    with_the_next,
)
from mmsearch.evaluation.recall import Recall
from mmsearch.evaluation.subject import Subject
from tests.circle_model import Circle, CircleWithBanks, one_centre


class FirstWord:
    """Photo `3.png` lies in direction 3; a text whose first word is `d3` too, any other in a direction of its own."""

    name, fingerprint = "first word", "f" * 64
    pictures = 0

    def embed_images(self, images: Sequence[Path]) -> Posterior:
        self.pictures += len(images)
        return self._rows([int(image.stem) for image in images])

    def embed_texts(self, texts: list[str]) -> Posterior:
        firsts = [text.split()[0] for text in texts]
        return self._rows([int(word[1:]) if word[0] == "d" and word[1:].isdigit() else 15 for word in firsts])

    def _rows(self, directions: list[int]) -> Posterior:
        mu = np.zeros((len(directions), 16), np.float32)
        mu[np.arange(len(directions)), directions] = 2.0
        return Posterior(mu, np.zeros_like(mu))


def examples(*captions: tuple[str, ...]) -> list[Example]:
    return [Example(Path(f"{i}.png"), own, "val") for i, own in enumerate(captions)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A black dog runs", "photo of a black dog runs"),
        ("Two-year olds", "photo of two-year olds"),
        ("tram", "photo of tram"),
        ("BMW on a road", "photo of BMW on a road"),
        ("", "photo of "),
    ],
)
def test_photo_of(caption: str, expected: str) -> None:
    assert photo_of(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man's T-shirt , torn .", "A mans T shirt torn"),
        ("the boy\u2019s \u201cnew\u201d bike", "the boys new bike"),
        ("नीली कार।", "नीली कार"),  # vowel signs are no punctuation
        ("...", "..."),
    ],
)
def test_no_punctuation(caption: str, expected: str) -> None:
    assert no_punctuation(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man in a red shirt is climbing the rock .", "man red shirt climbing rock"),
        ("there it is", "there it is"),
        ("tram", "tram"),
    ],
)
def test_keywords(caption: str, expected: str) -> None:
    assert keywords(caption) == expected


def test_function_words_are_about_sixty_and_lower_case() -> None:
    assert 55 <= len(FUNCTION_WORDS) <= 100
    assert all(word == word.lower() for word in FUNCTION_WORDS)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("tram", "trams"),
        ("city", "cities"),
        ("toy", "toys"),
        ("bus", "buses"),
        ("church", "churches"),
        ("y", "ys"),
        ("great white shark", "great white shark"),
        ("t-shirt", "t-shirt"),
        ("", ""),
    ],
)
def test_plural(label: str, expected: str) -> None:
    assert plural(label) == expected


@pytest.mark.parametrize(
    ("caption", "expected"), [("a b c d", "a b"), ("a b c", "a b"), ("a", "a"), ("a  b", "a"), ("", "")]
)
def test_first_half(caption: str, expected: str) -> None:
    assert first_half(caption) == expected


def test_captions_are_joined_in_a_ring() -> None:
    assert with_the_next(["a", "b", "c"]) == ["a b", "b c", "c a"]
    assert with_the_next(["a"]) == ["a"]
    assert with_the_next([]) == []


def slips(old: str, new: str) -> int:
    return sum(a != b for a, b in zip(old.split(), new.split(), strict=True))


@pytest.mark.parametrize(("words", "expected"), [(1, 1), (6, 1), (8, 1), (9, 2), (12, 2), (15, 3), (18, 3)])
def test_one_typo_in_six_words(words: int, expected: int) -> None:
    caption = " ".join(["climbing"] * words)
    for seed in range(20):
        assert slips(caption, typos(caption, seed)) == expected


def test_typos_are_one_slip_of_a_letter_in_a_word_of_three() -> None:
    seen = set()
    for seed in range(200):
        wrong = typos("a tree, at 10", seed)
        seen.add(wrong.split()[1])
        assert slips("a tree, at 10", wrong) == 1
    swapped, dropped, doubled = {"rtee,", "tere,"}, {"ree,", "tee,", "tre,"}, {"ttree,", "trree,", "treee,"}
    assert seen == swapped | dropped | doubled  # "ee" swapped would be no slip


def test_typos_repeat_and_depend_on_the_seed_and_the_caption_alone() -> None:
    caption = "a black dog is running after a white dog in the snow"
    assert typos(caption, 3) == typos(caption, 3)
    assert len({typos(caption, seed) for seed in range(10)}) > 5
    alone = VARIANTS["typos"]([caption], 3)
    assert VARIANTS["typos"](["another caption", caption], 3)[1:] == alone


def test_typos_leave_what_has_no_word_to_mistype() -> None:
    assert typos("a b of 1234") == "a b of 1234"
    assert typos("") == ""


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_as_many_texts_and_none_empty(name: str) -> None:
    captions = ["A dog runs .", "tram", "?", "is it", "a"]
    texts = VARIANTS[name](captions, 0)
    assert len(texts) == len(captions)
    assert all(text.strip() for text in texts)
    assert VARIANTS[name]([], 0) == []


def test_losses_against_the_plain_captions() -> None:
    """All found when plain; none with words before them or in capitals, all by their first half."""
    model = FirstWord()
    report = evaluate_phrasing(
        Subject(model, examples(*[(f"d{i} a {i} .",) for i in range(12)]), data="set", split="val")
    )
    assert model.pictures == 12  # once, whatever the number of variants
    assert (report.images, report.texts, report.data, report.split) == (12, 12, "set", "val")
    plain, before = report.variants["plain"], report.variants["photo_of"]
    assert plain.text_to_image.r1 == plain.image_to_text.r1 == 100.0
    assert set(plain.loss.values()) == {0.0}
    assert not plain.over_a_fifth
    assert before == Phrased(
        example="photo of d0 a 0 .",
        changed=100.0,
        text_to_image=before.text_to_image,
        image_to_text=before.image_to_text,
        loss={f"{way}_{k}": 100.0 for way in ("text_to_image", "image_to_text") for k in ("r1", "r10")},
        over_a_fifth=True,
    )
    assert report.variants["upper_case"].over_a_fifth
    assert report.variants["first_half"].loss["text_to_image_r1"] == 0.0
    assert not report.variants["keywords"].over_a_fifth
    assert "long_sentence" not in report.variants  # one caption a photo: nothing to join
    assert "plural" not in report.variants


def test_a_fifth_is_tolerated_and_more_is_not() -> None:
    """Labels of one word are lost in the plural: one photo of five, then two."""
    whole = [(f"d{i} a",) for i in range(5)]

    class Numbers(FirstWord):
        def embed_texts(self, texts: list[str]) -> Posterior:
            return super().embed_texts([{"one": "d0", "two": "d1"}.get(text, text) for text in texts])

    one = evaluate_phrasing(Subject(Numbers(), examples(("one",), *whole[1:]))).variants["plural"]
    assert (one.example, one.changed, one.text_to_image.r1) == ("ones", 20.0, 80.0)
    assert one.loss["text_to_image_r1"] == 20.0
    assert not one.over_a_fifth
    two = evaluate_phrasing(Subject(Numbers(), examples(("one",), ("two",), *whole[2:]))).variants["plural"]
    assert (two.changed, two.loss["image_to_text_r1"], two.over_a_fifth) == (40.0, 40.0, True)


def test_nothing_to_lose_is_no_loss() -> None:
    report = evaluate_phrasing(Subject(FirstWord(), examples(("a cat",), ("a dog",))))
    assert report.variants["plain"].text_to_image.r1 == 0.0
    assert report.variants["upper_case"].loss["text_to_image_r1"] is None
    assert report.variants["upper_case"].loss["text_to_image_r10"] == 0.0  # two pictures: all are among ten
    assert not report.variants["upper_case"].over_a_fifth


def test_wordings_are_ranked_as_a_search_ranks_them() -> None:
    """In capitals the text at 60 degrees lies at 100, and only its own hubness there puts it before the hub at 25.

    For the photo at 40: 0.50 - 0.23 over 0.97 - 0.9; with the hubness of the plain text it would be 0.50 - 0.74.
    """
    photos = [Example(Path("0.png"), ("25 dogs",), "val"), Example(Path("40.png"), ("60 cats",), "val")]
    model = CircleWithBanks(one_centre("text", 40, 0.5), one_centre("image", 25, 0.9), in_capitals={60: 100})
    variants = evaluate_phrasing(Subject(model, photos)).variants
    right, half = Recall(100.0, 100.0, 100.0, 1.0), Recall(50.0, 100.0, 100.0, 1.5)
    for name in ("plain", "upper_case"):
        assert (variants[name].text_to_image, variants[name].image_to_text) == (right, right), name
    assert model.asked_for.count("text") == 1  # the photos are the same in every variant
    by_cosine = evaluate_phrasing(Subject(Circle(in_capitals={60: 100}), photos)).variants
    for name in ("plain", "upper_case"):
        assert (by_cosine[name].text_to_image, by_cosine[name].image_to_text) == (half, half), name


def test_report_is_plain_json() -> None:
    report = evaluate_phrasing(Subject(FirstWord(), examples(("d0 a dog", "d0 b"), ("d1 a cat", "d2 c"))), seed=4)
    printed = json.loads(json.dumps(report.to_dict()))
    assert printed["seed"] == 4
    assert next(iter(printed["variants"])) == "plain"
    assert printed["variants"]["long_sentence"]["example"] == "d0 a dog d0 b"
    assert set(printed["variants"]["typos"]["text_to_image"]) == {"r1", "r5", "r10", "median_rank"}
