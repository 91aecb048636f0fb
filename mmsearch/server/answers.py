"""From a message to a question, and from a question to an answer: what a server does once it was asked.

In: one line of JSON, which anything may have sent. Out: a `Question` of known types and sizes, then one line of JSON:
hits, or why the server declines. Next: `desk.py`, where questions wait.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

from mmsearch.errors import MMSearchError, ModelMismatch
from mmsearch.query.hits import Hit
from mmsearch.server.client import MAX_MESSAGE_BYTES, MOST_TEXTS, PROTOCOL

MOST_HITS: Final = 10_000  # of one answer

Modality = Literal["image", "text"]
Text = str | None  # as a question brings it
log = logging.getLogger(__name__)


class Searchable(Protocol):
    """What the server needs of a library; `mmsearch.library.Library` is one."""

    path: Path

    def search(
        self,
        text: Text,
        image: str | None,
        k: int,
        within: Modality | None,
        *,
        folder: Text,
        since: Text,
        until: Text,
    ) -> list[Hit]:
        """The files nearest to words, a picture or both."""

    def search_many(
        self, texts: Sequence[str], k: int, within: Modality | None, *, folder: Text, since: Text, until: Text
    ) -> list[list[Hit]]:
        """The same for many texts."""

    def reopen(self) -> None:
        """Forget what was read: the library was replaced on disk."""


@dataclass(frozen=True)
class Question:
    """What a client looks for, as `Library.search` takes it."""

    texts: list[str]
    image: str | None
    k: int
    within: Modality | None
    folder: str | None
    since: str | None
    until: str | None


class Answers:
    """One library's answers, given by one thread at a time."""

    def __init__(self, library: Searchable) -> None:
        self._library = library
        self._real = os.path.realpath(library.path)
        self._catalog = self._identity()

    def warm_up(self) -> None:
        """Load the model and read every vector once, before the first question."""
        self._library.search_many(["warm"], k=1, within=None, folder=None, since=None, until=None)

    def hear(self, message: bytes) -> Question | bytes:
        """The question of a message, or the answer to what needs no search. Takes no time, and may be any thread's."""
        try:
            values = json.loads(message)
            if values.get("protocol") != PROTOCOL:
                return declined(f"the server speaks {PROTOCOL!r}")
            if values.get("library") != self._real:
                return declined(f"the server has {self._real}")
            if values.get("ping"):
                return _line({"pong": True, "pid": os.getpid()})
            return _question(values)
        except RecursionError:
            return declined("not a question (lists within lists without an end)")
        except (ValueError, KeyError, AttributeError) as error:
            return declined(f"not a question ({error})")

    def answer(self, question: Question) -> bytes:
        """The line with the hits, or with the reason why there are none."""
        try:
            found = _line({"hits": self._search(question)})
        except (MMSearchError, OSError, ValueError) as error:  # ValueError: a NUL in a path
            return declined(str(error))
        except Exception as error:  # the next question may go well; whoever asked this one meets the error again
            log.warning("a question was not answered (%s: %s); the client searches itself", type(error).__name__, error)
            return declined(f"{type(error).__name__}: {error}")
        return found if len(found) <= MAX_MESSAGE_BYTES else declined("the answer is too long")

    def _search(self, question: Question) -> list[Any]:
        if self._identity() != self._catalog:  # another catalog under the same name
            self._reopen()
        try:
            return self._found(question)
        except ModelMismatch:  # another model took over
            self._reopen()
            return self._found(question)

    def _found(self, asked: Question) -> list[Any]:
        narrowed = {"folder": asked.folder, "since": asked.since, "until": asked.until}
        if asked.image is not None:
            words = asked.texts[0] if asked.texts else None
            answers = [self._library.search(words, asked.image, k=asked.k, within=asked.within, **narrowed)]
        else:
            answers = self._library.search_many(asked.texts, k=asked.k, within=asked.within, **narrowed)
        return [[_packed(hit) for hit in hits] for hits in answers]

    def _reopen(self) -> None:
        self._library.reopen()
        self._catalog = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(os.path.join(self._real, "catalog.sqlite"))
        except OSError:
            return None
        return found.st_dev, found.st_ino


def declined(why: str) -> bytes:
    """The answer to what the server does not search for."""
    return _line({"declined": why})


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _question(values: dict[str, Any]) -> Question:
    """Raises: ValueError, KeyError: a value is missing, of another type, or out of bounds."""
    texts, k, within = values["texts"], values["k"], values["within"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MOST_TEXTS:
        raise ValueError(f"texts are {MOST_TEXTS} strings at most")
    if type(k) is not int or k * max(len(texts), 1) > MOST_HITS:
        raise ValueError(f"k is a whole number, and an answer has {MOST_HITS} hits at most")
    if within not in (None, *get_args(Modality)):
        raise ValueError("'within' is image, text or null")
    others = [values[name] for name in ("image", "folder", "since", "until")]
    if not all(one is None or isinstance(one, str) for one in others):
        raise ValueError("image, folder, since and until are strings or null")
    image, folder, since, until = others
    return Question(texts, image, k, within, folder, since, until)


def _packed(hit: Hit) -> list[Any]:
    """A hit as JSON takes it; `client.py` unpacks it in this order."""
    taken_at = None if hit.taken_at is None else hit.taken_at.isoformat()
    shown = [str(hit.path), hit.score, hit.modality, hit.text, taken_at]
    return [*shown, hit.latitude_deg, hit.longitude_deg, hit.camera, hit.time_s]
