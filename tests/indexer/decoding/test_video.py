"""Videos: keyframes with their times, what the container says, and hits that name the moment."""

from __future__ import annotations

import io
import shutil
from datetime import datetime
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import decode_image
from indexer.decoding.video import KEYFRAME_LIMIT, keyframes
from indexer.files import kinds
from indexer.files.kinds import role_of
from indexer.store import Store
from tests.fakes import COLOURS, FakeEncoder, paint
from tests.indexer.ingest.samples import hits, said

TOLERANCE = 6  # of a flat colour through YUV 4:2:0 in video range, whose steps are 255/219 wide


def film(*colours: str, seconds_each: int = 8, form: str = "mp4", codec: str = "mpeg4", **metadata: str) -> bytes:
    """A video of flat colours, two frames and one keyframe a second."""
    buffer = io.BytesIO()
    options = {"movflags": "use_metadata_tags"} if form in ("mp4", "mov") else {}
    with av.open(buffer, "w", format=form, options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=2)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 2
        for colour in colours:
            for _ in range(2 * seconds_each):
                frame = av.VideoFrame.from_image(Image.new("RGB", (96, 64), COLOURS[colour]))
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "mpeg4"), ("mov", "mjpeg"), ("matroska", "mpeg4"), ("avi", "mpeg4")]
)
def test_keyframes_and_their_times(form: str, codec: str) -> None:
    data = film("red", "green", "blue", form=form, codec=codec) if codec == "mpeg4" else film_of_stills()
    picture = decode_image(io.BytesIO(data), side_px=16)
    assert (picture.width_px, picture.height_px) == (96, 64)
    assert picture.image.size == (48, 32)
    frames = (picture.image, *picture.later)
    assert len(frames) == len(picture.times_s) == 7  # one in four seconds, and one
    assert list(picture.times_s) == sorted(picture.times_s)
    for frame, time_s in zip(frames, picture.times_s, strict=True):
        wanted = COLOURS[("red", "green", "blue")[int(time_s // 8)]]
        assert np.abs(np.array(frame.getpixel((24, 16)), int) - wanted).max() <= TOLERANCE, time_s


def film_of_stills() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as container:
        stream = container.add_stream("mjpeg", rate=2)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(48):
            colour = COLOURS[("red", "green", "blue")[number // 16]]
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (96, 64), colour))))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_a_long_video_has_no_more_than_so_many() -> None:
    frames, _, _ = keyframes(io.BytesIO(film("red", "blue", seconds_each=60)), side_px=16, pixel_limit=10_000)
    assert len(frames) == KEYFRAME_LIMIT
    assert frames[0].time_s < 5
    assert frames[-1].time_s > 110


def test_what_a_video_says() -> None:
    data = film(
        "red", creation_time="2020-01-02T03:04:05Z", location="+47.3750+008.5500/", title="a swim", seconds_each=2
    )
    metadata = decode_image(io.BytesIO(data), side_px=16).metadata
    assert metadata.taken_at == datetime(2020, 1, 2, 3, 4, 5)
    assert (metadata.latitude_deg, metadata.longitude_deg, metadata.title) == (47.375, 8.55, "a swim")


@pytest.mark.parametrize("keep", [40, 400, 0.5, 0.9])
def test_broken_videos_decode_or_give_a_reason(keep: float) -> None:
    data = film("red", seconds_each=4)
    cut = data[: int(keep if keep > 1 else keep * len(data))]
    try:
        reason = "" if decode_image(io.BytesIO(cut), side_px=16).image else "none"
    except DecodeError as error:
        reason = str(error)
    assert "\n" not in reason
    with pytest.raises(DecodeError, match="too large"):
        decode_image(io.BytesIO(data), side_px=16, pixel_limit=96 * 64 - 1)


def test_hits_name_the_moment(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    (photos / "film.mp4").write_bytes(film("red", "green", "blue", title="my swim"))
    paint(photos / "yellow.png", "yellow")
    assert store.ingest(photos, encoder).skipped == 0

    def moment(colour: str, name: str = "film.mp4") -> float | None:
        return next(hit.time_s for hit in hits(store, encoder, colour, "image") if hit.path.name == name)

    assert [int((moment(colour) or 0) // 8) for colour in ("red", "green", "blue")] == [0, 1, 2]
    assert moment("yellow", "yellow.png") is None
    assert said(store, encoder) == [("film.mp4", "my swim")]
    shutil.copy(photos / "film.mp4", photos / "copy.mp4")
    (photos / "film.mp4").rename(photos / "moved.mp4")
    assert store.ingest(photos, encoder).encoded == 0
    for name in ("copy.mp4", "moved.mp4"):
        assert int((moment("blue", name) or 0) // 8) == 2
    (photos / "moved.mp4").write_bytes(film("blue", "red"))
    store.ingest(photos, encoder)
    assert int((moment("blue", "moved.mp4") or 0) // 8) == 0
    encoder = FakeEncoder(seed=1)
    store.rebuild(encoder)
    assert int((moment("blue", "copy.mp4") or 0) // 8) == 2
    with store._catalog.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(DISTINCT model_id) FROM frames").scalar_one() == 1


def test_without_the_extra_videos_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert role_of("a.MP4") == "image"
    monkeypatch.setattr(kinds, "_reads_video", lambda: False)
    assert role_of("a.mp4") is None
    monkeypatch.setattr(kinds, "has_extra", lambda name: False)
    with pytest.raises(DecodeError, match=r"video needs an extra: pip install 'mmsearch\[video\]'$"):
        decode_image(io.BytesIO(film("red", seconds_each=1)), side_px=16)
