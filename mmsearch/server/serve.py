"""`mmsearch serve --socket`: a library and its model kept warm for the searches of one user on one machine.

In: questions on a Unix socket, one line of JSON each. Out: hits, or why the server declines, after which the client
answers for itself. The socket is private to the user (0600 in a folder of 0700), one server for each library holds a
lock, and a socket that a dead server left is replaced. What is indexed meanwhile is found; a catalog or a model that
was replaced is opened anew. An idle server ends itself. Next: `connections.py`; `client.py`, the other end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mmsearch.errors import LibraryError
from mmsearch.server.answers import Answers, Searchable
from mmsearch.server.client import HAS_SOCKETS, is_served, socket_path
from mmsearch.server.connections import Connections
from mmsearch.server.sockets import listening, lock_of, make_private

IDLE_S: Final = 600.0
START_TIMEOUT_S: Final = 30.0


def serve(library: Searchable, idle_s: float = IDLE_S, ready: Callable[[Path], None] | None = None) -> None:
    """Answer searches of `library` until `idle_s` seconds pass without a question, or SIGTERM, or Ctrl-C.

    What was asked before is answered first, within two seconds; a second signal ends the process at once.

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
    make_private(path.parent)
    with lock_of(path), _signals() as told:
        answers = Answers(library)
        answers.warm_up()
        with listening(path) as opened:
            connections = Connections(answers)
            told.stop = connections.stop
            if ready is not None:
                ready(path)
            ended = connections.run(opened, idle_s)
        if told.count and not ended:
            _leave()


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


class _Told:
    """Signals that came, and what they call; before there is anything to stop, they end the process in order."""

    def __init__(self) -> None:
        self.count = 0
        self.stop: Callable[[], None] | None = None

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.stop is None:
            raise SystemExit(0)
        self.stop()


@contextlib.contextmanager
def _signals() -> Iterator[_Told]:
    """SIGTERM and Ctrl-C end the server in order; only the main thread can handle signals."""
    told = _Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # a shell may start what it runs in its background so
            signal.signal(number, told)
    try:
        yield told
    finally:
        told.stop = _leave  # where one came, the process is about to end, and one more need not wait for it
        for number, handler in before.items() if not told.count else ():
            signal.signal(number, handler)


def _leave() -> None:
    """End although a search still runs: the interpreter would abort where it finds a thread in the model's code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)
