"""Index files are written to names that nobody can have made before, and only what is ours is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.base.errors import LibraryError, NotPlainFile
from indexer.search import index_writing
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")


@pytest.fixture
def vectors(filled: Store) -> Path:
    return filled.path / "vectors"


def grow(store: Store, photos: Path, encoder: FakeEncoder, number: int = 0) -> None:
    paint(photos / f"new{number}.png", "red", seed=100 + number)
    store.ingest(photos, encoder)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe", "device"])
@pytest.mark.parametrize("name", ["index-2.f16", "index-2.f16.tmp", "index-2.faiss.tmp", "index-77.f16"])
def test_what_somebody_put_there_is_not_written_through(
    filled: Store, photos: Path, encoder: FakeEncoder, vectors: Path, kind: str, name: str, tmp_path: Path
) -> None:
    victim, path = tmp_path / "victim", vectors / name
    victim.write_bytes(b"precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        os.link(victim, path)
    else:
        path.symlink_to({"link": victim, "dangling": tmp_path / "none", "device": Path("/dev/full")}[kind])
    grow(filled, photos, encoder)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "none").exists()
    assert [one.name for one in vectors.iterdir()] == ["index-2.f16"]
    assert not (vectors / "index-2.f16").is_symlink()
    assert len(filled.search(encoder.embed_texts(["red"]).mu[0], 50, fingerprint=encoder.fingerprint)) == 9


def test_a_folder_in_the_place_of_a_file(filled: Store, photos: Path, encoder: FakeEncoder, vectors: Path) -> None:
    (vectors / "index-2.f16" / "inside").mkdir(parents=True)
    with pytest.raises(LibraryError, match="cannot be written"):
        grow(filled, photos, encoder)
    filled.ingest(photos, encoder)  # the same command again
    assert sorted(one.name for one in vectors.iterdir()) == ["index-2.f16", "index-3.f16"]
    assert (vectors / "index-2.f16" / "inside").is_dir()


def test_a_folder_that_is_a_link(
    filled: Store, photos: Path, encoder: FakeEncoder, vectors: Path, tmp_path: Path
) -> None:
    vectors.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "index-of-somebody").write_bytes(b"precious")
    vectors.symlink_to(tmp_path / "elsewhere")
    before = sorted(one.name for one in vectors.iterdir())
    with pytest.raises(NotPlainFile, match="is a link"):
        grow(filled, photos, encoder)
    assert sorted(one.name for one in vectors.iterdir()) == before


def test_what_a_killed_run_left_is_swept_and_other_files_stay(
    filled: Store, photos: Path, encoder: FakeEncoder, vectors: Path
) -> None:
    for name in ("index-1.f16.0123456789ab.tmp", "questions-abc.npy.0123456789ab.tmp", "index-1-aaaa.faiss"):
        (vectors / name).write_bytes(b"half")
    for name in ("index-1.f16.bad-20260101T000000", "questions-abc.npy", "notes.txt", "notes.tmp"):
        (vectors / name).write_bytes(b"kept")
    grow(filled, photos, encoder)
    assert sorted(one.name for one in vectors.iterdir()) == sorted(
        ["index-2.f16", "index-1.f16.bad-20260101T000000", "questions-abc.npy", "notes.txt", "notes.tmp"]
    )


def test_no_temporary_file_stays_where_the_disk_is_full(
    filled: Store, photos: Path, encoder: FakeEncoder, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = [one.name for one in vectors.iterdir()]
    for name in ("write_rows", "sync"):
        with monkeypatch.context() as patch:
            patch.setattr(index_writing, name, full)
            with pytest.raises(LibraryError, match="No space left on device"):
                grow(filled, photos, encoder, len(name))
        assert [one.name for one in vectors.iterdir()] == before
