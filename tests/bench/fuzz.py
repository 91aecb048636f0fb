"""Libraries, archives, models and questions changed at random, for minutes or hours: what does a command do with them?

    python -m tests.bench.fuzz --minutes 60 [--only cells] [--seed 1] [--case 17]

In: a seed. Each case is made of the seed, the fuzzer's name and its number, so that `--only cells --seed 1 --case 17`
makes one again. Out: cases a second, findings, each with the command that makes it again; exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.attacks.fuzzers import FUZZERS
from tests.attacks.stage import Stage

KIND_CHARS = 100  # that findings of one kind have in common, paths and numbers apart


def fuzz(
    stage: Stage, name: str, seconds: float, seed: int, first: int = 0, most: int | None = None
) -> tuple[int, list[str]]:
    """Run one fuzzer; how many cases, and what was wrong, with how to make it again."""
    until_s, found = time.monotonic() + seconds, []
    for number in itertools.count(first):
        if number - first == most or (number > first and time.monotonic() > until_s):
            break
        wrong = FUZZERS[name](stage, random.Random(f"{seed} {name} {number}"))
        found += [f"--only {name} --seed {seed} --case {number}: {one}" for one in wrong]
    return number - first, found


def main() -> int:
    """Run all fuzzers by turns, a minute each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", choices=sorted(FUZZERS), nargs="+", default=list(FUZZERS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one, of the fuzzer that --only names")
    options = parser.parse_args()
    names: list[str] = options.only
    until_s = time.monotonic() + 60 * options.minutes
    cases, spent_s, kinds = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary, Stage(Path(temporary) / "stage") as stage:
        if options.case is not None:
            _, found = fuzz(stage, names[0], 0, options.seed, options.case, 1)
            print("\n".join(found) or "nothing wrong")
            return bool(found)
        turn_s = min(60.0, 60 * options.minutes / len(names))
        while time.monotonic() < until_s:
            for name in names:
                started_s = time.monotonic()
                done, found = fuzz(stage, name, turn_s, options.seed, cases[name])
                cases[name] += done
                spent_s[name] += time.monotonic() - started_s
                for one in found:
                    kind = re.sub(r"/\S+|\d+", "", one)[:KIND_CHARS]
                    kinds[kind] += 1
                    if kinds[kind] == 1:
                        print(f"{time.strftime('%H:%M:%S')} {one[:1000]}", flush=True)
            rates = ", ".join(f"{name} {cases[name]} ({cases[name] / spent_s[name]:.1f}/s)" for name in names)
            print(f"cases: {rates}; findings: {sum(kinds.values())} of {len(kinds)} kinds", flush=True)
    return bool(kinds)


if __name__ == "__main__":
    raise SystemExit(main())
