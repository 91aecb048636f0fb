"""The same picture under two names is found, however it was saved again; two pictures that look alike are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.data import near_duplicates as near_duplicates_module
from mmsearch.data.datasets import read_dataset
from mmsearch.data.near_duplicates import near_duplicates
from mmsearch.data.scenes import write_scenes
from mmsearch.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "photos"
needs_photos = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photos are not beside this checkout")
Change = Callable[[Image.Image, Path], Path]


def textured(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Pictures with structure at every scale, as photographs have, 96 x 72."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for at in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse, np.float32) + rng.normal(0, 8, (72, 96, 1))
        paths.append(folder / f"{at:03}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def saved(image: Image.Image, path: Path, quality: int = 90) -> Path:
    image.save(path, quality=quality)
    return path


def upside_down(image: Image.Image, path: Path) -> Path:
    """Stored turned by half, with the EXIF entry that tells every viewer to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 3
    image.rotate(180).save(path, exif=exif, quality=95)
    return path


AGAIN: dict[str, Change] = {
    "jpeg-90": lambda image, path: saved(image, path.with_suffix(".jpg")),
    "jpeg-40": lambda image, path: saved(image, path.with_suffix(".jpg"), 40),
    "webp": lambda image, path: saved(image, path.with_suffix(".webp")),
    "half": lambda image, path: saved(image.resize((48, 36)), path.with_suffix(".jpg")),
    "twice": lambda image, path: saved(image.resize((192, 144)), path.with_suffix(".png")),
    "squashed": lambda image, path: saved(image.resize((72, 72)), path.with_suffix(".png")),
    "turned": lambda image, path: upside_down(image, path.with_suffix(".jpg")),
}


@pytest.mark.parametrize("change", AGAIN)
def test_a_picture_saved_again_is_found(change: str, tmp_path: Path) -> None:
    photos = textured(tmp_path / "train", 12)
    held_out = textured(tmp_path / "val", 5, seed=1)
    with Image.open(photos[7]) as image:
        again = AGAIN[change](image.convert("RGB"), tmp_path / "val" / "another name")
    assert near_duplicates(photos, [*held_out[:2], again, *held_out[2:]], tmp_path) == [(photos[7], again)]


def test_equal_files_are_found_however_many_look_alike(tmp_path: Path) -> None:
    """Blank pages: the pair that is told is a true one."""
    photos = textured(tmp_path / "train", 3)
    for at in range(40):
        Image.new("RGB", (64, 64), (250, 250, 250 - at % 3)).save(tmp_path / "train" / f"page{at}.png")
    pages = sorted((tmp_path / "train").glob("page*.png"))
    copy = tmp_path / "copy.png"
    shutil.copyfile(photos[1], copy)
    assert near_duplicates([*pages, *photos], [copy], tmp_path) == [(photos[1], copy)]
    assert near_duplicates(pages, [copy], tmp_path) == []


def test_drawings_that_differ_in_few_pixels_are_two_pictures(tmp_path: Path) -> None:
    """On plain grounds a circle and a square in the same place differ by less, on average, than a photo saved badly."""
    examples = read_dataset(write_scenes(tmp_path / "scenes", 600, seed=1, plain=True).parent)
    sides = {split: [e.image for e in examples if e.split == split] for split in ("train", "val")}
    assert near_duplicates(sides["train"], sides["val"], tmp_path) == []
    small = near_duplicates_module._thumbnails([*sides["train"], *sides["val"]], tmp_path)
    alike = list(near_duplicates_module._candidates(small[:480], small[480:]))
    assert alike  # the second look is what tells them apart


def test_unreadable_photos_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    photos, held_out = textured(tmp_path / "train", 4), textured(tmp_path / "val", 3, seed=1)
    photos[2].write_bytes(photos[2].read_bytes()[:900])
    held_out[1].write_bytes(b"no picture")
    unreadable = r"2 of 7 photos cannot be read, the first .*002\.png: .*; take them out"
    with pytest.raises(DataError, match=unreadable) as told:
        near_duplicates(photos, held_out, tmp_path)
    assert "\n" not in str(told.value)


def test_large_sets_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, held_out = textured(tmp_path / "train", 4), textured(tmp_path / "val", 3, seed=1)
    monkeypatch.setattr(near_duplicates_module, "_CACHE_FROM", 7)
    assert near_duplicates(photos, held_out, tmp_path / "cache") == []
    [stored] = (tmp_path / "cache").iterdir()  # and nothing temporary
    assert np.load(stored).shape == (7, 16 * 16 * 3)

    def refuse(path: Path) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(near_duplicates_module, "_small_or_error", refuse)
    assert near_duplicates(photos, held_out, tmp_path / "cache") == []
    shutil.copyfile(photos[0], held_out[0])  # another file under the same name
    with pytest.raises(AssertionError, match="decoded again"):
        near_duplicates(photos, held_out, tmp_path / "cache")


@needs_photos
def test_real_photos_saved_again_are_found_and_others_are_not(tmp_path: Path) -> None:
    examples = read_dataset(SHARED / "flickr8k")
    photos = [e.image for e in examples if e.split == "train"][::30]
    held_out = [e.image for e in examples if e.split == "val"][::20]
    again = []
    for at, photo in enumerate(photos[:20]):
        with Image.open(photo) as image:
            small = image.convert("RGB").resize((112, 112), Image.Resampling.BICUBIC)
            again.append(saved(small, tmp_path / f"{at:02}.jpg", 75))
    assert near_duplicates(photos, [*again, *held_out], tmp_path) == list(zip(photos[:20], again, strict=True))
