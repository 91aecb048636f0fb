"""Mutations of bytes, of JSON and of single values, drawn from dice, so that a seed makes them again.

In: whole data and a `random.Random`. Out: broken data. Next: `fuzzers.py`.
"""

from __future__ import annotations

import random
from typing import Any, Final

WORDS: Final = (
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1", b"\1\0\0\0", b"\x80\0",
    b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x7e", b"\x1b[2J", b"../../", b"/dev/zero\0",
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 3_000_000_000, 1.5, 1e308, float("inf"), float("-inf"),
    float("nan"), "", "word", "x" * 100_000, "\x1b]0;t\x07\x9b31m\u202e", "a\0b", "../../outside/victim", "/dev/zero",
    "/",
    "2019-13-45 99:99:99", "-0044-03-15 12:00:00.000000", "[" * 5_000, "{}", "[]", "null", "1e999", b"",
    b"\xff\x00\xfe", b"../../outside/victim", b"/dev/zero", b"a\0b.png", b"a/" * 5_000, b"\x00\x7e" * 16,
    b"\x00\x7c" * 16, b"\xff\xfb" * 16, b"\x3c" * 100_000,
)  # fmt: skip


def of_bytes(data: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """Bytes with a few bits turned, words put in, parts cut, doubled, moved or taken from `other`."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        if not made:
            return bytes(made)
        place = dice.randrange(len(made))
        if dice.random() < 0.5:
            place = min(place, dice.randrange(min(len(made), 512)))  # heads of files say most
        length = min(dice.choice((1, 2, 4, 8, 64, 4096)), len(made) - place)
        match dice.randrange(8):
            case 0 | 1:
                made[place] ^= 1 << dice.randrange(8)
            case 2 | 3:
                word = dice.choice(WORDS)
                made[place : place + len(word)] = word
            case 4:
                del made[place : place + length]
            case 5:
                made[place:place] = made[place : place + length] * dice.choice((1, 3, 100))
            case 6:
                start = dice.randrange(max(len(other), 1))
                made[place : place + length] = other[start : start + length]
            case _:
                del made[place:]
    return bytes(made)


def of_value(value: Any, dice: random.Random) -> Any:
    """Another value in the place of one: of any kind, or the same kind and wrong."""
    match dice.randrange(6):
        case 0 if isinstance(value, int):
            return value + dice.choice((-1, 1, 2**20, 2**40))
        case 0 | 1 if isinstance(value, (bytes, str)) and value:
            data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            changed = of_bytes(data, dice)
            return changed.decode("utf-8", "replace") if isinstance(value, str) else changed
        case _:
            return dice.choice(VALUES)


def of_json(value: Any, dice: random.Random, times: int = 1) -> Any:
    """JSON with some places changed, left out, doubled or nested; NaN and infinity are written as Python does."""
    for _ in range(times):
        value = _changed(value, dice)
    return value


def _changed(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(sorted(value))
        made = dict(value)
        match dice.randrange(8):
            case 0:
                del made[key]
            case 1:
                made[_plain(of_value(key, dice))] = made.pop(key)
            case _:
                made[key] = _changed(made[key], dice)
        return made
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        match dice.randrange(8):
            case 0:
                return value[:place]
            case 1:
                return value * dice.choice((2, 100))
            case _:
                return [*value[:place], _changed(value[place], dice), *value[place + 1 :]]
    if dice.random() < 0.05:
        for _ in range(400):
            value = [value]
        return value
    found = of_value(value, dice)
    return found.decode("latin-1") if isinstance(found, bytes) else found


def _plain(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
