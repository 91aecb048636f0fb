"""`mmsearch serve --socket`: a library and its model kept warm for the searches of one user on one machine.

In: questions on a Unix socket, one line of JSON each. Out: hits, or why the server declines, after which the client
answers for itself. The socket is private to the user (0600 in a folder of 0700), one server for each library holds a
lock, and a socket that a dead server left is replaced. What is indexed meanwhile is found; a catalog or a model that
was replaced is opened anew. An idle server ends itself. Next: `client.py`, the other end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from indexer.base.lock import exclusive
from mmsearch.errors import LibraryError, MMSearchError, ModelMismatch
from mmsearch.query.hits import Hit
from mmsearch.server.client import HAS_SOCKETS, PROTOCOL, is_private, is_served, read_line, socket_path

IDLE_S: Final = 600.0
REQUEST_TIMEOUT_S: Final = 5.0
TICK_S: Final = 0.5
START_TIMEOUT_S: Final = 30.0

Within = Literal["image", "text"] | None
Text = str | None  # as a question brings it
log = logging.getLogger(__name__)


class Searchable(Protocol):
    """What the server needs of a library; `mmsearch.library.Library` is one."""

    path: Path

    def search(
        self, text: Text, image: Path | None, k: int, within: Within, *, folder: Text, since: Text, until: Text
    ) -> list[Hit]:
        """The files nearest to words, a picture or both."""

    def search_many(
        self, texts: Sequence[str], k: int, within: Within, *, folder: Text, since: Text, until: Text
    ) -> list[list[Hit]]:
        """The same for many texts."""

    def reopen(self) -> None:
        """Forget what was read: the library was replaced on disk."""


def serve(library: Searchable, idle_s: float = IDLE_S, ready: Callable[[Path], None] | None = None) -> None:
    """Answer searches of `library` until `idle_s` seconds pass without a question, or SIGTERM, or Ctrl-C.

    Args:
        library: open, and not used otherwise meanwhile.
        idle_s: seconds without a question, 0 for ever.
        ready: called with the socket's path once questions are heard.

    Raises:
        LibraryLocked: the library is served already.
        LibraryNotFound: nothing was indexed yet.
        LibraryError: this system has no such sockets, or the folder for them is not this user's alone.
    """
    if not HAS_SOCKETS:
        raise LibraryError("this system has no Unix sockets; searches work without a server")
    path = socket_path(library.path)
    _make_private(path.parent)
    with _lock_of(path), _listening(path) as listener:
        server = _Server(library)
        server.warm_up()
        if ready is not None:
            ready(path)
        with _stop_on_sigterm(server):
            server.run(listener, idle_s)


def start(library: Path, arguments: list[str]) -> None:
    """Start a server in the background and wait until it answers.

    Raises:
        LibraryError: it did not answer in time; its reason is on stderr when it runs in the foreground.
    """
    command = [sys.executable, "-m", "mmsearch", "serve", "--socket", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if is_served(library):
            return
        time.sleep(0.05)
    found = "it ended" if process.poll() is not None else f"no answer within {START_TIMEOUT_S:.0f} s"
    raise LibraryError(f"the server did not start ({found}); 'mmsearch serve --socket' in the foreground says why")


class _Server:
    def __init__(self, library: Searchable) -> None:
        self._library = library
        self._real = os.path.realpath(library.path)
        self._catalog = self._identity()
        self._busy = threading.Lock()  # models and libraries are asked by one thread at a time
        self._asked_at = time.monotonic()
        self._over = threading.Event()

    def warm_up(self) -> None:
        """Load the model and read every vector once, before the first question."""
        self._library.search_many(["warm"], k=1, within=None, folder=None, since=None, until=None)

    def stop(self) -> None:
        self._over.set()

    def run(self, listener: socket.socket, idle_s: float) -> None:
        listener.settimeout(TICK_S)
        self._asked_at = time.monotonic()
        while not self._over.is_set():
            if idle_s and time.monotonic() - self._asked_at > idle_s:
                log.info("no question for %.0f s", idle_s)
                return
            try:
                line, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._handle, args=(line,), daemon=True).start()

    def _handle(self, line: socket.socket) -> None:
        with contextlib.closing(line), contextlib.suppress(OSError):  # the client may have gone
            line.settimeout(REQUEST_TIMEOUT_S)
            if not _same_user(line):
                return
            try:
                question = json.loads(read_line(line))
                answer = self._answer(question)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                answer = {"declined": f"not a question ({error})"}
            line.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question.get("protocol") != PROTOCOL:
            return {"declined": f"the server speaks {PROTOCOL!r}"}
        if question.get("library") != self._real:
            return {"declined": f"the server has {self._real}"}
        self._asked_at = time.monotonic()
        if question.get("ping"):
            return {"pong": True, "pid": os.getpid()}
        with self._busy:
            try:
                return {"hits": self._search(question)}
            except (MMSearchError, OSError) as error:
                return {"declined": str(error)}
            finally:
                self._asked_at = time.monotonic()

    def _search(self, question: dict[str, Any]) -> list[Any]:
        identity = self._identity()
        if identity != self._catalog:  # another catalog under the same name
            self._reopen()
        try:
            return self._found(question)
        except ModelMismatch:  # another model took over
            self._reopen()
            return self._found(question)

    def _found(self, question: dict[str, Any]) -> list[Any]:
        texts, image, k = (question[name] for name in ("texts", "image", "k"))
        options = {name: question[name] for name in ("within", "folder", "since", "until")}
        if image is not None:
            answers = [self._library.search(texts[0] if texts else None, image, k=k, **options)]
        else:
            answers = self._library.search_many(texts, k=k, **options)
        return [[_packed(hit) for hit in hits] for hits in answers]

    def _reopen(self) -> None:
        self._library.reopen()
        self._catalog = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(os.path.join(self._real, "catalog.sqlite"))
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _packed(hit: Hit) -> list[Any]:
    """A hit as JSON takes it; `client.py` unpacks it in this order."""
    taken_at = None if hit.taken_at is None else hit.taken_at.isoformat()
    shown = [str(hit.path), hit.score, hit.modality, hit.text, taken_at]
    return [*shown, hit.latitude_deg, hit.longitude_deg, hit.camera, hit.time_s]


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_private(folder):
            return
    except OSError as error:
        raise LibraryError(f"{folder} cannot be used for a socket ({error.strerror}); set XDG_RUNTIME_DIR") from error
    raise LibraryError(f"{folder} is not this user's alone; run 'chmod 700 {folder}' or set XDG_RUNTIME_DIR")


def _lock_of(path: Path) -> contextlib.AbstractContextManager[None]:
    """One server a library."""
    return exclusive(
        path.with_suffix(".lock"),
        lambda holder: f"this library is served already by {holder}; nothing to do",
        lambda error: f"{path.parent} cannot be used for a socket ({error.strerror}); set XDG_RUNTIME_DIR",
        mode=0o600,
    )


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that is this user's alone; one left by a dead server goes, since its lock was free."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))  # in a folder that no other user may enter
        os.chmod(path, 0o600)
        listener.listen(64)
        yield listener
    except OSError as error:
        raise LibraryError(f"{path} cannot be listened on ({error.strerror or error}); set XDG_RUNTIME_DIR") from error
    finally:
        path.unlink(missing_ok=True)
        listener.close()


@contextlib.contextmanager
def _stop_on_sigterm(server: _Server) -> Iterator[None]:
    """SIGTERM ends the server in order; only the main thread can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: server.stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _same_user(line: socket.socket) -> bool:
    """Whether the other end is this user, where the system tells (Linux); elsewhere the folder's mode stands for it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(uid == os.getuid())
