"""A server over a library that is none: every search is noted, may fail, and waits while it is told to."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

from mmsearch import Hit
from mmsearch.server import client
from mmsearch.server.serve import serve


class Stand:
    """In a library's place: `fail` is raised by the searches to come, once each; they wait while `go` is not set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fail: list[Exception] = []
        self.calls: list[tuple[Any, ...]] = []
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()

    def search(self, text: str | None = None, image: Path | None = None, k: int = 10, **rest: Any) -> list[Hit]:
        self._note("search", text, image, k, rest)
        return [Hit(Path("/p/pair.jpg"), 0.5, 1, "image")]

    def search_many(self, texts: list[str], k: int = 10, **rest: Any) -> list[list[Hit]]:
        self._note("search_many", texts, k, rest)
        return [[Hit(Path(f"/p/{text}.jpg"), 0.25, 1, "image")] for text in texts]

    def reopen(self) -> None:
        self.calls.append(("reopen",))

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.begun.set()
        self.go.wait(30)
        if self.fail:
            raise self.fail.pop(0)


class running:  # noqa: N801
    """`serve` in a thread, until the block ends."""

    def __init__(self, library: Stand, idle_s: float = 30.0) -> None:
        self.library = library
        self._ready = threading.Event()
        self.thread = threading.Thread(target=serve, args=(library, idle_s, lambda _: self._ready.set()), daemon=True)

    def __enter__(self) -> running:
        self.thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.library.go.set()
        client.socket_path(self.library.path).unlink(missing_ok=True)  # which ends it
        self.thread.join(10)
        assert not self.thread.is_alive()


def question(path: Path, **change: object) -> bytes:
    """A question to the server of a library, as a client puts it."""
    values = {
        "protocol": client.PROTOCOL, "library": str(path.resolve()), "texts": ["a"], "image": None, "k": 1,
        "within": None, "folder": None, "since": None, "until": None,
    }  # fmt: skip
    return json.dumps({**values, **change}).encode() + b"\n"


def connected(path: Path, data: bytes = b"") -> socket.socket:
    """A connection to the server of a library, over which `data` was sent."""
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(20)
    while line.connect_ex(str(client.socket_path(path))) == errno.EAGAIN:  # as many as the system keeps wait already
        time.sleep(0.001)
    line.sendall(data)
    return line


def answered(line: socket.socket) -> dict[str, Any]:
    """The answer that comes after the first sign; none where the connection is closed."""
    messages, until_s = client.Messages(line), time.monotonic() + 20
    try:
        message = messages.read(until_s)
        if message == client.ACCEPTED:
            message = messages.read(until_s)
    except (ValueError, ConnectionError):
        return {}
    found = json.loads(message)
    assert isinstance(found, dict)
    return found
