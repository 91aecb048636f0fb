"""What a batch holds: photos of one kind with their own captions, the same again for the same epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.models.checkpoint import Architecture, build
from mmsearch.training.corpus import Corpus
from mmsearch.training.recipe import Recipe, Schedule
from mmsearch.training.stages import FeatureStage, Sampler, device_of

SENTENCES, LABELS, VALIDATION = 12, 9, 4
TRAIN = SENTENCES + LABELS
BATCH = 4


@pytest.fixture
def corpus() -> Corpus:
    count = TRAIN + VALIDATION
    captions = tuple(
        (f"label {row}",) if SENTENCES <= row < TRAIN else tuple(f"photo {row} said {i}" for i in range(1 + row % 3))
        for row in range(count)
    )
    photos = tuple(Path(f"{row}.png") for row in range(count))
    return Corpus(photos, captions, np.ones(TRAIN), SENTENCES, TRAIN)


@pytest.fixture
def stage(corpus: Corpus) -> FeatureStage:
    """The feature of a photo is its row, that of a caption its place among all."""
    images = torch.arange(len(corpus.photos)).float()[:, None].repeat(1, 6)
    texts = torch.arange(sum(map(len, corpus.captions))).float()[:, None].repeat(1, 5)
    schedule = replace(Schedule(), warm_batch=BATCH, texts=2)
    return FeatureStage(Recipe("test", (), (), schedule=schedule), corpus, images, texts)


def test_a_batch_is_of_one_kind_and_every_photo_comes_once(stage: FeatureStage) -> None:
    batches = list(stage.batches(0))
    rows = torch.cat([batch.rows for batch in batches]).tolist()
    assert len(rows) == len(set(rows)) == SENTENCES + LABELS // BATCH * BATCH  # a short last batch is left out
    for batch in batches:
        assert len({row < SENTENCES for row in batch.rows.tolist()}) == 1
        assert len(batch.rows) == BATCH
    assert stage.steps_per_epoch() == len(batches) == 5


def test_texts_are_captions_of_the_photo_they_point_to(stage: FeatureStage, corpus: Corpus) -> None:
    owner = np.repeat(np.arange(len(corpus.photos)), [len(captions) for captions in corpus.captions])
    for batch in stage.batches(0):
        places = batch.text[:, 0].long().numpy()
        np.testing.assert_array_equal(owner[places], batch.rows[batch.photo].numpy())
        np.testing.assert_array_equal(batch.image[:, 0].numpy(), batch.rows.numpy())
        counts = np.bincount(batch.photo.numpy(), minlength=BATCH)
        assert counts.tolist() == [min(2, len(corpus.captions[row])) for row in batch.rows.tolist()]


def test_the_same_epoch_again_is_the_same_and_another_is_not(stage: FeatureStage) -> None:
    first, again, other = ([batch.rows.tolist() for batch in stage.batches(epoch)] for epoch in (0, 0, 1))
    assert first == again
    assert first != other


def test_equal_captions_have_one_number(corpus: Corpus) -> None:
    said = replace(corpus, captions=(("A dog", " a DOG ", "a cat"), *corpus.captions[1:]))
    numbers = Sampler(said, 3).wording([(0, 0), (0, 1), (0, 2)])
    assert numbers[0] == numbers[1] != numbers[2]


def test_labels_stand_in_phrases_and_sentences_as_they_are(corpus: Corpus) -> None:
    sampler, rng = Sampler(corpus, 1), np.random.default_rng(0)
    assert sampler.strings([(1, 0), (1, 1)], rng, 0.0) == ["photo 1 said 0", "photo 1 said 1"]
    texts = {sampler.strings([(SENTENCES, 0)], rng, 0.0)[0] for _ in range(200)}
    assert len(texts) > 5
    assert all(f"label {SENTENCES}" in text for text in texts)
    misspelt = sampler.strings([(1, 0)] * 200, rng, 1.0)
    assert 20 < sum(text != "photo 1 said 0" for text in misspelt) < 200


def test_validation_has_all_captions_of_the_photos_kept_back(corpus: Corpus) -> None:
    rows, texts, photo = Sampler(corpus, 1).validation()
    assert rows.tolist() == list(range(TRAIN, TRAIN + VALIDATION))
    assert texts == [caption for row in rows for caption in corpus.captions[row]]
    assert [corpus.captions[rows[at]].count(text) for at, text in zip(photo, texts, strict=True)] == [1] * len(texts)


def test_heads_and_decoders_move_and_validation_counts_every_caption(stage: FeatureStage) -> None:
    torch.manual_seed(0)
    shape = Architecture(kind="backbone", latent_dim=4, hidden_dim=8, image_features=6, text_features=5)
    vae = build(shape).eval()
    (group,) = stage.groups(vae)
    heads = [vae.encoders[modality].head for modality in ("image", "text")]
    wanted = {id(one) for part in (*heads, vae.decoders) for one in part.parameters()}
    assert {id(one) for one in group.parameters} == wanted
    batch = next(stage.batches(0))
    encodings = stage.encode(vae, batch)
    assert encodings["image"].mu.shape == (BATCH, 4)
    assert encodings["text"].mu.shape == (len(batch.photo), 4)
    assert device_of(vae).type == "cpu"
    found = stage.validate(vae)
    assert 0 <= found.mean_recall <= 100
