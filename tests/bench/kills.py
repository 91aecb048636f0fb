"""kill -9 at hundreds of random moments: does every library come back as if nothing had been?

    python -m tests.bench.kills --kills 240

Three kinds of runs take turns: a first one, one over a folder in which files were added, changed, moved, swapped and
broken, and a rebuild with another model. Each is killed at a moment drawn evenly from the time it takes undisturbed.
What it leaves must be a state that the undisturbed run passes through between two commits, the index must answer what
the catalog holds, and the next run must arrive where the undisturbed one did, with at most one batch encoded twice.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.indexer.crashing import KILLED, Scene, all_scenes, exit_code, kill_after, start, state

DELAY_S = 0.01  # what a batch takes to encode: about what everything else does


def run(kills: int, seed: int) -> Counter[str]:
    """Kill until `kills` runs have died; how many died where.

    Raises: AssertionError at the first library that is not as it should be.
    """
    dice, told = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["MMSEARCH_HOME"] = str(folder / "home")
        scenes = all_scenes(folder)
        whole_s = {name: _seconds(scene, folder / "timed") for name, scene in scenes.items()}
        while sum(told.values()) - told["was done"] < kills:
            for name, scene in scenes.items():
                _kill(scene, folder, dice.uniform(0, whole_s[name]), name, told)
    return told


def _seconds(scene: Scene, library: Path) -> float:
    times = []
    for _ in range(3):
        encoder = scene.fresh(library)
        encoder.delay_s = DELAY_S
        started_s = time.perf_counter()
        assert exit_code(start(scene.work, library, scene.photos, encoder)) == 0
        times.append(time.perf_counter() - started_s)
    return sorted(times)[1]


def _kill(scene: Scene, folder: Path, after_s: float, name: str, told: Counter[str]) -> None:
    library, log = folder / "library", folder / "log"
    log.unlink(missing_ok=True)
    encoder = scene.fresh(library)
    encoder.delay_s, encoder.log = DELAY_S, log
    code = kill_after(start(scene.work, library, scene.photos, encoder), after_s)
    encoded = _encoded(log)
    if code != KILLED:
        assert code == 0, code
        told["was done"] += 1
        return
    left = state(library)
    before = state(scene.before) if scene.before.exists() else None
    where = "before its first commit" if left == before else "in the middle"
    scene.arrives(library, encoded, f"{name}, killed after {after_s:.3f} s")
    told[f"{name}: {where}"] += 1


def _encoded(log: Path) -> int:
    return sum(int(line.split()[1]) for line in log.read_text().splitlines()) if log.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started_s = time.perf_counter()
    told = run(options.kills, options.seed)
    for name, count in sorted(told.items()):
        print(f"{count:5}  {name}")
    dead = sum(told.values()) - told["was done"]
    print(f"{dead} runs killed, every library as it should be, in {time.perf_counter() - started_s:.0f} s")


if __name__ == "__main__":
    main()
