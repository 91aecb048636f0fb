"""From any bytes to a question or a refusal in one line; from a question to a line of hits, whatever goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmsearch.errors import LibraryClosed
from mmsearch.server.answers import MOST_HITS, Answers, Question
from mmsearch.server.client import MAX_QUESTION_BYTES, MOST_TEXTS
from tests.mmsearch.server.stand import Stand, question


@pytest.fixture
def answers(library: Stand) -> Answers:
    return Answers(library)


def test_a_question(answers: Answers, library: Stand) -> None:
    heard = answers.hear(question(library.path, texts=["a", "b"], k=3, within="image", since="2019"))
    assert heard == Question(["a", "b"], None, 3, "image", None, "2019", None)
    assert isinstance(heard, Question)
    assert [len(hits) for hits in json.loads(answers.answer(heard))["hits"]] == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"texts": 3}, {"texts": None}, {"texts": "red"}, {"texts": [3]}, {"texts": [["red"]]}, {"texts": {"red": 1}},
        {"texts": ["a"] * (MOST_TEXTS + 1)}, {"k": None}, {"k": "3"}, {"k": 1.5}, {"k": True}, {"k": [1]},
        {"k": MOST_HITS + 1}, {"k": 10**30}, {"k": MOST_HITS, "texts": ["a", "b"]}, {"within": "video"},
        {"within": 1}, {"within": []}, {"image": 5}, {"image": ["a"]}, {"folder": True}, {"since": 2019},
        {"until": {"a": 1}},
    ],
)  # fmt: skip
def test_wrong_types_and_sizes_are_declined(answers: Answers, library: Stand, change: dict[str, Any]) -> None:
    declined_by(answers, question(library.path, **change))


@pytest.mark.parametrize(
    "message",
    [
        b"\n", b"{}\n", b"[]\n", b"3\n", b"null\n", b'"red"\n', b"nonsense\n", b"\xff\xfe\n", b"{" * 200_000 + b"\n",
        b"[" * (MAX_QUESTION_BYTES - 1) + b"\n", b'{"protocol":' * 80_000 + b"\n", b"9" * 100_000 + b"\n",
        b'{"protocol": NaN}\n',
    ],
)  # fmt: skip
def test_nonsense_is_declined(answers: Answers, message: bytes) -> None:
    declined_by(answers, message)


def test_a_missing_value_is_declined(answers: Answers, library: Stand) -> None:
    whole = json.loads(question(library.path))
    for name in whole:
        declined_by(answers, json.dumps({key: value for key, value in whole.items() if key != name}).encode())


def declined_by(answers: Answers, message: bytes) -> None:
    told = answers.hear(message)
    assert isinstance(told, bytes)
    assert told.endswith(b"\n")
    assert list(json.loads(told)) == ["declined"]
    assert len(told) < 1000


@pytest.mark.parametrize(
    "error",
    [
        LibraryClosed("closed"), OSError(5, "Input/output error"), ValueError("embedded null byte"), MemoryError(),
        TypeError("a fault of ours"), RecursionError(),
    ],
)  # fmt: skip
def test_no_error_ends_the_server(answers: Answers, library: Stand, error: Exception) -> None:
    asked = answers.hear(question(library.path))
    assert isinstance(asked, Question)
    library.fail = [error]
    assert list(json.loads(answers.answer(asked))) == ["declined"]
    assert list(json.loads(answers.answer(asked))) == ["hits"]


def test_an_answer_without_bounds_is_declined(
    answers: Answers, library: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers.hear(question(library.path))
    assert isinstance(asked, Question)
    monkeypatch.setattr("mmsearch.server.answers.MAX_MESSAGE_BYTES", 50)
    assert json.loads(answers.answer(asked)) == {"declined": "the answer is too long"}


def test_the_library_is_asked_as_itself(answers: Answers, library: Stand, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(library.path)
    assert isinstance(answers.hear(question(tmp_path / "link")), Question)
