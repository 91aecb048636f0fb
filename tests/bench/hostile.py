"""Ten thousand broken pictures through decoding in a worker, ten thousand broken sidecars through their parsers.

    python -m tests.bench.hostile [--count 10000] [--seed 1]

In: nothing; the seeds are made on the spot. Out: a table of what came of them by kind: decoded, a reason, a worker that
crashed or ran out of time, and the slowest. What crashed or hung is kept in a folder, whose path is printed. Exit code
1 if anything but a `DecodeError` came out of a decoder, or a sidecar took longer than a second.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from indexer.base.errors import DecodeError
from indexer.decoding.metadata import from_packet
from indexer.decoding.sandbox import Sandbox
from indexer.decoding.xmp import read_iptc, read_xmp
from indexer.ingest.sidecars import parse_takeout
from tests.bench.common import machine, table
from tests.indexer.decoding.mutations import mutated, seeds, sidecar_seeds

TIMEOUT_S = 20.0
MEMORY_BYTES = 2 << 30
SIDECAR_S = 1.0
PARSERS: dict[str, Callable[[bytes], object]] = {
    "json": parse_takeout,
    "xmp": lambda data: from_packet(read_xmp(data)),
    "iptc": lambda data: from_packet(read_iptc(data)),
}


class Outcomes:
    """What came of the files of each kind."""

    def __init__(self, kept: Path) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.slowest_s: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._kept = kept

    def add(self, kind: str, outcome: str, seconds: float, data: bytes) -> None:
        """Count one file; keep it where it crashed or hung."""
        self.counts[kind, outcome] += 1
        self.slowest_s[kind] = max(self.slowest_s[kind], seconds)
        if outcome in ("crashed", "too long", "unexpected"):
            (self._kept / f"{outcome} {kind} {hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)

    def show(self) -> str:
        """The table."""
        outcomes = ("decoded", "reason", "crashed", "too long", "unexpected")
        rows = [("kind", *outcomes, "slowest, s")]
        for kind in sorted(self.slowest_s):
            counts = (str(self.counts[kind, outcome]) for outcome in outcomes)
            rows.append((kind, *counts, f"{self.slowest_s[kind]:.2f}"))
        total = (str(sum(self.counts[kind, outcome] for kind in self.slowest_s)) for outcome in outcomes)
        return table([*rows, ("all", *total, f"{max(self.slowest_s.values()):.2f}")])


def pictures(count: int, number: int, found: Outcomes) -> None:
    """Decode `count` broken pictures of all kinds, each in a worker."""
    with (
        Sandbox(224, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES) as sandbox,
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "hostile"

        def one(made: tuple[str, bytes]) -> None:
            path.write_bytes(made[1])
            started = time.perf_counter()
            try:
                sandbox.decode(path)
                outcome = "decoded"
            except DecodeError as error:
                outcome = "crashed" if "crashed" in str(error) else "too long" if "longer" in str(error) else "reason"
            found.add(made[0].split()[0], outcome, time.perf_counter() - started, made[1])

        _many(one, seeds(), count, number)


def sidecars(count: int, number: int, found: Outcomes) -> None:
    """Parse `count` broken sidecars in this process."""

    def one(made: tuple[str, bytes]) -> None:
        kind, data = made
        started = time.perf_counter()
        try:
            PARSERS[kind](data)
            outcome = "decoded"
        except (DecodeError, ValueError):
            outcome = "reason"
        except Exception as error:
            outcome = "unexpected"
            found.unexpected.append(f"{kind}: {error!r}")
        seconds = time.perf_counter() - started
        found.add(f"sidecar {kind}", "too long" if seconds > SIDECAR_S else outcome, seconds, data)

    _many(one, sidecar_seeds(), count, number)


def _many(one: Callable[[tuple[str, bytes]], None], files: dict[str, bytes], count: int, number: int) -> None:
    quiet = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(quiet(given(mutated(files))(one)))()


def main() -> int:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found, started = Outcomes(Path(tempfile.mkdtemp(prefix="hostile-"))), time.perf_counter()
    pictures(options.count, options.seed, found)
    sidecars(options.count, options.seed, found)
    print(found.show())
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\n{time.perf_counter() - started:.0f} s; the largest worker took {peak_mib:.0f} MiB; kept in {found._kept}")
    print(machine("pillow", "pillow-heif", "hypothesis"))
    for line in found.unexpected[:10]:
        print(line)
    bad = sum(count for (kind, outcome), count in found.counts.items() if outcome == "unexpected")
    return 1 if bad or any(found.counts[f"sidecar {kind}", "too long"] for kind in PARSERS) else 0


if __name__ == "__main__":
    sys.exit(main())
