"""What scenes are drawn with: objects as parts in unit coordinates, colours, and grounds.

In: a PIL drawing surface, a name from the tables, a centre and a radius in pixels. Out: pixels on that surface.
Tables rather than functions, so that a new object is one entry. Next: `scenes.py`, which places and captions them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Points = tuple[tuple[float, float], ...]

COLOURS: dict[str, Rgb] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 215, 30),
    "green": (34, 150, 60),
    "blue": (35, 90, 215),
    "purple": (130, 60, 180),
    "pink": (245, 120, 180),
    "brown": (120, 75, 40),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
    "grey": (130, 130, 130),
}


@dataclass(frozen=True)
class Part:
    """One filled piece of an object. Points lie in [-1, 1], y down; an ellipse or a ring takes the corners of its box.

    `tone` is the brightness against the object's colour, or a fixed colour (a tree's trunk is brown).
    """

    kind: Literal["polygon", "ellipse", "ring"]
    points: Points
    tone: float | Rgb = 1.0


def _regular(corners: int, turn: float = -0.25, inner: float = 1.0) -> Points:
    """A regular polygon, or with `inner` < 1 a star of that many corners in all; the first corner points up."""
    angles = [2 * math.pi * (i / corners + turn) for i in range(corners)]
    radii = [1.0 if i % 2 == 0 else inner for i in range(corners)]
    return tuple((r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True))


def _heart() -> Points:
    steps = [2 * math.pi * i / 48 for i in range(48)]
    wide = [(16 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t))) for t in steps]
    return tuple((x / 17, (y - 2.5) / 15) for x, y in wide)


_BOX: Points = ((-1, -1), (1, 1))
_BROWN, _DARK, _GLASS = COLOURS["brown"], (40, 40, 40), (205, 230, 245)

_GEOMETRIC: dict[str, tuple[Part, ...]] = {
    "circle": (Part("ellipse", _BOX),),
    "square": (Part("polygon", ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))),),
    "triangle": (Part("polygon", ((0, -1), (1, 0.85), (-1, 0.85))),),
    "diamond": (Part("polygon", ((0, -1), (0.75, 0), (0, 1), (-0.75, 0))),),
    "hexagon": (Part("polygon", _regular(6)),),
    "cross": (
        Part("polygon", ((-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1))),
        Part("polygon", ((-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3))),
    ),
}

_FIGURES: dict[str, tuple[Part, ...]] = {
    "ring": (Part("ring", _BOX),),
    "star": (Part("polygon", _regular(10, inner=0.42)),),
    "heart": (Part("polygon", _heart()),),
    "house": (
        Part("polygon", ((-0.8, -0.1), (0.8, -0.1), (0.8, 1), (-0.8, 1))),
        Part("polygon", ((0, -1), (1, -0.1), (-1, -0.1)), 0.6),
        Part("polygon", ((-0.2, 0.35), (0.2, 0.35), (0.2, 1), (-0.2, 1)), _BROWN),
        Part("polygon", ((0.35, 0.2), (0.65, 0.2), (0.65, 0.5), (0.35, 0.5)), _GLASS),
    ),
    "tree": (
        Part("polygon", ((-0.15, 0.2), (0.15, 0.2), (0.2, 1), (-0.2, 1)), _BROWN),
        Part("ellipse", ((-0.75, -1), (0.75, 0.4))),
    ),
    "car": (
        Part("polygon", ((-0.55, -0.5), (0.35, -0.5), (0.65, 0), (-0.75, 0))),
        Part("polygon", ((-0.45, -0.4), (0.28, -0.4), (0.48, -0.05), (-0.58, -0.05)), _GLASS),
        Part("polygon", ((-1, -0.05), (1, -0.05), (1, 0.4), (-1, 0.4))),
        Part("ellipse", ((-0.75, 0.15), (-0.25, 0.65)), _DARK),
        Part("ellipse", ((0.25, 0.15), (0.75, 0.65)), _DARK),
    ),
    "fish": (
        Part("polygon", ((0.45, 0), (1, -0.5), (1, 0.5)), 0.75),
        Part("ellipse", ((-1, -0.5), (0.65, 0.5))),
        Part("ellipse", ((-0.75, -0.2), (-0.55, 0)), _DARK),
    ),
    "cup": (
        Part("ring", ((0.1, -0.45), (1, 0.45)), 0.75),
        Part("polygon", ((-0.85, -0.7), (0.6, -0.7), (0.4, 0.8), (-0.65, 0.8))),
        Part("ellipse", ((-0.85, -0.85), (0.6, -0.55)), 0.6),
    ),
}

SHAPES = _GEOMETRIC | _FIGURES


def draw_shape(
    draw: ImageDraw.ImageDraw, name: str, centre_px: tuple[float, float], radius_px: float, rgb: Rgb
) -> None:
    """Draw one object of the tables, inside the circle of `radius_px` times the square root of two."""
    for part in SHAPES[name]:
        points = [(centre_px[0] + radius_px * x, centre_px[1] + radius_px * y) for x, y in part.points]
        fill = part.tone if isinstance(part.tone, tuple) else _shade(rgb, part.tone)
        if part.kind == "polygon":
            draw.polygon(points, fill=fill)
        elif part.kind == "ellipse":
            draw.ellipse((*points[0], *points[1]), fill=fill)
        else:
            draw.ellipse((*points[0], *points[1]), outline=fill, width=max(1, round(0.3 * radius_px)))


def _shade(rgb: Rgb, tone: float) -> Rgb:
    red, green, blue = (min(255, round(tone * channel)) for channel in rgb)
    return red, green, blue


def _plain(rgb: Rgb) -> Callable[[Random, int], Image.Image]:
    return lambda rng, side_px: Image.new("RGB", (side_px, side_px), rgb)


def _gradient(top: Rgb, bottom: Rgb, side_px: int) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((side_px, side_px))
    full = (side_px, side_px)
    return Image.composite(Image.new("RGB", full, bottom), Image.new("RGB", full, top), ramp)


def _sky(rng: Random, side_px: int) -> Image.Image:
    image = _gradient((95, 165, 235), (190, 222, 250), side_px)
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y = rng.uniform(0, side_px), rng.uniform(0, 0.5 * side_px)
        for shift in (-0.08, 0, 0.08):  # a cloud is three overlapping ellipses
            half = (0.09 if shift == 0 else 0.06) * side_px
            left = x + shift * side_px - half
            draw.ellipse((left, y - 0.6 * half, left + 2 * half, y + 0.6 * half), fill=(240, 246, 252))
    return image


def _grass(rng: Random, side_px: int) -> Image.Image:
    image = _gradient((120, 185, 80), (70, 140, 45), side_px)
    draw = ImageDraw.Draw(image)
    for _ in range(160):
        x, y, lean = rng.uniform(0, side_px), rng.uniform(0, side_px), rng.uniform(-0.02, 0.02)
        blade = (x, y, x + lean * side_px, y - 0.05 * side_px)
        draw.line(blade, fill=rng.choice([(60, 125, 40), (140, 205, 95)]), width=max(1, side_px // 128))
    return image


def _night(rng: Random, side_px: int) -> Image.Image:
    image = _gradient((8, 10, 35), (30, 35, 80), side_px)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, half = rng.uniform(0, side_px), rng.uniform(0, side_px), rng.uniform(0.003, 0.008) * side_px
        draw.ellipse((x - half, y - half, x + half, y + half), fill=(235, 235, 215))
    return image


def _sand(rng: Random, side_px: int) -> Image.Image:
    image = _gradient((232, 210, 160), (214, 186, 128), side_px)
    draw = ImageDraw.Draw(image)
    for _ in range(220):
        x, y, half = rng.uniform(0, side_px), rng.uniform(0, side_px), 0.005 * side_px
        draw.ellipse((x - half, y - half, x + half, y + half), fill=rng.choice([(200, 170, 110), (244, 228, 190)]))
    return image


def _checkered(rng: Random, side_px: int) -> Image.Image:
    cells, dark, light = 8, (176, 190, 197), (236, 239, 241)
    board = Image.new("RGB", (cells, cells))
    board.putdata([dark if (i % cells + i // cells) % 2 else light for i in range(cells * cells)])
    return board.resize((side_px, side_px), Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Ground:
    """What lies behind the objects: how captions say it, how it is drawn, and colours that would not show on it."""

    phrase: str
    paint: Callable[[Random, int], Image.Image]
    unseen: tuple[str, ...]


_GROUNDS: dict[str, Ground] = {
    "sand": Ground("on sand", _sand, ("yellow", "orange", "white")),
    "checkered": Ground("on a checkered ground", _checkered, ("grey", "white")),
    "white": Ground("on a white background", _plain((250, 250, 250)), ("white", "yellow")),
    "pink": Ground("on a pink background", _plain((250, 205, 220)), ("pink", "white")),
    "yellow": Ground("on a yellow background", _plain((252, 230, 120)), ("yellow", "orange", "white")),
    "turquoise": Ground("on a turquoise background", _plain((120, 210, 205)), ("green", "blue", "white")),
}
_DARK_AND_OUTDOOR_GROUNDS: dict[str, Ground] = {
    "black": Ground("on a black background", _plain((15, 15, 15)), ("black", "brown")),
    "sky": Ground("in the sky", _sky, ("blue", "white", "grey")),
    "grass": Ground("on grass", _grass, ("green", "yellow")),
    "night": Ground("at night", _night, ("black", "blue", "purple", "brown")),
}


@dataclass(frozen=True)
class Style:
    """What a set of scenes may hold."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    grounds: tuple[Ground, ...]


FULL = Style(tuple(SHAPES), tuple(COLOURS), (*_GROUNDS.values(), *_DARK_AND_OUTDOOR_GROUNDS.values()))
# Nothing here passes for a thing a person searches photographs for: no white disc on black (a moon), no cup, no meadow.
PLAIN = Style(tuple(_GEOMETRIC), ("red", "orange", "green", "blue", "purple", "pink"), tuple(_GROUNDS.values()))
