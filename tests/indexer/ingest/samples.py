"""Sample files with metadata, and what a library says of them, for the tests of ingest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexer.base.types import IndexReport, Posterior
from indexer.catalog.hits import StoredHit
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.asking import Store

TAKEOUT: dict[str, Any] = {
    "title": "a.jpg",
    "description": "a blue whale",
    "photoTakenTime": {"timestamp": "1562389443", "formatted": "..."},
    "geoData": {"latitude": 47.5, "longitude": 8.25, "altitude": 400.0},
    "people": [{"name": "Anna"}, {"name": "Ben"}],
}


def painted(path: Path, title: str | None = None, *, seed: int = 1) -> Path:
    """A picture with EXIF, and with a title where one is given."""
    paint(path, "red", seed=seed)
    exif = Image.Exif()
    exif[0x010E], exif[0x0110] = title or "SONY DSC", "X100"
    with Image.open(path) as image:
        image.save(path, exif=exif)
    return path


def hits(store: Store, encoder: FakeEncoder, text: str, within: Any = None) -> list[StoredHit]:
    query = encoder.embed_texts([text]).mu[0]
    return store.search(query, 20, fingerprint=encoder.fingerprint, within=within)


def said(store: Store, encoder: FakeEncoder) -> list[tuple[str, str | None]]:
    return sorted((hit.path.name, hit.text) for hit in hits(store, encoder, "a", "text"))


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    with store._catalog.begin() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def counts(report: IndexReport) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: int(str(value)) for name, value in report.to_dict().items() if value and name != "seconds"}


def found(store: Store, encoder: FakeEncoder, words: str = "red", **options: object) -> list[str]:
    query = encoder.embed_texts([words]).mu[0]
    return [hit.path.name for hit in store.search(query, 100, fingerprint=encoder.fingerprint, **options)]


def found_with_text(
    store: Store, encoder: FakeEncoder, words: str, within: str | None = None
) -> list[tuple[str, str, str | None]]:
    query = FakeEncoder().embed_texts([words]).mu[0]
    hits = store.search(query, 100, fingerprint=encoder.fingerprint, within=within)
    return [(hit.path.name, hit.modality, hit.text) for hit in hits]


def half(posterior: Posterior) -> Posterior:
    """What a posterior is after it was stored."""
    return Posterior(*(part.astype(np.float16).astype(np.float32) for part in (posterior.mu, posterior.logvar)))


def joint(encoder: FakeEncoder, image: Posterior, *texts: Posterior) -> Posterior:
    """The product of the experts, the captions' means as long as the photo's."""
    length = np.linalg.norm(image.mu)
    return encoder.fuse([image, *(Posterior(t.mu * (length / np.linalg.norm(t.mu)), t.logvar) for t in texts)])


def fill(photos: Path, count: int = 5) -> None:
    for number in range(count):
        paint(photos / f"p{number}.jpg", "red", seed=number)


def animation(path: Path, *colours: str) -> Path:
    frames = [Image.new("RGB", (40, 40), COLOURS[colour]) for colour in colours]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    return path
