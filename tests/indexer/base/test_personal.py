from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer.base import personal


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    monkeypatch.setattr(personal, "_in_process", {})
    return tmp_path / "state"


def test_the_key_is_made_once_and_is_the_users_alone(home: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert len({found for found in threads.map(lambda _: personal.key(), range(32))}) == 1
    assert len(personal.key()) == personal.KEY_BYTES
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600
    assert personal.key_id() == personal.key_id()
    assert personal.key().hex() not in personal.key_id()


def test_half_a_key_is_replaced(home: Path) -> None:
    home.mkdir()
    (home / "key").write_bytes(b"short")
    found = personal.key()
    assert len(found) == personal.KEY_BYTES
    assert personal.key() == found


def test_digests_of_two_keys_differ(home: Path) -> None:
    before = personal.keyed_digest(b"digest")
    assert before == personal.keyed_digest(b"digest") != personal.keyed_digest(b"other")
    (home / "key").unlink()
    assert personal.keyed_digest(b"digest") != before


def test_facts_are_kept_and_bad_files_hold_none(home: Path) -> None:
    assert personal.remembered("models") == {}
    personal.remember("models", "a", "1")
    personal.remember("models", "b", os.fsdecode(b"\xff"))
    assert personal.remembered("models") == {"a": "1", "b": os.fsdecode(b"\xff")}
    for bad in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000):
        (home / "models.json").write_bytes(bad)
        assert personal.remembered("models") == {}


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_where_nothing_can_be_written_it_lasts_as_long_as_the_process(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.symlink_to("/proc/nowhere")
    assert personal.key() == personal.key()
    personal.remember("models", "a", "1")
    assert personal.remembered("models") == {"a": "1"}
    assert "MMSEARCH_HOME" in caplog.text
