"""Libraries that earlier versions wrote: they open, answer and are updated, and no file is encoded again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryError
from mmsearch import Library
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.frozen import LIBRARIES, RECORDED, Frozen
from tests.indexer.asking import Store
from tests.indexer.catalog.test_readonly import allow, without_rights
from tests.indexer.snapshots import contents

QUERIES = (*COLOURS, "a blue lake", "river castle", "yellow flowers for the kitchen")
Answers = list[list[tuple[str, float]]]


@pytest.fixture(params=LIBRARIES, ids=lambda one: one.name)
def frozen(request: pytest.FixtureRequest) -> Frozen:
    return request.param


@pytest.fixture
def older(frozen: Frozen, tmp_path: Path) -> Path:
    """The folder with `library` and `photos`, the photos at another place than when they were indexed."""
    return frozen.unpack(tmp_path)


def test_it_opens_searches_and_updates_without_encoding(frozen: Frozen, older: Path, encoder: FakeEncoder) -> None:
    live = frozen.images + frozen.texts
    with Library.open(older / "library", model=encoder) as library:
        before = library.status()
        assert (before.images + before.texts, [root.yours for root in before.roots]) == (live, [False])  # not looked at
        library.relocate(RECORDED, older / "photos")
        found = [hit.path.name for hit in library.search("red", k=3, within="image")]
        assert sorted(found) == ["red-0.png", "red-1.png", "red-2.png"]
        asked = encoder.texts_encoded
        report = library.index(older / "photos")
        assert (report.encoded, report.unchanged, report.skipped) == (0, live, 1)
        assert (encoder.images_encoded, encoder.texts_encoded) == (0, asked)
        assert [hit.path.name for hit in library.search("red", k=3, within="image")] == found
        status = library.status()
        assert (status.images, status.texts, status.captions) == (frozen.images, frozen.texts, 4)
        assert (status.missing, status.skipped) == (1, 1)
        paint(older / "photos" / "new.png", "grey", seed=7)
        assert library.index(older / "photos").encoded == 1
        assert library.doctor(sample=8).sound


def test_it_answers_as_a_library_of_the_same_files_made_now(older: Path, encoder: FakeEncoder) -> None:
    """Whatever its index file was: approximate lists of bytes are not taken for more than they are."""
    with Store.open(older / "library") as store:
        store.relocate(RECORDED, older / "photos")
        before = ranked(store, encoder)
        store.ingest(older / "photos", encoder)
        assert ranked(store, encoder) == before
    with Store.open(older / "new", create=True) as store:
        os.utime(paint(older / "photos" / "gone.png", "purple", seed=99), (1_600_000_000, 1_600_000_000))
        store.ingest(older / "photos", encoder)
        (older / "photos" / "gone.png").unlink()
        store.ingest(older / "photos", encoder)
        now = ranked(store, encoder)
    for one, other in zip(before, now, strict=True):
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=2e-3)
        assert len({name for name, _ in one} & {name for name, _ in other}) >= 9  # the tenth may be as near as another
    assert contents(older / "library") == contents(older / "new")


def ranked(store: Store, encoder: FakeEncoder) -> Answers:
    asked = [FakeEncoder().embed_texts([words]).mu[0] for words in QUERIES]
    hits = [store.search(query, 10, fingerprint=encoder.fingerprint) for query in asked]
    return [[(hit.path.name, round(hit.score, 5)) for hit in one] for one in hits]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of files are another thing on Windows")
def test_where_it_may_not_be_written_one_line_says_so(frozen: Frozen) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        older = frozen.unpack(Path(name))
        before = contents_of_files(older)
        allow(older, write=False)
        without_rights(says_so, older / "library")
        assert contents_of_files(older) == before
        allow(older, write=True)


def contents_of_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def says_so(library: Path) -> None:
    line = r"^the library \S+ is of an older version and cannot be written here; run 'mmsearch [^\n]+$"
    with pytest.raises(LibraryError, match=line), Store.open(library):
        pass
