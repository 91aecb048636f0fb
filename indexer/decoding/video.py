"""Read a video by up to 16 keyframes spread over its length, each with its time. Needs PyAV, the extra `[video]`.

In: an open file. Out: frames with seconds, and the metadata of the container. Only keyframes are decoded, after a seek
to each, so the time depends on their number and not on the video's length. Next: `decode.py`, which makes a `Picture`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.metadata import Metadata, clean, place

KEYFRAME_LIMIT: Final = 16
SECONDS_PER_KEYFRAME: Final = 4.0


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One frame, upright RGB, and its seconds from the beginning."""

    image: Image.Image
    time_s: float


def keyframes(file: BinaryIO, *, side_px: int, pixel_limit: int) -> tuple[list[Keyframe], tuple[int, int], Metadata]:
    """Up to `KEYFRAME_LIMIT` frames scaled to about twice `side_px`, the video's (width, height), and its metadata.

    Raises: DecodeError when it has no picture; any exception of PyAV when it is broken.
    """
    import av  # an extra, and slow to import

    with av.open(file, metadata_errors="replace") as container:
        if not container.streams.video:
            raise DecodeError("a video without pictures")
        stream: Any = container.streams.video[0]
        width_px, height_px = stream.codec_context.width, stream.codec_context.height
        if width_px * height_px > pixel_limit:
            raise DecodeError(f"too large: {width_px:,} x {height_px:,} pixels")
        stream.codec_context.skip_frame = "NONKEY"
        found: dict[int, Keyframe] = {}
        for frame in _spread(container, stream):
            if frame.pts not in found and len(found) < KEYFRAME_LIMIT:
                found[frame.pts] = Keyframe(_upright(frame, side_px), max(0.0, float(frame.time or 0.0)))
                if frame.rotation % 180:
                    width_px, height_px = stream.codec_context.height, stream.codec_context.width
        if not found:
            raise DecodeError("a video without a frame that can be decoded")
        in_order = sorted(found.values(), key=lambda one: one.time_s)
        return in_order, (width_px, height_px), _metadata({**stream.metadata, **container.metadata})


def _spread(container: Any, stream: Any) -> Iterator[Any]:
    """Keyframes at even distances; the first ones where the length is unknown."""
    duration_s = (container.duration or 0) / 1_000_000
    count = min(KEYFRAME_LIMIT, 1 + int(duration_s / SECONDS_PER_KEYFRAME))
    if duration_s <= 0:
        for number, frame in enumerate(container.decode(stream)):
            yield frame
            if number + 1 >= KEYFRAME_LIMIT:
                return
    for number in range(count if duration_s > 0 else 0):
        middle_s = duration_s * (number + 0.5) / count  # of its share of the video; the very first frame is often black
        with contextlib.suppress(OSError, StopIteration):  # errors of PyAV are OSErrors; other frames may be fine
            container.seek(int(middle_s / stream.time_base) + (stream.start_time or 0), stream=stream)
            yield next(container.decode(stream))


def _upright(frame: Any, side_px: int) -> Image.Image:
    scale = max(1.0, min(frame.width, frame.height) / (2 * side_px))
    small = frame.reformat(width=round(frame.width / scale), height=round(frame.height / scale), format="rgb24")
    image: Image.Image = small.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _metadata(tags: dict[str, str]) -> Metadata:
    """What phones write: a time in UTC, a place by ISO 6709 (`+47.3750+008.5500/`), a maker."""
    apple = "com.apple.quicktime."
    where = re.match(
        r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)", tags.get(f"{apple}location.ISO6709") or tags.get("location", "")
    )
    found = place(float(where[1]), float(where[2])) if where else None
    taken_at = None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(tags.get(f"{apple}creationdate") or tags.get("creation_time", ""))
        local = f"{apple}creationdate" in tags  # with the zone it was taken in; the other tag is UTC
        taken_at = (moment if local else moment.astimezone(UTC)).replace(tzinfo=None, microsecond=0)
    camera = " ".join(part for part in (tags.get(f"{apple}make"), tags.get(f"{apple}model")) if part)
    if taken_at is not None and taken_at.year <= 1970:  # a clock that was never set
        taken_at = None
    return Metadata(
        taken_at=taken_at,
        camera=clean(camera),
        latitude_deg=found[0] if found else None,
        longitude_deg=found[1] if found else None,
        title=clean(tags.get("title")),
        description=clean(tags.get("description") or tags.get("comment")),
    )
