"""The process behind `guard.py`: decodes what it is told to, one file after another, within limits, and may die of it.

In: lines of JSON on stdin, `{"path", "pixels"}`. Out: for each a line of JSON on stdout, then the pixels of its frames,
RGB. It ends when its input does. Nothing else is read or written, and no model is loaded here. Next: `decode.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from typing import Any, BinaryIO

from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import decode_image, read_metadata
from indexer.decoding.sandbox import metadata_to_json

SPARE_S = 70  # the run stops a slow worker; past this much more, the run itself is gone


def main() -> None:
    """Serve stdin. The argument is JSON: `side_px`, `timeout_s`, `memory_bytes`."""
    options = json.loads(sys.argv[1])
    _limit(options["memory_bytes"])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not speak into the pixels
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        _expect(options["timeout_s"] + SPARE_S)
        _answer(json.loads(line), options["side_px"], answers)
        _expect(0)


def _answer(request: dict[str, Any], side_px: int, answers: BinaryIO) -> None:
    frames: tuple[Image.Image, ...] = ()
    try:
        with open(request["path"], "rb") as file:
            if request["pixels"]:
                picture = decode_image(file, side_px=side_px)
                frames = (picture.image, *picture.later)
                said: dict[str, Any] = {"metadata": metadata_to_json(picture.metadata)}
                said |= {"size": (picture.width_px, picture.height_px), "frames": [frame.size for frame in frames]}
                said |= {"times_s": picture.times_s}
            else:
                said = {"metadata": metadata_to_json(read_metadata(file))}
    except DecodeError as error:
        said = {"error": str(error)}
    except OSError as error:
        said = {"error": f"cannot be read ({error.strerror or error})"}
    answers.write(json.dumps(said).encode() + b"\n")
    for frame in frames:
        answers.write(frame.tobytes())
    answers.flush()


def _expect(seconds: float) -> None:
    """End this process by a signal in so many seconds; 0 takes it back."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(memory_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        for what, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of address space
                resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
