"""Words, pictures and both together become one vector; what cannot be answered is refused before a model is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import DecodeError, QueryError
from mmsearch.query.encode import check_query, encode_file, encode_query
from tests.fakes import FakeEncoder, paint


@pytest.mark.parametrize("text", [None, "", "   \n\t"])
def test_an_empty_query_is_refused(text: str | None) -> None:
    with pytest.raises(QueryError, match="the query is empty"):
        check_query(text, None, 10)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(QueryError, match=f"k is {k}; expected 1 or more"):
        check_query("a cat", None, k)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="does not exist"):
        check_query(None, tmp_path / "absent.jpg", 10)
    with pytest.raises(QueryError, match="is a folder"):
        check_query(None, tmp_path, 10)


def test_words_alone_and_a_picture_alone_are_the_encoders_own_posteriors(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    path = paint(tmp_path / "red.png", "red", (32, 32))
    words = encode_query(encoder, text="  red ")
    picture = encode_query(encoder, image=path)
    np.testing.assert_array_equal(words.mu, encoder.encode_texts(["red"]).mu)
    np.testing.assert_array_equal(picture.mu, encoder.embed_images([path]).mu)
    assert words.mu.shape == picture.mu.shape == (1, encoder.dim)


def test_words_and_a_picture_fuse_by_the_product_of_experts_with_the_prior(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    path = paint(tmp_path / "red.png", "red", (32, 32))
    text, image = encode_query(encoder, text="blue"), encode_query(encoder, image=path)
    both = encode_query(encoder, text="blue", image=path)
    text_precision, image_precision = np.exp(-text.logvar), np.exp(-image.logvar)
    precision = 1 + (text_precision - 1) + (image_precision - 1)
    np.testing.assert_allclose(
        both.mu, (text_precision * text.mu + image_precision * image.mu) / precision, rtol=1e-5, atol=1e-6
    )


def test_a_path_a_pil_image_and_an_array_are_the_same_picture(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    path = paint(tmp_path / "noise.png", "green", (32, 32), seed=3)
    with Image.open(path) as image:
        from_pil = encode_query(encoder, image=image.copy())
        array = np.asarray(image)
    np.testing.assert_array_equal(from_pil.mu, encode_query(encoder, image=path).mu)
    np.testing.assert_array_equal(from_pil.mu, encode_query(encoder, image=array).mu)
    np.testing.assert_array_equal(from_pil.mu, encode_query(encoder, image=str(path)).mu)


def test_a_text_file_is_encoded_as_text_and_a_broken_picture_names_itself(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    note = tmp_path / "note.md"
    note.write_text("red green", encoding="utf-8")
    np.testing.assert_array_equal(encode_file(encoder, note).mu, encoder.encode_texts(["red green"]).mu)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"broken\.jpg: not a picture"):
        encode_file(encoder, broken)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DecodeError, match=r"empty\.txt: empty text"):
        encode_file(encoder, tmp_path / "empty.txt")


def test_bytes_of_the_command_line_that_are_not_utf8_reach_the_model_as_text() -> None:
    class Strict(FakeEncoder):
        def encode_texts(self, texts):  # type: ignore[no-untyped-def]
            for text in texts:
                text.encode("utf-8")  # as a tokenizer does
            return super().encode_texts(texts)

    assert len(encode_query(Strict(), text="caf\udce9 red")) == 1
