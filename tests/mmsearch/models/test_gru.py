"""The GRU text encoder and decoder: padding, likelihood over whole sentences, word dropout, and that they can learn."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from mmsearch.data.scenes import render_scene
from mmsearch.models.gaussian import kl_to_prior, reparameterise
from mmsearch.models.gru import GRUTextDecoder, GRUTextEncoder, left_aligned
from mmsearch.models.tokens import tokenise, word_tokenizer

LATENT, VOCABULARY = 8, 20


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small_encoder() -> GRUTextEncoder:
    return GRUTextEncoder(VOCABULARY, LATENT, embedding=12, hidden=16)


def small_decoder(vocabulary: int = VOCABULARY) -> GRUTextDecoder:
    return GRUTextDecoder(vocabulary, LATENT, embedding=12, hidden=16)


SENTENCES = torch.tensor([[5, 3, 9, 0, 0], [7, 0, 0, 0, 0], [2, 4, 6, 8, 1]])


def test_shapes_and_the_variance_below_one() -> None:
    encoding = small_encoder()(SENTENCES)
    assert encoding.mu.shape == encoding.logvar.shape == (3, LATENT)
    assert (encoding.logvar < 0).all()
    assert torch.equal(encoding.target, SENTENCES)
    decoder = small_decoder()
    assert decoder(encoding.mu, SENTENCES).shape == (3, 5, VOCABULARY)
    assert decoder.log_prob(encoding.target, encoding.mu).shape == (3,)


def test_padding_moves_to_the_end_and_order_stays() -> None:
    tokens, lengths = left_aligned(torch.tensor([[0, 4, 0, 2, 9], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]]))
    assert tokens.tolist() == [[4, 2, 9, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert lengths.tolist() == [3, 0, 5]


@pytest.mark.parametrize("padded", [[5, 3, 9, 0, 0, 0, 0], [0, 5, 0, 3, 9], [5, 3, 9]])
def test_padding_changes_nothing(padded: list[int]) -> None:
    encoder, decoder = small_encoder().eval(), small_decoder().eval()
    expected = encoder(SENTENCES[:1])
    found = encoder(torch.tensor([padded]))
    torch.testing.assert_close((found.mu, found.logvar), (expected.mu, expected.logvar))
    z = torch.randn(1, LATENT)
    torch.testing.assert_close(decoder.log_prob(torch.tensor([padded]), z), decoder.log_prob(SENTENCES[:1], z))


def test_neighbours_in_the_batch_change_nothing() -> None:
    encoder = small_encoder().eval()
    together = encoder(SENTENCES).mu
    alone = torch.cat([encoder(row[None]).mu for row in SENTENCES])
    torch.testing.assert_close(together, alone)


def test_an_empty_sentence_has_a_posterior_and_a_likelihood() -> None:
    encoding = small_encoder()(torch.zeros(1, 4, dtype=torch.int64))
    assert encoding.mu.isfinite().all()
    assert small_decoder().eval().log_prob(encoding.target, encoding.mu).item() < 0


def test_log_prob_equals_torch_distributions() -> None:
    decoder, z = small_decoder().eval(), torch.randn(3, LATENT)
    expected = []
    for row, latent in zip(SENTENCES, z, strict=True):
        words = [*row[row != 0].tolist(), 0]  # and the end
        total = torch.zeros(())
        for place, word in enumerate(words):
            previous = torch.tensor([[decoder.start_id, *words[:place]]])
            total = total + Categorical(logits=decoder(latent[None], previous)[0, -1]).log_prob(torch.tensor(word))
        expected.append(total)
    torch.testing.assert_close(decoder.log_prob(SENTENCES, z), torch.stack(expected))


def test_probabilities_of_all_sentences_sum_to_one() -> None:
    """Every sentence of up to two words, and what remains for longer ones, over a vocabulary of three words."""
    decoder, z = small_decoder(vocabulary=4).eval(), torch.randn(1, LATENT)

    def probability(words: tuple[int, ...]) -> Tensor:
        ids = torch.tensor([[*words, 0]])
        return decoder.log_prob(ids, z).exp().sum()

    shorter = sum(probability(words) for n in range(3) for words in itertools.product((1, 2, 3), repeat=n))
    longer = torch.zeros(())
    for words in itertools.product((1, 2, 3), repeat=2):
        prefix = torch.tensor([[decoder.start_id, *words]])
        steps = decoder(z, prefix)[0].log_softmax(1)  # [3, 4]
        longer = longer + (steps[0, words[0]] + steps[1, words[1]]).exp() * (1 - steps[2, 0].exp())
    torch.testing.assert_close(shorter + longer, torch.ones(()))


def test_word_dropout_hides_words_in_training_only() -> None:
    decoder, z = small_decoder(), torch.randn(3, LATENT)
    decoder.word_dropout = 1.0
    swapped = SENTENCES.clone()
    swapped[:, 0] = torch.tensor([11, 12, 13])

    def later_words(target: Tensor) -> Tensor:
        first = target.clone()
        first[:, 1:] = 0
        # log p of everything after the first word, given what the decoder may see of it
        logits_first = decoder(z, torch.full((3, 1), decoder.start_id)).log_softmax(2)[torch.arange(3), 0, first[:, 0]]
        return decoder.log_prob(target, z) - logits_first

    torch.testing.assert_close(later_words(SENTENCES), later_words(swapped))  # all hidden: the first word tells nothing
    decoder.eval()
    assert (later_words(SENTENCES) - later_words(swapped)).abs().min() > 1e-5


def test_gradient_reaches_every_weight() -> None:
    encoder, decoder = small_encoder(), small_decoder()
    encoding = encoder(SENTENCES)
    z = reparameterise(encoding.mu, encoding.logvar)
    (kl_to_prior(encoding.mu, encoding.logvar).sum(1) - decoder.log_prob(encoding.target, z)).mean().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_learns_eight_captions_by_heart() -> None:
    captions = [render_scene(seed)[1][0] for seed in range(8)]
    tokenizer = word_tokenizer(captions)
    ids = tokenise(tokenizer, captions, 32)
    vocabulary = tokenizer.get_vocab_size()
    encoder = GRUTextEncoder(vocabulary, LATENT, embedding=32, hidden=32)
    decoder = GRUTextDecoder(vocabulary, LATENT, embedding=32, hidden=64)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    for _ in range(150):  # as an autoencoder: with eight sentences the ELBO is no better with the latent than without
        encoding = encoder(ids)
        log_prob = decoder.log_prob(encoding.target, encoding.mu).mean()
        optimiser.zero_grad()
        (-log_prob).backward()
        optimiser.step()
    assert log_prob.item() > -1
    decoder.eval()
    sentences = decoder.greedy(encoder(ids).mu, max_tokens=ids.shape[1] + 2)
    assert torch.equal(sentences[:, : ids.shape[1]], ids)
    assert (sentences[:, ids.shape[1] :] == 0).all()
