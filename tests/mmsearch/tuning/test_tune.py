"""Tuning on a person's own captions: it learns a vocabulary, refuses noise, and never leaves a library half changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.store import CaptionedPhoto
from mmsearch.data.scenes import render_scene
from mmsearch.errors import DataError, ModelError, TrainingError
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.torch_model import TorchModel
from mmsearch.models.checkpoint import Architecture, build, load_vae, load_weights, read_description, save_model
from mmsearch.models.vae import MultimodalVAE
from mmsearch.training.recipe import Objective
from mmsearch.tuning import folder as tune_folder
from mmsearch.tuning.fit import (
    Features,
    Settings,
    _within_one_error,
    blend,
    choose_mix,
    fit,
    heads_of,
    judge,
    set_heads,
)
from mmsearch.tuning.pairs import Pair, digest, held_out, pairs_of
from mmsearch.tuning.tune import tune

QUICK = Settings(epochs=10, steps=40, dropout=0.0, rate=3e-3, objective=Objective(eta=100.0))
WIDTH = 16
SHIPPED = PRETRAINED / "default"


def photo(number: int, *captions: str, content: int | None = None) -> CaptionedPhoto:
    key = hashlib.sha256(str(number if content is None else content).encode()).digest()
    return CaptionedPhoto(Path(f"p{number}.jpg"), key, captions)


class TestDivision:
    def test_each_content_once_with_what_is_said_of_its_copies(self) -> None:
        found = pairs_of([photo(1, "a boat"), photo(2, "a hill"), photo(3, "A  Boat", "the lake", content=1)])
        assert sorted(pair.captions for pair in found) == [("a boat", "the lake"), ("a hill",)]

    def test_the_same_photos_divide_the_same_way_in_any_order_and_place(self) -> None:
        photos = [photo(n, f"caption {n}") for n in range(200)]
        moved = [replace(p, path=Path("elsewhere") / p.path) for p in reversed(photos)]
        first, second = pairs_of(photos), pairs_of(moved)
        np.testing.assert_array_equal(held_out(first, 0.2, 20), held_out(second, 0.2, 20))
        assert digest(first) == digest(second)
        assert 25 <= held_out(first, 0.2, 20).sum() <= 55
        assert (held_out(first, 0.2, 20) != held_out(first, 0.2, 20, salt="other")).any()
        assert digest(pairs_of([*photos[1:], photo(0, "other words")])) != digest(first)

    def test_a_small_library_still_holds_out_enough(self) -> None:
        pairs = pairs_of([photo(n, f"caption {n}") for n in range(50)])
        assert held_out(pairs, 0.01, 20).sum() == 20

    def test_photos_that_share_words_stay_together_also_through_others(self) -> None:
        chains = [photo(n, f"link {n // 3} {n % 3}", f"Link {n // 3} {(n + 1) % 3}") for n in range(300)]
        pairs = pairs_of(chains)
        held = held_out(pairs, 0.3, 20)
        by_chain: dict[str, set[bool]] = {}
        for pair, out in zip(pairs, held, strict=True):
            by_chain.setdefault(pair.captions[0].split()[1], set()).add(bool(out))
        assert len(by_chain) == 100
        assert all(len(sides) == 1 for sides in by_chain.values())
        assert 0 < held.sum() < len(pairs)

    def test_a_caption_of_nearly_everything_holds_nothing_out(self) -> None:
        pairs = pairs_of([photo(n, "holidays") for n in range(100)] + [photo(n, f"own {n}") for n in range(100, 130)])
        held = held_out(pairs, 0.2, 20)
        assert 20 <= held.sum() <= 30
        assert not any(out for pair, out in zip(pairs, held, strict=True) if pair.captions == ("holidays",))


def features_of(count: int, seed: int, swapped: int = 0, noise: float = 0.3) -> Features:
    """Photos are points; captions name the same points, with the first `swapped` coordinates in reverse order."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, WIDTH))
    said = points.copy()
    said[:, :swapped] = points[:, :swapped][:, ::-1]
    said += noise * rng.normal(size=said.shape)
    pairs = tuple(Pair(Path(f"{n}"), hashlib.sha256(f"{seed} {n}".encode()).digest(), (f"{n}",)) for n in range(count))
    return Features(pairs, torch.from_numpy(np.float32(points)), torch.from_numpy(np.float32(said)))


def everything(features: Features) -> np.ndarray:
    return np.ones(len(features.pairs), np.bool_)


@pytest.fixture(scope="module")
def vae() -> Iterator[MultimodalVAE]:
    """Heads that know what captions mean where no coordinate is swapped."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shape = Architecture(kind="backbone", latent_dim=16, hidden_dim=32, image_features=WIDTH, text_features=WIDTH)
    model = build(shape).eval()
    set_heads(model, fit(model, features_of(200, 1), 0.05, replace(QUICK, steps=200)))
    yield model
    torch.set_num_threads(threads)


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


@pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")
def test_a_tuned_default_model_needs_no_torch_to_search(tmp_path: Path) -> None:
    vae, architecture = load_vae(SHIPPED)
    described = read_description(SHIPPED)
    torch.manual_seed(0)
    old = heads_of(vae)
    moved = {
        name: value + 0.2 * value.std() * torch.randn_like(value) for name, value in old.items() if value.numel() > 1
    }
    set_heads(vae, tune_folder.as_stored(moved, described))
    folder = tmp_path / "tuned"
    tune_folder.write(folder, vae, architecture, SHIPPED, described, {"key": "k"})
    assert read_description(folder)["tuned"] == {"key": "k"}
    graphs = [(folder / name).read_bytes() == (SHIPPED / name).read_bytes() for name in ("image.onnx", "text.onnx")]
    assert graphs == [True, True]
    tuned, torch_model, default = (
        load_model(folder, "cpu"),
        TorchModel.load("", folder, "cpu"),
        load_model("default", "cpu"),
    )
    assert isinstance(tuned, OnnxModel)
    assert tuned.fingerprint != default.fingerprint
    texts, pictures = ["a dog", "rex on the beach"], [render_scene(1, side_px=100)[0]]
    for ours, theirs, before in (
        (tuned.embed_texts(texts), torch_model.embed_texts(texts), default.embed_texts(texts)),
        (tuned.embed_images(pictures), torch_model.embed_images(pictures), default.embed_images(pictures)),
    ):
        np.testing.assert_allclose(ours.mu, theirs.mu, atol=1e-2)
        assert np.abs(ours.mu - before.mu).max() > 0.1
    for modality in ("text", "image"):
        bank, shipped = tuned.query_bank(modality), default.query_bank(modality)
        assert bank is not None
        np.testing.assert_array_equal(bank.centres, shipped.centres)
    # a frozen trunk is not rounded a second time
    first, second = (load_weights(where, read_description(where)) for where in (SHIPPED, folder))
    trunk = [name for name in first if ".head." not in name and not name.startswith("decoders.")]
    assert all(torch.equal(first[name], second[name]) for name in trunk if first[name].dtype == torch.int8)
