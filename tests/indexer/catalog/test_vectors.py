"""Own vectors of files and captions: stored as float16, replaced, emptied, found by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, event, func, select

from indexer.base.errors import LibraryError
from indexer.base.types import CAPTION, HIDDEN, IMAGE, TEXT, Model, Posterior
from indexer.catalog import assets, captions, library, root_updates, vectors
from indexer.catalog.assets import Description, FileState
from indexer.catalog.captions import Key
from indexer.catalog.reader import last_change, live_model
from indexer.catalog.roots import Target, all_roots
from indexer.catalog.schema import vectors as table
from indexer.catalog.vectors import Blobs
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.catalog.conftest import AddFile


def blobs(*values: float) -> Blobs:
    return Blobs(np.array(values, np.float16).tobytes(), np.full(len(values), -1, np.float16).tobytes())


def kinds(connection: Connection) -> dict[int, int]:
    return {row.asset_id: row.kind for row in connection.execute(select(table.c.asset_id, table.c.kind))}


def test_blobs_are_the_posterior_to_half_precision() -> None:
    rng = np.random.default_rng(0)
    posterior = Posterior(*(rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2)))
    stored = vectors.to_blobs(posterior)
    assert [len(one.mu) for one in stored] == [8, 8, 8]
    again = vectors.from_blobs(stored, 4)
    np.testing.assert_array_equal(again.mu, posterior.mu.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(again.logvar, posterior.logvar, rtol=2**-11)
    assert len(vectors.from_blobs([], 4)) == 0


def test_a_vector_is_replaced_in_its_row_and_gets_a_new_change(
    connection: Connection, model: Model, add_file: AddFile
) -> None:
    first, second = add_file("a.jpg"), add_file("b.txt", "text")
    vectors.add_own(connection, model, {first: blobs(1, 0, 0, 0), second: blobs(0, 1, 0, 0)})
    rows = connection.execute(select(table.c.id, table.c.change).order_by(table.c.id)).all()
    assert kinds(connection) == {first: IMAGE, second: TEXT}
    vectors.set_own(connection, model, {first: blobs(0, 0, 1, 0)})
    again = connection.execute(select(table.c.id, table.c.change).order_by(table.c.id)).all()
    assert [row.id for row in again] == [row.id for row in rows]
    assert rows[0].change < again[0].change <= last_change(connection)
    assert again[1].change == rows[1].change
    assert vectors.own(connection, model, first) == blobs(0, 0, 1, 0)


def test_content_that_cannot_be_read_has_no_vector(connection: Connection, model: Model, add_file: AddFile) -> None:
    asset_id = add_file("a.jpg")
    vectors.add_own(connection, model, {asset_id: blobs(1, 0, 0, 0)})
    vectors.set_own(connection, model, {asset_id: None})
    assert vectors.own(connection, model, asset_id) is None
    assert kinds(connection) == {asset_id: HIDDEN}


def test_content_is_known_again_wherever_it_is(connection: Connection, model: Model, add_file: AddFile) -> None:
    here, gone, text = (
        add_file("a.jpg", content=b"same"), add_file("b.jpg", content=b"same"),
        add_file("c.txt", "text", content=b"same"),
    )  # fmt: skip
    add_file("d.jpg", content=b"same")  # without a vector
    other = root_updates.add(connection, Path("/other"))
    away = assets.insert(connection, other, FileState("e.jpg", "image", 1, 1, b"same"), Description())
    vectors.add_own(connection, model, {one: blobs(1, 0, 0, 0) for one in (here, gone, text, away)})
    assets.mark(connection, [gone], missing=True)
    root = next(one for one in all_roots(connection) if one.id != other.id)
    found = vectors.donors(connection, model, Target(root, "", ()), {b"same", b"other"})
    assert found.keys() == {("image", b"same")}  # what is live in the target was just seen there
    assert [(one.id, one.rel_path, one.is_missing) for one in found["image", b"same"]] == [
        (gone, "b.jpg", True), (away, "e.jpg", False),
    ]  # fmt: skip
    assert vectors.holder(connection, model, b"same", "image") in (here, gone, away)
    assert vectors.holder(connection, model, b"other", "image") is None


def test_a_content_is_looked_up_by_its_hash_and_never_by_all_vectors(connection: Connection, model: Model) -> None:
    asked: list[tuple[str, object]] = []
    event.listen(
        connection.engine, "before_cursor_execute", lambda _, __, sql, values, *___: asked.append((sql, values))
    )
    target = Target(root_updates.add(connection, Path("/photos")), "2019", ())
    asked.clear()
    vectors.donors(connection, model, target, [b"one", b"two"])
    vectors.holder(connection, model, b"one", "image")
    plans = [
        [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
        for sql, values in list(asked)
    ]
    assert len(plans) == 2
    for plan in plans:
        assert "ix_assets_content_hash" in plan[0]
        assert [step for step in plan if "vectors" in step and "asset_id=?" not in step] == []


def test_the_words_of_captions_are_encoded_once(connection: Connection, model: Model, add_file: AddFile) -> None:
    photo = add_file("a.jpg")
    captions.insert(connection, [(Key(photo, None, "captions.csv", b"h"), "a lake")])
    (pending,) = captions.pending(connection, model)
    vectors.add_texts(connection, model, [(pending, blobs(0, 1, 0, 0))])
    assert captions.pending(connection, model) == []
    assert vectors.of_texts(connection, model, [b"h", b"x"]) == {b"h": blobs(0, 1, 0, 0)}
    assert connection.scalars(select(table.c.kind)).all() == [CAPTION]


def test_another_model_takes_over_at_once(connection: Connection, model: Model, add_file: AddFile) -> None:
    asset_id = add_file("a.jpg")
    other = library.add_model(connection, FakeEncoder(seed=1, dim=4))
    for one in (model, other):
        vectors.add_own(connection, one, {asset_id: blobs(1, 0, 0, 0)})
    vectors.switch(connection, other)
    assert live_model(connection) == other
    assert connection.scalars(select(table.c.model_id)).all() == [other.id]


def test_more_files_than_one_statement_takes(connection: Connection, model: Model, add_file: AddFile) -> None:
    ids = [add_file(f"{number}.jpg") for number in range(1200)]
    vectors.set_own(connection, model, dict.fromkeys(ids, blobs(1, 0, 0, 0)))
    vectors.set_own(connection, model, dict.fromkeys(ids, blobs(0, 1, 0, 0)))
    assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 1200
    images, texts = vectors.own_posteriors(connection, model)
    np.testing.assert_array_equal(images.mu, np.tile([0, 1, 0, 0], (1200, 1)))
    assert texts.mu.shape == (0, 4)


def test_own_posteriors_are_those_before_any_fusion(tmp_path: Path) -> None:
    photos, encoder = tmp_path / "photos", FakeEncoder()
    paint(photos / "red.png", "red", seed=1)
    (photos / "red.txt").write_text("green")
    (photos / "captions.csv").write_text("image,caption\nred.png,blue\n")
    with Store.open(tmp_path / "library", create=True) as store:
        with pytest.raises(LibraryError, match="holds no vectors"):
            store.own_posteriors()
        store.ingest(photos, encoder)
        images, texts = store.own_posteriors()
    np.testing.assert_allclose(images.mu, encoder.embed_images([photos / "red.png"]).mu, atol=2e-3)
    expected = encoder.embed_texts(["green", "blue"]).mu
    np.testing.assert_allclose(sorted(texts.mu.tolist()), sorted(expected.tolist()), atol=5e-3)
