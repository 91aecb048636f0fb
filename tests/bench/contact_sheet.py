"""The picture in the README: six searches with the default model, and the first hits of each.

    python -m tests.bench.contact_sheet data/demo.jpg

In: the photos of `make demo` that are CC0 or in the public domain; `data/README.md` names their authors. Out: a JPEG
of at most 250 KB. Every hit and score is what `Library.search` returns. Only the six searches are chosen by hand.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from mmsearch import Hit, Library
from mmsearch.cli import demo
from mmsearch.config import Config

FREE = (
    "astronaut.png", "brick.png", "camera.png", "cat.png", "cell.png", "clock.png", "coffee.png", "grass.png",
    "gravel.png", "handwriting.png", "horse.png", "retina.jpg", "rocket.jpg", "stars.jpg",
)  # fmt: skip
SEARCHES = (
    "a cat", "a cup of coffee", "a man with a camera", "an astronaut", "stars in the night sky", "a rocket launch",
)  # fmt: skip
HITS = 3
COLUMNS = 2
MAX_BYTES = 250_000

TILE_PX, GAP_PX, WORDS_PX, SCORE_PX = 168, 10, 190, 26
PAPER, INK, PALE, RIGHT = "#ffffff", "#1f2328", "#59636e", "#1a7f37"


def search_all(folder: Path) -> list[tuple[str, list[Hit]]]:
    """Index the free photos into a new library below `folder`, and ask it each search."""
    demo.gather(folder / "photos")
    for photo in (folder / "photos").iterdir():
        if photo.name not in FREE:
            photo.unlink()
    with Library.open(folder / "library", model="default", config=Config()) as library:
        library.index(folder / "photos")
        return [(words, library.search(words, k=HITS, within="image")) for words in SEARCHES]


def draw(found: list[tuple[str, list[Hit]]]) -> Image.Image:
    """Words on the left of each row, the first hits with their scores on the right; right hits have a green score."""
    row_px = TILE_PX + SCORE_PX + 2 * GAP_PX
    column_px = WORDS_PX + HITS * (TILE_PX + GAP_PX) + 4 * GAP_PX
    rows = -(-len(found) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * column_px, rows * row_px + GAP_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    words_font, score_font = ImageFont.load_default(24), ImageFont.load_default(18)
    for at, (words, hits) in enumerate(found):
        left, top = at // rows * column_px + 2 * GAP_PX, at % rows * row_px + GAP_PX
        pen.multiline_text((left, top + TILE_PX / 2), _wrapped(words), INK, words_font, anchor="lm", spacing=8)
        for rank, hit in enumerate(hits):
            x = left + WORDS_PX + rank * (TILE_PX + GAP_PX)
            with Image.open(hit.path) as photo:
                sheet.paste(ImageOps.fit(photo.convert("RGB"), (TILE_PX, TILE_PX)), (x, top))
            right = hit.path.name in demo.SEARCHES[words]
            pen.rectangle(
                (x, top, x + TILE_PX - 1, top + TILE_PX - 1),
                outline=RIGHT if right else "#d1d9e0",
                width=3 if right else 1,
            )
            pen.text(
                (x + TILE_PX / 2, top + TILE_PX + 6),
                f"{hit.score:.2f}",
                RIGHT if right else PALE,
                score_font,
                anchor="ma",
            )
    return sheet


def _wrapped(words: str) -> str:
    """At most about 12 letters a line, broken between words."""
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) > 12:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main() -> None:
    """Search, draw, save."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.contact_sheet")
    parser.add_argument("out", type=Path, help="the JPEG to write")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        draw(search_all(Path(folder))).save(out, quality=82, optimize=True, progressive=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
