"""Files that were moved, and many copies of few contents: how the time of `mmsearch index` grows with them.

    python -m tests.bench.moved

Moved files are never encoded, so a stand-in for the model does; the copies go through the default model, which encodes
one of each content. Every run is in this process, on a library and pictures of its own in a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from indexer.base.types import Encoder, IndexReport
from indexer.store import Store
from mmsearch.inference.load_model import load_model
from tests.bench.common import machine, table
from tests.fakes import FakeEncoder

WANTED_GROWTH = 12.0  # 10,000 moved files against 1,000
WANTED_PER_SECOND = 400.0
FILES_A_FOLDER = 500


def moved(files: int) -> float:
    """Seconds of the run after all of `files` pictures went to another folder."""
    with tempfile.TemporaryDirectory() as temporary, Store.open(Path(temporary) / "library", create=True) as store:
        photos, encoder = Path(temporary) / "photos", FakeEncoder()
        _pictures(photos / "old", files)
        store.ingest(photos, encoder)
        (photos / "old").rename(photos / "new")
        report, seconds = _timed(store, photos, encoder)
    assert (report.moved, report.encoded) == (files, 0), report
    return seconds


def copies(files: int, contents: int, encoder: Encoder) -> float:
    """Files a second of the first run over `files` pictures, of which `contents` differ."""
    with tempfile.TemporaryDirectory() as temporary, Store.open(Path(temporary) / "library", create=True) as store:
        photos = Path(temporary) / "photos"
        _pictures(photos / "0000", contents)
        for turn in range(1, files // contents):
            shutil.copytree(photos / "0000", photos / f"{turn:04d}")
        report, seconds = _timed(store, photos, encoder)
    assert (report.added, report.encoded) == (files, contents), report
    return files / seconds


def _pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // FILES_A_FOLDER:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def _timed(store: Store, photos: Path, encoder: Encoder) -> tuple[IndexReport, float]:
    started = time.perf_counter()
    report = store.ingest(photos, encoder)
    return report, time.perf_counter() - started


def show(few: float, many: float, files: int, per_second: float, contents: int) -> None:
    rows = [("what", "measured", "wanted")]
    rows.append(("1,000 moved files, s", f"{few:.2f}", ""))
    rows.append(("10,000 moved files, s", f"{many:.2f}", f"{WANTED_GROWTH * few:.2f} or less"))
    rows.append((f"{files:,} files of {contents} contents, files/s", f"{per_second:.0f}", f"{WANTED_PER_SECOND:.0f}"))
    print(table(rows))
    print(machine("sqlalchemy"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Moved files, and copies.")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--contents", type=int, default=500)
    options = parser.parse_args()
    few, many = moved(1000), moved(10_000)
    per_second = copies(options.files, options.contents, load_model("default", "cpu"))
    show(few, many, options.files, per_second, options.contents)
