"""The content of a library without what may differ between two libraries of the same files: ids, times, counters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sqlalchemy import Connection, text

from indexer.search.index_files import open_index
from tests.indexer.asking import Store

QUERIES = (
    "SELECT path, pairing_due, captions_seen FROM roots",
    "SELECT rel_path, modality, state, error, size_bytes, mtime_ns, content_hash, width_px, height_px, excerpt "
    "FROM assets",
    "SELECT p.rel_path, t.rel_path, c.source, c.text, c.live FROM captions c JOIN assets p ON p.id = c.asset_id "
    "LEFT JOIN assets t ON t.id = c.text_asset_id",
    "SELECT a.rel_path, c.text, v.role, v.kind, v.mu, v.logvar, m.fingerprint FROM vectors v "
    "JOIN assets a ON a.id = v.asset_id JOIN models m ON m.id = v.model_id LEFT JOIN captions c ON c.id = v.caption_id",
    "SELECT a.rel_path, f.time_ms, f.mu, m.fingerprint FROM frames f "
    "JOIN assets a ON a.id = f.asset_id JOIN models m ON m.id = f.model_id",
    "SELECT rel_path, source, reason FROM notices",
)


def contents(library: Path) -> list[list[tuple[object, ...]]]:
    """Rows of every table, sorted, and what the index would answer."""
    with Store.open(library) as store:
        with store._catalog.begin() as connection:
            held = tables(connection)
        return [*held, answers(store)]


def tables(connection: Connection) -> list[list[tuple[object, ...]]]:
    """Rows of every table, sorted."""
    return [sorted((tuple(row) for row in connection.execute(text(query))), key=repr) for query in QUERIES]


def answers(store: Store) -> list[tuple[object, ...]]:
    """Every file with its score for a few queries, through the index file."""
    model = store._catalog.model()
    if model is None:
        return []
    _, sound = open_index(store._catalog, store.path / "vectors", model, "cpu")
    assert sound
    found: list[tuple[object, ...]] = []
    for query in np.random.default_rng(7).standard_normal((3, model.dim)).astype(np.float32):
        for within in (None, "image", "text"):
            hits = store.search(query, 1000, fingerprint=model.fingerprint, within=within)
            found += sorted((within, str(hit.path), hit.score, hit.text) for hit in hits)
    return found
