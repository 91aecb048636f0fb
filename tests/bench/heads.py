"""VAE heads on a CLIP ViT-B/32: what `mmsearch train --model clip-ViT-B-32 --data FOLDER` costs on a CPU.

    python -m tests.bench.heads --photos 100 --texts 400 --pairs 5000

Two parts that take turns in the command: features of photos and captions (computed once, then kept on disk), and heads
trained on them. The model has the architecture and size of CLIP ViT-B/32 and random weights, since nothing is
downloaded: the arithmetic is the same. Encoding is timed on some photos and multiplied; heads are trained on all pairs,
on features drawn at random around shared latents, whose recall would say nothing about CLIP. CPU seconds are what the
process used: on a busy machine they say more than the clock does. `--pairs 0` and `--photos 0` leave a part out.
"""

from __future__ import annotations

import argparse
import string
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPConfig

import mmsearch.training
from mmsearch.inference.backbone import BATCH, Backbone
from mmsearch.inference.pictures import to_image
from mmsearch.models.checkpoint import Architecture, build
from mmsearch.training.corpus import Corpus
from mmsearch.training.loop import Loop
from mmsearch.training.objective import Contrast
from mmsearch.training.recipe import load_recipe
from mmsearch.training.stages import FeatureStage
from tests.bench.common import cores, machine, photo_folder, table
from tests.tiny_clip import IDS, write_clip

RECIPE = Path(mmsearch.training.__file__).with_name("heads.toml")
WEIGHTS = 151_277_313  # of the published model
FEATURES = 512
CAPTION_TOKENS = 15  # a Flickr8k caption's, with the two ends
HELD_OUT = 500
LATENTS = 32  # that the drawn features of a pair share


@dataclass(frozen=True)
class Cost:
    """Of one part: how much was done, in how many seconds of the clock and of the processor."""

    count: int
    clock_s: float
    cpu_s: float


def encoding_cost(photos: int, texts: int) -> tuple[Cost, Cost, str]:
    """Photos from files to features, captions to features; and what the photos were."""
    rng = np.random.default_rng(0)
    captions = ["".join(rng.choice(list(string.ascii_lowercase), CAPTION_TOKENS - 2)) for _ in range(texts)]
    with tempfile.TemporaryDirectory() as temporary:
        standard = CLIPConfig(text_config=IDS)  # but for the ends of our letters, the standard one is that of ViT-B/32
        backbone = Backbone.load(str(write_clip(Path(temporary) / "clip", standard)))
        weights = sum(tensor.numel() for tensor in backbone._model.parameters())
        assert weights == WEIGHTS, weights
        assert backbone.features == FEATURES
        what = photo_folder(Path(temporary) / "photos", photos)
        files = sorted((Path(temporary) / "photos").iterdir())
        started = _now()
        for at in range(0, len(files), BATCH):
            squares = [backbone.prepare_image(to_image(file, backbone.side_px)) for file in files[at : at + BATCH]]
            backbone.images(np.stack(squares))
        images = _since(started, len(files))
        started = _now()
        backbone.texts(captions)
        return images, _since(started, texts), what


def heads_cost(pairs: int) -> Cost:
    """Heads by the built-in recipe on that many pairs and 500 to validate with."""
    recipe = load_recipe(RECIPE)
    count = pairs + HELD_OUT
    images, texts = _drawn(count)
    corpus = Corpus(
        photos=tuple(Path(f"{at}.jpg") for at in range(count)),
        captions=tuple((f"caption {at}",) for at in range(count)),
        shares=np.ones(pairs),
        sentences=pairs,
        train=pairs,
    )
    model = replace(recipe.model, backbone="drawn")
    architecture = Architecture(
        kind="backbone",
        latent_dim=model.latent_dim,
        hidden_dim=model.hidden_dim,
        image_features=FEATURES,
        text_features=FEATURES,
    )
    started = _now()
    torch.manual_seed(recipe.seed)
    vae = build(architecture, model.dropout)
    for modality, features in (("image", images), ("text", texts)):
        vae.encoders[modality].head.fit_standardisation(features[:pairs])  # type: ignore[union-attr,operator]
    with tempfile.TemporaryDirectory() as temporary:
        stage = FeatureStage(recipe, corpus, images, texts)
        Loop(recipe, vae, Contrast(recipe.objective.temperature), stage, Path(temporary)).run(resume=False)
    return _since(started, pairs)


def _drawn(count: int) -> tuple[Tensor, Tensor]:
    """Unit-normalised features `[count, 512]` of both modalities: a view each of shared latents, and noise."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, LATENTS, generator=generator)
    noise = FEATURES**0.5

    def view() -> Tensor:
        mixed = latents @ torch.randn(LATENTS, FEATURES, generator=generator)
        return nn.functional.normalize(mixed + noise / 4 * torch.randn(count, FEATURES, generator=generator), dim=-1)

    return view(), view()


def _now() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def _since(started: NDArray[np.float64], count: int) -> Cost:
    clock_s, cpu_s = _now() - started
    return Cost(count, float(clock_s), float(cpu_s))


def show(costs: dict[str, Cost], pairs: int) -> None:
    rows = [("", "done", "clock s", "CPU s", f"CPU s for {pairs} pairs")]
    for name, cost in costs.items():
        whole_s = cost.cpu_s * pairs / cost.count
        rows.append((name, str(cost.count), f"{cost.clock_s:.1f}", f"{cost.cpu_s:.1f}", f"{whole_s:.0f}"))
    print(table(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="VAE heads on a CLIP ViT-B/32, on a CPU.")
    parser.add_argument("--photos", type=int, default=200, help="photos to encode")
    parser.add_argument("--texts", type=int, default=1000, help="captions to encode")
    parser.add_argument("--pairs", type=int, default=5000, help="pairs to train heads on, with one caption each")
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured: dict[str, Cost] = {}
    if options.photos:
        encoded, worded, what = encoding_cost(options.photos, options.texts)
        measured |= {"photos to features": encoded, "captions to features": worded}
        print(what)
    if options.pairs:
        measured["heads"] = heads_cost(options.pairs)
    show(measured, options.pairs or 5000)
    print(f"{options.threads} threads; {machine('torch', 'transformers', 'sentence-transformers')}")
