"""Heads fitted on features: they learn other words, the mix is chosen by recall, and recall is counted right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmsearch.errors import TrainingError
from mmsearch.models.vae import MultimodalVAE
from mmsearch.tuning.fit import (
    Features,
    _within_one_error,
    blend,
    choose_mix,
    fit,
    heads_of,
    judge,
)
from mmsearch.tuning.pairs import held_out
from tests.mmsearch.tuning.conftest import QUICK, features_of


def everything(features: Features) -> np.ndarray:
    return np.ones(len(features.pairs), np.bool_)


class TestFit:
    def test_a_persons_own_words_are_learned(self, vae: MultimodalVAE) -> None:
        usual, theirs, old = features_of(100, 2), features_of(200, 3, swapped=8), heads_of(vae)
        held = held_out(theirs.pairs, 0.25, 20)
        new = fit(vae, theirs.only(np.flatnonzero(~held)), 0.05, QUICK)
        assert judge(vae, usual, everything(usual), old).mean() > 80
        assert judge(vae, theirs, held, new).mean() > judge(vae, theirs, held, old).mean() + 10

    def test_the_model_is_left_as_it_was(self, vae: MultimodalVAE) -> None:
        before = {name: value.clone() for name, value in vae.state_dict().items()}
        new = fit(vae, features_of(60, 4), 0.05, QUICK)
        assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
        assert any(not torch.equal(value, before[name]) for name, value in new.items())
        assert not vae.training

    def test_the_way_between_the_heads(self, vae: MultimodalVAE) -> None:
        old = heads_of(vae)
        new = {name: value + 1 for name, value in old.items()}
        for mix in (0.0, 0.25, 1.0):
            blended = blend(old, new, mix)
            assert all(torch.allclose(blended[name], old[name] + mix, atol=1e-6) for name in old)

    def test_how_far_is_chosen_by_what_it_brings(self, vae: MultimodalVAE) -> None:
        theirs = features_of(150, 5, swapped=8)
        assert choose_mix(vae, theirs, 0.05, QUICK) > 0

    def test_the_smallest_step_within_one_error_of_the_best(self) -> None:
        rng = np.random.default_rng(0)
        start = rng.normal(50, 20, 100)
        steps = [start, start + 5 + rng.normal(0, 2, 100), start + 5.1 + rng.normal(0, 2, 100), start - 3]
        assert _within_one_error(steps, (0.0, 0.25, 0.5, 1.0)) == 0.25
        steps[2] = steps[1] + 2 + rng.normal(0, 2, 100)
        assert _within_one_error(steps, (0.0, 0.25, 0.5, 1.0)) == 0.5
        steps[1] = steps[2] = start - 1
        assert _within_one_error(steps, (0.0, 0.25, 0.5, 1.0)) == 0.0
        # close to no step at all is still a step: whether it pays is for the held-out photos to say
        steps[1] = start + rng.normal(0.1, 20, 100)
        steps[1] += 0.5 + start.mean() - steps[1].mean()
        assert _within_one_error(steps, (0.0, 0.25, 0.5, 1.0)) == 0.25

    def test_a_loss_that_is_no_number_stops_it(self, vae: MultimodalVAE) -> None:
        before = heads_of(vae)
        features = features_of(60, 8)
        broken = replace(features, images=features.images.clone().fill_(float("nan")))
        with pytest.raises(TrainingError, match="nothing was changed"):
            fit(vae, broken, 0.05, QUICK)
        assert all(torch.equal(value, before[name]) for name, value in heads_of(vae).items())


class TestJudge:
    def test_scores_are_the_recall_of_the_held_out_among_all(self, vae: MultimodalVAE) -> None:
        features = features_of(8, 9)
        rng = np.random.default_rng(8)
        held = np.array([True, True, False, False, True, False, False, False])
        vectors = {
            "image": rng.normal(size=(8, 16)).astype(np.float32),
            "text": rng.normal(size=(8, 16)).astype(np.float32),
        }
        found = judge_with(vectors, vae, features, held)
        unit = {m: v / np.linalg.norm(v, axis=1, keepdims=True) for m, v in vectors.items()}
        scores = unit["text"] @ unit["image"].T
        expected = []
        for i in np.flatnonzero(held):
            ranks = [int((scores[i] >= scores[i, i]).sum()), int((scores[:, i] >= scores[i, i]).sum())]
            expected.append(100 * np.mean([rank <= k for rank in ranks for k in (1, 5, 10)]))
        np.testing.assert_allclose(found, expected)

    def test_equal_words_are_as_right_as_ones_own(self, vae: MultimodalVAE) -> None:
        features = features_of(4, 9)
        twins = tuple(
            replace(pair, captions=("The Same",) if n < 2 else pair.captions) for n, pair in enumerate(features.pairs)
        )
        vectors = {"image": np.eye(4, 16, dtype=np.float32), "text": np.eye(4, 16, dtype=np.float32)[[1, 0, 2, 3]]}
        held = np.array([True, True, False, False])
        np.testing.assert_allclose(judge_with(vectors, vae, replace(features, pairs=twins), held), 100)
        swapped = judge_with(vectors, vae, features, held)
        assert (swapped < 100).all()


def judge_with(vectors: dict[str, np.ndarray], vae: MultimodalVAE, features: Features, held: np.ndarray) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsearch.tuning.fit.means", lambda *_: (vectors["image"], vectors["text"]))
        return judge(vae, features, held, heads_of(vae))
