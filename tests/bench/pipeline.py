"""Indexing end to end against what its two heavy parts allow: decoding alone and encoding alone, on the same cores.

    python -m tests.bench.pipeline [--small 1000] [--large 160] [--turns 3]

D is images/s read, hashed, decoded and prepared on all cores with nothing else running; E is images/s encoded on all
cores from pixels that are ready. An index run has to do both for every image on the same cores. A core that spends
1/D + 1/E of its time on an image can do no more of them than

    shared limit = 1 / (1/D + 1/E)  images/s

so a run that reaches 80 % of it spends at most a quarter more than the two parts need, for everything else: scanning,
SQLite, the index file, waiting. Against the slower part alone, min(D, E), no run on shared cores can reach 100 %: that
share is printed too, with what it could be at best. A run whose shares are read off the second column needs a machine
on which decoding and encoding do not share cores, such as one with a GPU.

The index run makes a new library each time; the model is loaded and has run once. Files lie in the page cache. The
three take turns; medians. `(a)` 224-pixel JPEGs, `(b)` 12-megapixel JPEGs of 3 to 5 MB. Beside each rate stands the
processor time of an image, which says on a busy machine, too, how much an index run adds to its two parts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from indexer.base.profile import Profiler
from indexer.base.types import Encoder, Profile, UInt8Array
from indexer.files.opening import PhotoFolder
from indexer.ingest.loader import KnownHashes, load_all
from indexer.ingest.plan import Job
from mmsearch.cli.progress import limit_of, profile_table
from mmsearch.config import Config
from mmsearch.data.scenes import write_scenes
from mmsearch.inference.load_model import load_model
from mmsearch.library import Library
from tests.bench.common import DEFAULT_MODEL, SHARED_PHOTOS, machine, photo_folder, table

WANTED_SHARE = 0.8
LARGE_PX = (4000, 3000)
LARGE_QUALITY = 90
NOISE = 7.0  # standard deviation of what is sprinkled over an enlarged photo: files of 3 to 5 MB
DISTINCT = 16  # enlarged photos; the others are these again with other bytes at the end


class Turns:
    """One thing done several times."""

    def __init__(self) -> None:
        self.rates: list[float] = []  # images/s
        self.cpu_ms: list[float] = []  # of an image

    def time(self, work: Callable[[], int]) -> None:
        """Once more; `work` returns how many images it did."""
        started, cpu_s = time.perf_counter(), time.process_time()
        count = work()
        self.rates.append(count / (time.perf_counter() - started))
        self.cpu_ms.append(1000 * (time.process_time() - cpu_s) / count)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


@dataclass
class Rates:
    """What was measured over one folder, and the profile of the last index run."""

    what: str
    decode: Turns = field(default_factory=Turns)
    encode: Turns = field(default_factory=Turns)
    index: Turns = field(default_factory=Turns)
    profile: Profile | None = None

    @property
    def shared(self) -> float:
        """What decoding and encoding on the same cores allow."""
        return 1 / (1 / self.decode.rate + 1 / self.encode.rate)

    @property
    def share(self) -> float:
        """Of the shared limit: what the bar is about."""
        return self.index.rate / self.shared


def measure(small: int = 1000, large: int = 160, turns: int = 3, model: Path = DEFAULT_MODEL) -> list[Rates]:
    encoder = load_model("default" if model == DEFAULT_MODEL else model, "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        found = []
        if small:
            found.append(_rates(photo_folder(here / "small", small), here / "small", encoder, turns))
        if large:
            found.append(_rates(large_folder(here / "large", large), here / "large", encoder, turns))
        return found


def large_folder(folder: Path, count: int) -> str:
    """Fill a folder with 12-megapixel JPEGs: photos enlarged, with noise as a sensor has it."""
    folder.mkdir(parents=True)
    rng, sizes = np.random.default_rng(0), []
    for number, path in enumerate(_originals(folder.parent, min(count, DISTINCT))):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize(LARGE_PX, Image.Resampling.BICUBIC), np.float32)
        noisy = pixels + NOISE * rng.standard_normal(pixels.shape[:2], np.float32)[:, :, None]  # grey: [h, w, 1]
        target = folder / f"{number:05d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target, quality=LARGE_QUALITY)
        sizes.append(target.stat().st_size)
    for number in range(len(sizes), count):
        data = (folder / f"{number % len(sizes):05d}.jpg").read_bytes()
        (folder / f"{number:05d}.jpg").write_bytes(data + number.to_bytes(8))  # another file, the same picture
    return f"{count} JPEGs, {LARGE_PX[0]} x {LARGE_PX[1]}, {min(sizes) / 1e6:.1f} to {max(sizes) / 1e6:.1f} MB"


def _originals(folder: Path, count: int) -> list[Path]:
    shared = SHARED_PHOTOS / "flickr8k" / "images"
    if not shared.is_dir():
        shared = write_scenes(folder / "originals", count, seed=2, side_px=224).parent / "images"
    return sorted(shared.iterdir())[:count]


def _rates(what: str, folder: Path, encoder: Encoder, turns: int) -> Rates:
    pixels = _pixels(folder, encoder, 256)  # [n, side, side, 3]
    encoder.encode_images(pixels[:32])  # warm: the session, its memory
    count, found = sum(1 for _ in folder.iterdir()), Rates(what)
    for turn in range(turns):
        found.decode.time(lambda: decode(folder, encoder))
        found.encode.time(lambda: encode(encoder, pixels, count))
        library = folder.parent / f"library-{turn}"
        found.index.time(lambda: index(folder, library, encoder, found))  # noqa: B023, called at once
        shutil.rmtree(library)
    return found


def decode(folder: Path, encoder: Encoder) -> int:
    """D: read, hashed, decoded, prepared, by the threads of an index run, and thrown away."""
    jobs = [Job(path.name, "image", None, None) for path in sorted(folder.iterdir())]
    nothing_known: KnownHashes = {"image": (), "text": ()}
    with closing(load_all(PhotoFolder(folder), jobs, encoder, nothing_known, 64, folder.parent, Profiler())) as loading:
        assert all(loaded.pixels is not None for loaded in loading)
    return len(jobs)


def encode(encoder: Encoder, pixels: UInt8Array, count: int) -> int:
    """E: batches as an index run has them, from pixels that are ready."""
    size, done = Config().batch_size, 0
    while done < count:
        first = done % (len(pixels) - size + 1)
        done += len(encoder.encode_images(pixels[first : first + size]))
    return done


def index(folder: Path, library: Path, encoder: Encoder, found: Rates) -> int:
    """End to end, into a new library."""
    with Library.open(library, model=encoder, device="cpu", config=Config()) as opened:
        report = opened.index(folder)
    assert report.added == report.encoded > 0, report
    found.profile = report.profile
    return report.encoded


def _pixels(folder: Path, encoder: Encoder, count: int) -> UInt8Array:
    made = []
    for path in sorted(folder.iterdir())[: min(count, 64)]:
        with Image.open(path) as image:
            image.draft("RGB", (2 * encoder.side_px, 2 * encoder.side_px))
            made.append(encoder.prepare_image(image.convert("RGB")))
    return np.stack([made[number % len(made)] for number in range(count)])


def show(found: list[Rates]) -> None:
    for one in found:
        numbers = [f"turn {number + 1}" for number in range(len(one.index.rates))]
        rows = [("images/s", "median", *numbers, "processor, ms an image")]
        parts = (("D, decoding alone", one.decode), ("E, encoding alone", one.encode))
        for name, turns in (*parts, ("Library.index, end to end", one.index)):
            rates = (f"{rate:.1f}" for rate in (turns.rate, *turns.rates))
            rows.append((name, *rates, f"{statistics.median(turns.cpu_ms):.2f}"))
        slower = min(one.decode.rate, one.encode.rate)
        print(f"{one.what}\n{table(rows)}")
        print(
            f"shared limit 1/(1/D + 1/E) = {one.shared:.1f}: reached {100 * one.share:.0f} % of it "
            f"(wanted: {100 * WANTED_SHARE:.0f}); of min(D, E) = {slower:.1f}: "
            f"{100 * one.index.rate / slower:.0f} % (at best {100 * one.shared / slower:.0f})"
        )
        if one.profile is not None:
            print(f"\nthe last run\n{profile_table(one.profile)}\n{limit_of(one.profile)}\n")
    print(machine("onnxruntime", "pillow", "numpy", "sqlalchemy"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Indexing against what decoding and encoding allow.")
    parser.add_argument("--small", type=int, default=1000, help="224-pixel JPEGs; 0 leaves them out")
    parser.add_argument("--large", type=int, default=160, help="12-megapixel JPEGs; 0 leaves them out")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model")
    options = parser.parse_args()
    show(measure(options.small, options.large, options.turns, options.model))
