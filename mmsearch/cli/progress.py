"""How far a long run is and where its time went, on stderr: a bar on a terminal, else a line now and then; a table.

In: `Progress`, one a batch; a `Profile`. Out: files done, rate, time left, files skipped; what limits.
Next: `terminal.py`, which prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmsearch.cli.terminal import note, note_lines

if TYPE_CHECKING:
    from indexer.base.types import IndexReport, Profile, Progress, ProgressCallback

PLAIN_PROGRESS_S = 5.0
FULL = 0.8  # of the cores, of the time: from here on something is at its limit


@contextmanager
def progress_on_stderr() -> Iterator[ProgressCallback]:
    """A callback that shows files done, rate, time left and skips: a bar on a terminal, else lines now and then."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[skipped]} skipped"),
    )
    started_s = time.monotonic()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate="", skipped=0)

        def update(progress: Progress) -> None:
            rate = f"{progress.done / max(time.monotonic() - started_s, 1e-3):.1f} files/s"
            bar.update(task, completed=progress.done, total=progress.total, rate=rate, skipped=progress.skipped)

        yield update


def _plain_progress() -> ProgressCallback:
    started_s = shown_s = time.monotonic()

    def update(progress: Progress) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if now_s - shown_s < PLAIN_PROGRESS_S:
            return
        shown_s = now_s
        rate = progress.done / (now_s - started_s)
        left = f", ETA {(progress.total - progress.done) / rate:.0f} s" if progress.total and rate > 0 else ""
        total = "" if progress.total is None else f" of {progress.total}"
        note(f"{progress.done}{total} files, {rate:.1f} files/s{left}, {progress.skipped} skipped")

    return update


def show_profile(report: IndexReport) -> None:
    """Print where the time of an `index` run went, a line a stage, and what limited it."""
    if report.profile is not None:
        rate = report.encoded / report.profile.seconds if report.profile.seconds > 0 else 0.0
        note(f"{rate:.1f} encoded/s over {report.profile.seconds:.1f} s")
        note_lines(profile_table(report.profile))
        note(limit_of(report.profile))


def profile_table(profile: Profile) -> str:
    """Each stage: items, seconds its threads spent in it, items in such a second, its share of all cores."""
    rows = [("stage", "items", "seconds", "items/s", "busy")]
    for one in profile.stages:
        seconds, rate = f"{one.seconds:.2f}", f"{one.per_second:.1f}" if one.items else "-"
        rows.append((one.name.replace("_", " "), str(one.items), seconds, rate, _percent(profile.busy(one.cpu_s))))
    rows.append(("other", "", "", "", _percent(profile.busy(profile.rest_cpu_s))))
    rows.append(("unused", "", "", "", _percent(profile.idle)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"  {row[0]:<{widths[0]}}{''.join(cells)}")
    return "\n".join(lines)


def limit_of(profile: Profile) -> str:
    """What a run would have had to do faster to end sooner, in words. Other programs' use of the cores is not known."""
    cores = f"{profile.cores} cores" if profile.cores > 1 else "the core"
    if profile.idle <= 1 - FULL:
        most = max(profile.stages, key=lambda one: one.cpu_s).name.replace("_", " ")
        return f"limit: {cores}, busy to {_percent(1 - profile.idle)}, most of it with {most}"
    used = f"{cores} used to {_percent(1 - profile.idle)}"
    if profile.waited_s > profile.seconds / 2:
        return f"limit: reading files, {profile.waited_s:.1f} s of waiting for them; {used}"
    longest = max((one for one in profile.stages if one.name != "decode"), key=lambda one: one.seconds)
    return f"limit: {longest.name.replace('_', ' ')}, {longest.seconds:.1f} s; {used}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
