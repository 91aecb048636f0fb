"""Scenes repeat with their seed, say what they show, and load as a data set."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mmsearch.data.datasets import Example, read_dataset
from mmsearch.data.near_duplicates import near_duplicates
from mmsearch.data.scenes import main, render_scene, write_scenes
from mmsearch.data.shapes import COLOURS, FULL, PLAIN, SHAPES
from mmsearch.errors import DataError

SAMPLE = Path(__file__).resolve().parents[3] / "data" / "scenes"
NUMBERS = {"two": 2, "three": 3, "four": 4}
SOLID = {"circle", "square", "triangle", "diamond", "hexagon", "cross"}


def blobs(mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Centres (x, y) of the connected regions of a mask, as shares of the side."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    centres = []
    while left:
        stack, region = [left.pop()], []
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    stack.append(near)
        if len(region) >= 6:
            y, x = np.mean(region, axis=0) / len(mask)
            centres.append((float(x), float(y)))
    return centres


def mask_of(image: Image.Image, colour: str) -> NDArray[np.bool_]:
    distance = np.abs(np.asarray(image, dtype=int) - np.array(COLOURS[colour])).max(axis=2)
    return distance <= 8


def test_same_seed_same_scene_other_seed_other_scene() -> None:
    first, words = render_scene(7)
    again, same_words = render_scene(7)
    other, _ = render_scene(8)
    assert first.tobytes() == again.tobytes()
    assert words == same_words
    assert first.tobytes() != other.tobytes()
    assert (first.mode, first.size) == ("RGB", (64, 64))


def test_side_changes_the_pixels_not_the_scene() -> None:
    for seed in range(20):
        small, words = render_scene(seed, 64)
        large, same_words = render_scene(seed, 128)
        assert words == same_words
        difference = np.asarray(large.reduce(2), dtype=float) - np.asarray(small, dtype=float)
        assert np.abs(difference).mean() < 6


def test_captions_count_what_is_drawn() -> None:
    checked = 0
    for seed in range(200):
        image, captions = render_scene(seed, 96, PLAIN)
        match = re.match(r"(two|three|four) (\w+) (\w+?)(?:es|s)? ", captions[0])
        if match and match[3] in SOLID:
            assert len(blobs(mask_of(image, match[2]))) == NUMBERS[match[1]], captions[0]
            checked += 1
    assert checked > 30


def test_captions_tell_the_position_and_the_relation() -> None:
    checked = 0
    for seed in range(200):
        image, captions = render_scene(seed, 96, PLAIN)
        relation = re.match(r"an? (\w+) \w+ (left of|right of|above|below) an? (\w+) \w+ on ", captions[0])
        position = re.match(
            r"an? (\w+) \w+ (on the left|on the right|at the top|at the bottom|in the centre) ", captions[0]
        )
        if relation:
            (ax, ay), (bx, by) = (blobs(mask_of(image, colour))[0] for colour in (relation[1], relation[3]))
            assert {"left of": ax < bx - 0.3, "right of": ax > bx + 0.3, "above": ay < by - 0.3}.get(
                relation[2], ay > by + 0.3
            ), captions[0]
            checked += 1
        elif position:
            ((x, y),) = blobs(mask_of(image, position[1]))
            expected = {
                "on the left": (0.25, 0.5),
                "on the right": (0.75, 0.5),
                "at the top": (0.5, 0.25),
                "at the bottom": (0.5, 0.75),
                "in the centre": (0.5, 0.5),
            }
            assert (x, y) == pytest.approx(expected[position[2]], abs=0.06), captions[0]
            checked += 1
    assert checked > 60


def test_five_different_clean_captions() -> None:
    for seed in range(300):
        _, captions = render_scene(seed, 16)
        assert len(set(captions)) == 5
        for caption in captions:
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |fishs|crosss|\{", caption), caption


def test_every_object_colour_and_ground_comes_up() -> None:
    words = " ".join(caption for seed in range(600) for caption in render_scene(seed, 8)[1])
    for term in [*SHAPES, *COLOURS, *(ground.phrase for ground in FULL.grounds), *NUMBERS, "left of", "below"]:
        assert term in words


def test_written_scenes_load_as_a_data_set(tmp_path: Path) -> None:
    table = write_scenes(tmp_path / "scenes", 40, seed=2, side_px=32)
    examples = read_dataset(table.parent)
    assert len(examples) == 40
    assert sum(example.split == "val" for example in examples) == 8
    assert doubled(examples, tmp_path) == []
    assert all(len(example.captions) == 5 for example in examples)
    assert all(example.captions[0].replace(" ", "-") in example.image.stem for example in examples)
    again = write_scenes(tmp_path / "again", 40, seed=2, side_px=32)
    assert table.read_bytes() == again.read_bytes()
    for example in examples:
        assert example.image.read_bytes() == (again.parent / "images" / example.image.name).read_bytes()


def test_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "s"
    assert main([str(folder), "--count", "5", "--seed", "1", "--side", "16", "--plain"]) == 0
    assert len(list((folder / "images").glob("*.png"))) == 5
    assert main([str(folder), "--count", "5"]) == 2
    assert "exists already" in caplog.text


def test_bad_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="asked for 0 scenes"):
        write_scenes(tmp_path / "s", 0)
    with pytest.raises(DataError, match="of 0 px"):
        write_scenes(tmp_path / "s", 1, side_px=0)


def doubled(examples: list[Example], cache: Path) -> list[tuple[Path, Path]]:
    held_out = [example.image for example in examples if example.split == "val"]
    return near_duplicates([example.image for example in examples if example.split == "train"], held_out, cache)


def test_committed_sample_is_whole_and_small(tmp_path: Path) -> None:
    examples = read_dataset(SAMPLE)
    assert doubled(examples, tmp_path) == []
    files = sorted((SAMPLE / "images").iterdir())
    assert sorted(example.image for example in examples) == files
    assert len(files) >= 36
    assert sum(file.stat().st_size for file in files) < 1_000_000
    with (SAMPLE / "captions.csv").open(encoding="utf-8", newline="") as stream:
        assert next(csv.reader(stream)) == ["image", "caption", "split"]
    words = " ".join(caption for example in examples for caption in example.captions)
    assert not re.search(r"\b(cups?|stars?|moons?|flowers?|grass|night|clocks?)\b", words)
