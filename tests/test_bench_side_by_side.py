"""`tests.bench.side_by_side` on small stand-ins: what it times and counts, and what it prints for a missing tool."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bench import side_by_side
from tests.bench.clip_retrieval_launcher import CenterCrop, Normalize, Resize, ToTensor
from tests.bench.rivals import Command, MmSearch, RClip, Vectors

INDEX = """
import json, os, sys
folder, state, forgets = sys.argv[1:]
names = sorted(os.listdir(folder))
old = json.load(open(state)) if os.path.exists(state) and forgets == "no" else {}
json.dump(old | {name: [os.path.getsize(folder + "/" + name)] for name in names}, open(state, "w"))
sys.exit(0 if names else "no photos")
"""


@dataclass(frozen=True)
class Plain(MmSearch):
    """Writes the names of files into a file, and forgets what is gone or not."""

    name: str = "plain"
    forgets: str = "no"

    def index(self, folder: Path, state: Path) -> list[Command]:
        return [[sys.executable, "-S", "-c", INDEX, str(folder), str(state / "rows"), self.forgets]]

    def query(self, folder: Path, state: Path) -> Command:
        return [sys.executable, "-S", "-c", "pass"]

    def vectors(self, state: Path) -> Vectors:
        return {name: np.array(row) for name, row in json.loads((state / "rows").read_text()).items()}

    def knows_caption(self, state: Path) -> bool:
        return False


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    for number in range(8):
        Image.new("RGB", (20, 10), (30 * number, 0, 0)).save(tmp_path / "small" / f"{number}.jpg")
    return tmp_path / "small"


def test_times_are_of_whole_processes(small: Path, tmp_path: Path) -> None:
    times = side_by_side.measure(Plain(), small, small, tmp_path / "state", 2)
    assert 0 < times.small < 8 / 0.001
    assert len(times.queries_s) == 2
    table = side_by_side.speeds({MmSearch(): times, RClip(): times, Plain(): "no plain in /nowhere"})
    assert "| 1.0 and 1.0 | 1.00 |" in table
    assert "| plain | not measured: no plain in /nowhere |" in table


@pytest.mark.parametrize(("forgets", "kept"), [("no", 8), ("yes", 0)])
def test_what_is_left_after_a_drive_was_unplugged(small: Path, tmp_path: Path, forgets: str, kept: int) -> None:
    (tmp_path / "x").mkdir()
    said = side_by_side.unplugged(Plain(forgets=forgets), small, tmp_path / "x", 1.0)
    assert said == f"8 photos, {kept} kept, 8 after its return"


def test_a_tool_that_fails_says_what_it_printed(small: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tool = Plain()
    said = side_by_side._or_reason(lambda: str(side_by_side.index(tool, tmp_path / "empty", tmp_path / "state")))
    assert said.startswith("failed: python")
    assert said.endswith("ended with 1: no photos")


def test_the_transforms_do_what_their_names_say() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 61, 3), np.uint8)
    image = Image.fromarray(pixels)
    assert Resize(20)(image).size == (40, 20)
    assert Resize(20)(image.rotate(90, expand=True)).size == (20, 40)
    np.testing.assert_array_equal(np.asarray(CenterCrop(20)(image)), pixels[5:25, 20:40])
    tensor = Normalize((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))(ToTensor()(image))
    assert tensor.shape == (3, 30, 61)
    expected = (pixels.transpose(2, 0, 1) / 255 - 0.5) / np.array([0.25, 0.5, 1.0])[:, None, None]
    np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)
