"""Four hundred things people look for: what the recall of a large library is measured with when it holds no texts.

In: nothing. Out: short English phrases, who or what and where. Next: `../library.py`, which encodes them once.
"""

from __future__ import annotations

from typing import Final

_SUBJECTS: Final = (
    "a dog", "two cats", "children playing", "a birthday cake", "a red car", "my grandmother", "a bride and groom",
    "a mountain", "a plate of food", "people dancing", "a bicycle", "a baby sleeping", "a football match", "a boat",
    "a church", "flowers", "a group of friends", "a train", "a man with a beard", "a woman in a blue dress",
)  # fmt: skip
_PLACES: Final = (
    "on the beach", "in the snow", "at night", "in the kitchen", "in the garden", "at sunset", "in the rain",
    "in a forest", "by the lake", "in black and white", "at a party", "in front of a house", "at Christmas",
    "on a street", "in the city", "from above", "on a table", "in a museum", "at the airport", "seen from behind",
)  # fmt: skip


def everyday_texts() -> list[str]:
    """The phrases, mixed, so that any number of the first is a fair sample."""
    phrases = [f"{subject} {place}" for subject in _SUBJECTS for place in _PLACES]
    return [phrases[(number * 171) % len(phrases)] for number in range(len(phrases))]
