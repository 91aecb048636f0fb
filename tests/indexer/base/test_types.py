"""The values on the border between indexer and model."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import numpy as np
import pytest

from indexer.base.types import (
    CAPTION,
    HIDDEN,
    IMAGE,
    STAGES,
    TEXT,
    Encoder,
    IndexReport,
    Posterior,
    Profile,
    Stage,
    StageName,
)
from tests.fakes import FakeEncoder


def test_rows_of_a_posterior() -> None:
    mu = np.arange(12, dtype=np.float32).reshape(4, 3)
    posterior = Posterior(mu, -1 - mu)
    assert len(posterior) == 4
    for rows in (slice(1, 3), np.array([1, 2]), [1, 2]):
        part = posterior[rows]
        np.testing.assert_array_equal(part.mu, mu[1:3])
        np.testing.assert_array_equal(part.logvar, -1 - mu[1:3])
    assert len(posterior[np.zeros(0, np.int64)]) == 0


def test_the_fake_encoder_has_all_that_the_protocol_names() -> None:
    encoder: Encoder = FakeEncoder(dim=8, side_px=16)
    wanted = {name for name in vars(Encoder) if not name.startswith("_")}
    assert wanted == {
        "name", "fingerprint", "dim", "side_px", "prepare_image", "encode_images", "encode_texts", "fuse",
    }  # fmt: skip
    assert all(hasattr(encoder, name) for name in wanted)
    texts = encoder.encode_texts(["red", "blue"])
    assert texts.mu.shape == texts.logvar.shape == (2, encoder.dim)
    assert texts.mu.dtype == texts.logvar.dtype == np.float32
    assert (texts.logvar < 0).all()
    fused = encoder.fuse([texts, texts])
    assert (fused.logvar < texts.logvar).all(), "two experts know more than one"


def test_kinds_on_disk_keep_their_numbers() -> None:
    assert (HIDDEN, IMAGE, TEXT, CAPTION) == (0, 1, 2, 3)


def test_stages_are_those_of_the_type() -> None:
    assert get_args(StageName) == STAGES


def test_a_report_as_json() -> None:
    profile = Profile(2.0, 2, 0.5, 1.0, (Stage("scan", 3, 0.5, 1.0),))
    report = IndexReport(added=3, encoded=4, seconds=2.0, profile=profile)
    plain = report.to_dict()
    assert plain["added"] == 3
    assert plain["encoded"] == 4
    assert "profile" not in plain
    assert report.to_dict(profile=True) == {**plain, "profile": profile.to_dict()}
    assert profile.to_dict() == {
        "cores": 2, "idle": 0.5, "waited_s": 0.5,
        "stages": {"scan": {"items": 3, "seconds": 0.5, "items_per_second": 6.0, "busy": 0.25}},
    }  # fmt: skip
    assert IndexReport().to_dict(profile=True) == IndexReport().to_dict(), "a rebuild has no profile"
    with pytest.raises(FrozenInstanceError):
        report.added = 4  # type: ignore[misc]
