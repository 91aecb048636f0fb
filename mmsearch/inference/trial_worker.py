"""The process of `trial.py`: loads a model folder for the first time, within limits, and runs it once.

In: a request `{"name", "folder", "backbone"}`. Out: its fingerprint, or what is wrong. What the folder's kind needs is
imported first; then the memory that may be added and the processor time are limited, by what its weights take.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import string
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.base.types import Posterior
from indexer.base.worker import Message, serve
from mmsearch.errors import CheckpointError, ModelError, ModelMismatch
from mmsearch.inference.folder_checks import check_tokenizer
from mmsearch.inference.load_model import find, load_found
from mmsearch.models.files import WEIGHTS_SUFFIX, files_of

CPU_S: Final = 5
MEMORY_BYTES: Final = 768 << 20
COPIES: Final = 5  # of the weights at once: the file, float32 of it, a copy in use, and the hash
WEIGHTS_BYTES_PER_S: Final = 50 << 20  # hashed, read and turned into float32 by a slow processor
MOST_SAMPLE_PX: Final = 2048
TEXTS: Final = ("a photo of a dog", string.printable, "Zwölf Boxkämpfer 12 ÄÖÜß, 日本語 العربية ½ 🙂")


def main() -> None:
    """Serve stdin."""
    serve(lambda request, _: (try_out(request), ()))


def try_out(request: Message, *, limited: bool = True) -> Message:
    """Load the model of a request and run it; `limited` binds the memory and time of this very process."""
    folder = Path(request["folder"])
    try:
        _check_size(folder)
        found = find(request["name"], folder=folder, backbone=request["backbone"])
        for name in found.packages:
            importlib.import_module(name)
        if limited:
            _limit(folder if found.backbone is None else found.backbone.folder)
        if (folder / "tokenizer.json").exists():
            check_tokenizer(folder / "tokenizer.json")
        return {"fingerprint": _run(load_found(found, "cpu"), request["name"])}
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except (ModelError, ModelMismatch) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"model {request['name']!r} needs more memory than its weights account for; name another"}
    except Exception as error:  # whatever the packages raise on what was never a model
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return {"error": f"model {request['name']!r} does not run ({first}); copy it again or name another"}


def _run(model: Any, name: str) -> str:
    if not 0 < model.side_px <= MOST_SAMPLE_PX:
        raise CheckpointError(f"model {name!r} looks at pictures of {model.side_px} pixels; name another")
    pixels = np.random.default_rng(0).integers(0, 256, (1, model.side_px, model.side_px, 3), np.uint8)
    for found, rows in (
        (model.encode_images(pixels), 1),
        (model.encode_texts(list(TEXTS)), len(TEXTS)),
        (model.encode_texts([TEXTS[0]]), 1),  # one text may go another way than several
    ):
        _check(found, (rows, model.dim), name)
    return str(model.fingerprint)


def _check(found: Posterior, shape: tuple[int, int], name: str) -> None:
    for part in (found.mu, found.logvar):
        if part.shape != shape or part.dtype != np.float32 or not np.isfinite(part).all():
            raise CheckpointError(
                f"model {name!r} gives {part.dtype} {list(part.shape)}, expected finite float32 {list(shape)}; "
                "name another"
            )


def _check_size(folder: Path) -> None:
    if not any(file.name.endswith(WEIGHTS_SUFFIX) for file in files_of(folder)):
        raise CheckpointError(f"the weights in {folder} cannot be read (no *.safetensors); copy the model again")


def _limit(folder: Path) -> None:
    """Bind this process to what a model with these weights may add to what is in use by now."""
    if sys.platform == "win32":
        return
    import resource

    weights = sum(file.stored_bytes for file in files_of(folder) if file.name.endswith(WEIGHTS_SUFFIX))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + CPU_S + weights // WEIGHTS_BYTES_PER_S
    limits = [(resource.RLIMIT_CPU, seconds, seconds + CPU_S)]  # by SIGXCPU first, which tells why
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        address = pages * resource.getpagesize() + MEMORY_BYTES + COPIES * weights
        limits.append((resource.RLIMIT_AS, address, address))
    for what, *limit in limits:
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of address space
            resource.setrlimit(what, (limit[0], limit[1]))


if __name__ == "__main__":
    main()
