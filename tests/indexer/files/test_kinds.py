"""What a file is by its first bytes, and the extra that it needs."""

from __future__ import annotations

import io

import pytest

from indexer.base.errors import DecodeError
from indexer.decoding.decode import read_metadata
from indexer.files import kinds
from indexer.files.kinds import kind_of
from tests.indexer.decoding.samples import decoded, heif, quarters


def test_heic_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heif(quarters())
    monkeypatch.setattr(kinds, "has_extra", lambda name: False)
    for read in (decoded, lambda data: read_metadata(io.BytesIO(data))):
        with pytest.raises(DecodeError, match=r"pip install 'mmsearch\[heif\]'$") as caught:
            read(data)
    assert not kinds.is_remedied(str(caught.value))
    monkeypatch.undo()
    assert kinds.is_remedied(str(caught.value))
    assert not kinds.is_remedied("broken picture (OSError: 'mmsearch[heif]' is a name)")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "avif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"\xff\xff\xff\xffftypheic", "heif"),
        (b"ftyp", None),
        (b"", None),
    ],
)
def test_kinds(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind
