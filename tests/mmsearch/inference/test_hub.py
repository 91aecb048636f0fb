"""Names of the hub: found on this machine without a socket, fetched only by the call that is for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.errors import ModelError, ModelNotFound
from mmsearch.inference import hub
from mmsearch.inference.hub import download, offline, place_of
from tests.tiny_clip import write_tiny_clip

NO_SOCKETS = """
import socket, sys
def refuse(*given, **named):
    print("a socket was asked for", file=sys.stderr, flush=True)
    raise AssertionError("a socket was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.gethostbyname = refuse
from mmsearch.cli import app
sys.exit(app.main(sys.argv[1:]))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with a tiny CLIP as `sentence-transformers/tiny`."""
    home = tmp_path / "cache"
    repository, commit = home / "models--sentence-transformers--tiny", "ab" * 20
    snapshot = repository / "snapshots" / commit
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    write_tiny_clip(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(repository / "blobs" / f"{number}")
        path.symlink_to(Path("..") / ".." / "blobs" / f"{number}")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(home))
    return home


def test_a_name_is_found_where_it_was_downloaded(cache: Path) -> None:
    place = cache / "models--sentence-transformers--tiny" / "snapshots" / ("ab" * 20)
    assert place_of("tiny") == place_of("sentence-transformers/tiny") == download("tiny") == place
    assert place_of(str(place)) == place
    for name in ("unknown", "a/b", "white space"):
        with pytest.raises(ModelNotFound, match="mmsearch download"):
            place_of(name)
    for name in ("./nothing", "/nothing/here", "a/b/c", "a\\b"):
        with pytest.raises(ModelError, match="no such folder"):
            place_of(name)


def test_only_configuration_and_safetensors_are_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, list[str], list[str]]] = []

    class Hub:
        def head(self, url: str, timeout: float) -> None: ...

    def fetch(name: str, *, cache_dir: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, allow_patterns, ignore_patterns))
        if "/" in name:
            raise OSError("404 no such model\nread the documentation")
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "get_session", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert download("clip") == cache
    assert [name for name, *_ in asked] == ["sentence-transformers/clip", "clip"]
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in asked[0][1])
    with pytest.raises(ModelError, match=r"404 no such model\); check its name") as told:
        download("somebody/clip")
    assert "\n" not in str(told.value)


def test_offline_is_for_a_while() -> None:
    from huggingface_hub import is_offline_mode

    before = is_offline_mode()
    with offline():
        assert is_offline_mode()
    assert is_offline_mode() == before


def test_no_command_but_the_one_that_downloads_opens_a_socket(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("a dog")
    env = {**os.environ, "MMSEARCH_HOME": str(tmp_path / "home")}

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", NO_SOCKETS, *arguments], env=env, capture_output=True, text=True, timeout=300
        )
        assert "a socket was asked for" not in done.stderr
        return done.returncode, done.stderr

    assert run("index", str(tmp_path / "photos"), "--model", "tiny", "--device", "cpu")[0] == 0
    code, told = run("search", "a dog", "--model", "unknown")
    assert code == 2
    assert told == f"mmsearch: model 'unknown' is not on this machine; {hub.REMEDY}\n"
