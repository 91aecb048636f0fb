"""Hundreds of errors of the disk, in every command that reads or writes a library: is anything lost or condemned?

    python -m tests.bench.disk_errors --errors 200

Each time one call of the system on the library's files (open, read, write, fsync, rename ...) fails with EIO, ENOSPC,
EROFS or EMFILE. The command must say so in one line or go on, set nothing healthy aside, and arrive at its next run
where it does undisturbed. Needs Linux and a compiler of C.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.e2e.disk_errors import Scenes, sample
from tests.e2e.failing_disk import FailingDisk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--errors", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, closing(FailingDisk(Path(name))) as disk:
        os.environ["MMSEARCH_HOME"] = name  # of this process, which looks at what the others leave
        told = sample(Scenes(Path(name) / "scenes", disk), random.Random(options.seed), options.errors)
    for how, count in sorted(told.items()):
        print(f"{count:5}  {how}")
    print(f"{sum(told.values())} errors, every library as it should be, in {time.perf_counter() - started_s:.0f} s")


if __name__ == "__main__":
    main()
