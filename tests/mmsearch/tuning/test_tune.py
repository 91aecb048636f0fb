"""Tuning on a person's own captions: it learns a vocabulary, refuses noise, and never leaves a library half changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.store import CaptionedPhoto
from mmsearch.errors import DataError, ModelError
from mmsearch.models.checkpoint import Architecture, load_vae, save_model
from mmsearch.models.digest import read_description
from mmsearch.models.vae import MultimodalVAE
from mmsearch.tuning.fit import (
    Features,
    heads_of,
    judge,
)
from mmsearch.tuning.pairs import held_out
from mmsearch.tuning.tune import tune
from tests.mmsearch.tuning.conftest import QUICK, WIDTH, features_of


class TestTune:
    """The whole of it on features made here in place of the trunks' own."""

    @pytest.fixture
    def source(self, vae: MultimodalVAE, tmp_path: Path) -> Path:
        shape = Architecture(kind="backbone", latent_dim=16, hidden_dim=32, image_features=WIDTH, text_features=WIDTH)
        extra = {"temperature": 0.05, "backbone_fingerprint": "abc"}
        return save_model(tmp_path / "source", vae, shape, name="small", extra=extra)

    @staticmethod
    def photos(features: Features) -> list[CaptionedPhoto]:
        return [CaptionedPhoto(pair.path, pair.content_hash, pair.captions) for pair in features.pairs]

    @staticmethod
    def show(monkeypatch: pytest.MonkeyPatch, features: Features) -> list[int]:
        """Stands for the trunks; says how often they were asked."""
        asked: list[int] = []
        by_hash = np.argsort([pair.content_hash for pair in features.pairs])  # the order of `pairs_of`

        def read(source: Path, vae: MultimodalVAE, architecture: Architecture, pairs: object, device: str) -> Features:
            asked.append(1)
            return features.only(by_hash)

        monkeypatch.setattr("mmsearch.tuning.tune.read_features", read)
        return asked

    def test_words_of_ones_own_make_a_model(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs = features_of(160, 11, swapped=8)
        asked, target = self.show(monkeypatch, theirs), tmp_path / "made" / "tuned"
        tried = tune(self.photos(theirs), source, None, settings=QUICK)
        assert tried.accepted
        assert tried.model is None
        assert not target.parent.exists()
        report = tune(self.photos(theirs), source, target, settings=QUICK)
        assert replace(report, seconds=0.0, model=None) == replace(tried, seconds=0.0)  # the same every time
        assert report.model == target
        assert (report.photos, report.captions) == (160, 160)
        assert 20 <= report.held_out <= 50
        assert report.recall_after > report.recall_before + report.noise
        assert [path.name for path in target.parent.iterdir()] == ["tuned"]
        described = read_description(target)
        assert (described["temperature"], described["backbone_fingerprint"]) == (0.05, "abc")
        # what was measured is what the folder holds
        tuned, _ = load_vae(target)
        order = features_in_order(theirs)
        held = held_out(order.pairs, 0.2, 20)
        assert judge(tuned, order, held, heads_of(tuned)).mean() == pytest.approx(report.recall_after)
        # the same again costs nothing, and neither does tuning what was tuned on these captions
        assert len(asked) == 2
        again = tune(self.photos(theirs), source, target, settings=QUICK)
        from_tuned = tune(self.photos(theirs), target, tmp_path / "elsewhere", settings=QUICK)
        assert len(asked) == 2
        assert again.model == from_tuned.model == target
        assert again.recall_after == pytest.approx(report.recall_after, abs=0.01)
        assert not (tmp_path / "elsewhere").exists()
        with pytest.raises(ModelError, match="other captions or another model; name a new folder"):
            tune(self.photos(theirs)[1:], source, target, settings=QUICK)

    def test_captions_at_random_are_refused(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shuffled = replace(features_of(120, 12), texts=features_of(120, 13).texts)
        self.show(monkeypatch, shuffled)
        report = tune(self.photos(shuffled), source, tmp_path / "tuned", settings=QUICK)
        assert not report.accepted
        assert report.model is None
        assert report.recall_after <= report.recall_before + report.noise
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

    def test_a_gain_within_the_noise_is_refused(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual = features_of(80, 14)
        self.show(monkeypatch, usual)
        scores = iter([np.zeros(20), np.r_[np.zeros(19), 10.0]] * 2)  # one photo of twenty is found better
        monkeypatch.setattr("mmsearch.tuning.tune.choose_mix", lambda *_: 0.25)
        monkeypatch.setattr("mmsearch.tuning.tune.judge", lambda *_: next(scores))
        monkeypatch.setattr("mmsearch.tuning.tune.held_out", lambda *_: np.arange(80) < 20)
        report = tune(self.photos(usual), source, tmp_path / "tuned", settings=replace(QUICK, steps=1, epochs=1))
        assert report.recall_after - report.recall_before == pytest.approx(0.5)
        assert report.noise == pytest.approx(0.5)
        assert not report.accepted

    def test_what_cannot_be_tuned_says_why(self, source: Path, vae: MultimodalVAE, tmp_path: Path) -> None:
        photos = self.photos(features_of(60, 15))
        with pytest.raises(DataError, match=r"49 different photos with captions .*50 are needed; write photo\.txt"):
            tune(photos[:49], source, None)
        with pytest.raises(DataError, match="1 different photos"):
            tune([replace(one, content_hash=b"same") for one in photos], source, None)
        with pytest.raises(ModelError, match="has no heads to tune"):
            tune(photos, Path("clip-ViT-B-32"), None)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "letter.txt").write_text("mine")
        with pytest.raises(ModelError, match="holds no model; name a new folder"):
            tune(photos, source, tmp_path / "full")
        with pytest.raises(ModelError, match="holds another model; name a new folder"):
            tune(photos, source, source)
        scratch = save_model(tmp_path / "scratch", vae, Architecture(kind="scratch"), name="scratch")
        with pytest.raises(ModelError, match="no trunk to keep"):
            tune(photos, scratch, None)


def features_in_order(features: Features) -> Features:
    return features.only(np.argsort([pair.content_hash for pair in features.pairs]))
