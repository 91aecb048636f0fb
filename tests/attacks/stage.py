"""A scratch library of somebody, a folder outside that must stay as it is, and commands that run between the two.

In: an edit of the library, or of the folders around it; a command line. Out: what was wrong with what happened: nothing
outside may change, nothing private be read, no code of another run, no network be asked; at most ten seconds and 1 GB;
an exit code from 0 to 3; on stderr one line without "unexpected", without control characters. Next: `edits.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.fakes import paint

ROOT: Final = Path(__file__).parents[2]
TIMEOUT_S: Final = 10.0
PEAK_BYTES: Final = 1 << 30
ERR_LINES: Final = 3  # with what was set aside, and how many files were skipped
REPAIR_LINES: Final = 20  # one for each table that is lost
MARKER: Final = "ran"


@dataclass(frozen=True)
class Outcome:
    """One command line and what became of it."""

    arguments: tuple[str, ...]
    code: int
    timed_out: bool
    seconds: float
    peak_bytes: int
    out: bytes
    err: bytes
    seen: tuple[str, ...]

    def faults(self) -> list[str]:
        """What it should not have done."""
        found = [f"it {one[:300]}" for one in self.seen]
        if self.timed_out:
            found.append(f"{self.seconds:.1f} s")
        elif self.code not in range(4):
            found.append(f"exit code {self.code}")
        if self.peak_bytes > PEAK_BYTES:
            found.append(f"{self.peak_bytes >> 20} MB")
        err = self.err.decode("utf-8", "surrogateescape")
        lines = err.splitlines()
        if "unexpected" in err or "Traceback" in err:
            found.append("an unexpected error")
        if "not enough memory" in err:
            found.append("all memory was asked for")
        most = ERR_LINES if "--repair" not in self.arguments else REPAIR_LINES
        if len(lines) > most or (self.code in (1, 2) and not lines):
            found.append(f"{len(lines)} lines on stderr")
        if any(not (one.startswith("mmsearch: ") and _is_visible(one)) for one in lines):
            found.append("a line of nobody, or a control character")
        if not all(_is_visible(one) for one in self.out.decode("utf-8", "surrogateescape").splitlines()):
            found.append("a control character on stdout")
        return [f"{' '.join(self.arguments)}: {one}; {err[:400]!r}" for one in found]


class Stage:
    """Folders for one attack after the other, and the process that runs commands in them.

    `home/library` is the library, `photos` what it was made of, `more` another folder, `outside` what nobody named;
    what is made goes into `made`, `archive` is an export of the library.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.case = folder / "case"
        self.home, self.photos, self.more = self.case / "home", self.case / "photos", self.case / "more"
        self.library, self.outside = self.home / "library", self.case / "outside"
        self.made, self.dest, self.archive = self.case / "made", self.case / "made" / "dest", self.case / "archive.tar"
        self.catalog = self.library / "catalog.sqlite"
        self._base = folder / "base"
        self._notes = folder / "notes"
        self._zygote: subprocess.Popen[str] | None = None
        self.closing: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self._notes.mkdir(parents=True)
        self._paint()
        made = [self.run("index", self.photos), self.run("export", self.made / self.archive.name)]
        assert [one.code for one in made] == [3, 0], made
        (self.made / self.archive.name).rename(self.archive)
        self.case.rename(self._base)
        return self

    def __exit__(self, *_: object) -> None:
        for close in self.closing:
            close()
        self._end()
        for path in (self.case, self._base):
            remove(path)

    def reset(self, *, given: bool) -> None:
        """Everything as it was; where it is `given`, this user has its model, and never indexed anything here."""
        remove(self.case)
        shutil.copytree(self._base, self.case, symlinks=True)
        if given:
            for path in (self.home / "state").iterdir():
                if path.name != "models.json":
                    path.unlink()

    def run(self, *arguments: str | Path, fake: bool = True, private: bool = True) -> Outcome:
        """Run one command line to its end, or for ten seconds."""
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": {"MMSEARCH_HOME": str(self.home), "TMPDIR": str(self.made)},
            "cwd": str(self.case),
            "notes": str(self._notes),
            "own": [str(self.home), str(self.made), os.devnull],
            "private": [str(self.outside)] if private else [],
            "timeout_s": allowed_s(),
            "fake": fake,
        }
        said = self._ask(order)
        seen = (self._notes / "seen").read_text(encoding="utf-8", errors="replace").splitlines()
        out, err = ((self._notes / name).read_bytes() for name in ("out", "err"))
        return Outcome(tuple(order["arguments"]), **said, out=out, err=err, seen=tuple(seen))  # type: ignore[arg-type]

    def attack(self, *arguments: str | Path, fake: bool = True, private: bool = True) -> list[str]:
        """Run one command line against what stands there; what was wrong with it."""
        before = state_of(self.outside)
        outcome = self.run(*arguments, fake=fake, private=private)
        after = state_of(self.outside)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        ran = [f"{outcome.arguments}: code of another ran"] if (self.case / MARKER).exists() else []
        return outcome.faults() + [f"{outcome.arguments}: outside, {name} changed" for name in changed] + ran

    def _paint(self) -> None:
        for number, colour in enumerate(("red", "green", "blue", "yellow")):
            paint(self.photos / f"{colour}.png", colour, seed=number)
        (self.photos / "green.txt").write_text("a green garden", encoding="utf-8")
        (self.photos / "notes.md").write_text("blue blue whale", encoding="utf-8")
        (self.photos / "captions.csv").write_text("image,caption\nred.png,a red thing\n", encoding="utf-8")
        (self.photos / "broken.jpg").write_bytes(b"no picture")
        (self.photos / "blue.png.json").write_text('{"photoTakenTime": {"timestamp": "1550000000"}, "geoData": '
                                                   '{"latitude": 47.5, "longitude": 8.0}}')  # fmt: skip
        paint(self.more / "purple.png", "purple", seed=9)
        self.made.mkdir()
        (self.outside / "private").mkdir(parents=True)
        paint(self.outside / "private" / "secret.png", "black", seed=7)
        (self.outside / "private" / "diary.txt").write_text("nobody reads this", encoding="utf-8")
        (self.outside / "victim").write_bytes(b"mine " * 100)
        (self.outside / "vectors").mkdir()
        for name in ("index-1.f16", "index-1.faiss", "index-2.f16", "index-9.f16.tmp"):
            (self.outside / "vectors" / name).write_bytes(b"another's index")
        shutil.copy(self.photos / "red.png", self.outside / "index-7.f16")

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._zygote is None or self._zygote.poll() is not None:
            quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MMSEARCH_DEBUG": ""}
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "tests.attacks.zygote"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **quiet},
            )  # fmt: skip
            assert self._line() == "ready\n"
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        said: dict[str, Any] = json.loads(self._line())
        return said

    def _line(self) -> str:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        return self._zygote.stdout.readline()

    def _end(self) -> None:
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.communicate()


def allowed_s() -> float:
    """Ten seconds of a machine of one's own, more of one that many share; of the processor it is ten in any case."""
    return TIMEOUT_S * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def state_of(folder: Path) -> dict[str, object]:
    """Every name below a folder with its kind, mode, size, time and content."""
    found: dict[str, object] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        one = os.lstat(path)
        content = path.read_bytes() if stat.S_ISREG(one.st_mode) else None
        found[str(path.relative_to(folder))] = (one.st_mode, one.st_size, one.st_mtime_ns, content)
    return found


def remove(folder: Path) -> None:
    """Remove a folder whatever stands in it."""
    if folder.is_symlink() or folder.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _is_visible(line: str) -> bool:
    return all(one.isprintable() or "\udca0" <= one <= "\udcff" for one in line)
