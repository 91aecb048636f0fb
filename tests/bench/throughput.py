"""Indexing end to end against CLIP ViT-B/32's image encoder alone, on the same cores, in one run.

    python -m tests.bench.throughput --count 1000

The index run decodes, encodes and stores, and loads its model, each time into a new library. CLIP gets pixels that are
ready, in torch float32 with random weights: the arithmetic is that of the trained one. The two take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mmsearch.config import Config
from mmsearch.library import Library
from tests.bench.common import DEFAULT_MODEL, cores, machine, photo_folder, table

CLIP_BATCH = 32
WANTED_RATIO = 3.0


@dataclass(frozen=True)
class Throughput:
    """Images a second of each turn."""

    photos: str
    index: tuple[float, ...]
    clip: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(self.index) / statistics.median(self.clip)


def measure(count: int = 1000, clip_count: int = 256, turns: int = 3, model: str | Path = DEFAULT_MODEL) -> Throughput:
    torch.set_num_threads(cores())
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig()).eval()  # the standard configuration is that of ViT-B/32
    weights = sum(p.numel() for p in clip.parameters())
    assert weights == 87_849_216, weights  # as published: 86 M in the trunk, the projection to 512
    index, alone = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        photos = photo_folder(folder, count)
        _clip_rate(clip, CLIP_BATCH)  # warm: memory, kernels
        for turn in range(turns):
            index.append(_index_rate(folder, Path(temporary) / f"library-{turn}", model))
            alone.append(_clip_rate(clip, clip_count))
    return Throughput(photos, tuple(index), tuple(alone))


def _index_rate(folder: Path, library: Path, model: str | Path) -> float:
    started = time.perf_counter()
    with Library.open(library, model=model, device="cpu", config=Config()) as opened:
        report = opened.index(folder)
    seconds = time.perf_counter() - started
    assert report.added == report.encoded > 0, report
    return report.encoded / seconds


def _clip_rate(clip: CLIPVisionModelWithProjection, count: int) -> float:
    pixels = torch.randn(CLIP_BATCH, 3, 224, 224)
    batches = max(1, count // CLIP_BATCH)
    with torch.inference_mode():
        started = time.perf_counter()
        for _ in range(batches):
            assert clip(pixel_values=pixels).image_embeds.shape == (CLIP_BATCH, 512)
        return batches * CLIP_BATCH / (time.perf_counter() - started)


def show(found: Throughput) -> None:
    rows = [("images/s", "median", *(f"turn {i + 1}" for i in range(len(found.index))))]
    for name, rates in (("mmsearch index, end to end", found.index), ("CLIP ViT-B/32 encoder alone", found.clip)):
        rows.append((name, *(f"{rate:.1f}" for rate in (statistics.median(rates), *rates))))
    print(table(rows))
    print(f"ratio {found.ratio:.2f} (wanted: {WANTED_RATIO:.0f} or more); {found.photos}")
    print(machine("torch", "onnxruntime", "transformers", "faiss-cpu", "pillow"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Indexing against CLIP ViT-B/32's image encoder.")
    parser.add_argument("--count", type=int, default=1000, help="photos to index")
    parser.add_argument("--clip-count", type=int, default=256, help="images for CLIP, of the same rate each")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model")
    options = parser.parse_args()
    show(measure(options.count, options.clip_count, options.turns, options.model))
