"""The text transformer equals the published implementation of BERT, padding included."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from mmsearch.models.minilm import BertSize, MiniLM, _attend, load_bert

SIZE = BertSize(vocabulary=50, width=24, layers=2, heads=3, hidden=48, positions=16)
IDS = torch.tensor([[5, 9, 3, 7, 2, 8], [11, 4, 0, 0, 0, 0], [6, 0, 13, 12, 0, 0]])  # 0 pads, also in the middle


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # no weight is left at 0 or 1, where a slip would not show
            if "LayerNorm" in name or name.endswith("bias"):
                parameter.uniform_(0.2, 1.5)
    return model


@pytest.fixture(scope="module")
def ours(bert: BertModel) -> MiniLM:
    model = MiniLM(SIZE).eval()
    load_bert(model, bert.state_dict())
    return model


def test_states_equal_those_of_transformers(bert: BertModel, ours: MiniLM) -> None:
    with torch.inference_mode():
        expected = bert(input_ids=IDS, attention_mask=(IDS != 0).long()).last_hidden_state  # [3, 6, 24]
        found = ours(IDS)
    words = IDS != 0
    torch.testing.assert_close(found[words], expected[words], atol=1e-5, rtol=1e-5)
    assert expected[words].std() > 0.3


def test_padding_at_the_end_changes_nothing(ours: MiniLM) -> None:
    with torch.inference_mode():
        alone = ours(torch.tensor([[11, 4]]))
        padded = ours(IDS[1:2])[:, :2]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_order_matters(ours: MiniLM) -> None:
    with torch.inference_mode():
        there, back = ours(torch.tensor([[5, 9, 3]])), ours(torch.tensor([[3, 9, 5]]))
    assert (there.mean(1) - back.mean(1)).abs().max() > 0.01


def test_only_the_positions_that_are_used_are_kept(bert: BertModel, ours: MiniLM) -> None:
    state = bert.state_dict()
    type_0 = state["embeddings.token_type_embeddings.weight"][0]
    expected = state["embeddings.position_embeddings.weight"][:16] + type_0
    torch.testing.assert_close(ours.positions.weight.detach(), expected)


def test_a_missing_weight_is_named(bert: BertModel) -> None:
    state = bert.state_dict()
    state.pop("encoder.layer.1.output.dense.bias")
    with pytest.raises(KeyError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        load_bert(MiniLM(SIZE), state)


def test_the_embeddings_are_not_among_the_layers(ours: MiniLM) -> None:
    above = {id(p) for p in ours.layer_parameters()}
    fixed = {name for name, p in ours.named_parameters() if id(p) not in above}
    assert fixed == {"words.weight", "positions.weight", "norm.weight", "norm.bias"}


def test_attention_written_out_for_training_equals_the_fused_kernel() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)[:, None, None, :]
    fused = _attend(q, k, v, mask)
    written = _attend(q.requires_grad_(), k, v, mask)
    assert written.requires_grad
    assert torch.allclose(fused, written, atol=1e-6)
