"""Patterns of a .gitignore whose match takes a time in proportion to the name: no backtracking.

A photo folder may come from another person, and its .mmsearchignore with it. pathspec makes a regular expression of a
pattern, and `*a*a*a*a*b` against a long name then has no end. But a wildcard of a .gitignore never needs a second try:
of `*` followed by letters the first place where these stand is as good as any later one, and so is of `**/` the first
folder. So each is an atomic group here (https://docs.python.org/3/library/re.html#regular-expression-syntax).

In: the expression that pathspec makes. Out: one that matches a path itself, never a folder above it.
Next: `excludes.py`.
"""

from __future__ import annotations

import re
from typing import Final

_ANY_FOLDERS: Final = ("(?:.+/)?", "(?:/.+)?")  # `**/` at the beginning; `/**` before the next '/'
_ANYTHING: Final = "[^/]*"
_FOLDER: Final = "(?P<ps_d>/)"
_END: Final = f"(?:{_FOLDER}|$)"
_TOKEN: Final = re.compile(
    r"(?P<folders>\(\?:\.\+/\)\?|\(\?:/\.\+\)\?)|(?P<star>\[\^/\]\*)|(?P<plus>\[\^/\]\+)|(?P<slash>/)"
    r"|(?P<one>\[\^/\]|\[\^?\]?(?:\\.|[^\]\\])*\]|\\.|[^\[\](){}*+?|^$.\\])",
    re.DOTALL,
)


def itself(expression: str) -> re.Pattern[str] | None:
    """The same pattern as an expression for `match`; None for one of another form than pathspec gives.

    A folder's path ends with '/'.
    """
    if not expression.startswith("^"):
        return None
    body, end = expression[1:], r"(?=.)"  # 'a/**': what is below the folder
    for mark, meant in ((_END, r"/?\Z"), (_FOLDER, r"/\Z")):
        if body.endswith(mark):
            body, end = body.removesuffix(mark), meant
            break
    else:
        if not body.endswith("/"):
            return None
    groups = _groups(body)
    if groups is None:
        return None
    first, *others = groups
    text = first
    for place, group in enumerate(others, start=1):
        found = rf"(?:[^/]+/)*?{group}"
        text += found if place == len(others) else rf"(?>{found})"
    return re.compile(text + end, re.DOTALL)


def _groups(body: str) -> list[str] | None:
    """The parts of a pattern between `**`, each of whole names; all but the last end with '/'."""
    groups, name, at = [""], _Name(), 0
    while at < len(body):
        token = _TOKEN.match(body, at)
        if token is None:
            return None
        at = token.end()
        if token["folders"]:
            if groups[-1] or not name.is_empty:
                groups[-1] += name.expression() + "/"
                at += body.startswith("/", at)  # '/**' stands before the '/' of what follows
            groups.append("")
            name = _Name()
        elif token["slash"]:
            groups[-1] += name.expression() + "/"
            name = _Name()
        else:
            name.add(token)
    groups[-1] += name.expression()
    return groups


class _Name:
    """One name of a path: pieces of a fixed length with a `*` between any two."""

    def __init__(self) -> None:
        self._pieces = [""]
        self._is_any = False

    @property
    def is_empty(self) -> bool:
        return self._pieces == [""] and not self._is_any

    def add(self, token: re.Match[str]) -> None:
        if token["plus"]:  # a whole name
            self._is_any = True
        elif token["star"]:
            self._pieces.append("")
        else:
            one = token["one"]
            self._pieces[-1] += f"(?!/){one}" if one.startswith("[^") else one

    def expression(self) -> str:
        if self._is_any:
            return "[^/]+"
        first, *others = self._pieces
        if not others:
            return first
        middle = "".join(f"(?>{_ANYTHING}?{piece})" for piece in others[:-1] if piece)
        return f"(?>{first}{middle}{_ANYTHING}{others[-1]}(?=/|\\Z))"
