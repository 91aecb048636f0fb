"""Random arguments: a documented exit code, data or one line, never a traceback."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.conftest import Run

COMMANDS = ("search", "similar", "status", "errors", "rebuild", "index", "serch", "")
WORDS = (
    *("red", "", " ", "-k", "0", "1", "-1", "2.5", "--json", "--paths", "-0", "--print0", "--in", "image", "sound"),
    *("--library", "/nowhere", "--device", "cpu", "tpu", "--image", "absent.png", "--", "-x", "--help", "--model"),
    *("caf\udce9", "日本", "a\nb", "--json=1", "--k", "=", "\x1b[31m"),
)
one_shared_folder_will_do = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@one_shared_folder_will_do
@given(command=st.sampled_from(COMMANDS), words=st.lists(st.sampled_from(WORDS), max_size=6))
def test_every_command_line_ends_in_order(run: Run, command: str, words: list[str]) -> None:
    answer = run(command, *words)
    assert answer.code in (0, 1, 2)
    assert "Traceback" not in answer.err
    assert "unexpected" not in answer.err or "unexpected extra argument" in answer.err, answer.err
    if answer.code:
        assert answer.out == ""
        assert answer.err.count("\n") == 1
        assert answer.err.startswith("mmsearch: ")
    else:
        assert "--help" in words
        assert answer.err == ""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), min_size=1, max_size=3))
def test_any_words_are_a_query_or_one_line(run: Run, photos: Path, words: list[str]) -> None:
    if not (photos.parent / "home" / "library").exists():
        assert run("index", photos).code == 0
    answer = run("search", "--", *words)
    assert answer.code == (0 if " ".join(words).strip() else 2), answer
