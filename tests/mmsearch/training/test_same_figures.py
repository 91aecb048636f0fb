"""The figures of the three training loops that one step function replaced, on small models: they stay what they were.

The numbers were computed by the loops of before, on one thread. Equal seeds, batches and arithmetic give equal figures;
1e-5 leaves room for another processor's rounding.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from mmsearch.models.checkpoint import Architecture, build
from mmsearch.models.minilm import BertSize
from mmsearch.models.vae import MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus
from mmsearch.training.loop import Loop
from mmsearch.training.objective import Contrast
from mmsearch.training.recipe import Model, Objective, Recipe, Schedule
from mmsearch.training.self_distillation import SelfDistillation
from mmsearch.training.stages import FeatureStage
from mmsearch.tuning.fit import Features, Settings, fit
from mmsearch.tuning.pairs import Pair

CAPTIONS = tuple(f"a {a} {b}" for a in ("black", "small", "happy", "brown") for b in ("dog", "tram", "beach", "child"))
CLOSE = {"rel": 1e-5, "abs": 1e-6}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def corpus() -> Corpus:
    """Twelve photos to train on, four to validate with, two captions each."""
    said = tuple((caption, f"{caption} again") for caption in CAPTIONS)
    return Corpus(tuple(Path(f"{i}.jpg") for i in range(16)), said, np.ones(12), sentences=12, train=12)


def features(count: int, width: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32))


def size(weights: Tensor) -> float:
    return float(weights.detach().double().abs().sum())


@pytest.mark.parametrize(
    ("variant", "losses", "weights"),
    [
        ("full", (3508.09, 4271.29, 3028.69), 16.50172278),
        ("mvae", (68.599, 69.1992, 68.4677), 16.45116444),
        ("mopoe", (32.9018, 33.1503, 32.843), 16.44623414),
    ],
)
def test_heads_on_features(variant: str, losses: tuple[float, ...], weights: float, tmp_path: Path) -> None:
    recipe = Recipe(
        "same",
        (),
        "",
        model=Model(latent_dim=8),
        objective=Objective(variant=variant, eta=400.0),  # type: ignore[arg-type]
        schedule=Schedule(warm_epochs=3, warm_batch=4),
    )
    torch.manual_seed(1)
    vae = build(Architecture("backbone", latent_dim=8, hidden_dim=16, image_features=12, text_features=10), 0.2)
    stage = FeatureStage(recipe, corpus(), features(16, 12, 0), features(32, 10, 1))
    loop = Loop(recipe, vae, Contrast(0.05), stage, tmp_path)
    loop.run(resume=False)
    with (tmp_path / "curves.csv").open() as stream:
        found = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert found == pytest.approx(losses, **CLOSE)
    average = loop.average.module.encoders["text"].head.mu.weight  # type: ignore[union-attr, operator, index]
    assert size(average) == pytest.approx(weights, **CLOSE)


def test_self_distillation_of_a_text_encoder(tmp_path: Path) -> None:
    """In bfloat16: steps of its rounding are coarser than those of another processor's float32."""
    vocabulary = {c: i for i, c in enumerate(("[PAD]", "[UNK]", " ", *ascii_lowercase))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    torch.manual_seed(0)
    bert = BertSize(vocabulary=29, width=32, layers=2, heads=2, hidden=64, positions=48)
    vae = MultimodalVAE({"text": TextEncoder(bert, 32, 8, 0.3), "image": nn.Linear(2, 2)}, {})
    schedule = Schedule(typo_epochs=2, typo_cycles=2, batch=8, rate_text=1e-3, rate_heads=1e-3)
    recipe = Recipe("same", (), "", model=Model(max_tokens=40), schedule=schedule)
    SelfDistillation(recipe, corpus(), tokenizer).run(vae, tmp_path, resume=False)
    text = vae.encoders["text"]
    found = [size(text.head.mu.weight), size(text.transformer.words.weight)]  # type: ignore[union-attr, arg-type]
    assert found == pytest.approx([23.83816841, 755.31899598], rel=1e-4)


def test_tuned_heads() -> None:
    torch.manual_seed(0)
    vae = build(Architecture("backbone", latent_dim=16, hidden_dim=32, image_features=24, text_features=24)).eval()
    pairs = tuple(Pair(Path(f"{i}"), hashlib.sha256(f"{i}".encode()).digest(), (f"{i}",)) for i in range(60))
    heads = fit(
        vae, Features(pairs, features(60, 24, 2), features(60, 24, 3)), 0.05, Settings(epochs=4, steps=12, batch=32)
    )
    found = [size(heads[f"encoders.{name}.weight"]) for name in ("image.head.linear", "text.head.mu")]
    assert found == pytest.approx([36.78316093, 44.50829717], **CLOSE)
