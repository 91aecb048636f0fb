"""Rendered scenes with captions: a data set anyone can make in seconds, with nothing to download and no licence to ask.

In: a seed. Out: a picture (objects of one colour and a count or a position, or two objects in a relation, on a ground)
and five sentences that are true of it. The same seed gives the same pixels and words on every machine with the same
Pillow. Next: `datasets.py` reads the folder that `write_scenes` leaves; `shapes.py` holds what is drawn.

    python -m mmsearch.data.scenes ./scenes --count 2000 --seed 1 --side 64
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from mmsearch.data.shapes import COLOURS, FULL, PLAIN, Ground, Style, draw_shape
from mmsearch.errors import DataError

logger = logging.getLogger(__name__)

_SUPERSAMPLING = 4  # drawn at four times the side and averaged down: smooth edges
_VAL_EVERY = 5  # each fifth scene is held out
_NUMBERS = ("no", "one", "two", "three", "four")
_SIZES = {"small": 0.10, "medium": 0.15, "large": 0.22}  # radius as a share of the picture's side
_POSITIONS = {
    "on the left": (0.25, 0.5),
    "on the right": (0.75, 0.5),
    "at the top": (0.5, 0.25),
    "at the bottom": (0.5, 0.75),
    "in the centre": (0.5, 0.5),
}
_RELATIONS = {
    "left of": ((0.27, 0.5), (0.73, 0.5)),
    "right of": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
}
_PLURALS = {"fish": "fish", "cross": "crosses"}


@dataclass(frozen=True)
class _Thing:
    """One kind of object in a scene."""

    shape: str
    colour: str
    size: str

    def named(self, count: int = 1, size: bool = False) -> str:
        """`a red circle`, `two small red circles`."""
        noun = self.shape if count == 1 else _PLURALS.get(self.shape, self.shape + "s")
        words = f"{self.size} {self.colour} {noun}" if size else f"{self.colour} {noun}"
        return f"{_article(words)} {words}" if count == 1 else f"{_NUMBERS[count]} {words}"


@dataclass(frozen=True)
class _Placed:
    """One object where it stands; centre and radius as shares of the side."""

    thing: _Thing
    x: float
    y: float


def render_scene(seed: int, side_px: int = 64, style: Style = FULL) -> tuple[Image.Image, tuple[str, ...]]:
    """One RGB picture `side_px` square and five captions; the first is the shortest that tells the scene."""
    rng = Random(seed)
    ground = rng.choice(style.grounds)
    compose = rng.choice((_counted, _positioned, _related))
    placed, captions = compose(rng, style, ground)
    large_px = side_px * _SUPERSAMPLING
    image = ground.paint(rng, large_px)
    draw = ImageDraw.Draw(image)
    for item in placed:
        radius_px = _SIZES[item.thing.size] * large_px
        draw_shape(
            draw, item.thing.shape, (item.x * large_px, item.y * large_px), radius_px, COLOURS[item.thing.colour]
        )
    return image.reduce(_SUPERSAMPLING), captions


def write_scenes(folder: Path, n: int, seed: int = 0, side_px: int = 64, *, plain: bool = False) -> Path:
    """Write `n` scenes as `images/*.png` with `captions.csv` (image, caption, split); each fifth scene is `val`.

    Args:
        plain: only geometric shapes on plain grounds, pictures that nobody takes for a photograph.

    Returns:
        The path of `captions.csv`.

    Raises:
        DataError: n or the side below 1, or a folder that already holds captions.
    """
    if n < 1 or side_px < 1:
        raise DataError(f"asked for {n} scenes of {side_px} px; both must be at least 1")
    table = Path(folder) / "captions.csv"
    if table.exists():
        raise DataError(f"{table} exists already; give a new folder or remove that one")
    images = table.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    used: dict[str, int] = {}
    with table.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["image", "caption", "split"])
        for index in range(n):
            # A million apart: two runs with neighbouring seeds share no scene.
            image, captions = render_scene(1_000_000 * seed + index, side_px, PLAIN if plain else FULL)
            title = captions[0].replace(" ", "-")
            used[title] = used.get(title, 0) + 1
            name = f"{title}.png" if used[title] == 1 else f"{title}-{used[title]}.png"
            image.save(images / name, optimize=True)
            split = "val" if index % _VAL_EVERY == _VAL_EVERY - 1 else "train"
            rows.writerows([f"images/{name}", caption, split] for caption in captions)
    return table


def _thing(rng: Random, style: Style, sizes: Sequence[str], unseen: Sequence[str], taken: str = "") -> _Thing:
    shapes = [shape for shape in style.shapes if shape != taken] or style.shapes
    return _Thing(rng.choice(shapes), rng.choice([c for c in style.colours if c not in unseen]), rng.choice(sizes))


def _counted(rng: Random, style: Style, ground: Ground) -> tuple[list[_Placed], tuple[str, ...]]:
    """Two to four equal objects, anywhere, not touching."""
    count = rng.randint(2, 4)
    thing = _thing(rng, style, ("small", "medium") if count > 2 else tuple(_SIZES), ground.unseen)
    subject, sized = thing.named(count), thing.named(count, size=True)
    plural = thing.named(count).split(" ", 1)[1]
    captions = (
        f"{subject} {ground.phrase}",
        f"{sized} {ground.phrase}",
        f"there are {subject} in this picture",
        f"a picture with {sized}",
        f"{plural}, {_NUMBERS[count]} of them, {ground.phrase}",
    )
    return [_Placed(thing, x, y) for x, y in _apart(rng, count, _SIZES[thing.size])], captions


def _positioned(rng: Random, style: Style, ground: Ground) -> tuple[list[_Placed], tuple[str, ...]]:
    """One object in a stated part of the picture."""
    thing = _thing(rng, style, tuple(_SIZES), ground.unseen)
    position = rng.choice(list(_POSITIONS))
    subject, sized = thing.named(), thing.named(size=True)
    captions = (
        f"{subject} {position} {ground.phrase}",
        f"{sized} {ground.phrase}",
        f"there is {sized} {position}",
        f"a picture of one {thing.colour} {thing.shape} {position}",
        f"{position}, {subject}",
    )
    x, y = _POSITIONS[position]
    return [_Placed(thing, x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.02, 0.02))], captions


def _related(rng: Random, style: Style, ground: Ground) -> tuple[list[_Placed], tuple[str, ...]]:
    """Two different objects, one left of, right of, above or below the other."""
    first = _thing(rng, style, ("medium", "large"), ground.unseen)
    second = _thing(rng, style, ("medium", "large"), (*ground.unseen, first.colour), taken=first.shape)
    relation = rng.choice(list(_RELATIONS))
    a, b = first.named(), second.named()
    captions = (
        f"{a} {relation} {b} {ground.phrase}",
        f"{a} and {b} {ground.phrase}",
        f"there is {a} {relation} {b}",
        f"{a} is {relation} {b}",
        f"a picture of {a} and {b}",
    )
    (ax, ay), (bx, by) = _RELATIONS[relation]
    shift_x, shift_y = rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04)
    placed = [_Placed(first, ax + shift_x, ay + shift_y), _Placed(second, bx + shift_x, by + shift_y)]
    return placed, captions


def _apart(rng: Random, count: int, radius: float) -> list[tuple[float, float]]:
    """Centres at least 2.6 radii apart (squares then never touch); starts again where the last one found no room."""
    low, high = 1.15 * radius, 1 - 1.15 * radius
    while True:
        centres: list[tuple[float, float]] = []
        for _ in range(60):
            x, y = rng.uniform(low, high), rng.uniform(low, high)
            if all((x - u) ** 2 + (y - v) ** 2 >= (2.6 * radius) ** 2 for u, v in centres):
                centres.append((x, y))
            if len(centres) == count:
                return centres


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write scenes from the command line; 0 when done, 2 with one line on stderr on bad use."""
    parser = argparse.ArgumentParser(prog="python -m mmsearch.data.scenes", description="Write captioned scenes.")
    parser.add_argument("folder", type=Path, help="a new folder: images/ and captions.csv are written there")
    parser.add_argument("--count", type=int, default=1000, help="how many scenes")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same scenes")
    parser.add_argument("--side", type=int, default=64, help="side of the pictures, pixels")
    parser.add_argument("--plain", action="store_true", help="only geometric shapes on plain grounds")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        table = write_scenes(options.folder, options.count, options.seed, options.side, plain=options.plain)
    except DataError as error:
        logger.error("%s", error)
        return 2
    logger.info("%d scenes and their captions: %s", options.count, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
