"""glibc is asked to keep freed memory, in a process of its own since that cannot be taken back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from mmsearch.training import step

FAULTS = """
import resource, sys
from mmsearch.training.step import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(20):
        block = bytearray(64 << 20)
        block[::4096] = b"x" * len(block[::4096])
        del block
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc")
def test_freed_blocks_are_not_faulted_in_again() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("keep", "give back")
    }
    assert faults["keep"] < faults["give back"] / 10


def test_elsewhere_it_says_that_it_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert step.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")

    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(step.ctypes, "CDLL", missing)
    assert step.keep_freed_memory() is False
