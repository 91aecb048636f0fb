"""From a library indexed with a bare backbone to closed-form heads and a rebuilt library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.base.personal import remember
from mmsearch import Library
from mmsearch.cli import app as cli
from mmsearch.data.datasets import read_dataset
from mmsearch.data.scenes import write_scenes
from mmsearch.errors import LibraryNotFound, ModelError, ModelNotNamed
from mmsearch.inference.backbone_model import load_backbone
from mmsearch.inference.closed_form import fit_heads
from mmsearch.inference.library_heads import fit_library_heads
from mmsearch.inference.load_model import load_model
from tests.fakes import FakeEncoder
from tests.tiny_clip import write_tiny_clip


def test_library_gets_heads_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_tiny_clip(tmp_path / "clip")
    scenes = write_scenes(tmp_path / "scenes", 20, seed=5).parent
    with Library.open(tmp_path / "library", model=str(clip), device="cpu") as library:
        library.index(scenes)
    assert cli.main(["heads", str(tmp_path / "wide"), "--library", str(tmp_path / "library"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "wide")
    assert load_model(tmp_path / "wide", "cpu").dim > 6
    folder = fit_library_heads(tmp_path / "library", tmp_path / "heads", latent_dim=6)
    heads = load_model(folder, "cpu").heads

    # the same from the files: what the library keeps in float16 is what the backbone gives
    model = load_backbone(str(clip))
    examples = [e for split in ("train", "val") for e in read_dataset(scenes, split)]
    images = model.embed_images([e.image for e in examples]).mu
    texts = model.embed_texts([c for e in examples for c in e.captions]).mu
    expected = fit_heads(images / np.linalg.norm(images, axis=1, keepdims=True),
                         texts / np.linalg.norm(texts, axis=1, keepdims=True), 6)  # fmt: skip
    np.testing.assert_allclose(heads.image_mean, expected.image_mean, atol=1e-3)  # type: ignore[attr-defined]
    np.testing.assert_allclose(heads.logvar, expected.logvar, atol=0.05)  # type: ignore[attr-defined]

    with Library.open(tmp_path / "library", model=folder, device="cpu") as library:
        assert library.rebuild().encoded >= 20
        assert len(library.search(image=examples[0].image, k=3)) == 3
    with pytest.raises(ModelError, match="which has heads"):
        fit_library_heads(tmp_path / "library", tmp_path / "again")


def test_library_of_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    with pytest.raises(LibraryNotFound):
        fit_library_heads(tmp_path / "nothing", tmp_path / "heads")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("a dog")
    with Library.open(tmp_path / "library", model=FakeEncoder(name="default")) as library:
        library.index(tmp_path / "photos")
    with pytest.raises(ModelNotNamed, match="'default'"):
        fit_library_heads(tmp_path / "library", tmp_path / "heads")
    remember("models", FakeEncoder().fingerprint, "default")
    with pytest.raises(ModelError, match="which has heads"):
        fit_library_heads(tmp_path / "library", tmp_path / "heads")
