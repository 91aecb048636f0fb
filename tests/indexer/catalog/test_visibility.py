"""The kind of each vector follows from states, captions and fusions, after every statement that changes one of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from indexer.base.types import CAPTION, HIDDEN, IMAGE, TEXT, Model
from indexer.catalog import assets, captions, fused, vectors, visibility
from indexer.catalog.captions import Key
from indexer.catalog.library import add_model, next_change
from indexer.catalog.reader import last_change
from indexer.catalog.schema import FUSED, LIVE, MISSING, OWN, SKIPPED
from indexer.catalog.schema import assets as assets_table
from indexer.catalog.schema import captions as captions_table
from indexer.catalog.schema import vectors as table
from indexer.catalog.vectors import Blobs
from tests.fakes import FakeEncoder, paint
from tests.indexer.asking import Store
from tests.indexer.catalog.conftest import AddFile


def test_kinds_follow_from_the_rest(store: Store, photos: Path, encoder: FakeEncoder) -> None:
    """`kind` is derived: computed again from nothing, it comes out the same."""
    paint(photos / "a.jpg", "red")
    (photos / "a.txt").write_text("blue")
    (photos / "b.txt").write_text("green")
    (photos / "captions.csv").write_text("image,caption\na.jpg,one\n")
    store.ingest(photos, encoder)
    (photos / "captions.csv").write_text("image,caption\na.jpg,two\n")
    store.ingest(photos, encoder)
    model = store._catalog.model()
    assert model is not None
    with store._catalog.begin() as connection:
        query = select(table.c.id, table.c.kind).order_by(table.c.id)
        kinds = connection.execute(query).all()
        connection.execute(update(table).values(kind=7))
        assert visibility.stale(connection, model) == len(kinds)
        visibility.refresh(connection)
        assert connection.execute(query).all() == kinds
    assert sorted(kind for _, kind in kinds) == [0, 0, 1, 2, 3, 3]


def blobs(number: int) -> Blobs:
    return Blobs(bytes([number]) * 8, bytes([number]) * 8)


def kinds(connection: Connection) -> dict[int, int]:
    return {row.id: row.kind for row in connection.execute(select(table.c.id, table.c.kind))}


def test_a_photo_with_its_text(connection: Connection, model: Model, add_file: AddFile) -> None:
    photo, text = add_file("a.jpg"), add_file("a.txt", "text")
    vectors.add_own(connection, model, {photo: blobs(1), text: blobs(2)})
    assert kinds(connection) == {1: IMAGE, 2: TEXT}
    captions.insert(connection, [(Key(photo, text), None)])
    assert kinds(connection) == {1: IMAGE, 2: CAPTION}  # found until it is fused
    fused.store(connection, model, {photo: blobs(3)})
    assert kinds(connection) == {1: HIDDEN, 2: CAPTION, 3: IMAGE}
    assets.mark(connection, [photo], missing=True)
    assert kinds(connection) == {1: HIDDEN, 2: TEXT, 3: HIDDEN}
    assets.mark(connection, [photo], missing=False)
    fused.drop(connection, [photo])
    assert kinds(connection) == {1: IMAGE, 2: CAPTION, 3: HIDDEN}


def test_a_text_that_speaks_of_no_photo_any_more(connection: Connection, model: Model, add_file: AddFile) -> None:
    photo, text, other = add_file("a.jpg"), add_file("a.txt", "text"), add_file("b.txt", "text")
    vectors.add_own(connection, model, {photo: blobs(1), text: blobs(2), other: blobs(3)})
    captions.insert(connection, [(Key(photo, text), None)])
    assert kinds(connection) == {1: IMAGE, 2: CAPTION, 3: TEXT}
    connection.execute(update(captions_table).values(text_asset_id=other))
    assert kinds(connection) == {1: IMAGE, 2: TEXT, 3: CAPTION}
    captions.set_live(connection, [1], False)
    assert kinds(connection) == {1: IMAGE, 2: TEXT, 3: TEXT}
    captions.set_live(connection, [1], True)
    connection.execute(delete(captions_table))
    assert kinds(connection) == {1: IMAGE, 2: TEXT, 3: TEXT}


def test_an_unchanged_state_changes_nothing(connection: Connection, model: Model, add_file: AddFile) -> None:
    vectors.add_own(connection, model, {add_file("a.jpg"): blobs(1)})
    before = last_change(connection)
    connection.execute(update(assets_table).values(state=LIVE, seen_at=func.current_timestamp()))
    assert last_change(connection) == before


class Walk:
    """One statement after another on rows of every kind, by chance."""

    def __init__(self, connection: Connection, model: Model, add_file: AddFile, chance: random.Random) -> None:
        self.connection = connection
        self.chance = chance
        self.models = [model, add_model(connection, FakeEncoder("other", seed=1))]
        self.photos = [add_file(f"{number}.jpg") for number in range(4)]
        self.texts = [add_file(f"{number}.txt", "text") for number in range(4)]
        self.steps = [
            self.state,
            self.modality,
            self.new_caption,
            self.caption_is_live,
            self.caption_of_another,
            self.no_caption,
            self.new_own,
            self.new_fused,
            self.without_mu,
            self.with_mu,
            self.no_vector,
        ]

    def state(self) -> None:
        state = self.chance.choice((LIVE, LIVE, LIVE, MISSING, SKIPPED))
        self.connection.execute(update(assets_table).where(assets_table.c.id == self.asset()).values(state=state))

    def modality(self) -> None:
        asset_id = self.asset()
        usual, other = ("image", "text") if asset_id in self.photos else ("text", "image")
        modality = self.chance.choice((usual, usual, usual, other))
        self.connection.execute(update(assets_table).where(assets_table.c.id == asset_id).values(modality=modality))

    def new_caption(self) -> None:
        photo = self.chance.choice(self.photos)
        source = Key(photo, self.chance.choice(self.texts)), Key(photo, None, "captions.csv", b"words")
        captions.insert(self.connection, [(self.chance.choice(source), "words")])

    def caption_is_live(self) -> None:
        captions.set_live(self.connection, [self.any_of(captions_table)], self.chance.random() < 0.5)

    def caption_of_another(self) -> None:
        mine = captions_table.c.id == self.any_of(captions_table)
        text = self.chance.choice((None, *self.texts))
        self.connection.execute(update(captions_table).where(mine).values(text_asset_id=text))

    def no_caption(self) -> None:
        doomed = self.any_of(captions_table)
        self.connection.execute(delete(table).where(table.c.caption_id == doomed))
        self.connection.execute(delete(captions_table).where(captions_table.c.id == doomed))

    def new_own(self) -> None:
        caption_id = self.chance.choice((None, self.any_of(captions_table))) or None
        self.insert(OWN, self.asset(), caption_id)

    def new_fused(self) -> None:
        self.insert(FUSED, self.chance.choice(self.photos), None)

    def without_mu(self) -> None:
        self.set_mu(None)

    def with_mu(self) -> None:
        self.set_mu(b"mu")

    def no_vector(self) -> None:
        self.connection.execute(delete(table).where(table.c.id == self.any_of(table)))

    def asset(self) -> int:
        return self.chance.choice(self.photos + self.texts)

    def any_of(self, rows_of: object) -> int:
        """The id of any row; 0 where there is none."""
        column = rows_of.c.id  # type: ignore[attr-defined]
        ids = self.connection.scalars(select(column).order_by(column)).all()
        return self.chance.choice(ids) if ids else 0

    def insert(self, role: str, asset_id: int, caption_id: int | None) -> None:
        change = next_change(self.connection)
        values = {"model_id": self.chance.choice(self.models).id, "asset_id": asset_id, "caption_id": caption_id}
        mu = self.chance.choice((b"mu", b"mu", None))
        self.connection.execute(insert(table).values(values | {"role": role, "change": change, "mu": mu}))

    def set_mu(self, mu: bytes | None) -> None:
        change = next_change(self.connection)
        self.connection.execute(update(table).where(table.c.id == self.any_of(table)).values(mu=mu, change=change))


@pytest.mark.parametrize("seed", range(4))
def test_after_every_statement_every_kind_is_right_and_readers_learn_of_it(
    connection: Connection, model: Model, add_file: AddFile, seed: int
) -> None:
    walk = Walk(connection, model, add_file, random.Random(seed))
    seen: set[int] = set()
    for _ in range(400):
        before, change = kinds(connection), last_change(connection)
        step = walk.chance.choice(walk.steps)
        step()
        assert [visibility.stale(connection, model) for model in walk.models] == [0, 0], step.__name__
        found = connection.execute(select(table.c.id, table.c.kind, table.c.change)).all()
        for number, kind, changed in found:
            assert kind == before.get(number, HIDDEN) or changed > change, step.__name__
        assert max((row.change for row in found), default=0) <= last_change(connection)
        seen |= {row.kind for row in found}
    assert seen == {HIDDEN, IMAGE, TEXT, CAPTION}
