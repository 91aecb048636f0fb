"""The store as a whole: status, lookups, another model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from indexer.base.errors import LibraryError, LibraryLocked, ModelMismatch, SchemaOlder
from indexer.base.lock import writer_lock
from tests.fakes import FakeEncoder, paint
from tests.frozen import LIBRARIES, RECORDED
from tests.indexer.asking import Store


@pytest.fixture
def filled(store: Store, photos: Path, encoder: FakeEncoder) -> Store:
    for number, colour in enumerate(("red", "green", "blue")):
        paint(photos / f"{colour}.png", colour, seed=number)
    (photos / "red.txt").write_text("a red wall")
    (photos / "note.md").write_text("words alone")
    (photos / "bad.jpg").write_text("x")
    (photos / "captions.csv").write_text("image,caption\nblue.png,the sky\nno.png,x\n")
    store.ingest(photos, encoder)
    return store


def top(store: Store, encoder: FakeEncoder, words: str, k: int = 1) -> list[str]:
    query = encoder.embed_texts([words]).mu[0]
    return [hit.path.name for hit in store.search(query, k, fingerprint=encoder.fingerprint)]


def test_status(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    status = filled.status()
    assert (status.images, status.texts, status.captions, status.skipped) == (3, 2, 2, 2)
    assert (status.missing, status.offline) == (0, 0)
    assert (status.model_name, status.model_fingerprint) == ("fake", encoder.fingerprint)
    assert (filled.model().name, filled.model().fingerprint) == ("fake", encoder.fingerprint)
    assert status.size_bytes > 4096
    assert status.backend in ("numpy", "faiss", "faiss-gpu")
    assert status.last_indexed_at is not None
    assert timedelta(0) <= datetime.now(UTC) - status.last_indexed_at < timedelta(minutes=1)
    assert [(root.path, root.online, root.files) for root in status.roots] == [(photos, True, 5)]


def test_an_empty_library(store: Store) -> None:
    status = store.status()
    assert (status.images, status.roots, status.model_name, status.last_indexed_at) == (0, (), None, None)
    assert store.errors() == []
    assert store.model() is None
    assert store.search(np.ones(16, np.float32), 5, fingerprint="any") == []
    assert store.posterior_of(Path("a.jpg"), "any") is None


def test_errors_say_what_and_when(filled: Store, photos: Path) -> None:
    first, second = filled.errors()
    assert (first.path, second.path) == (photos / "bad.jpg", photos / "captions.csv")
    assert "not a picture" in first.reason
    assert abs(datetime.now(UTC) - first.when) < timedelta(minutes=1)


def test_k_and_scores(filled: Store, encoder: FakeEncoder) -> None:
    query = encoder.embed_texts(["red"]).mu[0]
    hits = filled.search(query, 2, fingerprint=encoder.fingerprint)
    assert len(hits) == 2
    assert hits[0].path.name == "red.png"
    everything = filled.search(query, 1000, fingerprint=encoder.fingerprint)
    assert len(everything) == 4
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    stored = filled.posterior_of(everything[0].path, encoder.fingerprint)
    assert stored is not None
    mu = stored.mu[0].astype(np.float64)
    cosine = mu @ query / np.linalg.norm(mu) / np.linalg.norm(query)
    assert everything[0].score == pytest.approx(cosine, abs=1e-6)


def test_lookups_by_path(
    filled: Store, photos: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asset_id = filled.asset_id_of(photos / "red.png")
    assert asset_id is not None
    monkeypatch.chdir(photos)
    assert filled.asset_id_of(Path("red.png")) == asset_id
    assert filled.asset_id_of(Path("../photos/./red.png")) == asset_id
    (tmp_path / "link.png").symlink_to(photos / "red.png")
    assert filled.asset_id_of(tmp_path / "link.png") == asset_id
    for unknown in (photos / "none.png", tmp_path / "x.png", photos / "bad.jpg", photos):
        assert filled.asset_id_of(unknown) is None
        assert filled.posterior_of(unknown, encoder.fingerprint) is None
    posterior = filled.posterior_of(photos / "green.png", encoder.fingerprint)
    assert posterior is not None
    assert posterior.mu.shape == posterior.logvar.shape == (1, 16)
    assert posterior.mu.dtype == posterior.logvar.dtype == np.float32
    paint(photos / "green.png", "black", size=(9, 9))
    assert filled.posterior_of(photos / "green.png", encoder.fingerprint) is None  # not the file that was indexed


def test_another_model_takes_over(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    other = FakeEncoder(name="other", seed=5, dim=24)
    report = filled.rebuild(other, batch_size=2)
    assert (report.updated, report.encoded, report.skipped) == (5, 6, 0)
    assert (filled.model().name, filled.model().fingerprint) == ("other", other.fingerprint)
    assert top(filled, other, "red") == ["red.png"]
    with pytest.raises(ModelMismatch):
        top(filled, encoder, "red")
    fused = filled.posterior_of(photos / "red.png", other.fingerprint)
    alone = other.embed_images([photos / "red.png"])
    assert fused is not None
    assert np.abs(fused.mu - alone.mu).max() > 0.01
    report = filled.ingest(photos, other)
    assert (report.unchanged, report.encoded) == (5, 0)
    with Store.open(filled.path) as store:
        assert top(store, other, "blue") == ["blue.png"]


def test_until_the_switch_the_old_model_answers(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    before = top(filled, encoder, "red", 10)

    class Dies(FakeEncoder):
        def encode_images(self, batch: np.ndarray) -> object:
            if self.image_batches:
                raise KeyboardInterrupt
            return super().encode_images(batch)

    dying = Dies(name="other", seed=5, dim=24)
    with pytest.raises(KeyboardInterrupt):
        filled.rebuild(dying, batch_size=2)
    assert top(filled, encoder, "red", 10) == before
    assert filled.ingest(photos, encoder).encoded == 0
    paint(photos / "blue.png", "black", size=(9, 9))  # changes between: its new vector must not be the old content's
    filled.ingest(photos, encoder)
    other = FakeEncoder(name="other", seed=5, dim=24)
    report = filled.rebuild(other, batch_size=2)
    assert dying.encoded + other.encoded <= 8
    assert report.skipped == 0
    stored = filled.posterior_of(photos / "green.png", other.fingerprint)
    assert stored is not None
    np.testing.assert_allclose(stored.mu, other.embed_images([photos / "green.png"]).mu, atol=0.02)
    with filled._catalog.begin() as connection:
        orphans = "SELECT count(*) FROM vectors WHERE model_id NOT IN (SELECT model_id FROM library)"
        assert connection.exec_driver_sql(orphans).scalar_one() == 0


def test_files_that_changed_wait_for_the_next_run(filled: Store, photos: Path) -> None:
    paint(photos / "green.png", "black", size=(9, 9))
    (photos / "note.md").unlink()
    other = FakeEncoder(name="other", seed=5)
    report = filled.rebuild(other)
    assert (report.updated, report.skipped) == (3, 2)
    assert "green.png" not in top(filled, other, "green", 10)
    report = filled.ingest(photos, other)
    assert (report.updated, report.encoded) == (1, 1)
    assert top(filled, other, "black") == ["green.png"]


def test_no_other_model_while_a_folder_is_away(filled: Store, photos: Path, encoder: FakeEncoder) -> None:
    photos.rename(photos.with_name("away"))
    with pytest.raises(LibraryError, match="connect it"):
        filled.rebuild(FakeEncoder(name="other", seed=5))
    photos.with_name("away").rename(photos)
    assert top(filled, encoder, "red") == ["red.png"]


def test_the_same_model_again_changes_nothing(filled: Store, encoder: FakeEncoder) -> None:
    before = top(filled, encoder, "red", 10)
    assert filled.rebuild(encoder).encoded == 0
    assert top(filled, encoder, "red", 10) == before


def test_an_older_library_is_brought_up_to_date_where_it_can_be_written(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = LIBRARIES[0].unpack(tmp_path) / "library"
    with monkeypatch.context() as patch:
        patch.setattr("indexer.store.os.access", lambda path, mode: False)
        with pytest.raises(SchemaOlder, match="cannot be written here; run 'mmsearch status' once") as told:
            Store.open(library)
    assert "\n" not in str(told.value)
    with writer_lock(library), pytest.raises(LibraryLocked):
        Store.open(library)
    with Store.open(library) as store:
        store.relocate(RECORDED, tmp_path / "photos")
        assert top(store, encoder, "red", 3)
    with writer_lock(library), Store.open(library) as store:  # and is not written again
        assert store.model() is not None
