"""How far a long run is, on stderr: a bar on a terminal, else a line now and then.

In: `indexer.types.Progress`, one a batch. Out: files done, rate, time left, files skipped. The end of the
way that begins in `cli.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmsearch.terminal import note

if TYPE_CHECKING:
    from indexer.types import Progress, ProgressCallback

PLAIN_PROGRESS_S = 5.0


@contextmanager
def progress_on_stderr() -> Iterator[ProgressCallback]:
    """A callback that shows files done, rate, time left and skips: a bar on a terminal, else lines now and then."""
    if not sys.stderr.isatty():
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
