"""From what a person gives, words, a picture or both, to the posterior the library is searched with.

In: a text, a picture (a path, PIL or an array), an encoder. Out: a `Posterior` of one row, whose mean is the vector
the library is searched with. Next: `hits.py`, the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.base.types import Encoder, Modality, Posterior
from indexer.search.query_bank import QueryBank, bank_of
from mmsearch.errors import DecodeError, QueryError
from mmsearch.inference.pictures import Picture, decode_in_sandbox, to_image
from mmsearch.inference.posterior import embed_texts


def check_query(text: str | None, image: Picture | None, k: int) -> None:
    """Refuse what cannot be answered, before a model is loaded for it.

    Raises:
        QueryError: neither words nor a picture; k below 1; a path that is no file.
    """
    if k < 1:
        raise QueryError(f"k is {k}; expected 1 or more")
    if image is None and (text is None or not text.strip()):
        raise QueryError("the query is empty; give some words or a picture")
    if isinstance(image, (str, Path)) and not Path(image).is_file():
        found = "is a folder" if Path(image).is_dir() else "does not exist"
        raise QueryError(f"{Path(image)} {found}; expected a picture or a text file")


def encode_query(encoder: Encoder, text: str | None = None, image: Picture | None = None) -> Posterior:
    """Words, a picture, or both fused by the product of experts with the prior -> posterior `[1, d]`."""
    posteriors = []
    if text is not None and text.strip():
        posteriors.append(encoder.encode_texts([_clean(text)]))
    if image is not None:
        upright = decode_in_sandbox(Path(image), encoder.side_px) if isinstance(image, (str, Path)) else None
        pixels = encoder.prepare_image(upright or to_image(image, encoder.side_px))  # [side_px, side_px, 3]
        posteriors.append(encoder.encode_images(pixels[np.newaxis]))
    return posteriors[0] if len(posteriors) == 1 else encoder.fuse(posteriors)


def query_bank(encoder: Encoder, text: str | None = None, image: Picture | None = None) -> QueryBank | None:
    """What the scores of such a query are corrected by; None for words with a picture, which no bank is of."""
    with_text = text is not None and bool(text.strip())
    if with_text == (image is not None):
        return None
    return bank_of(encoder, "text" if with_text else "image")


def encode_queries(encoder: Encoder, texts: Sequence[str]) -> Posterior:
    """Many texts -> posteriors `[m, d]`, encoded in batches of texts of like length."""
    return embed_texts(encoder, [_clean(text) for text in texts])


def encode_file(encoder: Encoder, path: Path) -> Posterior:
    """A picture or a text file that is not in the library -> posterior `[1, d]`."""
    if modality_of(path) == "text":
        return encode_query(encoder, text=_read_text(path))
    return encode_query(encoder, image=path)


def modality_of(path: Path) -> Modality:
    """What a file is taken for, by its suffix."""
    from indexer.files.kinds import TEXT_SUFFIXES

    return "text" if path.suffix.lower() in TEXT_SUFFIXES else "image"


def _read_text(path: Path) -> str:
    from indexer.decoding.decode import TEXT_LIMIT_BYTES, decode_text
    from indexer.files.opening import open_regular

    try:
        with open_regular(path) as file:
            return decode_text(file.read(TEXT_LIMIT_BYTES + 1))
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}; expected a text that can be read") from error


def _clean(text: str) -> str:
    """Bytes of the command line that are not UTF-8 arrive as surrogates, which no tokenizer takes."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text).strip()
