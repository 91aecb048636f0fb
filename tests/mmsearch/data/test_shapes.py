"""Objects are drawn where and as large as asked, and grounds do not hide what may stand on them."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmsearch.data.shapes import COLOURS, FULL, PLAIN, SHAPES, draw_shape

SIDE_PX, RADIUS_PX = 128, 30.0
CENTRE_PX = (60.0, 70.0)


def drawn(name: str, colour: str = "red") -> np.ndarray:
    """The object on white, uint8 `[side, side, 3]`."""
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    draw_shape(ImageDraw.Draw(image), name, CENTRE_PX, RADIUS_PX, COLOURS[colour])
    return np.asarray(image)


@pytest.mark.parametrize("name", SHAPES)
def test_an_object_stays_inside_its_circle_and_shows_its_colour(name: str) -> None:
    pixels = drawn(name)
    rows, columns = np.nonzero((pixels != 255).any(axis=2))
    distance_px = np.hypot(columns - CENTRE_PX[0], rows - CENTRE_PX[1])
    assert distance_px.max() <= RADIUS_PX * math.sqrt(2) + 1.5
    assert max(np.ptp(rows), np.ptp(columns)) >= 1.4 * RADIUS_PX, "it fills its place"
    assert ((pixels == COLOURS["red"]).all(axis=2)).sum() >= 0.05 * RADIUS_PX**2


def test_every_object_looks_different() -> None:
    assert len({drawn(name).tobytes() for name in SHAPES}) == len(SHAPES)


def test_areas_are_those_of_geometry() -> None:
    for name, area in (("circle", math.pi), ("square", 1.8**2), ("triangle", 1.85), ("diamond", 1.5)):
        found = (drawn(name) != 255).any(axis=2).sum() / RADIUS_PX**2
        assert found == pytest.approx(area, rel=0.08), name


@pytest.mark.parametrize("ground", FULL.grounds, ids=lambda one: one.phrase)
def test_a_ground_repeats_with_its_seed_and_lets_its_colours_be_seen(ground: object) -> None:
    first, again = (ground.paint(Random(3), 64) for _ in range(2))
    assert (first.mode, first.size) == ("RGB", (64, 64))
    assert first.tobytes() == again.tobytes()
    mean = np.asarray(first, float).mean(axis=(0, 1))
    for name in COLOURS.keys() - set(ground.unseen):
        assert np.abs(mean - COLOURS[name]).max() > 40, name


def test_the_plain_style_is_part_of_the_full_one() -> None:
    assert set(PLAIN.shapes) < set(FULL.shapes)
    assert set(PLAIN.colours) < set(FULL.colours)
    assert set(PLAIN.grounds) < set(FULL.grounds)
