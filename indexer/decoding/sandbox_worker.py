"""The worker process of `sandbox.py`: decodes one file after another within limits of time and memory.

In: requests `{"path", "pixels"}`. Out: for each what was found in the file, then the RGB pixels of its frames. It ends
when its input is closed. It reads and writes nothing else and loads no model. Next: `decode.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from indexer.base.disk_errors import is_failing
from indexer.base.errors import DecodeError
from indexer.base.worker import Message, serve
from indexer.decoding.decode import decode_image, read_metadata
from indexer.decoding.sandbox import metadata_to_json


def main() -> None:
    """Serve stdin. The argument is JSON: `side_px`, `timeout_s`, `memory_bytes`."""
    serve(_answer)


def _answer(request: Message, options: Message) -> tuple[Message, Sequence[bytes]]:
    try:
        with open(request["path"], "rb") as file:
            if not request["pixels"]:
                return {"metadata": metadata_to_json(read_metadata(file))}, ()
            picture = decode_image(file, side_px=options["side_px"])
    except DecodeError as error:
        return {"error": str(error)}, ()
    except OSError as error:
        return {"error": f"cannot be read ({error.strerror or error})", "is_postponed": is_failing(error)}, ()
    frames = (picture.image, *picture.later)
    answer: Message = {"metadata": metadata_to_json(picture.metadata), "size": (picture.width_px, picture.height_px)}
    answer |= {"frames": [frame.size for frame in frames], "times_s": picture.times_s}
    return answer, [frame.tobytes() for frame in frames]


if __name__ == "__main__":
    main()
