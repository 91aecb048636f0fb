"""Evaluation against models whose every number is known: a lookup table, and a linear Gaussian model solved exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from indexer.base.types import Posterior
from mmsearch.data.datasets import Example, read_dataset
from mmsearch.data.scenes import write_scenes
from mmsearch.errors import DataError
from mmsearch.evaluation.bounds import Bounds, PairEncoder, bounds
from mmsearch.evaluation.evaluate import EvalReport, evaluate, latent_use
from mmsearch.evaluation.recall import Recall
from mmsearch.evaluation.subject import Subject
from mmsearch.inference.load_model import load_model
from mmsearch.inference.pictures import to_image
from mmsearch.inference.preprocess import square
from mmsearch.models.checkpoint import Architecture, build, save_model
from mmsearch.models.tokens import word_tokenizer
from mmsearch.models.vae import Encoding, MultimodalVAE
from tests.circle_model import Circle, CircleWithBanks, one_centre


class Table:
    """A model that reads the vector off the item's name: `3.png` and `3 ...` lie in direction 3 of 4."""

    name, fingerprint = "table", "f" * 64

    def embed_images(self, images: Sequence[Path]) -> Posterior:
        return self._rows([image.stem for image in images])

    def embed_texts(self, texts: list[str]) -> Posterior:
        return self._rows([text.split()[0] for text in texts])

    def _rows(self, names: list[str]) -> Posterior:
        mu = np.zeros((len(names), 8), np.float32)
        mu[np.arange(len(names)), [int(name) for name in names]] = 2.0
        return Posterior(mu, np.full_like(mu, -1.0))


def examples(*captions: tuple[str, ...]) -> list[Example]:
    return [Example(Path(f"{i}.png"), own, "val") for i, own in enumerate(captions)]


def test_report_of_a_model_that_is_right_but_once() -> None:
    data = examples(("0 a", "0 b"), ("1 a", "0 c"), ("2 a",), ("3 a",))  # "0 c" is taken for picture 0
    report = evaluate(Subject(Table(), data, data="set", split="val"))
    assert (report.images, report.texts, report.data, report.split) == (4, 6, "set", "val")
    assert report.text_to_image.r1 == pytest.approx(100 * 5 / 6)
    assert report.text_to_image.r5 == 100.0
    assert report.image_to_text.r1 == 75.0  # "0 c" scores as high for picture 0 as its own: a tie counts against it
    assert report.image_to_text.r5 == 100.0
    assert report.text_to_image.median_rank == 1.0
    assert report.latent["image"].active_units == 4
    assert report.latent["image"].dimensions == 8


# the photo at 40 degrees is nearer to the other's text too, and the text at 25 nearer to both photos
HUBS = [Example(Path("0.png"), ("25 a",), "val"), Example(Path("40.png"), ("60 b",), "val")]
HALF, ALL = Recall(50.0, 100.0, 100.0, 1.5), Recall(100.0, 100.0, 100.0, 1.0)
OF_TEXTS, OF_IMAGES = one_centre("text", 40, 0.5), one_centre("image", 25, 0.5)


def test_recalls_are_those_of_a_search_with_the_models_banks() -> None:
    """Each bank lies on the hub it corrects; with the two in each other's place nothing would change."""
    report = evaluate(Subject(CircleWithBanks(OF_TEXTS, OF_IMAGES), HUBS))
    assert (report.text_to_image, report.image_to_text, report.mean_recall) == (ALL, ALL, 100.0)
    assert report.cosine == {"text_to_image": HALF, "image_to_text": HALF}
    printed = json.loads(json.dumps(report.to_dict()))
    assert printed["cosine"]["image_to_text"] == {"r1": 50.0, "r5": 100.0, "r10": 100.0, "median_rank": 1.5}


def test_a_bank_of_one_modality_corrects_what_it_asks_for() -> None:
    report = evaluate(Subject(CircleWithBanks(OF_TEXTS), HUBS))
    assert (report.text_to_image, report.image_to_text) == (ALL, HALF)
    assert report.cosine == {"text_to_image": HALF, "image_to_text": HALF}
    report = evaluate(Subject(CircleWithBanks(OF_IMAGES), HUBS))
    assert (report.text_to_image, report.image_to_text) == (HALF, ALL)


@pytest.mark.parametrize("model", [Circle(), CircleWithBanks()])
def test_a_model_without_a_bank_is_measured_by_cosine(model: Circle) -> None:
    report = evaluate(Subject(model, HUBS))
    assert (report.text_to_image, report.image_to_text, report.cosine) == (HALF, HALF, {})
    assert report.mean_recall == pytest.approx(500 / 6)
    assert report.to_dict()["cosine"] == {}


def test_report_is_plain_json() -> None:
    report = evaluate(Subject(Table(), examples(("0 a",), ("1 b",))))
    printed = json.loads(json.dumps(report.to_dict()))
    assert printed["text_to_image"] == {"r1": 100.0, "r5": 100.0, "r10": 100.0, "median_rank": 1.0}
    assert printed["model"] == "table"
    assert printed["fingerprint"] == "f" * 64
    assert set(printed["latent"]) == {"image", "text"}


def test_large_sets_go_through_in_batches() -> None:
    seen: list[int] = []

    class Counting(Table):
        def embed_texts(self, texts: list[str]) -> Posterior:
            seen.append(len(texts))
            return super().embed_texts(texts)

    wide = [Example(Path(f"{i}.png"), tuple(f"{i} {j}" for j in range(80)), "val") for i in range(8)]
    assert evaluate(Subject(Counting(), wide)).texts == 640
    assert max(seen) <= 256


def test_numbers_are_rounded_for_reading() -> None:
    report = evaluate(Subject(Table(), examples(("0 a",), ("1 b",), ("0 c",))))
    wide = EvalReport(**{**report.__dict__, "bounds": {"joint": {"elbo": -12345.678, "importance_weighted": None}}})
    printed = wide.to_dict()
    assert printed["text_to_image"]["r1"] == 66.67
    assert printed["bounds"] == {"joint": {"elbo": -12346, "importance_weighted": None}}


def test_latent_use_by_hand() -> None:
    """Two items; dimension 0 has means -1 and 1 and variance 1/4, dimension 1 is the prior."""
    mu = np.array([[-1.0, 0.0], [1.0, 0.0]], np.float32)
    logvar = np.array([[math.log(0.25), 0.0]] * 2, np.float32)
    use = latent_use(Posterior(mu, logvar))
    expected = 0.5 * (1 + 0.25 - 1 + math.log(4))
    assert use.kl == pytest.approx(expected, rel=1e-6)
    assert use.kl_largest == pytest.approx(expected, rel=1e-6)
    assert use.kl_median == pytest.approx(expected / 2, rel=1e-6)
    assert (use.active_units, use.dimensions) == (1, 2)


def test_active_units_take_the_threshold_of_the_source() -> None:
    """Variance of means 0.0121 is active, 0.0081 is not."""
    mu = np.array([[0.11, 0.09], [-0.11, -0.09]], np.float32)
    assert latent_use(Posterior(mu, np.full_like(mu, -1))).active_units == 1


class Linear(nn.Module):
    """`p(x|z) = N(weight * z, noise)` of each dimension, and its exact posterior."""

    def __init__(self, weight: Tensor, noise: float) -> None:
        super().__init__()
        self.weight, self.noise = weight, noise

    def log_prob(self, target: Tensor, z: Tensor) -> Tensor:
        return torch.distributions.Normal(self.weight * z, self.noise**0.5).log_prob(target).sum(1)

    def encode(self, x: Tensor) -> Encoding:
        precision = 1 + self.weight**2 / self.noise
        mu = self.weight * x / self.noise / precision
        return Encoding(mu, -precision.log().expand_as(mu), x)


def linear_model(pairs: int) -> tuple[MultimodalVAE, dict[str, Encoding], Tensor]:
    """A two-modality model with z in 3 dimensions, data drawn from it, and log p(image, text) of each pair."""
    generator = torch.Generator().manual_seed(0)
    image, text = Linear(torch.tensor([1.0, 2.0, 0.5]), 0.3), Linear(torch.tensor([0.7, -1.0, 1.5]), 0.8)
    z = torch.randn(pairs, 3, generator=generator)
    xs = [part.weight * z + part.noise**0.5 * torch.randn(pairs, 3, generator=generator) for part in (image, text)]
    both = torch.cat([torch.diag(image.weight), torch.diag(text.weight)])  # [6, 3]
    noise = torch.diag(torch.tensor([0.3] * 3 + [0.8] * 3))
    evidence = MultivariateNormal(torch.zeros(6), both @ both.T + noise).log_prob(torch.cat(xs, dim=1))
    vae = MultimodalVAE({}, {"image": image, "text": text})
    return vae, {"image": image.encode(xs[0]), "text": text.encode(xs[1])}, evidence


def test_bounds_meet_the_exact_likelihood_where_the_posterior_is_exact() -> None:
    vae, encodings, evidence = linear_model(100)
    found = bounds(vae, encodings, torch.arange(100), samples=3)["joint"]
    assert found.importance_weighted == pytest.approx(evidence.mean().item(), abs=1e-3)  # all weights are equal
    many = bounds(vae, encodings, torch.arange(100), samples=200)["joint"]
    assert many.elbo == pytest.approx(evidence.mean().item(), abs=0.05)  # sampling error


def test_bounds_are_bounds_and_more_samples_tighten_them() -> None:
    vae, encodings, evidence = linear_model(200)
    exact = evidence.mean().item()
    few = bounds(vae, encodings, torch.arange(200), samples=2)
    many = bounds(vae, encodings, torch.arange(200), samples=100)
    for name in ("image", "text"):
        weighted = few[name].importance_weighted, many[name].importance_weighted
        assert weighted[0] is not None
        assert weighted[1] is not None
        assert few[name].elbo < weighted[0] < weighted[1] < exact


def test_bounds_pair_texts_with_their_photo() -> None:
    """Two texts of each of 80 photos, one more than a chunk: as with the photos written out twice."""
    vae, encodings, _ = linear_model(160)
    photo = torch.arange(80).repeat_interleave(2)
    short = {"image": Encoding(*(part[:80] for part in encodings["image"])), "text": encodings["text"]}
    long = {"image": Encoding(*(part[:80][photo] for part in encodings["image"])), "text": encodings["text"]}
    assert bounds(vae, short, photo) == bounds(vae, long, torch.arange(160))


@pytest.fixture(scope="module")
def scratch_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small untrained model folder and a set of scenes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("evaluate")
    data = write_scenes(folder / "scenes", 75, seed=3).parent
    captions = [caption for example in read_dataset(data) for caption in example.captions]
    tokenizer = word_tokenizer(captions)
    architecture = Architecture("scratch", vocabulary=tokenizer.get_vocab_size(), latent_dim=16, max_tokens=24)
    save_model(folder / "model", build(architecture), architecture, name="tiny", tokenizer_json=tokenizer.to_str())
    return folder / "model", data


def model_bounds(folder: Path, scenes: Sequence[Example]) -> dict[str, Bounds]:
    pairs = PairEncoder.open(folder)
    squares = [square(to_image(scene.image, pairs.side_px), pairs.side_px) for scene in scenes]
    pairs.add(squares, [scene.captions[0] for scene in scenes])
    return pairs.bounds()


def test_evaluate_from_the_folder_of_a_model(scratch_model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = scratch_model
    decoded: list[Path] = []
    monkeypatch.setattr("mmsearch.evaluation.evaluate.to_image", lambda *a: (decoded.append(a[0]), to_image(*a))[1])
    report = evaluate(Subject.load(data, split="train", model=str(model), device="cpu"), samples=4)
    assert (report.images, report.texts) == (60, 300)
    assert 0 < report.text_to_image.r10 < 60  # untrained
    assert sorted(decoded) == sorted(scene.image for scene in read_dataset(data, "train"))  # once for both
    assert set(report.bounds) == {"image", "text", "joint"}
    by_paths = evaluate(Subject(load_model(model, "cpu"), read_dataset(data, "train")))
    assert by_paths.text_to_image == report.text_to_image
    for values in report.bounds.values():
        elbo, weighted = values["elbo"], values["importance_weighted"]
        assert elbo is not None
        assert weighted is not None
        assert -20_000 < elbo < weighted < 0
    assert json.dumps(report.to_dict())
    with pytest.raises(DataError, match="splits: train, val"):
        evaluate(Subject.load(data, split="test", model=str(model)))


def test_bounds_of_a_stored_model_repeat(scratch_model: tuple[Path, Path]) -> None:
    """More than a chunk of scenes, captions of several lengths: in parts and together give the same mean."""
    model, data = scratch_model
    scenes = read_dataset(data)
    together = model_bounds(model, scenes)["joint"].elbo
    assert together == model_bounds(model, scenes)["joint"].elbo
    parts = [model_bounds(model, scenes[start : start + 25])["joint"].elbo for start in (0, 25, 50)]
    assert together == pytest.approx(np.mean(parts), rel=0.01)  # other draws


def test_bounds_say_why_they_are_missing(tmp_path: Path) -> None:
    assert (
        evaluate(Subject(Table(), examples(("0 a",), ("1 b",)))).bounds_note
        == "not computed: this model has no decoders"
    )
    (tmp_path / "model.json").write_text("{}")
    report = evaluate(Subject(Table(), examples(("0 a",), ("1 b",)), folder=tmp_path))
    assert report.bounds == {}
    assert report.bounds_note.startswith("not computed: ")
    assert "model.json" in report.bounds_note


def test_one_sample_has_no_weighted_bound_and_none_is_refused() -> None:
    vae, encodings, _ = linear_model(4)
    found = bounds(vae, encodings, torch.arange(4))
    assert set(found) == {"image", "text", "joint"}
    assert found["image"].importance_weighted is None
    assert found["image"] == Bounds(found["image"].elbo, importance_weighted=None)
    with pytest.raises(ValueError, match="0 samples"):
        bounds(vae, encodings, torch.arange(4), samples=0)
