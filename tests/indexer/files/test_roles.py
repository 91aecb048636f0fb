"""What a file is used for by its name."""

from __future__ import annotations

import pytest

from indexer.files import kinds
from indexer.files.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Role, role_of


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("a.txt", "text"), ("A.MD", "text"), ("a.jpg.json", "sidecar"), ("a.XMP", "sidecar"),
        ("captions.csv", "captions"), ("Captions.CSV", "captions"), ("my-captions.csv", None), ("data.csv", None),
        ("noext", None), (".jpg", None), ("a.jpg~", None), ("a.", None), ("", None), ("a.b.CR2", "image"),
        ("ä.Jpg", "image"),
    ],
)  # fmt: skip
def test_by_the_suffix_in_any_case(name: str, role: Role | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_picture_suffix(suffix: str) -> None:
    assert role_of("x" + suffix) == role_of("x" + suffix.upper()) == "image"


@pytest.mark.parametrize("readable", [True, False])
def test_videos_count_where_they_can_be_read(monkeypatch: pytest.MonkeyPatch, readable: bool) -> None:
    monkeypatch.setattr(kinds, "_reads_video", lambda: readable)
    assert {role_of("x" + suffix) for suffix in VIDEO_SUFFIXES} == {"image" if readable else None}
