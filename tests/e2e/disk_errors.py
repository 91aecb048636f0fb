"""Commands on a disk that fails once: what every one of them must keep, whichever call fails with whichever error.

In: a failing disk. Out: nothing, or an assertion. Next: `test_disk_errors.py`, some; `../bench/disk_errors.py`, many.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.failing_disk import CALLS, FailingDisk, Said
from tests.indexer.folders import change, fill
from tests.indexer.snapshots import contents

ERRORS = {  # by the kind of call, those that the system gives there
    **dict.fromkeys(("write", "pwrite", "fsync", "ftruncate"), (errno.EIO, errno.EIO, errno.ENOSPC)),
    **dict.fromkeys(("read", "pread", "stat"), (errno.EIO,)),
    **dict.fromkeys(("rename", "unlink", "mkdir"), (errno.EIO, errno.EROFS)),
    "open": (errno.EIO, errno.EROFS, errno.EMFILE),
}
# SQLite does not always say why; a second look, as the doctor's, finds nothing wrong then
NO_REASON = {"open": ("unable to open database file",), "pread": ("is damaged",)}
NO_REASON |= dict.fromkeys(("pwrite", "ftruncate", "fsync"), ("input/output error",))  # or by the room there is
WORDS = {
    errno.EIO: ("input/output error", "Input/output error"),
    errno.ENOSPC: ("full", "No space left", "no room"),
    errno.EROFS: ("read-only", "readonly database"),  # of a disk that is mounted so the first, SQLite's word the other
    errno.EMFILE: ("too many open files",),
}
COMMANDS = ("first", "index", "search", "doctor", "repair", "backup", "prune", "rebuild")


@dataclass(frozen=True)
class Scene:
    """A command line, the library it starts from, and where it ends undisturbed."""

    arguments: tuple[str | Path, ...]
    before: Path | None
    after: Path


class Scenes:
    """Every command with a library of its own, done once undisturbed."""

    def __init__(self, folder: Path, disk: FailingDisk) -> None:
        self.folder, self._disk = folder, disk
        folder.mkdir()
        fill(folder / "photos")
        fill(folder / "moving")
        whole, first = folder / "whole", folder / "moving-first"
        self.library, self.dest = folder / "here" / "library", folder / "here" / "copy"
        for photos, kept in ((folder / "photos", whole), (folder / "moving", first)):
            self._do("index", photos, library=self.library)  # here, where this user's roots are remembered
            shutil.move(self.library, kept)
        change(folder / "moving", captions=True)
        self._lines: dict[str, tuple[Path | None, tuple[str | Path, ...]]] = {
            "first": (None, ("index", folder / "photos")),
            "index": (first, ("index", folder / "moving")),
            "search": (whole, ("search", "red", "--paths")),
            "doctor": (whole, ("doctor",)),
            "repair": (whole, ("doctor", "--repair")),
            "backup": (whole, ("backup", self.dest)),
            "prune": (first, ("prune",)),
            "rebuild": (whole, ("rebuild", "--model", "other")),
        }
        self._scenes: dict[str, Scene] = {}
        self.calls: Counter[tuple[str, str]] = Counter()

    def _do(self, *arguments: str | Path, library: Path) -> Said:
        said = self._disk.run(*arguments, "--library", library)
        assert said.code in (0, 1, 3), said
        return said

    def _scene(self, name: str) -> Scene:
        """Done undisturbed the first time it is asked for."""
        if name not in self._scenes:
            before, arguments = self._lines[name]
            after = self.folder / f"after-{name}"
            shutil.rmtree(self.folder / "here")
            if before is not None:
                shutil.copytree(before, self.library)
            self._do(*arguments, library=self.library)
            shutil.move(self.library, after)
            self._scenes[name] = Scene(arguments, before, after)
        return self._scenes[name]

    def count(self, name: str, call: str) -> int:
        """How many calls of a kind a command makes on the library, and where it writes."""
        if (name, call) not in self.calls:
            self.calls[name, call] = self._run(name, call, 0, 0).calls
        return self.calls[name, call]

    def _run(self, name: str, call: str, number: int, error: int) -> Said:
        scene = self._scene(name)
        shutil.rmtree(self.folder / "here", ignore_errors=True)
        (self.folder / "here").mkdir()
        if scene.before is not None:
            shutil.copytree(scene.before, self.library)
        arguments = (*scene.arguments, "--library", self.library)
        return self._disk.run(*arguments, call=call, below=f"{self.folder / 'here'}/", number=number, error=error)

    def fail(self, name: str, call: str, number: int, error: int) -> str:
        """One command whose `number`-th `call` fails: how it ended, in a word. Raises: AssertionError."""
        scene, said = self._scene(name), self._run(name, call, number, error)
        what = (name, call, number, errno.errorcode[error], said)
        assert said.failed, what
        assert said.code in (0, 1, 2, 3), what
        assert "unexpected" not in said.err, what
        assert "Traceback" not in said.err, what
        lines = said.err.splitlines()
        assert len([line for line in lines if "skipped" not in line and "goes over from" not in line]) <= 2, what
        if said.code == 2:
            assert any(word in lines[-1] for word in (*WORDS[error], *NO_REASON.get(call, ()))), what
        assert not list(self.library.rglob("*.bad-*")), what
        again = self._disk.run(*scene.arguments, "--library", self.library)
        if name == "backup" and said.code != 2:
            assert contents(self.dest) == contents(scene.after), what
        else:
            assert again.code in (0, 1, 3), (what, again)
        assert contents(self.library) == contents(scene.after), what
        looked = self._disk.run("doctor", "--library", self.library)
        assert looked.code == 0, (what, looked)
        return f"{name} {'went on' if said.code != 2 else 'said so'}"


def sample(scenes: Scenes, dice: random.Random, count: int) -> Counter[str]:
    """`count` errors drawn evenly over commands and kinds of calls; how they ended."""
    told: Counter[str] = Counter()
    while sum(told.values()) < count:
        name, call = dice.choice(COMMANDS), dice.choice(CALLS)
        calls = scenes.count(name, call)
        if calls:
            told[scenes.fail(name, call, dice.randint(1, calls), dice.choice(ERRORS[call]))] += 1
    return told
