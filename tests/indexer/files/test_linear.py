"""Patterns without backtracking exclude what pathspec's own expressions exclude, and always end."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from indexer.files.linear import itself

PIECES = ("a", "b", "*", "?", "**", "/", "/", "[ab]", "/**/", "**/", "/**", ".", "\\\\*")
names = st.text("ab.*", min_size=1, max_size=4)
paths = st.lists(names, min_size=1, max_size=5).map("/".join)


def reference(expression: re.Pattern[str], path: str) -> bool:
    """As the expression of pathspec is to be read: it matches the path itself, not only a folder above it."""
    match = expression.match(path)
    if match is None:
        return False
    if match.groupdict().get("ps_d") is not None:
        return match.end("ps_d") == len(path)
    return not (path.endswith("/") and match.end() == len(path))


def ways(path: str, is_folder: bool) -> list[str]:
    """A path as a walk meets it: the folders above it, then itself."""
    parts = path.split("/")
    above = ["/".join(parts[:depth]) + "/" for depth in range(1, len(parts))]
    return [*above, path + "/" * is_folder]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join), paths, st.booleans())
@settings(max_examples=1500, deadline=None)
def test_they_exclude_the_same(pattern: str, path: str, is_folder: bool) -> None:
    try:
        patterns = GitIgnoreSpec.from_lines([pattern]).patterns
    except ValueError:
        return
    for one in patterns:
        if one.regex is None:
            continue
        ours = itself(one.regex.pattern)
        if ours is None:  # taken as it is
            assert not one.regex.pattern.startswith("^"), one.regex.pattern
            continue
        steps = ways(path, is_folder)
        excluded = any(reference(one.regex, step) for step in steps)
        found = any(ours.match(step) for step in steps)
        if (
            is_folder
        ):  # of '**/a/**' and 'a/a/' pathspec's finds the last 'a/' alone, and takes '***' for no name at all
            assert found >= excluded, (one.regex.pattern, ours.pattern)
        else:  # so a folder is excluded where everything in it is
            assert found == excluded, (one.regex.pattern, ours.pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 100 + "b", "*a?" * 100 + "[!b]b", "**/a/" * 100 + "b", "a/**/" * 100 + "b", "**/*a*a*a*a*/" * 50 + "b",
        "*" * 900 + "b", "**/" * 300 + "b", "?" * 100 + "*a" * 100 + "b", "[ab]*" * 100 + "c",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["a" * 255, "/".join("a" * 200), "/".join(["a" * 250] * 16)])
def test_they_end(pattern: str, path: str) -> None:
    (one,) = GitIgnoreSpec.from_lines([pattern]).patterns
    assert one.regex is not None
    ours = itself(one.regex.pattern)
    assert ours is not None
    started = time.process_time()
    ours.match(path)
    assert time.process_time() - started < 0.25


def test_a_set_of_letters_is_a_letter_of_a_name() -> None:
    (one,) = GitIgnoreSpec.from_lines(["a[!a]a"]).patterns
    assert one.regex is not None
    ours = itself(one.regex.pattern)
    assert ours is not None
    assert [bool(ours.match(path)) for path in ("aba", "a/a", "x/aba/")] == [True, False, True]


def test_a_form_that_pathspec_does_not_give_is_left_alone() -> None:
    for expression in (".", "(?P<ps_d>/)", "^a|b$", "^(a)", "^a"):
        assert itself(expression) is None
