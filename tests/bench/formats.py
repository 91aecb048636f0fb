"""In which numbers and on which runtime the model is fastest, and what each choice costs in recall and on disk.

    python -m tests.bench.formats runs/default/model mmsearch/pretrained/default

In: the trained model in float32, the shipped one, and the validation photos. Each batch goes through every format in
turn, one thread each, so that all see the same machine; processor time is counted, medians over the batches. `stored`
formats keep weights in fewer bits and compute in float32; the others compute in fewer bits too, ONNX Runtime's int8
with ranges taken from training photos. OpenVINO and LiteRT (photos alone) are measured where they are installed, and
named where they are not. Out: a table in Markdown. Next: `encode.py`, the shipped photos' graph by threads and batch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from mmsearch.data.datasets import read_dataset
from mmsearch.evaluation.recall import retrieval
from mmsearch.inference.preprocess import square
from mmsearch.models.checkpoint import load_vae, pack
from mmsearch.models.vae import ImageEncoder
from mmsearch.training.export.int8 import quantised, with_weights
from tests.bench.common import SHARED_PHOTOS, machine
from tests.bench.litert import Trunk, layers_of, litert_run
from tests.bench.runtimes import Run, absent, onnx_run, openvino_run

WORDS = "encoders.text.transformer.words.weight"
BATCH = {"image": 32, "text": 64}
MODALITIES = ("image", "text")
PHOTOS_ALONE = "LiteRT"  # its texts are those of the row `int8 stored` on ONNX Runtime


@dataclass(frozen=True)
class Format:
    """One row of the table: how one modality runs, and what the model weighs."""

    name: str
    run: Run
    mib: float


@dataclass(frozen=True)
class Measured:
    """What a format gave."""

    name: str
    mib: float
    means: NDArray[np.float32]  # [n, d]
    rate: float  # items a second, the median of the batches


def float_weights(trained: Path, shipped: Path) -> dict[str, NDArray[np.float32]]:
    """The trained weights, of the words that ship."""
    vae, _ = load_vae(trained)
    state = {name: value.numpy() for name, value in vae.state_dict().items()}
    before = Tokenizer.from_file(str(trained / "tokenizer.json")).get_vocab()
    after = Tokenizer.from_file(str(shipped / "tokenizer.json")).get_vocab()
    kept = [before[word] for word, _ in sorted(after.items(), key=lambda item: item[1])]
    return {**state, WORDS: state[WORDS][kept]}


def int8_texts(source: Path, target: Path) -> None:
    """The graph of texts with products in int8, ranges taken from each batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kind = QuantType.QInt8
    quantize_dynamic(str(source), str(target), op_types_to_quantize=["MatMul"], per_channel=True, weight_type=kind)


def formats(modality: str, trained: Path, shipped: Path, folder: Path, squares: NDArray[np.uint8]) -> Iterator[Format]:
    weights = float_weights(trained, shipped)
    rounded = {n: torch.from_numpy(w).half().float().numpy() if w.ndim > 1 else w for n, w in weights.items()}
    stored = {n: v.numpy() for n, v in load_vae(shipped)[0].state_dict().items()}
    state = {n: torch.from_numpy(w) for n, w in weights.items()}
    sizes = {precision: _mib(state, precision) for precision in ("float32", "float16", "int8")}
    paths = {}
    for name, values in {"float32": weights, "float16 stored": rounded, "int8 stored": stored}.items():
        paths[name] = folder / f"{name}.onnx"
        onnx.save(with_weights(shipped / f"{modality}.onnx", values), str(paths[name]))
        yield Format(f"ONNX Runtime, {name}", onnx_run(paths[name]), sizes[name.split()[0]])
    plain, paths["int8"] = paths["float32"], folder / "int8.onnx"
    if modality == "image":
        onnx.save(quantised(with_weights(shipped / "image.onnx", stored), squares), str(paths["int8"]))
    else:
        int8_texts(plain, paths["int8"])
    yield Format("ONNX Runtime, int8 arithmetic", onnx_run(paths["int8"]), sizes["int8"])
    if not absent("openvino"):
        yield Format("OpenVINO, float32", openvino_run(plain, "f32"), sizes["float32"])
        yield Format("OpenVINO, bfloat16 arithmetic", openvino_run(paths["int8 stored"], "bf16"), sizes["int8"])
        # of ONNX Runtime's graphs in int8 it knows the static kind alone, that of photos
        last = paths["int8" if modality == "image" else "int8 stored"]
        yield Format("OpenVINO, int8 arithmetic (photos alone)", openvino_run(last, "f32"), sizes["int8"])
    if modality == "image" and not absent("ai-edge-litert"):
        layers = layers_of(onnx.load(str(paths["int8"])))
        for numbers, source, kind in (("float32", trained, None), ("int8 arithmetic", shipped, layers)):
            encoder = image_encoder(source)
            run = litert_run(Trunk(encoder.trunk, kind).build(), encoder)
            yield Format(f"{PHOTOS_ALONE}, {numbers}", run, sizes[numbers.split()[0]])


def image_encoder(folder: Path) -> ImageEncoder:
    return cast(ImageEncoder, load_vae(folder)[0].encoders["image"].eval())


def _mib(state: Mapping[str, torch.Tensor], precision: Any) -> float:
    return sum(t.numel() * t.element_size() for t in pack(state, precision).values()) / 2**20


def squares_of(paths: list[Path], side_px: int) -> NDArray[np.uint8]:
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(square(image, side_px))
    return np.stack(pictures)


def ids_of(texts: list[str], shipped: Path, max_tokens: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Token ids in batches of texts of like length, and the order that the texts come in then."""
    tokenizer = Tokenizer.from_file(str(shipped / "tokenizer.json"))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=0)
    order = np.argsort([len(t.split()) for t in texts], kind="stable")
    parts = [order[i : i + BATCH["text"]] for i in range(0, len(order), BATCH["text"])]
    return [np.array([e.ids for e in tokenizer.encode_batch([texts[i] for i in p])], np.int64) for p in parts], order


def in_turns(rows: list[Format], batches: list[NDArray[Any]]) -> list[Measured]:
    """Every batch through every format, each in its turn the first; the first batch once before, to warm up."""
    means: dict[str, list[NDArray[np.float32]]] = {row.name: [] for row in rows}
    rates: dict[str, list[float]] = {row.name: [] for row in rows}
    for row in rows:
        row.run(batches[0])
    for number, batch in enumerate(batches):
        turn = number % len(rows)
        for row in rows[turn:] + rows[:turn]:
            started = time.process_time()
            means[row.name].append(row.run(batch))
            rates[row.name].append(len(batch) / (time.process_time() - started))
    return [Measured(r.name, r.mib, np.concatenate(means[r.name]), statistics.median(rates[r.name])) for r in rows]


def measure(modality: str, trained: Path, shipped: Path, data: Path, calibration: int, count: int) -> list[Measured]:
    """One modality, in a process of its own; means in the order of the data set."""
    _, architecture = load_vae(shipped)
    examples, known = read_dataset(data, "val")[: count or None], np.zeros((0, 0, 0, 3), np.uint8)
    if modality == "text":
        batches, order = ids_of([c for e in examples for c in e.captions], shipped, architecture.max_tokens)
    else:
        squares = squares_of([e.image for e in examples], architecture.side_px)
        batches = [squares[i : i + BATCH["image"]] for i in range(0, len(squares), BATCH["image"])]
        order = np.arange(len(squares))
        training = read_dataset(data, "train")
        chosen = np.random.default_rng(0).permutation(len(training))[:calibration]
        known = squares_of([training[i].image for i in chosen], architecture.side_px)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(formats(modality, trained, shipped, Path(folder), known))
        found = in_turns(rows, list(batches))
    back = np.argsort(order)
    return [replace(row, means=row.means[back]) for row in found]


def main(trained: Path, shipped: Path, data: Path, calibration: int, count: int) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(measure, m, trained, shipped, data, calibration, count) for m in MODALITIES]
        photos, texts = (part.result() for part in parts)
    examples = read_dataset(data, "val")[: count or None]
    owner = np.array([i for i, e in enumerate(examples) for _ in e.captions])
    titles = ("format", "photos/s", "ratio", "texts/s", "ratio", "MiB", "t2i R@1", "R@10", "i2t R@1", "R@10", "mean")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    by_name = {text.name: text for text in texts}
    for photo in photos:
        alone = photo.name.startswith(PHOTOS_ALONE)
        text = texts[2] if alone else by_name[photo.name]
        found = retrieval(photo.means, text.means, owner)
        t2i, i2t = found.text_to_image, found.image_to_text
        speeds = [f"{photo.rate:.1f}", f"{photo.rate / photos[0].rate:.2f}"]
        speeds += ["-", "-"] if alone else [f"{text.rate:.0f}", f"{text.rate / texts[0].rate:.2f}"]
        cells = [*speeds, f"{photo.mib:.1f}", *(f"{v:.1f}" for v in (t2i.r1, t2i.r10, i2t.r1, i2t.r10))]
        print(f"| {photo.name} | {' | '.join(cells)} | {found.mean_recall:.2f} |")
    for package in ("openvino", "ai-edge-litert"):
        if absent(package):
            print(f"| {absent(package)} |{' |' * (len(titles) - 1)}")
    crossed = retrieval(photos[3].means, texts[2].means, owner).mean_recall
    print(f"\nPhotos in int8 arithmetic, texts in int8 stored, both on ONNX Runtime: mean {crossed:.2f}.")
    print(f"A second of processor time, one thread, batches of {BATCH['image']} photos and {BATCH['text']} texts;")
    print(f"{len(examples)} photos, {len(owner)} captions; ranges from {calibration} training photos.")
    print(machine("onnxruntime", "openvino", "ai-edge-litert", "torch"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description="Formats and runtimes side by side.")
    parser.add_argument("trained", type=Path, help="the trained model's folder, float32")
    parser.add_argument("shipped", type=Path, help="the exported model's folder")
    parser.add_argument("--data", type=Path, default=SHARED_PHOTOS / "flickr8k")
    parser.add_argument("--calibration", type=int, default=64, help="training photos for int8's ranges")
    parser.add_argument("--count", type=int, default=0, help="validation photos; 0 for all")
    options = parser.parse_args()
    main(options.trained, options.shipped, options.data, options.calibration, options.count)
