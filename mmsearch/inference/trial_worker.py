"""The process of `trial.py`: loads a model folder for the first time, within limits, and runs it once.

In: a request `{"name", "folder", "backbone"}`. Out: its fingerprint, or what is wrong. The folder is looked at, then
what its kind needs is imported, then it is loaded; each with limits of its own, the last by what its weights take.
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
from mmsearch.inference.folder_checks import check_backbone_folder, check_tokenizer
from mmsearch.inference.load_model import find, load_found
from mmsearch.inference.trial import ADDRESS_BYTES
from mmsearch.models.files import WEIGHTS_SUFFIX, files_of

CPU_S: Final = 5
IMPORT_S: Final = 120  # for packages, which are trusted
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
    folder, limit = Path(request["folder"]), _limit if limited else _no_limit
    try:
        limit(CPU_S, MEMORY_BYTES)
        weights_bytes = _weights_bytes(folder)
        found = find(request["name"], folder=folder, backbone=request["backbone"])
        if found.described is None:
            check_backbone_folder(folder)
        elif (folder / "tokenizer.json").exists():
            check_tokenizer(folder / "tokenizer.json")
        limit(IMPORT_S, ADDRESS_BYTES)
        for name in found.packages:
            importlib.import_module(name)
        if found.backbone is not None:
            weights_bytes += _weights_bytes(found.backbone.folder)
        limit(CPU_S + weights_bytes // WEIGHTS_BYTES_PER_S, MEMORY_BYTES + COPIES * weights_bytes)
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


def _weights_bytes(folder: Path) -> int:
    """What the weights take on disk. Raises: CheckpointError where there are none."""
    weights = [file.stored_bytes for file in files_of(folder) if file.name.endswith(WEIGHTS_SUFFIX)]
    if not weights:
        raise CheckpointError(f"the weights in {folder} cannot be read (no *.safetensors); copy the model again")
    return sum(weights)


def _limit(seconds: int, size_bytes: int) -> None:
    """Bind this process to so much more processor time and address space than it has used by now."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime) + seconds}  # then SIGXCPU, which tells why
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + size_bytes
    for what, limit in limits.items():
        most = resource.getrlimit(what)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of address space
            resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _no_limit(seconds: int, size_bytes: int) -> None:
    """In a process that goes on afterwards."""


if __name__ == "__main__":
    main()
