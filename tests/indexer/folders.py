"""A folder with some of every kind of file, and a set of changes to it: what the crash tests index.

In: a path. Out: pictures, captions, copies, notes, something broken. Next: `crashing.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.fakes import COLOURS, paint


def fill(photos: Path) -> None:
    colours = list(COLOURS)
    for number in range(14):
        paint(photos / f"p{number:02}.png", colours[number % 8], seed=number)
    for number in range(0, 14, 3):
        (photos / f"p{number:02}.txt").write_text(f"{colours[number % 8]} thing number {number}")
    for number in range(3):
        (photos / f"note{number}.md").write_text(f"words {number} alone")
    shutil.copy(photos / "p01.png", photos / "copy.png")
    (photos / "bad.jpg").write_text("no picture")
    rows = [f"p{number:02}.png,caption {number % 5}" for number in range(8)]
    (photos / "captions.csv").write_text("\n".join(["image,caption", *rows, "none.png,x"]))


def change(photos: Path, *, captions: bool) -> None:
    """A second state of the same folder: new, changed, moved, swapped, gone, broken, mended."""
    (photos / "p02.png").unlink()
    (photos / "p03.png").rename(photos / "q03.png")
    (photos / "p03.txt").rename(photos / "q03.txt")
    paint(photos / "p04.png", "purple", size=(50, 50), seed=4)
    paint(photos / "new.png", "grey", seed=77)
    (photos / "p06.txt").write_text("other words")
    (photos / "p09.txt").unlink()
    paint(photos / "bad.jpg", "white", seed=5)
    (photos / "p10.png").write_bytes(b"")
    (photos / "p11.png").rename(photos / "t.png")
    (photos / "p12.png").rename(photos / "p11.png")
    (photos / "t.png").rename(photos / "p12.png")
    if captions:
        (photos / "captions.csv").write_text("image,caption\np00.png,caption 0\np05.png,something new\n")
