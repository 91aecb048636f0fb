"""What the stored precision costs: a trained model in float32 against the form that ships, and ONNX against torch.

    python -m tests.bench.precision runs/default/model mmsearch/pretrained/default

In: two model folders and a data set with captions. Out: recall of both through `mmsearch.evaluation.evaluate`, the
cosine of their vectors as they run here, the cosine between ONNX Runtime and torch with the shipped weights in float32
arithmetic, and between that and the int8 arithmetic of photos, where the processor has it. Speeds: `formats.py`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from indexer.base.types import Float32Array
from mmsearch.data.datasets import read_dataset
from mmsearch.evaluation.evaluate import EvalReport, evaluate
from mmsearch.evaluation.subject import Subject
from mmsearch.inference.load_model import Model, load_model
from mmsearch.inference.torch_model import TorchModel
from tests.bench.common import SHARED_PHOTOS, machine, table


@dataclass(frozen=True)
class Cosines:
    """Between the vectors of two models for the same things: the mean and the worst."""

    mean: float
    least: float


def cosines(first: Float32Array, second: Float32Array) -> Cosines:
    """Row by row over `[n, d]`."""
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (first, second))
    each = (a * b).sum(1)
    return Cosines(float(each.mean()), float(each.min()))


def compare(first: Model, second: Model, pictures: list[Path], texts: list[str]) -> dict[str, Cosines]:
    return {
        "image": cosines(first.embed_images(pictures).mu, second.embed_images(pictures).mu),
        "text": cosines(first.embed_texts(texts).mu, second.embed_texts(texts).mu),
    }


def show(original: Path, shipped: Path, data: Path, split: str, count: int) -> None:
    reports = {
        name: evaluate(Subject.load(data, split=split, model=str(f)))
        for name, f in (("original", original), ("shipped", shipped))
    }
    print(table([("", *_titles()), *((name, *_recalls(report)) for name, report in reports.items())]))
    examples = read_dataset(data, split)[:count]
    pictures, texts = [e.image for e in examples], [e.captions[0] for e in examples]
    loaded, plain = load_model(shipped, "cpu"), load_model(shipped, "cpu")
    with patch("mmsearch.inference.onnx_model.multiplies_bytes", return_value=False):
        plain.embed_images(pictures[:1])  # opens the graph in float32 arithmetic, which stays open
    pairs = {
        "original and shipped": compare(load_model(original, "cpu"), loaded, pictures, texts),
        "ONNX and torch, shipped": compare(TorchModel.load("shipped", shipped, "cpu"), plain, pictures, texts),
        "as it runs here and float32": compare(plain, loaded, pictures, texts),
    }
    rows: list[tuple[str, ...]] = [("cosine", "image mean", "image least", "text mean", "text least")]
    for name, found in pairs.items():
        rows.append((name, *(f"{value:.6f}" for c in found.values() for value in (c.mean, c.least))))
    print(f"\n{table(rows)}")
    sizes = [sum(f.stat().st_size for f in folder.iterdir()) / 2**20 for folder in (original, shipped)]
    print(f"{sizes[0]:.1f} and {sizes[1]:.1f} MiB; recall on {data}, split {split}; cosines over {len(pictures)} pairs")
    print(machine("torch", "onnxruntime"))


def _titles() -> tuple[str, ...]:
    return (*(f"{way} R@{k}" for way in ("t2i", "i2t") for k in (1, 5, 10)), "mean")


def _recalls(report: EvalReport) -> tuple[str, ...]:
    """By cosine alone: one of the two folders has a bank of queries."""
    ways = report.cosine or {"text_to_image": report.text_to_image, "image_to_text": report.image_to_text}
    values = [value for way in ways.values() for value in (way.r1, way.r5, way.r10)]
    return (*(f"{value:.2f}" for value in values), f"{np.mean(values):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the stored precision costs.")
    parser.add_argument("original", type=Path, help="the trained model's folder, float32")
    parser.add_argument("shipped", type=Path, help="the exported model's folder")
    parser.add_argument("--data", type=Path, default=SHARED_PHOTOS / "flickr8k")
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=200, help="photos for the cosines")
    options = parser.parse_args()
    show(options.original, options.shipped, options.data, options.split, options.count)
