"""The built-in texts with which recall is measured where a library holds none."""

from __future__ import annotations

from mmsearch.query.everyday import everyday_texts


def test_four_hundred_different_phrases_that_are_the_same_every_time() -> None:
    texts = everyday_texts()
    assert len(texts) == len(set(texts)) == 400
    assert everyday_texts() == texts


def test_any_beginning_is_a_fair_sample() -> None:
    for count in (50, 100, 200):
        subjects = [text.split(" ")[1] for text in everyday_texts()[:count]]
        places = [" ".join(text.rsplit(" ", 3)[-2:]) for text in everyday_texts()[:count]]
        assert len(set(subjects)) >= 15
        assert len(set(places)) >= 15
