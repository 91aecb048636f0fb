"""A video by some of its keyframes, spread over its length, each with its time. Needs PyAV, the extra `[video]`.

In: an open file. Out: frames and seconds, and what the container says of itself. Keyframes alone are decoded, after a
seek to each: the time follows their number and not the length. Next: `decode.py`, which makes a `Picture` of them.
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

KEYFRAMES: Final = 16  # of one video at most
SECONDS_EACH: Final = 4.0  # a video of 20 seconds has five


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One frame, upright RGB, and its seconds from the beginning."""

    image: Image.Image
    time_s: float


def keyframes(file: BinaryIO, *, side_px: int, pixel_limit: int) -> tuple[list[Keyframe], tuple[int, int], Metadata]:
    """Up to `KEYFRAMES` frames scaled to about twice `side_px`, the video's (width, height), and what it says.

    Raises: DecodeError without a picture in it; whatever PyAV raises for what is broken.
    """
    import av  # an extra, and large

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
            if frame.pts not in found and len(found) < KEYFRAMES:
                found[frame.pts] = Keyframe(_upright(frame, side_px), max(0.0, float(frame.time or 0.0)))
                if frame.rotation % 180:
                    width_px, height_px = stream.codec_context.height, stream.codec_context.width
        if not found:
            raise DecodeError("a video without a frame that can be decoded")
        in_order = sorted(found.values(), key=lambda one: one.time_s)
        return in_order, (width_px, height_px), _metadata({**stream.metadata, **container.metadata})


def _spread(container: Any, stream: Any) -> Iterator[Any]:
    """Keyframes at even distances; without a length, or where seeking fails, the first ones."""
    duration_s = (container.duration or 0) / 1_000_000
    count = min(KEYFRAMES, 1 + int(duration_s / SECONDS_EACH))
    if duration_s <= 0:
        for number, frame in enumerate(container.decode(stream)):
            yield frame
            if number + 1 >= KEYFRAMES:
                return
    for number in range(count if duration_s > 0 else 0):
        middle_s = duration_s * (number + 0.5) / count  # of its share; a first frame is black too often
        with contextlib.suppress(OSError, StopIteration):  # av's errors are OSErrors; the other frames may do
            container.seek(int(middle_s / stream.time_base) + (stream.start_time or 0), stream=stream)
            yield next(container.decode(stream))


def _upright(frame: Any, side_px: int) -> Image.Image:
    scale = max(1.0, min(frame.width, frame.height) / (2 * side_px))
    small = frame.reformat(width=round(frame.width / scale), height=round(frame.height / scale), format="rgb24")
    image: Image.Image = small.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _metadata(said: dict[str, str]) -> Metadata:
    """What phones write: a time in UTC, a place by ISO 6709 (`+47.3750+008.5500/`), a maker."""
    apple = "com.apple.quicktime."
    where = re.match(
        r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)", said.get(f"{apple}location.ISO6709") or said.get("location", "")
    )
    found = place(float(where[1]), float(where[2])) if where else None
    taken_at = None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(said.get(f"{apple}creationdate") or said.get("creation_time", ""))
        local = f"{apple}creationdate" in said  # with the zone it was taken in; the other is UTC
        taken_at = (moment if local else moment.astimezone(UTC)).replace(tzinfo=None, microsecond=0)
    camera = " ".join(part for part in (said.get(f"{apple}make"), said.get(f"{apple}model")) if part)
    if taken_at is not None and taken_at.year <= 1970:  # a clock that was never set
        taken_at = None
    return Metadata(
        taken_at=taken_at,
        camera=clean(camera),
        latitude_deg=found[0] if found else None,
        longitude_deg=found[1] if found else None,
        title=clean(said.get("title")),
        description=clean(said.get("description") or said.get("comment")),
    )
