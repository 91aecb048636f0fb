"""Libraries that earlier versions wrote: they open, answer and go on, and no file is encoded again.

`frozen/library-schema-0002.tar.gz` was written by the version with schema 0002 and the fake encoder: 24 photos, two
texts, a caption file, a sidecar text, one broken file, one file that is gone.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from mmsearch import Library
from tests.fakes import FakeEncoder, paint

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture(params=sorted(path.name for path in FROZEN.glob("*.tar.gz")))
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder with `library` and `photos`, the photos at another place than when they were indexed."""
    with tarfile.open(FROZEN / request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_it_opens_searches_and_updates_without_encoding(older: Path, encoder: FakeEncoder) -> None:
    with Library.open(older / "library", model=encoder) as library:
        assert library.status().offline == 26  # where they were indexed there is nothing now
        library.relocate("/tmp/frozen/photos", older / "photos")
        found = [hit.path.name for hit in library.search("red", k=3, within="image")]
        assert sorted(found) == ["red-0.png", "red-1.png", "red-2.png"]
        asked = encoder.texts_encoded
        report = library.index(older / "photos")
        assert (report.encoded, report.unchanged, report.skipped) == (0, 26, 1)
        assert (encoder.images_encoded, encoder.texts_encoded) == (0, asked)
        assert [hit.path.name for hit in library.search("red", k=3, within="image")] == found
        status = library.status()
        assert (status.images, status.texts, status.captions, status.missing, status.skipped) == (24, 2, 4, 1, 1)
        paint(older / "photos" / "new.png", "grey", seed=7)
        assert library.index(older / "photos").encoded == 1
        assert library.doctor(sample=8).sound
