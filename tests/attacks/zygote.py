"""A process that has imported everything and forks for each command line: one costs its own work alone.

In: `Order`s, a line of JSON each, on stdin. Out: what became of each, a line of JSON on stdout. The command runs under
limits on time and memory, and an audit hook (https://peps.python.org/pep-0578/) notes what it must never do: ask the
network, start a program, write or delete outside of the folders that are its own, read what is private.
Next: `stage.py`, which starts this and sends the orders.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Final

MEMORY_BYTES: Final = 4 << 30  # a command that takes more than 1 GB is a finding, and does not take the machine down
PROCESSOR_S: Final = 10
FILE_BYTES: Final = 1 << 30
CHANGES: Final = frozenset(
    ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink",
     "os.utime", "os.mkfifo", "os.setxattr", "shutil.rmtree")
)  # fmt: skip
NETWORK: Final = frozenset(
    ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
)
WARM: Final = (
    "faiss", "numpy.linalg", "onnxruntime", "sqlalchemy", "tokenizers", "indexer.doctor", "indexer.store",
    "indexer.transfer.export", "indexer.transfer.restore", "mmsearch.inference.load_model", "mmsearch.library",
    "mmsearch.query.engine", "mmsearch.server.client", "tests.e2e.runner",
)  # fmt: skip
PROGRAMS: Final = frozenset(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"))


def main() -> None:
    """Import what commands need, say so, and serve."""
    warnings.simplefilter("ignore")
    _warm()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _warm() -> None:
    for name in WARM:
        importlib.import_module(name)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait at most `timeout_s`, and say how it ended."""
    folder = Path(order["notes"])
    started_s = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(order, folder)
    timed_out, status, usage = False, 0, None
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started_s > order["timeout_s"]:
            timed_out = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    return {
        "code": os.waitstatus_to_exitcode(status),
        "timed_out": timed_out,
        "seconds": time.monotonic() - started_s,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def _become(order: dict[str, Any], folder: Path) -> None:
    """The command line of an order, in this process, which ends with it."""
    code = 70
    try:
        os.setpgid(0, 0)
        for number, name in ((0, os.devnull), (1, folder / "out"), (2, folder / "err")):
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        for what, limit in (
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_CPU, PROCESSOR_S),
            (resource.RLIMIT_FSIZE, FILE_BYTES),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(what, (limit, limit))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(order["environment"])
        os.chdir(order["cwd"])
        seen = os.open(folder / "seen", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        _watch(seen, [os.fsencode(one) for one in order["own"]], [os.fsencode(one) for one in order["private"]])
        code = _call(order)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(order: dict[str, Any]) -> int:
    from mmsearch import model_choice
    from mmsearch.cli import app
    from tests.e2e.runner import load_fake

    if order["fake"]:
        model_choice.load_encoder = load_fake
    return app.main(order["arguments"])


def _watch(seen: int, own: list[bytes], private: list[bytes]) -> None:
    """Note what must not be, in the file `seen`, at once: the process may be killed."""

    def below(path: object, folders: list[bytes]) -> bool:
        if isinstance(path, int):
            return False
        try:
            name = os.path.abspath(os.fsencode(path))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False
        return any(name == folder or name.startswith(folder + b"/") for folder in folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        said = None
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, (str, bytes)):
                return
            if below(path, private):
                said = f"reads {path!r}"
            elif flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) and not below(path, own):
                said = f"writes {path!r}"
        elif event in CHANGES:
            paths = [one for one in arguments if isinstance(one, (str, bytes, os.PathLike))]
            if paths and not all(below(one, own) or not os.path.isabs(os.fsencode(one)) for one in paths):
                said = f"{event} {paths!r}"
        elif event in NETWORK:
            if not any(isinstance(one, (str, bytes)) and one[:1] in ("/", b"/") for one in arguments[1:]):
                said = f"{event} {arguments[1:]!r}"
        elif event in PROGRAMS:
            words = [str(one) for one in arguments[1]] if len(arguments) > 1 and arguments[1] else []
            is_ours = str(arguments[0]) == sys.executable and any(w.startswith(("indexer", "mmsearch")) for w in words)
            if not is_ours:
                said = f"{event} {arguments[:2]!r}"
        if said is not None:
            os.write(seen, said.encode("utf-8", "backslashreplace") + b"\n")

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
