"""Asks a running `mmsearch serve --socket` instead of loading a model: found by its path, trusted by its owner.

In: a library's folder and a question. Out: the hits, or None where no server answers: none runs, another version, it
declines, or is busy. The caller then answers for itself, which takes half a second: a server never changes an answer,
only how soon it comes. That it has taken a question up the server says at once, in a line of its own; without that line
a client waits no longer than it would take itself.
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
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from mmsearch import __version__
from mmsearch.query.hits import Hit

PROTOCOL: Final = f"4 {__version__}"
SIGN_TIMEOUT_S: Final = 0.5  # until the first line: what a search by oneself takes
ANSWER_TIMEOUT_S: Final = 2.0  # from that line on, and for each text, and for a picture that is slow to decode:
ANSWER_TEXT_S: Final = 0.02
ANSWER_IMAGE_S: Final = 3.0
MOST_TEXTS: Final = 256  # for more, the time to load a model is nothing
MAX_QUESTION_BYTES: Final = 1 << 20
MAX_MESSAGE_BYTES: Final = 64 << 20  # of an answer
ACCEPTED: Final = b'{"accepted": true}\n'
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
    if len(texts) > MOST_TEXTS:
        return None
    answer_s = ANSWER_TIMEOUT_S + ANSWER_TEXT_S * len(texts) + (0.0 if image is None else ANSWER_IMAGE_S)
    answer = _exchange(socket_path(library), question, answer_s)
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


def _exchange(path: Path, question: dict[str, Any], answer_s: float = 0.0) -> dict[str, Any] | None:
    data = json.dumps(question).encode() + b"\n"
    if not HAS_SOCKETS or len(data) > MAX_QUESTION_BYTES:
        return None
    try:
        if not (is_private(path.parent) and is_private(path)):
            return None  # of another user: it could answer anything
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as line:
            sign_by_s = time.monotonic() + SIGN_TIMEOUT_S
            line.settimeout(SIGN_TIMEOUT_S)
            line.connect(str(path))
            line.settimeout(_left_s(sign_by_s))
            line.sendall(data)
            messages = Messages(line)
            answer = messages.read(sign_by_s)
            if answer == ACCEPTED:
                answer = messages.read(time.monotonic() + answer_s)
            found = json.loads(answer)
    except (OSError, ValueError, RecursionError):  # no server, too slow, or not an answer
        return None
    return found if isinstance(found, dict) else None


class Messages:
    """Messages on a socket, each a line that ends with a newline."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._data = bytearray()

    def read(self, until_s: float) -> bytes:
        """The next one. Raises: ValueError when it has no end; TimeoutError when the clock passes `until_s`."""
        end = self._data.find(b"\n")
        while end < 0:
            self._line.settimeout(_left_s(until_s))
            part = self._line.recv(1 << 16)
            if not part or len(self._data) > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {len(self._data)} bytes without an end")
            found = part.find(b"\n")
            end = found if found < 0 else len(self._data) + found
            self._data += part
        message = bytes(self._data[: end + 1])
        del self._data[: end + 1]
        return message


def read_line(line: socket.socket, within_s: float = ANSWER_TIMEOUT_S) -> bytes:
    """One message, as a whole within so many seconds. Raises: ValueError when it has no end; TimeoutError."""
    return Messages(line).read(time.monotonic() + within_s)


def _left_s(until_s: float) -> float:
    """Seconds to a moment of `time.monotonic`. Raises: TimeoutError when it is past."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
