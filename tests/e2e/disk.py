"""A disk of two mebibytes for one test, which can be filled or mounted read-only. Only root can mount one.

In: a folder. Out: a tmpfs in it; a skip with a reason where none may be mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK_BYTES = 2 << 20
INODES = 512


class Disk:
    """A small disk of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"
        self._empty = path / "empty"

    def leave(self, free_bytes: int) -> None:
        """Fill the disk but for so much."""
        self.clear()
        found = os.statvfs(self.path)
        with self._ballast.open("wb") as file:
            file.write(bytes(max(0, found.f_bavail * found.f_frsize - free_bytes)))

    def use_up_inodes(self) -> None:
        """Make empty files until the disk has no room for another one; of bytes there is room."""
        self._empty.mkdir()
        for number in range(os.statvfs(self.path).f_ffree):
            (self._empty / str(number)).touch()
        found = os.statvfs(self.path)
        assert found.f_ffree == 0
        assert found.f_bavail * found.f_frsize > DISK_BYTES // 4

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)
        shutil.rmtree(self._empty, ignore_errors=True)

    def writable(self, yes: bool) -> None:
        """Mount it anew, so that root, too, may only read."""
        subprocess.run(["mount", "-o", f"remount,{'rw' if yes else 'ro'}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},nr_inodes={INODES}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk may be mounted here, as in most containers")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
