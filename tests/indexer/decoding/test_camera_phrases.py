"""Which text of the metadata is a caption."""

from __future__ import annotations

import pytest

from indexer.decoding.camera_phrases import captions_of, is_personal
from indexer.decoding.metadata import Metadata


@pytest.mark.parametrize(
    "text",
    [
        "OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "DCIM", "DSC00017", "IMG_1234", "P1010001", "2019-07-06",
        "SAMSUNG CAMERA PICTURES", "cof", "dav_vivid", "oznorWO", "oplus_131072", "<Digimax S500>", "default", "42",
        "[Digital Camera user]", "Processed with VSCO with a6 preset", "Created with GIMP", "(c) 2010 John Doe", "...",
        "https://example.org/a", "8f14e45fceea167a5a36dedd4bea2543", "Screenshot_20200101-101010_Chrome", "",
    ],
)  # fmt: skip
def test_what_no_person_said(text: str) -> None:
    assert not is_personal(text)
    assert captions_of(Metadata(title=text or None, description=text or None), "a.jpg") == []


@pytest.mark.parametrize(
    "text",
    [
        "dog",
        "David",
        "coffee",
        "Beach 2019",
        "Anna's 3rd birthday",
        "海",
        "taken in Paris",
        "Photo of the old tower, 1902",
    ],
)
def test_what_a_person_said(text: str) -> None:
    assert captions_of(Metadata(title=text), "a.jpg") == [text]


def test_captions_are_said_once() -> None:
    metadata = Metadata(title="The Lake", description="the lake", keywords=("lake", "untitled", "2019", "Anna"))
    assert captions_of(metadata, "IMG_1.jpg") == ["The Lake", "lake, Anna"]
    assert captions_of(metadata, "the lake.jpg") == ["lake, Anna"], "a file's name is no caption"
