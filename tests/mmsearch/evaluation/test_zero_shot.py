"""Names for photos against a model whose every vector is written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.base.types import Modality, Posterior
from indexer.search.query_bank import QueryBank
from mmsearch.data.datasets import Example, same_name
from mmsearch.errors import DataError
from mmsearch.evaluation.subject import Subject
from mmsearch.evaluation.zero_shot import TEMPLATES, evaluate_zero_shot, name_vectors
from tests.circle_model import CircleWithBanks, one_centre


class Written:
    """The vector of a picture by its file's stem, of a text by itself; an unknown text by its last word."""

    name, fingerprint = "written", "f" * 64

    def __init__(self, vectors: Mapping[str, Sequence[float]]) -> None:
        self.vectors = vectors
        self.asked: list[str] = []

    def embed_images(self, images: Sequence[Path]) -> Posterior:
        return self._rows([image.stem for image in images])

    def embed_texts(self, texts: list[str]) -> Posterior:
        self.asked += texts
        return self._rows([text if text in self.vectors else text.split()[-1] for text in texts])

    def _rows(self, keys: list[str]) -> Posterior:
        mu = np.array([self.vectors[key] for key in keys], np.float32)
        return Posterior(mu, np.zeros_like(mu))


def photo(stem: str, *labels: str) -> Example:
    return Example(Path(f"{stem}.png"), labels, "train")


ANIMALS = {"cat": (1, 0, 0), "dog": (0, 1, 0), "owl": (0, 0, 1)}


def test_right_but_once() -> None:
    model = Written({**ANIMALS, "1": (3, 1, 0), "2": (1, 4, 0), "3": (2, 0, 1)})
    report = evaluate_zero_shot(Subject(model, [photo("1", "cat"), photo("2", "dog"), photo("3", "owl")]), ANIMALS)
    assert report.top1 == pytest.approx(200 / 3)
    assert report.top5 == 100.0
    assert (report.images, report.names, report.templates) == (3, 3, TEMPLATES)
    assert "a photo of a cat" in model.asked


def test_every_name_competes_and_the_sixth_is_not_among_five() -> None:
    angles = {f"n{i}": (np.cos(i / 10), np.sin(i / 10)) for i in range(8)}
    model = Written({**angles, "p": (1, 0)})
    fifth, sixth = photo("p", "n4"), photo("p", "n5")
    assert evaluate_zero_shot(Subject(model, [fifth]), angles).top5 == 100.0
    assert evaluate_zero_shot(Subject(model, [sixth]), angles).top5 == 0.0
    assert evaluate_zero_shot(Subject(model, [sixth]), ["n5", "n6"]).top1 == 100.0


def test_a_tie_counts_against_us() -> None:
    model = Written({"cat": (1, 0), "dog": (2, 0), "1": (1, 0)})
    assert evaluate_zero_shot(Subject(model, [photo("1", "cat")]), ["cat", "dog"]).top1 == 0.0


def test_equal_names_are_one_name_and_no_tie() -> None:
    model = Written({"crane": (1, 0), "dog": (0, 1), "1": (1, 0), "2": (1, 0.1)})
    photos = [photo("1", "crane"), photo("2", "Crane")]
    report = evaluate_zero_shot(Subject(model, photos), ["crane", "dog", "crane", "Crane", " crane"], templates=["{}"])
    assert (report.top1, report.names) == (100.0, 2)
    assert model.asked == ["crane", "dog"]


@pytest.mark.parametrize("label", ["Snow_Leopard", "snow  leopard", " SNOW leopard "])
def test_spellings_of_one_name(label: str) -> None:
    assert same_name(label) == "snow leopard"


def test_of_several_labels_the_best_ranked_counts() -> None:
    model = Written({**ANIMALS, "1": (1, 2, 0)})
    assert evaluate_zero_shot(Subject(model, [photo("1", "cat", "dog")]), ANIMALS).top1 == 100.0
    assert evaluate_zero_shot(Subject(model, [photo("1", "cat")]), ANIMALS).top1 == 0.0


def test_sentences_are_averaged_on_the_unit_sphere() -> None:
    """A long vector counts no more than a short one: (100, 0) and (0, 1) meet in the middle."""
    model = Written({"cat": (100, 0), "a cat": (0, 1)})
    np.testing.assert_allclose(name_vectors(model, ["cat"], ["{}", "a {}"]), [[0.5, 0.5]])
    zero = Written({"cat": (0, 0), "a cat": (0, 2)})
    np.testing.assert_allclose(name_vectors(zero, ["cat"], ["{}", "a {}"]), [[0.0, 0.5]])


def test_averaging_decides() -> None:
    vectors = {"cat": (1, 0), "a cat": (-1, 0.2), "dog": (0.9, 0.5), "a dog": (0.9, 0.5), "1": (1, 0)}
    assert (
        evaluate_zero_shot(Subject(Written(vectors), [photo("1", "cat")]), ["cat", "dog"], templates=["{}"]).top1
        == 100.0
    )
    assert (
        evaluate_zero_shot(
            Subject(Written(vectors), [photo("1", "cat")]), ["cat", "dog"], templates=["{}", "a {}"]
        ).top1
        == 0.0
    )


def test_names_are_ranked_as_a_search_by_a_picture_ranks_texts() -> None:
    """The name at 25 degrees is the nearest of both photos; the bank of pictures is centred on it."""
    photos, names = [Example(Path("0.png"), ("25",), "val"), Example(Path("40.png"), ("60",), "val")], ["25", "60"]
    report = evaluate_zero_shot(Subject(CircleWithBanks(one_centre("image", 25, 0.5)), photos), names)
    assert (report.top1, report.top5, report.cosine_top1, report.cosine_top5) == (100.0, 100.0, 50.0, 100.0)
    assert json.loads(json.dumps(report.to_dict()))["cosine_top1"] == 50.0


def test_names_of_a_model_without_a_bank_of_pictures_are_ranked_by_cosine() -> None:
    photos, names = [Example(Path("0.png"), ("25",), "val"), Example(Path("40.png"), ("60",), "val")], ["25", "60"]
    report = evaluate_zero_shot(Subject(CircleWithBanks(one_centre("text", 25, 0.5)), photos), names)
    assert (report.top1, report.cosine_top1, report.cosine_top5) == (50.0, None, None)
    printed = report.to_dict()
    assert (printed["cosine_top1"], printed["cosine_top5"]) == (None, None)


def test_hubness_of_a_name_is_that_of_its_mean() -> None:
    """Sentences at 0 and 90 degrees, the centre at 45: the mean is a hub of 0.5, its sentences are of 0.35 each."""

    class Banked(Written):
        def query_bank(self, modality: Modality) -> QueryBank | None:
            return one_centre("image", 45, 0.5) if modality == "image" else None

    at = {degrees: (np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))) for degrees in (50, 60)}
    model = Banked({"cat": (1, 0), "a cat": (0, 1), "dog": at[60], "a dog": at[60], "1": at[50]})
    report = evaluate_zero_shot(Subject(model, [photo("1", "dog")]), ["cat", "dog"], templates=["{}", "a {}"])
    assert (report.top1, report.cosine_top1) == (100.0, 0.0)  # 0.985 - 0.483 over 0.996 - 0.5, below 0.996 - 0.354


def test_what_cannot_be_measured_is_refused() -> None:
    model = Written({**ANIMALS, "1": (1, 0, 0)})
    with pytest.raises(DataError, match="not among the 1 names"):
        evaluate_zero_shot(Subject(model, [photo("1", "cat")]), ["dog"])
    with pytest.raises(DataError, match="no photos to name"):
        evaluate_zero_shot(Subject(model, []), ["dog"])
    with pytest.raises(ValueError, match="where the name goes"):
        evaluate_zero_shot(Subject(model, [photo("1", "cat")]), ["cat"], templates=["a photo"])
    with pytest.raises(ValueError, match="at least one"):
        evaluate_zero_shot(Subject(model, [photo("1", "cat")]), ["cat"], templates=[])


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photos in `train`, one in `val`, and a model that takes everything for a cat, then a dog, then an owl."""
    for stem in "1234":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{stem}.png")
    rows = ["1.png,train,cat", "2.png,train,dog", "3.png,train,owl", "4.png,val,cat"]
    (tmp_path / "captions.csv").write_text("\n".join(["image,split,caption", *rows]))
    model = Written({**ANIMALS, **{stem: (3, 2, 1) for stem in "1234"}})
    monkeypatch.setattr("mmsearch.evaluation.subject.load_model", lambda name, device: model)
    return tmp_path


def test_names_are_those_of_the_whole_data_set(labels: Path) -> None:
    report = evaluate_zero_shot(Subject.load(labels, split="val"), templates=["{}"])
    assert (report.images, report.names, report.top1) == (1, 3, 100.0)
    assert evaluate_zero_shot(Subject.load(labels, split="train")).top1 == pytest.approx(100 / 3)


def test_only_some_photos_while_all_names_compete(labels: Path, caplog: pytest.LogCaptureFixture) -> None:
    (labels / "held_out.txt").write_text("Dog\n\nowl\nzebra\n")
    with caplog.at_level(logging.WARNING):
        report = evaluate_zero_shot(Subject.load(labels, split="train"), only=labels / "held_out.txt")
    assert (report.images, report.names, report.top1, report.top5) == (2, 3, 0.0, 100.0)
    assert [record.getMessage() for record in caplog.records] == [
        f"1 of 3 names in {labels / 'held_out.txt'} have no photo, first 'zebra'"
    ]
    printed = json.loads(json.dumps(report.to_dict()))
    assert (printed["top1"], printed["only"]) == (0.0, str(labels / "held_out.txt"))


def test_a_file_of_names_that_cannot_be_used(labels: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        evaluate_zero_shot(Subject.load(labels, split="train"), only=labels / "none.txt")
    (labels / "other.txt").write_text("zebra\n")
    with pytest.raises(DataError, match="none of the 1 names"):
        evaluate_zero_shot(Subject.load(labels, split="train"), only=labels / "other.txt")
    (labels / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        evaluate_zero_shot(Subject.load(labels, split="train"), only=labels / "latin.txt")
