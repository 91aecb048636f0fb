"""The allocator keeps freed memory where it can; elsewhere it says that it cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmsearch.training import allocator


def test_elsewhere_than_on_linux_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", absent)
    assert not allocator.keep_freed_memory()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_on_glibc_a_block_freed_stays_with_the_process() -> None:
    """In a process of its own: the setting is for good."""
    code = """
import resource, sys
from mmsearch.training.allocator import keep_freed_memory
import numpy as np
if not keep_freed_memory():
    sys.exit(7)
np.ones(30_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(30_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    if run.returncode == 7:
        pytest.skip("another libc")
    assert int(run.stdout) < 5_000  # 58,000 pages a block, were each faulted in again
