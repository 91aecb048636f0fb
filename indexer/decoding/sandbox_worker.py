"""The worker process of `sandbox.py`: decodes one file after another within limits of time and memory.

In: lines of JSON on stdin, `{"path", "pixels"}`. Out: for each a line of JSON on stdout, then the RGB pixels of its
frames. It ends when its input is closed. It reads and writes nothing else and loads no model. Next: `decode.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from typing import Any, BinaryIO, Final

from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import decode_image, read_metadata
from indexer.decoding.sandbox import metadata_to_json

SPARE_S: Final = 70  # the run kills a slow worker; after this much more, the run itself must be gone


def main() -> None:
    """Serve stdin. The argument is JSON: `side_px`, `timeout_s`, `memory_bytes`."""
    options = json.loads(sys.argv[1])
    _set_limits(options["memory_bytes"])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints must not get between the pixels
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        _set_timer(options["timeout_s"] + SPARE_S)
        _answer(json.loads(line), options["side_px"], answers)
        _set_timer(0)


def _answer(request: dict[str, Any], side_px: int, answers: BinaryIO) -> None:
    frames: tuple[Image.Image, ...] = ()
    try:
        with open(request["path"], "rb") as file:
            if request["pixels"]:
                picture = decode_image(file, side_px=side_px)
                frames = (picture.image, *picture.later)
                answer: dict[str, Any] = {"metadata": metadata_to_json(picture.metadata)}
                answer |= {"size": (picture.width_px, picture.height_px), "frames": [frame.size for frame in frames]}
                answer |= {"times_s": picture.times_s}
            else:
                answer = {"metadata": metadata_to_json(read_metadata(file))}
    except DecodeError as error:
        answer = {"error": str(error)}
    except OSError as error:
        answer = {"error": f"cannot be read ({error.strerror or error})"}
    answers.write(json.dumps(answer).encode() + b"\n")
    for frame in frames:
        answers.write(frame.tobytes())
    answers.flush()


def _set_timer(seconds: float) -> None:
    """End this process by a signal after `seconds`; 0 stops the timer."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _set_limits(memory_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        for what, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):  # macOS has no limit on address space
                resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
