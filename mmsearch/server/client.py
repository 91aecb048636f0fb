"""Asks a running `mmsearch serve --socket` instead of loading a model: found by its path, trusted by its owner.

In: a library's folder and a question. Out: the hits, or None where no server answers: none runs, another version, or it
declines. The caller then answers for itself, so that a server never changes an answer, only how soon it comes.
Nothing heavy is imported here, not even numpy. Next: `serve.py`, the other end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from mmsearch import __version__
from mmsearch.query.hits import Hit

PROTOCOL: Final = f"3 {__version__}"
CONNECT_TIMEOUT_S: Final = 0.5
ANSWER_TIMEOUT_S: Final = 30.0
MAX_MESSAGE_BYTES: Final = 64 << 20  # of a question or an answer
HAS_SOCKETS: Final = hasattr(socket, "AF_UNIX")


def runtime_folder() -> Path:
    """Where sockets live: `$XDG_RUNTIME_DIR/mmsearch`, else a folder of this user's in the system's temporary one."""
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "mmsearch"
    return Path(tempfile.gettempdir()) / f"mmsearch-{os.getuid() if hasattr(os, 'getuid') else 0}"


def socket_path(library: Path) -> Path:
    """The socket of the library in a folder: a hash, since paths of sockets must be short."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(library))).hexdigest()[:24]
    return runtime_folder() / f"{name}.sock"


def is_private(path: Path) -> bool:
    """Whether a folder or socket belongs to this user, and no other user may use it."""
    found = os.lstat(path)
    mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return mine and not stat.S_ISLNK(found.st_mode) and not found.st_mode & 0o077


def ask(
    library: Path,
    texts: Sequence[str],
    *,
    image: Path | None = None,
    k: int = 10,
    within: Literal["image", "text"] | None = None,
    folder: Path | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[list[Hit]] | None:
    """The hits for each of `texts`, or for `image` alone or with one text; None where no server answers."""
    question = {
        "protocol": PROTOCOL,
        "library": os.path.realpath(library),
        "texts": list(texts),
        "image": None if image is None else os.path.abspath(image.expanduser()),
        "k": k,
        "within": within,
        "folder": None if folder is None else os.path.abspath(folder.expanduser()),
        "since": since,
        "until": until,
    }
    answer = _exchange(socket_path(library), question)
    if answer is None or "hits" not in answer:
        return None
    return [[_unpacked(rank, values) for rank, values in enumerate(hits, 1)] for hits in answer["hits"]]


def _unpacked(rank: int, values: list[Any]) -> Hit:
    path, score, modality, text, taken_at, *rest = values
    moment = None if taken_at is None else datetime.fromisoformat(taken_at)
    return Hit(Path(path), score, rank, modality, text, moment, *rest)


def is_served(library: Path) -> bool:
    """Whether a server of this version answers for a library."""
    question = {"protocol": PROTOCOL, "library": os.path.realpath(library), "ping": True}
    return (_exchange(socket_path(library), question) or {}).get("pong") is True


def _exchange(path: Path, question: dict[str, Any]) -> dict[str, Any] | None:
    if not HAS_SOCKETS:
        return None
    try:
        if not (is_private(path.parent) and is_private(path)):
            return None  # of another user: it could answer anything
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as line:
            line.settimeout(CONNECT_TIMEOUT_S)
            line.connect(str(path))
            line.settimeout(ANSWER_TIMEOUT_S)
            line.sendall(json.dumps(question).encode() + b"\n")
            answer = json.loads(read_line(line))
    except (OSError, ValueError):  # no server, too slow, or not an answer
        return None
    return answer if isinstance(answer, dict) else None


def read_line(line: socket.socket) -> bytes:
    """One message. Raises: ValueError when it has no end."""
    data = bytearray()
    while not data.endswith(b"\n"):
        part = line.recv(1 << 16)
        if not part or len(data) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(data)} bytes without an end")
        data += part
    return bytes(data)
