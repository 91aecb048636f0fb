"""What ships: graphs without weights that read one file, and the vectors of torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from mmsearch.data.scenes import render_scene
from mmsearch.inference import onnx_model as encoder
from mmsearch.inference.load_model import PRETRAINED, load_model
from mmsearch.inference.onnx_model import OnnxModel
from mmsearch.inference.preprocess import square
from mmsearch.inference.torch_model import TorchModel
from mmsearch.training.export.int8 import INT8_GRAPH, export_int8

SHIPPED = PRETRAINED / "default"


@pytest.mark.parametrize(("flags", "fast"), [("fpu avx2", False), ("avx512f avx512_vnni", True), ("avx_vnni", True)])
def test_int8_arithmetic_is_for_processors_that_name_it(
    flags: str, fast: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"model name: avx512_vnni\nflags\t\t: {flags}\n")
    encoder.multiplies_bytes.cache_clear()
    try:
        (tmp_path / "image-int8.onnx").touch()
        assert encoder.multiplies_bytes() is fast
        assert encoder._graph(tmp_path, "image").name == ("image-int8.onnx" if fast else "image.onnx")
        assert encoder._graph(tmp_path, "text").name == "text.onnx"
    finally:
        encoder.multiplies_bytes.cache_clear()


@pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")
class TestShipped:
    def test_onnx_and_torch_give_the_same_vectors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoder, "multiplies_bytes", lambda: False)  # the graphs in float32 arithmetic
        onnx_model = load_model("default", "cpu")
        assert isinstance(onnx_model, OnnxModel)
        torch_model = TorchModel.load("default", SHIPPED, "cpu")
        assert torch_model.fingerprint == onnx_model.fingerprint
        pictures, captions = zip(*(render_scene(seed, side_px=200) for seed in range(5)), strict=True)
        texts = ["", "a dog", *(c[0] for c in captions), "many words " * 60]
        pairs = [
            (onnx_model.embed_images(pictures), torch_model.embed_images(pictures)),
            (onnx_model.embed_texts(texts), torch_model.embed_texts(texts)),
        ]
        for ours, theirs in pairs:
            cosine = (ours.mu * theirs.mu).sum(1)
            cosine = cosine / np.linalg.norm(ours.mu, axis=1) / np.linalg.norm(theirs.mu, axis=1)
            assert cosine.min() > 0.9999
            np.testing.assert_allclose(ours.logvar, theirs.logvar, atol=1e-3)
            assert (ours.logvar < 0).all()

    def test_a_row_does_not_depend_on_its_neighbours(self) -> None:
        model = load_model("default", "cpu")
        together = model.embed_texts(["a dog", "two children play in the snow near a red house"])
        np.testing.assert_allclose(together.mu[:1], model.embed_texts(["a dog"]).mu, atol=1e-4)

    def test_int8_arithmetic_reads_the_same_weights_and_gives_nearly_the_same_vectors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = shutil.copytree(SHIPPED, tmp_path / "model")
        scenes = [render_scene(seed, side_px=260)[0] for seed in range(10)]
        (folder / INT8_GRAPH).unlink(missing_ok=True)
        path = export_int8(folder, np.stack([square(scene, 260) for scene in scenes[:6]]))
        proto = onnx.load(str(path), load_external_data=False)
        inside = {t.name: int(np.prod(t.dims)) for t in proto.graph.initializer if not t.external_data}
        assert max(inside.values()) <= 2112  # ranges and biases, one number a channel; no matrix
        assert {t.name.removesuffix(".stored") for t in proto.graph.initializer if t.external_data} >= {
            "encoders.image.trunk.blocks.0.convs.0.weight",
            "encoders.image.head.hidden.weight",
        }
        found = {}
        for fast in (False, True):
            monkeypatch.setattr(encoder, "multiplies_bytes", lambda fast=fast: fast)
            found[fast] = load_model(folder, "cpu").embed_images(scenes[6:]).mu
        cosine = (found[True] * found[False]).sum(1)
        cosine = cosine / np.linalg.norm(found[True], axis=1) / np.linalg.norm(found[False], axis=1)
        assert cosine.min() > 0.95  # on photographs 0.996 on average; drawings are far from what the trunk knows
        assert cosine.max() < 0.999999  # another arithmetic it is

    def test_it_is_small_and_knows_nothing_of_the_machine_it_was_made_on(self) -> None:
        files = [path for path in PRETRAINED.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 28 * 2**20
        for graph in SHIPPED.glob("*.onnx"):
            proto = onnx.load(str(graph), load_external_data=False)
            external = {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}
            assert external == {"model.safetensors"}
            assert b"site-packages" not in graph.read_bytes()
            assert not proto.metadata_props
        described = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))
        assert all(not Path(source).is_absolute() for source in described.get("data", []))
