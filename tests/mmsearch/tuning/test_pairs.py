"""A library's captioned photos as pairs: each content once, the same division every time, groups kept whole."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexer.store import CaptionedPhoto
from mmsearch.tuning.pairs import digest, held_out, pairs_of


def photo(number: int, *captions: str, content: int | None = None) -> CaptionedPhoto:
    key = hashlib.sha256(str(number if content is None else content).encode()).digest()
    return CaptionedPhoto(Path(f"p{number}.jpg"), key, captions)


class TestDivision:
    def test_each_content_once_with_what_is_said_of_its_copies(self) -> None:
        found = pairs_of([photo(1, "a boat"), photo(2, "a hill"), photo(3, "A  Boat", "the lake", content=1)])
        assert sorted(pair.captions for pair in found) == [("a boat", "the lake"), ("a hill",)]

    def test_the_same_photos_divide_the_same_way_in_any_order_and_place(self) -> None:
        photos = [photo(n, f"caption {n}") for n in range(200)]
        moved = [replace(p, path=Path("elsewhere") / p.path) for p in reversed(photos)]
        first, second = pairs_of(photos), pairs_of(moved)
        np.testing.assert_array_equal(held_out(first, 0.2, 20), held_out(second, 0.2, 20))
        assert digest(first) == digest(second)
        assert 25 <= held_out(first, 0.2, 20).sum() <= 55
        assert (held_out(first, 0.2, 20) != held_out(first, 0.2, 20, salt="other")).any()
        assert digest(pairs_of([*photos[1:], photo(0, "other words")])) != digest(first)

    def test_a_small_library_still_holds_out_enough(self) -> None:
        pairs = pairs_of([photo(n, f"caption {n}") for n in range(50)])
        assert held_out(pairs, 0.01, 20).sum() == 20

    def test_photos_that_share_words_stay_together_also_through_others(self) -> None:
        chains = [photo(n, f"link {n // 3} {n % 3}", f"Link {n // 3} {(n + 1) % 3}") for n in range(300)]
        pairs = pairs_of(chains)
        held = held_out(pairs, 0.3, 20)
        by_chain: dict[str, set[bool]] = {}
        for pair, out in zip(pairs, held, strict=True):
            by_chain.setdefault(pair.captions[0].split()[1], set()).add(bool(out))
        assert len(by_chain) == 100
        assert all(len(sides) == 1 for sides in by_chain.values())
        assert 0 < held.sum() < len(pairs)

    def test_a_caption_of_nearly_everything_holds_nothing_out(self) -> None:
        pairs = pairs_of([photo(n, "holidays") for n in range(100)] + [photo(n, f"own {n}") for n in range(100, 130)])
        held = held_out(pairs, 0.2, 20)
        assert 20 <= held.sum() <= 30
        assert not any(out for pair, out in zip(pairs, held, strict=True) if pair.captions == ("holidays",))
