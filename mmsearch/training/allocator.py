"""The allocator keeps freed memory in the process, so that every training step does not fault its activations in again.

glibc gives large blocks back to the kernel at once, and a step allocates the same gigabytes anew: on two cores the
trunk's forward ran at 38 images/s with four fifths of the time in the kernel, and at 160 images/s with this.
Called by `run.py` before anything else; elsewhere than on glibc it does nothing.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from its heap and never shrink it. Says whether it could."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # another libc
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 2**28))
