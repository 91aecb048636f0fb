"""Who searches while another process writes, is killed, or switches the model: every answer is that of one moment."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from indexer.base.errors import ModelMismatch
from indexer.catalog.database import Catalog
from tests.fakes import FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.crashing import Work, exit_code, ingest, reencode, start
from tests.indexer.folders import change, fill

Answer = tuple[tuple[object, ...], ...]
QUERY = np.random.default_rng(3).standard_normal(16).astype(np.float32)


def ask(store: Store, encoder: FakeEncoder) -> Answer:
    hits = store.search(QUERY, 99, fingerprint=encoder.fingerprint)
    return tuple(sorted((str(hit.path), hit.score, hit.text or "") for hit in hits))


@contextmanager
def recorded_answers(library: Path, encoder: FakeEncoder, patch: pytest.MonkeyPatch) -> Iterator[set[Answer]]:
    """What a search answers after every commit of what runs in this block."""
    answers: set[Answer] = set()
    real = Catalog.begin
    busy = [False]

    @contextmanager
    def begin(self: Catalog) -> Iterator[Connection]:
        with real(self) as connection:
            yield connection
        if not busy[0]:
            busy[0] = True
            with Store.open(library) as store:
                answers.add(ask(store, encoder))
            busy[0] = False

    with patch.context() as inner:
        inner.setattr("indexer.ingest.batches.COMMIT_S", 1e9)
        inner.setattr(Catalog, "begin", begin)
        yield answers


def test_every_answer_during_runs_that_are_killed_is_of_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, first, library = tmp_path / "photos", tmp_path / "first", tmp_path / "library"
    encoder = FakeEncoder()
    fill(photos)
    ingest(first, photos, encoder)
    change(photos, captions=True)
    shutil.copytree(first, library)
    with recorded_answers(library, encoder, monkeypatch) as allowed:
        ingest(library, photos, encoder)
    with Store.open(library) as store:
        final = ask(store, encoder)
    assert final in allowed
    seen: set[Answer] = set()
    dice = random.Random(2)
    for number in range(5):
        shutil.rmtree(library)
        shutil.copytree(first, library)
        process = start(ingest, library, photos, FakeEncoder(delay_s=0.05))
        end_s = time.monotonic() + (dice.uniform(0.1, 0.6) if number else 60)
        with Store.open(library) as store:
            while process.is_alive() and time.monotonic() < end_s:
                seen.add(ask(store, encoder))
            process.kill()
            exit_code(process)
            seen.add(ask(store, encoder))
        with Store.open(library) as store:
            seen.add(ask(store, encoder))
    assert seen <= allowed
    assert len(seen) > 2
    assert final in seen


@pytest.mark.parametrize("work", [reencode])
def test_a_reader_is_told_that_the_model_was_switched(tmp_path: Path, work: Work) -> None:
    photos, library = tmp_path / "photos", tmp_path / "library"
    fill(photos)
    old = FakeEncoder()
    ingest(library, photos, old)
    with Store.open(library) as store:
        before = ask(store, old)
        process = start(work, library, photos, FakeEncoder(seed=1, delay_s=0.02))
        told = False
        while not told:
            try:
                assert ask(store, old) == before
            except ModelMismatch:
                told = True
        assert exit_code(process) == 0


def test_a_switch_between_two_steps_of_a_search_is_no_empty_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, library = tmp_path / "photos", tmp_path / "library"
    fill(photos)
    old = FakeEncoder()
    ingest(library, photos, old)
    with Store.open(library) as store:
        assert ask(store, old)
        model = store._catalog.model()
        reencode(library, photos, FakeEncoder(seed=1))
        monkeypatch.setattr(store._catalog, "model", lambda: model)  # as it was when the search began
        with pytest.raises(ModelMismatch):
            ask(store, old)
