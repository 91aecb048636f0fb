"""How the frozen libraries were made: `python tests/frozen/make.py CHECKOUT NAME [PICTURES CODED_BYTES]`.

CHECKOUT is a source tree of the version, with `indexer/` still flat. With PICTURES, so many more pictures and half as
many texts are indexed with lowered limits, so that the index file has lists; CODED_BYTES is the size of float32 vectors
beyond which that version stored bytes. Schema 0001 was made from the last commit before its migration 0002.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sqlite3
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

TOP = Path("/tmp/frozen")
MTIME_S = 1_600_000_000
WORDS = ("morning", "evening", "mountain", "river", "castle", "street", "bicycle", "window", "garden", "winter")


def lower_limits(coded_bytes: int) -> None:
    """Make that version write lists for a few hundred vectors."""
    lists = importlib.import_module("indexer.vectors.lists")
    file_index = importlib.import_module("indexer.vectors.file_index")
    for module in (lists, importlib.import_module("indexer.generations")):
        module.LISTS_FROM = 100
    lists.EXACT_MS, lists.RECALL = -1.0, 0.05
    file_index.EXACT_ROWS, file_index.TAIL_ROWS, file_index.CODED_BYTES = 50, 50, coded_bytes


def write_photos(photos: Path, more: int) -> None:
    """The folder to index; `gone.png` is removed after the first run."""
    fakes = importlib.import_module("tests.fakes")
    for number, (colour, copy) in enumerate((colour, copy) for colour in fakes.COLOURS for copy in range(3)):
        fakes.paint(photos / ("holiday" if copy else ".") / f"{colour}-{copy}.png", colour, seed=number)
    (photos / "red-0.txt").write_text("a red door in Lisbon")
    captions = "blue-0.png,a blue lake\nblue-0.png,water under a clear sky\ngreen-0.png,a green hill\n"
    (photos / "captions.csv").write_text(f"image,caption\n{captions}")
    (photos / "note.txt").write_text("yellow flowers for the kitchen")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    fakes.paint(photos / "gone.png", "purple", seed=99)
    rng = np.random.default_rng(5)
    (photos / "many").mkdir(exist_ok=True)
    for number in range(more):
        pixels = rng.integers(100, 180, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / "many" / f"p{number:03}.png")
    for number in range(more // 2):
        text = f"{WORDS[number % 10]} {WORDS[number // 10 % 10]} {number}"
        (photos / "many" / f"t{number:03}.txt").write_text(text)
    for path in (photos, *photos.rglob("*")):
        os.utime(path, (MTIME_S, MTIME_S))


def main() -> None:
    """Index twice, compact the catalog, pack everything."""
    checkout, name, *numbers = sys.argv[1:]
    sys.path.insert(0, checkout)
    more, coded_bytes = (int(number) for number in numbers) if numbers else (0, 0)
    store_class = importlib.import_module("indexer.store").Store
    encoder = importlib.import_module("tests.fakes").FakeEncoder()
    if more:
        lower_limits(coded_bytes)
    shutil.rmtree(TOP, ignore_errors=True)
    write_photos(TOP / "photos", more)
    for _ in range(2):
        with store_class.open(TOP / "library", create=True) as store:
            print(store.ingest(TOP / "photos", encoder), store.status())
        (TOP / "photos" / "gone.png").unlink(missing_ok=True)
    database = sqlite3.connect(TOP / "library" / "catalog.sqlite")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("VACUUM")
    database.close()
    with tarfile.open(f"{name}.tar.gz", "w:gz") as archive:
        archive.add(TOP, arcname=".")
    shutil.rmtree(TOP)  # the tests expect nothing there


if __name__ == "__main__":
    main()
