"""The server over any library: it answers, declines in words, opens anew what was replaced, and ends when idle."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch.errors import LibraryError, LibraryLocked, ModelMismatch, QueryError
from mmsearch.server import client
from mmsearch.server.serve import serve
from tests.mmsearch.server.stand import Stand, answered, connected, question, running

pytestmark = pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here")


def test_it_is_warm_before_it_listens_and_ends_when_idle(library: Stand) -> None:
    with running(library, idle_s=0.3) as server:
        everything = dict.fromkeys(("within", "folder", "since", "until"))
        assert library.calls == [("search_many", ["warm"], 1, everything)]
        assert client.is_served(library.path)
        server.thread.join(10)
        assert not server.thread.is_alive()
    assert not client.socket_path(library.path).exists()
    assert not client.is_served(library.path)


def test_texts_go_together_and_a_picture_with_its_words(served: Stand) -> None:
    found = client.ask(served.path, ["a", "b"], k=2, within="image", since="2019")
    assert found is not None
    assert [hit.path.name for (hit,) in found] == ["a.jpg", "b.jpg"]
    options = {"within": "image", "folder": None, "since": "2019", "until": None}
    assert served.calls == [("search_many", ["a", "b"], 2, options)]
    found = client.ask(served.path, ["a"], image=Path("/q.png"), k=3)
    assert found is not None
    assert found[0][0].path.name == "pair.jpg"
    assert served.calls[1][:4] == ("search", "a", "/q.png", 3)
    client.ask(served.path, [], image=Path("/q.png"))
    assert served.calls[2][:3] == ("search", None, "/q.png")


def test_an_error_is_declined_and_the_next_question_answered(served: Stand) -> None:
    served.fail = [QueryError("k is 0")]
    assert client.ask(served.path, ["a"]) is None
    assert client.ask(served.path, ["a"]) is not None
    assert ("reopen",) not in served.calls


def test_another_model_or_another_catalog_is_opened_anew(served: Stand) -> None:
    served.fail = [ModelMismatch("another model")]
    assert client.ask(served.path, ["a"]) is not None
    assert [call[0] for call in served.calls] == ["search_many", "reopen", "search_many"]
    served.calls.clear()
    (served.path / "new").touch()
    (served.path / "new").rename(served.path / "catalog.sqlite")
    assert client.ask(served.path, ["a"]) is not None
    assert [call[0] for call in served.calls] == ["reopen", "search_many"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "1 0.0.0"}, "the server speaks"),
        ({"library": "/elsewhere"}, "the server has"),
        ({"texts": 3}, "not a question"),
        ({"k": None, "texts": None}, "not a question"),
    ],
)
def test_other_questions_are_declined_in_words(served: Stand, change: dict[str, object], reason: str) -> None:
    with connected(served.path, question(served.path, **change)) as line:
        assert reason in answered(line)["declined"]


def test_one_server_for_a_library(served: Stand) -> None:
    with pytest.raises(LibraryLocked, match="served already by process"):
        serve(served)


def test_a_folder_of_others_is_refused(library: Stand, runtime: Path) -> None:
    (runtime / "mmsearch").mkdir(mode=0o700)
    (runtime / "mmsearch").chmod(0o755)
    with pytest.raises(LibraryError, match="chmod 700"):
        serve(library)


def test_without_sockets(library: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.server.serve.HAS_SOCKETS", False)
    with pytest.raises(LibraryError, match="no Unix sockets"):
        serve(library)
