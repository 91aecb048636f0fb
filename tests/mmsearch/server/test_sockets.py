"""A socket is made for this user alone, replaces what is dead, and takes away only itself."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from mmsearch.errors import LibraryError, LibraryLocked
from mmsearch.server import client
from mmsearch.server.sockets import is_same_user, listening, lock_of, make_private

pytestmark = pytest.mark.skipif(not client.HAS_SOCKETS, reason="no Unix sockets here")


@pytest.fixture
def path(runtime: Path) -> Path:
    make_private(runtime / "mmsearch")
    return runtime / "mmsearch" / "a.sock"


def test_it_is_private_and_goes_with_the_server(path: Path) -> None:
    with listening(path) as opened:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert opened.is_there()
    assert not path.exists()
    assert not opened.is_there()
    opened.close()


def test_in_the_place_of_a_dead_one(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path) as opened:
        assert opened.is_there()


def test_removed_and_taken_over(path: Path) -> None:
    with listening(path) as opened:
        path.unlink()
        assert not opened.is_there()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            assert not opened.is_there()
    assert path.exists()  # of the other


def test_what_cannot_be_replaced_is_told(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LibraryError, match="XDG_RUNTIME_DIR"), listening(path):
        pass


def test_an_error_inside_stays_what_it_is(path: Path) -> None:
    with pytest.raises(OSError, match="mine"), listening(path):
        raise OSError(5, "mine")
    assert not path.exists()


def test_the_folder_is_this_users_alone(runtime: Path) -> None:
    folder = runtime / "mmsearch"
    make_private(folder)
    folder.chmod(0o755)
    with pytest.raises(LibraryError, match="chmod 700"):
        make_private(folder)
    (runtime / "file").touch()
    with pytest.raises(LibraryError, match="XDG_RUNTIME_DIR"):
        make_private(runtime / "file" / "below")


def test_one_holder(path: Path) -> None:
    with lock_of(path), pytest.raises(LibraryLocked, match="served already"), lock_of(path):
        pass


def test_this_user_is_known() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert is_same_user(left)
