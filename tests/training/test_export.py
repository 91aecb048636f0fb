"""What ships: graphs without weights that read one file, a smaller vocabulary, and the vectors of torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from mmsearch.encoder import PRETRAINED, OnnxModel, load_model
from mmsearch.models.checkpoint import pack, unpack
from mmsearch.models.torch_model import TorchModel
from mmsearch.training.corpus import Corpus
from mmsearch.training.export import frequent_words, point_to_safetensors, prune
from mmsearch.training.scenes import render_scene

SHIPPED = PRETRAINED / "default"


def weights() -> dict[str, Tensor]:
    """A matrix large enough for int8, a convolution that stays in 16 bits, a bias in 32."""
    torch.manual_seed(0)
    return {"large.weight": torch.randn(400, 300), "filter.weight": torch.randn(6, 3, 2, 2), "bias": torch.randn(400)}


def small_graph(initial: dict[str, Tensor]) -> onnx.ModelProto:
    """`mu = x @ large.T + bias + offset`, `map = conv(picture, filter)`; `offset` is no weight of the model."""
    nodes = [
        helper.make_node("Transpose", ["large.weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["biased"]),
        helper.make_node("Add", ["biased", "offset"], ["mu"]),
        helper.make_node("Conv", ["picture", "filter.weight"], ["map"]),
    ]
    tensors = [numpy_helper.from_array(value.numpy(), name) for name, value in initial.items()]
    tensors.append(numpy_helper.from_array(np.float32([0.25]), "offset"))
    places = {"x": ["n", 300], "picture": ["n", 3, 5, 5]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in places.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("mu", "map")]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_graph_reads_its_weights_from_the_one_file(precision: str, tmp_path: Path) -> None:
    packed = pack(weights(), precision)  # type: ignore[arg-type]
    save_file(packed, tmp_path / "model.safetensors")
    proto = small_graph(weights())
    point_to_safetensors(proto, tmp_path / "model.safetensors")
    onnx.save(proto, str(tmp_path / "small.onnx"))
    assert (tmp_path / "small.onnx").stat().st_size < 4_000  # 480,000 bytes of weights are elsewhere
    held = {t.name for t in proto.graph.initializer if t.data_location != TensorProto.EXTERNAL}
    assert held <= {"offset", "large.weight.column"}
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    x, picture = torch.randn(3, 300), torch.randn(2, 3, 5, 5)
    mu, found_map = session.run(None, {"x": x.numpy(), "picture": picture.numpy()})
    stored = unpack(packed)
    np.testing.assert_allclose(mu, (x @ stored["large.weight"].T + stored["bias"] + 0.25).numpy(), atol=1e-4)
    np.testing.assert_allclose(found_map, torch.conv2d(picture, stored["filter.weight"]).numpy(), atol=1e-5)
    if precision == "int8":
        exact = (x @ weights()["large.weight"].T + stored["bias"] + 0.25).numpy()
        assert np.abs(mu - exact).max() > 1e-3  # the stored weights are used, not the ones the graph was made with


PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "cat", "##s", "ba", "dog", "é"]


def word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    return tokenizer


def test_a_pruned_vocabulary_spells_what_it_lost() -> None:
    before = word_pieces()
    described, rows = prune(before.to_str(), {"a", "b", "##a", "##b", "cat", "##s"})
    after = Tokenizer.from_str(described)
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "cat", "##s"]
    assert [PIECES[row] for row in rows] == kept
    assert after.get_vocab() == {piece: i for i, piece in enumerate(kept)}
    assert after.token_to_id("[PAD]") == 0
    for text in ("cats", "a cat", "Cat b"):  # the same pieces, read from the same rows of the embedding
        old, new = before.encode(text), after.encode(text)
        assert new.tokens == old.tokens
        assert [rows[i] for i in new.ids] == old.ids
    assert before.encode("ba dog").tokens == ["[CLS]", "ba", "dog", "[SEP]"]
    assert after.encode("ba dog").tokens == ["[CLS]", "b", "##a", "[UNK]", "[SEP]"]


def test_words_kept_are_those_of_the_captions_and_the_first_plain_ones() -> None:
    corpus = Corpus(
        photos=(Path("a"), Path("b")), captions=(("dog dog",), ("ba",)), shares=np.ones(1), sentences=1, train=1
    )
    tokenizer = word_pieces()
    assert frequent_words(tokenizer, 0, corpus) is None
    found = frequent_words(tokenizer, 8, corpus)
    assert found is not None
    assert {"a", "b", "##a", "dog", "[CLS]", "[SEP]"} <= found
    assert found.isdisjoint({"[unused0]", "##b", "ba", "é"})  # not among the first, or of a validation photo alone
    everything = frequent_words(tokenizer, 99, corpus)
    assert everything is not None
    assert set(PIECES) - everything == {"[unused0]", "é"}


@pytest.mark.skipif(not (SHIPPED / "model.json").exists(), reason="this checkout holds no default model")
class TestShipped:
    def test_onnx_and_torch_give_the_same_vectors(self) -> None:
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
