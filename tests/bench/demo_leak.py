"""Whether a picture of the demo is among the training photos, or near one: by its vector and by its grey pattern.

    python -m tests.bench.demo_leak --photos ../shared/photos

For each picture of the demo the nearest training photo by cosine of the model's means, and by the Hamming distance of
a 128-bit difference hash, also mirrored. A copy, even scaled, squashed or compressed anew, differs by a few bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.base.types import Float32Array, UInt8Array
from indexer.decoding.decode import decode_image
from mmsearch.cli.demo import gather
from mmsearch.inference.load_model import Model, load_model
from tests.bench.common import DEFAULT_MODEL, SHARED_PHOTOS, machine, table

NEAR_COSINE = 0.9
NEAR_BITS = 18
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_BATCH = 32


@dataclass(frozen=True)
class Nearest:
    """The training photos nearest to one picture of the demo."""

    picture: str
    by_vector: Path
    cosine: float
    by_hash: Path
    bits: int

    @property
    def suspicious(self) -> bool:
        return self.cosine >= NEAR_COSINE or self.bits <= NEAR_BITS


def difference_hash(square: UInt8Array) -> UInt8Array:
    """128 bits of a picture: whether a cell is brighter than its right neighbour, than the one below; uint8 `[128]`."""
    grey = Image.fromarray(square).convert("L")
    wide = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)  # [8, 9]
    high = np.asarray(grey.resize((8, 9), Image.Resampling.BOX), np.int16)  # [9, 8]
    return np.concatenate([(wide[:, :-1] > wide[:, 1:]).ravel(), (high[:-1] > high[1:]).ravel()]).astype(np.uint8)


def described(model: Model, paths: list[Path], mirrored: bool = False) -> tuple[list[Path], Float32Array, UInt8Array]:
    """The pictures that can be read, their unit vectors `[n, d]`, their hashes `[n, 128]`."""
    read, vectors, hashes = [], [], []

    def square(path: Path) -> UInt8Array | None:
        try:
            with path.open("rb") as file:
                prepared = model.prepare_image(decode_image(file, side_px=model.side_px).image)
        except (DecodeError, OSError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return None
        return np.ascontiguousarray(prepared[:, ::-1]) if mirrored else prepared

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _BATCH):
            part = paths[start : start + _BATCH]
            kept = [(p, s) for p, s in zip(part, pool.map(square, part), strict=True) if s is not None]
            mu = model.encode_images(np.stack([s for _, s in kept])).mu
            vectors.append(mu / np.linalg.norm(mu, axis=1, keepdims=True))
            hashes.append(np.stack([difference_hash(s) for _, s in kept]))
            read += [p for p, _ in kept]
            if start % (100 * _BATCH) == 0:
                print(f"{start} of {len(paths)}", file=sys.stderr)
    return read, np.concatenate(vectors), np.concatenate(hashes)


def nearest(model: Model, demo: list[Path], photos: list[Path]) -> list[Nearest]:
    names, vectors, hashes = described(model, demo)
    _, mirrored_vectors, mirrored_hashes = described(model, demo, mirrored=True)
    read, photo_vectors, photo_hashes = described(model, photos)
    cosine = np.maximum(vectors @ photo_vectors.T, mirrored_vectors @ photo_vectors.T)  # [demo, photos]
    bits = np.minimum(_distances(hashes, photo_hashes), _distances(mirrored_hashes, photo_hashes))
    rows = zip(names, cosine.argmax(1), cosine.max(1), bits.argmin(1), bits.min(1), strict=True)
    return [Nearest(n.name, read[v], float(c), read[h], int(b)) for n, v, c, h, b in rows]


def _distances(first: UInt8Array, second: UInt8Array) -> NDArray[np.int64]:
    """Hamming distances of bits `[n, b]` and `[m, b]`, `[n, m]`."""
    a, b = first.astype(np.int64), second.astype(np.int64)
    return a @ (1 - b).T + (1 - a) @ b.T


def main(root: Path, model_folder: Path) -> None:
    model = load_model(model_folder, "cpu")
    photos = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    with tempfile.TemporaryDirectory() as temporary:
        gather(Path(temporary))
        found = nearest(model, sorted(Path(temporary).iterdir()), photos)
    rows = [("demo picture", "cosine", "nearest by vector", "bits", "nearest by hash", "")]
    for n in sorted(found, key=lambda n: -n.cosine):
        paths = [str(p.relative_to(root)) for p in (n.by_vector, n.by_hash)]
        rows.append((n.picture, f"{n.cosine:.3f}", paths[0], str(n.bits), paths[1], "LOOK" if n.suspicious else ""))
    print(table(rows))
    suspicious = sum(n.suspicious for n in found)
    print(
        f"{suspicious} of {len(found)} with cosine >= {NEAR_COSINE} or <= {NEAR_BITS} of 128 bits; {len(photos)} photos"
    )
    print(machine("onnxruntime", "pillow"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Near copies of the demo's pictures among training photos.")
    parser.add_argument("--photos", type=Path, default=SHARED_PHOTOS, help="folder, read with everything below")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a model")
    options = parser.parse_args()
    main(options.photos, options.model)
