"""What the script `mmsearch` calls: a process in which the command line can run, whatever it was started with.

Nothing heavy is imported before Ctrl-C has its one line. A standard stream that is closed is opened on nothing: else
the next file, the catalog perhaps, would get its number, and what some library prints would be written into it.

In: the process. Out: its exit code. Next: `app.py`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

INTERRUPTED: Final = 130
LEAST_MEMORY_BYTES: Final = 512 << 20  # below it OpenBLAS ends the process by itself while numpy is imported


def main() -> int:
    """Run the command line of this process and return its exit code."""
    try:
        _open_standard_streams()
        _check_memory()
        from mmsearch.cli import app

        code = app.main()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said and done: Python tidies up, and may be stopped
        return code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from mmsearch.cli.terminal import note

        note("interrupted; nothing was changed")
        return INTERRUPTED
    except Exception as error:  # the program itself could not be read: too little memory, a broken installation
        from mmsearch.cli.explain import explain
        from mmsearch.cli.terminal import note

        note(explain(error))
        return 2


def _check_memory() -> None:
    if sys.platform != "win32":
        import resource

        limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
        if 0 <= limit_bytes < LEAST_MEMORY_BYTES:  # RLIM_INFINITY is -1
            raise MemoryError


def _open_standard_streams() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives
