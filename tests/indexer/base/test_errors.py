"""The exception tree is the one that the module's header draws."""

from __future__ import annotations

import inspect
import re

from indexer.base import errors

CLASSES = {name: one for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}


def drawn() -> dict[str, str | None]:
    """Each name in the drawing and the name above it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?:  .*)?", line)
        if found is not None:
            del path[len(found[1]) // 4 :]
            parents[found[2]] = path[-1] if path else None
            path.append(found[2])
    return parents


def test_the_drawing() -> None:
    tree = drawn()
    assert tree.keys() == CLASSES.keys()
    for name, parent in tree.items():
        assert CLASSES[name].__bases__ == (Exception if parent is None else CLASSES[parent],), name


def test_one_root_catches_all_and_a_message_stays_as_it_is() -> None:
    for one in CLASSES.values():
        assert issubclass(one, errors.MMSearchError)
        assert str(one("found 3; expected 2; run 'mmsearch doctor'")) == "found 3; expected 2; run 'mmsearch doctor'"
