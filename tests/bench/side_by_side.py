"""The same photos through mmsearch and through what people use today, in one run, each from a shell.

    python -m tests.bench.side_by_side --install --torch torch==2.13.0+cpu
    python -m tests.bench.side_by_side
    python -m tests.bench.side_by_side --photos 20 --large 4 --runs 1

Indexing end to end, a fresh process with everything it imports and loads, of small photos and of large ones; one text
query from a cold shell. Servers are not compared: mmsearch's is for its command line, clip-retrieval's for other
programs. Then what each does when things go wrong. The others have random weights (`rivals.py`): times and what
survives mean something, what is found does not. rclip indexes as part of a query: that query's time is taken off.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.common import machine, photo_folder
from tests.bench.rivals import Command, MmSearch, RClip, SentenceTransformers, Tool, install, tools

LARGE_PX = (1632, 1224)  # 2 megapixels
WANTED_RATE, WANTED_QUERY = 8.0, 0.1
LIMIT_S = 900


@dataclass(frozen=True)
class Times:
    """Of one tool: images a second of small and of large photos, seconds of each cold query."""

    small: float
    large: float
    queries_s: tuple[float, ...]


def run(tool: Tool, command: Command, state: Path, *, check: bool = True) -> float:
    """Seconds until it ended; what it printed is kept beside its state."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "log").open("ab") as log:
        started = time.perf_counter()
        environment = {**os.environ, **tool.environment(state)}
        code = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT_S
        ).returncode
        seconds = time.perf_counter() - started
    if check and code:
        raise RuntimeError(f"{Path(command[0]).name} ended with {code}: {_last_line(state / 'log')}")
    return seconds


def index(tool: Tool, folder: Path, state: Path, *, check: bool = True) -> float:
    return sum([run(tool, command, state, check=check) for command in tool.index(folder, state)])


def measure(tool: Tool, small: Path, large: Path, where: Path, runs: int) -> Times:
    state = where / "small"
    rates = [index(tool, small, state)]
    found = len(tool.vectors(state))
    assert found == len(list(small.iterdir())), f"{tool.name} holds {found} of the photos"
    queries = []
    for _ in range(runs + 1):
        shutil.rmtree(state / "found", ignore_errors=True)  # clip-retrieval copies what it finds
        queries.append(run(tool, tool.query(small, state), state))
    queries = queries[1:]  # the first one brings the files into memory
    rates.append(index(tool, large, where / "large"))
    beside = statistics.median(queries) if isinstance(tool, RClip) else 0.0
    counts = [len(list(folder.iterdir())) for folder in (small, large)]
    return Times(counts[0] / (rates[0] - beside), counts[1] / (rates[1] - beside), tuple(queries))


def make_photos(where: Path, count: int, large: int) -> tuple[Path, Path, str]:
    """`count` photos of 224 pixels, and `large` of them again with two megapixels."""
    what = photo_folder(where / "small", count)
    (where / "large").mkdir()
    for path in sorted((where / "small").iterdir())[:large]:
        Image.open(path).convert("RGB").resize(LARGE_PX, Image.Resampling.BICUBIC).save(
            where / "large" / f"{path.stem}.jpg", quality=90
        )
    return where / "small", where / "large", what


def few(small: Path, folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for path in sorted(small.iterdir())[:count]:
        shutil.copy(path, folder / path.name)
    return folder


def unplugged(tool: Tool, small: Path, where: Path, rate: float) -> str:
    """The drive is gone, the tool runs over the empty folder, the drive comes back and it runs again."""
    folder, state = few(small, where / "photos", 8), where / "state"
    index(tool, folder, state)
    counts = [len(tool.vectors(state))]
    folder.rename(where / "elsewhere")
    for empty in (True, False):
        if empty:
            folder.mkdir()
        else:
            folder.rmdir()
            (where / "elsewhere").rename(folder)
        index(tool, folder, state, check=False)
        counts.append(len(tool.vectors(state)))
    return f"{counts[0]} photos, {counts[1]} kept, {counts[2]} after its return"


def interrupted(tool: Tool, small: Path, where: Path, rate: float) -> str:
    """Ctrl-C when by its rate two thirds of the photos should be done."""
    count, state = len(list(small.iterdir())), where / "state"
    state.mkdir()
    first = tool.index(small, state)[0]
    with (state / "log").open("wb") as log:
        started = subprocess.Popen(
            first,
            env={**os.environ, **tool.environment(state)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            start_new_session=True,
        )
        try:
            started.wait(timeout=0.67 * count / rate)
            return "was done sooner"
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGINT)
            started.wait(timeout=LIMIT_S)
    return f"{len(tool.vectors(state))} of {count} kept, two thirds in"


def linked(tool: Tool, small: Path, where: Path, rate: float) -> str:
    """A symbolic link to the folder itself, inside it."""
    folder, state = few(small, where / "photos", 4), where / "state"
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    index(tool, folder, state, check=False)
    return f"4 photos, {len(tool.vectors(state))} rows"


def turned(tool: Tool, small: Path, where: Path, rate: float) -> str:
    """A photo stored on its side with the EXIF tag that says so: is it the upright one, or the one on its side?"""
    folder, state = few(small, where / "photos", 3), where / "state"
    upright = Image.open(min(folder.iterdir())).convert("RGB")
    side, tag = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    tag[0x0112] = 6  # turn by 90 degrees to the right to see it
    for name, image, exif in (("up", upright, None), ("side", side, None), ("tagged", side, tag)):
        image.save(folder / f"{name}.jpg", quality=100, subsampling=0, **({"exif": exif} if exif else {}))
    index(tool, folder, state)
    means = {Path(name).stem: mu for name, mu in tool.vectors(state).items()}
    to_up, to_side = (float(np.linalg.norm(means["tagged"] - means[name])) for name in ("up", "side"))
    return "respected" if to_up < to_side else "ignored"


def captioned(tool: Tool, small: Path, where: Path, rate: float) -> str:
    """Two photos, one with a text of its name beside it."""
    folder, state = few(small, where / "photos", 2), where / "state"
    min(folder.iterdir()).with_suffix(".txt").write_text("an aubergine on a bicycle")
    index(tool, folder, state, check=False)
    return f"{'paired' if tool.knows_caption(state) else 'ignored'}, {len(tool.vectors(state))} of 2 photos"


FAILURES: dict[str, Callable[[Tool, Path, Path, float], str]] = {
    "drive unplugged": unplugged,
    "Ctrl-C": interrupted,
    "link to the folder itself": linked,
    "EXIF orientation": turned,
    "photo and text of one name": captioned,
}


def speeds(measured: dict[Tool, Times | str]) -> str:
    ours, own = next((tool, t) for tool, t in measured.items() if isinstance(tool, MmSearch) and isinstance(t, Times))
    lines = ["| | images/s, 224 px | images/s, 2 MP | cold query s | ours: times the images/s | share of the query |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for tool, times in measured.items():
        if isinstance(times, str):
            lines.append(f"| {tool.name} | not measured: {times} | | | | |")
            continue
        query = statistics.median(times.queries_s)
        cells = [f"{times.small:.1f}", f"{times.large:.1f}"]
        cells.append(f"{query:.2f} ({min(times.queries_s):.2f} to {max(times.queries_s):.2f})")
        if tool is ours:
            cells += ["", ""]
        else:
            cells.append(f"{own.small / times.small:.1f} and {own.large / times.large:.1f}")
            cells.append(f"{statistics.median(own.queries_s) / query:.2f}")
        lines.append(f"| {tool.name} ({tool.note}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def failures(measured: dict[Tool, Times | str], small: Path, where: Path) -> str:
    asked = {tool: times for tool, times in measured.items() if not isinstance(tool, SentenceTransformers)}
    lines = [f"| | {' | '.join(FAILURES)} |", "|---|" + "---|" * len(FAILURES)]
    for tool, times in asked.items():
        if isinstance(times, str):
            continue
        cells = []
        for number, attempt in enumerate(FAILURES.values()):
            place = where / f"{tool.name}-{number}"
            place.mkdir(parents=True)
            cells.append(_or_reason(lambda: attempt(tool, small, place, times.small)))  # noqa: B023 - called at once
        lines.append(f"| {tool.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _or_reason(work: Callable[[], str]) -> str:
    try:
        return work()
    except (RuntimeError, AssertionError, OSError, KeyError, subprocess.TimeoutExpired) as error:
        return f"failed: {str(error).splitlines()[0][:160]}"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "nothing was printed"


def main() -> None:
    parser = argparse.ArgumentParser(description="mmsearch beside rclip, clip-retrieval and sentence-transformers.")
    parser.add_argument("--install", action="store_true", help="make the others' environments and weights, and stop")
    parser.add_argument("--torch", default="torch", help="how pip names torch for clip-retrieval: a CPU build, say")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--large", type=int, default=60, help="of them also with two megapixels")
    parser.add_argument("--runs", type=int, default=5, help="cold queries")
    parser.add_argument("--only", nargs="+", help="tools by name")
    parser.add_argument("--speed", action="store_true", help="leave the failures out")
    given = parser.parse_args()
    if given.install:
        install(given.torch)
        return
    wanted = [tool for tool in tools() if not given.only or tool.name.split(",")[0] in (*given.only, "mmsearch")]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        small, large, what = make_photos(where / "made", given.photos, given.large)
        measured: dict[Tool, Times | str] = {}
        for tool in wanted:
            try:
                missing = tool.missing()
                place = where / tool.name
                measured[tool] = missing or measure(tool, small, large, place, given.runs)
            except (RuntimeError, AssertionError, OSError, subprocess.TimeoutExpired) as error:
                measured[tool] = str(error).splitlines()[0][:200]
            print(f"{tool.name}: {measured[tool]}", flush=True)
        print(f"\n{speeds(measured)}\n\n{what}, {given.large} of them also with {LARGE_PX[0]} x {LARGE_PX[1]} pixels")
        print(f"wanted: {WANTED_RATE:.0f} times the images/s, {WANTED_QUERY} of the cold query; {given.runs} queries\n")
        if not given.speed:
            print(failures(measured, small, where / "failures"))
        print(f"\n{machine('onnxruntime', 'torch', 'sentence-transformers', 'pillow')}")


if __name__ == "__main__":
    main()
