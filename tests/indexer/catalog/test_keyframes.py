"""The keyframes of videos: written, copied, forgotten, and checked against the video's own vector."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import Connection

from indexer.base.types import Model
from indexer.catalog import keyframes, vectors
from indexer.catalog.library import add_model
from tests.fakes import FakeEncoder
from tests.indexer.catalog.conftest import AddFile


def half(*values: float) -> bytes:
    return np.array(values, np.float16).tobytes()


def test_keyframes_are_replaced_and_come_by_time(connection: Connection, model: Model, add_file: AddFile) -> None:
    video, photo = add_file("a.mp4"), add_file("b.jpg")
    keyframes.write(connection, model.id, {video: ((4000, half(1, 0, 0, 0)), (0, half(0, 1, 0, 0))), photo: ()})
    assert keyframes.of_asset(connection, model.id, video) == ((0, half(0, 1, 0, 0)), (4000, half(1, 0, 0, 0)))
    assert keyframes.of_asset(connection, model.id, photo) == ()
    keyframes.write(connection, model.id, {video: ((9, half(0, 0, 1, 0)),)})
    assert keyframes.of_asset(connection, model.id, video) == ((9, half(0, 0, 1, 0)),)


def test_only_the_keyframes_of_other_models_are_dropped(
    connection: Connection, model: Model, add_file: AddFile
) -> None:
    other = add_model(connection, FakeEncoder(seed=1, dim=4))
    first, second = add_file("a.mp4"), add_file("b.mp4")
    for one in (model, other):
        keyframes.write(connection, one.id, {first: ((1, half(1, 1, 1, 1)),), second: ((2, half(2, 2, 2, 2)),)})
    keyframes.drop_others(connection, model.id, [first])
    assert keyframes.of_asset(connection, other.id, first) == ()
    assert len(keyframes.of_asset(connection, other.id, second)) == 1
    assert len(keyframes.of_asset(connection, model.id, first)) == 1


@pytest.mark.parametrize(
    ("own", "fits"),
    [
        (half(0.5, 0.5, 0, 0), True),
        (half(0.5005, 0.4995, 0, 0), True),  # to rounding
        (half(0.6, 0.5, 0, 0), False),
        (half(float("nan"), 0.5, 0, 0), False),
        (half(0.5, 0.5), False),  # of another length
    ],
)
def test_a_videos_own_vector_is_the_mean_of_its_keyframes(
    connection: Connection, model: Model, add_file: AddFile, own: bytes, fits: bool
) -> None:
    video, photo = add_file("a.mp4"), add_file("b.jpg")
    moments = ((0, half(1, 0, 0, 0)), (4000, half(0, 1, 0, 0)))
    vectors.add_own(connection, model, {video: vectors.Blobs(own, half(0, 0, 0, 0), moments)})
    vectors.add_own(connection, model, {photo: vectors.Blobs(half(9, 9, 9, 9), half(0, 0, 0, 0))})
    count, unfit = keyframes.unfit(connection, model)
    assert count == 1
    assert bool(unfit) != fits
