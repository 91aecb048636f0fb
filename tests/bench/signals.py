"""Ctrl-C, SIGTERM and SIGHUP at random moments of commands that write: is the library sound, is there one line?

    python -m tests.bench.signals --signals 60

Each command is stopped at a moment drawn evenly from its time. It may print one line, must leave nothing beside the
library but a hidden partial copy, and must arrive at its next run where it does undisturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import RUNNER, environment, finish
from tests.indexer.folders import fill
from tests.indexer.snapshots import contents

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {0, 3, 130} | {-number for number in SIGNALS}
DELAY_S = "0.1"  # of a batch


@dataclass(frozen=True)
class Command:
    """A command line, the library it starts from, the rows it ends with, and how long it takes."""

    arguments: tuple[str | Path, ...]
    before: Path | None
    after: list[list[tuple[object, ...]]]
    whole_s: float


class Commands:
    """Every command, done once undisturbed."""

    def __init__(self, folder: Path) -> None:
        self.home, self.here, self._folder = folder / "home", folder / "here", folder
        self.library, copy, archive = self.here / "library", self.here / "copy", folder / "archive"
        self.home.mkdir()
        fill(folder / "photos")
        index = self._timed(("index", folder / "photos"), None)
        whole = Path(shutil.copytree(self.library, folder / "whole"))
        finish(self.home, "export", archive, "--library", whole)
        self.all = {
            "index": index,
            "rebuild": self._timed(("rebuild", "--model", "other"), whole),
            "import": self._timed(("import", archive), None),
            "export": self._timed(("export", copy), whole),
            "backup": self._timed(("backup", copy), whole),
        }

    def _timed(self, arguments: tuple[str | Path, ...], before: Path | None) -> Command:
        self.fresh(before)
        started_s = time.perf_counter()
        done = finish(self.home, *arguments, "--library", self.library, FAKE_DELAY_S=DELAY_S)
        assert done.returncode in (0, 3), done
        return Command(arguments, before, contents(self.library), time.perf_counter() - started_s)

    def fresh(self, before: Path | None) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        self.here.mkdir()
        if before is not None:
            shutil.copytree(before, self.library)

    def stop(self, name: str, number: signal.Signals, dice: random.Random) -> str:
        """One command, stopped: how it ended, in words. Raises: AssertionError."""
        command = self.all[name]
        self.fresh(command.before)
        arguments = [*map(str, command.arguments), "--library", str(self.library)]
        env = environment(self.home, FAKE_DELAY_S=DELAY_S)
        process = subprocess.Popen([*RUNNER, *arguments], env=env, stdout=-1, stderr=-1, text=True)
        time.sleep(dice.uniform(0, command.whole_s))
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        what = (name, number.name, process.returncode, err)
        assert process.returncode in CODES, what
        assert len([line for line in err.splitlines() if "skipped" not in line and "goes over from" not in line]) <= 1
        assert "Traceback" not in err, what
        assert "unexpected" not in err, what
        for path in self.here.iterdir():
            assert path.name in ("library", "copy") or path.name.startswith("."), (what, path)
        shutil.rmtree(self.here / "copy", ignore_errors=True)
        if name != "import" or not self.library.exists():
            again = finish(self.home, *arguments)
            assert again.returncode in (0, 3), (what, again)
        assert contents(self.library) == command.after, what
        return f"{name}, {number.name}: exit code {process.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, told = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        os.environ["MMSEARCH_HOME"] = name  # of this process, which looks at what the others leave
        commands = Commands(Path(name))
        for _ in range(options.signals):
            told[commands.stop(dice.choice(list(commands.all)), dice.choice(SIGNALS), dice)] += 1
    for how, count in sorted(told.items()):
        print(f"{count:5}  {how}")
    print(f"{sum(told.values())} signals, every library as it should be")


if __name__ == "__main__":
    main()
