"""The stage that leads misspelt captions to where the spelt ones lie, on a small text encoder that reads letters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from mmsearch.data.texts import misspell
from mmsearch.errors import CheckpointError, TrainingError
from mmsearch.models.gaussian import kl_between
from mmsearch.models.minilm import BertSize
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import MultimodalVAE, TextEncoder
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Model, Recipe, Schedule
from mmsearch.training.self_distillation import SelfDistillation

WORDS = ("black", "brown", "small", "happy", "sleepy"), ("dog", "horse", "child", "tram"), ("beach", "street", "garden")
CAPTIONS = tuple(f"a {a} {b} on the {c}" for a in WORDS[0] for b in WORDS[1] for c in WORDS[2])
RECIPE = Recipe(
    name="typos",
    data=(),
    validation="",
    model=Model(max_tokens=40),
    schedule=Schedule(typo_epochs=2, batch=16, rate_text=1e-3, rate_heads=1e-3),
)


def letters() -> Tokenizer:
    vocabulary = {c: i for i, c in enumerate(("[PAD]", "[UNK]", " ", *ascii_lowercase))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def corpus(labels: int = 0) -> Corpus:
    """One photo a caption; the last `labels` of those to train on carry labels; ten are validated with."""
    train = len(CAPTIONS) - 10
    photos = tuple(Path(f"{i}.jpg") for i in range(len(CAPTIONS)))
    return Corpus(photos, tuple((c,) for c in CAPTIONS), np.ones(train), train - labels, train)


def small_vae() -> MultimodalVAE:
    torch.manual_seed(0)
    size = BertSize(vocabulary=29, width=32, layers=2, heads=2, hidden=64, positions=48)
    encoder = TextEncoder(size, hidden=32, latent=8, dropout=0.3)
    for spread, module in ((0.1, encoder), (0.4, encoder.head)):  # else every caption would lie near the same place
        for p in module.parameters():
            p.data += spread * torch.randn_like(p)
    return MultimodalVAE({"text": encoder, "image": nn.Linear(2, 2)}, {})


def posterior(vae: MultimodalVAE, texts: list[str]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = vae.encoders["text"].eval()(tokenise(letters(), texts, 40))
    return found.mu, found.logvar


def test_captions_misspelt_anew_come_nearer_and_spelt_ones_stay(tmp_path: Path) -> None:
    vae, rng = small_vae(), np.random.default_rng(9)
    written = [*CAPTIONS[:-10]] * 5
    typed = [misspell(c, rng, 0.3, 3) for c in written]
    aim, before = posterior(vae, written), posterior(vae, typed)
    words, image = words_of(vae), vae.encoders["image"].weight.clone()  # type: ignore[union-attr, operator]
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, typo_epochs=40))
    SelfDistillation(recipe, corpus(), letters()).run(vae, tmp_path, resume=False)
    after, kept = posterior(vae, typed), posterior(vae, written)
    far, near, drift = (float(kl_between(*aim, *found).sum(1).mean()) for found in (before, after, kept))
    assert near < 0.6 * far
    assert drift < 0.3 * far
    assert not torch.equal(words, words_of(vae))
    assert torch.equal(image, vae.encoders["image"].weight)  # type: ignore[arg-type]


def words_of(vae: MultimodalVAE) -> Tensor:
    return cast(TextEncoder, vae.encoders["text"]).transformer.words.weight.detach().clone()


def test_batches_pair_each_caption_with_itself_misspelt_and_come_again() -> None:
    stage = SelfDistillation(RECIPE, corpus(labels=5), letters())
    first, again = list(stage.batches(0)), list(stage.batches(0))
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    written, typed = ([letters().decode(row[row > 0].tolist()) for batch in first for row in batch[k]] for k in (0, 1))
    assert len(written) == len(typed) == len(CAPTIONS) - 10
    said = {text.replace(" ", "") for text in written}
    assert len(said & {c.replace(" ", "") for c in CAPTIONS[:45]}) == 45  # the sentences as they are, each once
    same = np.mean([a == b for a, b in zip(written, typed, strict=True)])
    assert 0.2 < same < 0.6  # a quarter as written, and those in which no word slipped


def test_a_stage_that_ended_is_read_again_and_not_trained(tmp_path: Path) -> None:
    trained, fresh = small_vae(), small_vae()
    SelfDistillation(RECIPE, corpus(), letters()).run(trained, tmp_path, resume=False)

    class Untouched(SelfDistillation):
        def _train(self, text: TextEncoder, cycle: int) -> None:
            raise AssertionError("trained again")

    Untouched(RECIPE, corpus(), letters()).run(fresh, tmp_path, resume=True)
    assert torch.equal(posterior(trained, ["a black dog"])[0], posterior(fresh, ["a black dog"])[0])


def test_the_mean_of_the_cycles_is_kept_and_each_starts_where_the_last_ended(tmp_path: Path) -> None:
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, typo_epochs=1, typo_cycles=2))
    ends: list[Tensor] = []

    class Watched(SelfDistillation):
        def _train(self, text: TextEncoder, cycle: int) -> None:
            if ends:
                assert torch.equal(text.head.mu.weight, ends[-1])
            super()._train(text, cycle)
            ends.append(text.head.mu.weight.detach().clone())

    vae = small_vae()
    Watched(recipe, corpus(), letters()).run(vae, tmp_path, resume=False)
    first, second = ends
    assert not torch.equal(first, second)
    torch.testing.assert_close(cast(TextEncoder, vae.encoders["text"]).head.mu.weight.detach(), (first + second) / 2)


def test_a_result_of_another_vocabulary_is_refused_in_one_line(tmp_path: Path) -> None:
    vae = small_vae()
    SelfDistillation(RECIPE, corpus(), letters()).run(vae, tmp_path, resume=False)
    text = cast(TextEncoder, vae.encoders["text"])
    text.transformer.words = nn.Embedding(20, 32)
    with pytest.raises(CheckpointError, match=r"text\.safetensors is of another vocabulary; delete .* --resume"):
        SelfDistillation(RECIPE, corpus(), letters()).run(vae, tmp_path, resume=True)


def test_a_loss_that_is_no_number_stops_it_and_writes_nothing(tmp_path: Path) -> None:
    vae = small_vae()
    vae.encoders["text"].head.mu.weight.data[0, 0] = float("nan")  # type: ignore[union-attr, operator, index]
    with pytest.raises(TrainingError, match=r"the loss is nan in stage typos, step 0; lower rate_text"):
        SelfDistillation(RECIPE, corpus(), letters()).run(vae, tmp_path, resume=False)
    assert not list(tmp_path.iterdir())
