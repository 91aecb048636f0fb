"""What mmsearch remembers of one user on one machine, outside of every library: a key, models named, folders indexed.

A library is data and may come from another person. What it may ask for is decided by what this user did here before:
which models were named, which folders were indexed. And FAISS reads only what this user's mmsearch wrote, told by a
checksum with this user's key (HMAC-SHA256, https://doi.org/10.17487/RFC2104).

In: `$MMSEARCH_HOME/state`, else the platform's folder for state. Out: a key, facts that were remembered. Files are
small, of mode 0600, and replaced whole. Where the folder cannot be written, facts last as long as the process.
Next: `../catalog/roots.py`, `../search/index_files.py`, which ask.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from typing import Final

from indexer.base.errors import LibraryError
from indexer.base.plain_files import new_file, read_plain, temporary_name

HOME_VARIABLE: Final = "MMSEARCH_HOME"
KEY_BYTES: Final = 32
ATTEMPTS: Final = 5
PAUSE_S: Final = 0.02
MOST_BYTES: Final = 8 << 20  # of a remembered file

log = logging.getLogger(__name__)
_in_process: dict[Path, bytes] = {}  # what could not be written
_lock = threading.Lock()


def state_folder() -> Path:
    """`$MMSEARCH_HOME/state`, else the platform's folder for state."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser() / "state"
    from platformdirs import user_state_path  # not needed, and not paid for, where the variable is set

    return user_state_path("mmsearch")


def key() -> bytes:
    """This user's secret, `KEY_BYTES` long, made at the first call."""
    path = state_folder() / "key"
    with _lock:
        for _ in range(ATTEMPTS):  # another process may be making it
            found = _read(path)
            if len(found) == KEY_BYTES:
                return found
            _make_key(path)
        _replace(path, secrets.token_bytes(KEY_BYTES))  # what a crash left in its place
        return _read(path)


def key_id() -> str:
    """A public name of the key, 16 hexadecimal digits: it tells this user's files from another's."""
    return hashlib.sha256(b"mmsearch key id" + key()).hexdigest()[:16]


def is_lasting() -> bool:
    """Whether the key outlasts this process: else what it seals is worth nothing to the next one."""
    key()
    return state_folder() / "key" not in _in_process


def keyed_digest(digest: bytes) -> str:
    """The HMAC-SHA256 of a digest by this user's key, hexadecimal."""
    return hmac.new(key(), digest, hashlib.sha256).hexdigest()


def remembered(name: str) -> dict[str, str]:
    """The facts under `name`, none where nothing usable is there."""
    try:
        facts = json.loads(_read(state_folder() / f"{name}.json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in facts.items()} if isinstance(facts, dict) else {}


def remember(name: str, key: str, value: str, *, level: int = logging.WARNING) -> None:
    """Keep one fact under `name`, beside those that are there. Of two processes at once one may lose its own.

    That it cannot be written is said at `level`.
    """
    path = state_folder() / f"{name}.json"
    with _lock:
        facts = remembered(name)
        if facts.get(key) != value:
            text = json.dumps(facts | {key: value}, indent=1, sort_keys=True)
            _replace(path, text.encode(errors="surrogateescape"), level)


def this_machine() -> str:
    """The name of this machine: what is true of a path here need not be so on another."""
    return platform.node()


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError, LibraryError):
        return read_plain(path, MOST_BYTES)
    return _in_process.get(path, b"")


def _make_key(path: Path) -> None:
    """The first of several processes makes it, the others find it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new_file(path, 0o600) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    except FileExistsError:
        time.sleep(PAUSE_S)
    except OSError as error:
        _keep_in_process(path, secrets.token_bytes(KEY_BYTES), error)


def _replace(path: Path, data: bytes, level: int = logging.WARNING) -> None:
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new_file(temporary, 0o600) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _keep_in_process(path, data, error, level)


def _keep_in_process(path: Path, data: bytes, error: OSError, level: int = logging.WARNING) -> None:
    if path not in _in_process:
        log.log(
            level,
            "%s cannot be written (%s); set %s to a folder that can, until then every library is new to you",
            *(path, error.strerror, HOME_VARIABLE),
        )
    _in_process[path] = data
