"""What the benchmarks share: photos to work on, the machine they run on, a plain table.

Not part of the tests: `make bench`, or `python -m tests.bench.throughput` and its neighbours.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from mmsearch.data.datasets import read_dataset
from mmsearch.data.scenes import write_scenes
from mmsearch.inference.load_model import PRETRAINED

ROOT = Path(__file__).parents[2]
SHARED_PHOTOS = ROOT.parent / "shared" / "photos"
DEFAULT_MODEL = PRETRAINED / "default"


def photo_folder(folder: Path, count: int) -> str:
    """Fill a folder with `count` pictures: validation photos of Flickr8k, else rendered scenes; returns which."""
    folder.mkdir(parents=True)
    if not (SHARED_PHOTOS / "flickr8k").is_dir():
        scenes = write_scenes(folder.parent / "scenes", count, seed=1, side_px=224)
        pictures, what = sorted((scenes.parent / "images").iterdir()), "rendered scenes, 224 x 224, PNG"
    else:
        pictures = [e.image for e in read_dataset(SHARED_PHOTOS / "flickr8k", "val")]
        what = "Flickr8k validation photos, 224 x 224, JPEG"
    chosen = pictures[:count]
    for picture in chosen:
        shutil.copyfile(picture, folder / picture.name)  # without captions: pictures alone are measured
    return f"{len(chosen)} {what}"


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(*packages: str) -> str:
    """The machine and the versions, for the line under a table."""
    versions = ", ".join(f"{package} {_version(package)}" for package in packages)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cores()} cores ({_processor()}{load}), Python {platform.python_version()}, {versions}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns; the first row holds the titles, every column but the first stands to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip())
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
