"""The first time a model folder is named, it is loaded in a process of its own, with limits on time and memory.

A folder from elsewhere may hold a graph that never ends, a tokenizer that doubles every text forty times, or sizes for
which no memory is enough. So one picture and a few texts go through it in a process that may die; only then is it
loaded here. That it was tried is remembered for this very content: it costs once. The model that ships is not tried.

In: a name and its folder. Out: nothing, or an error. Next: `trial_worker.py`, the process; `load_model.py`, which asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from indexer.base.personal import remember, remembered
from indexer.base.worker import Message, Worker, WorkerDied
from mmsearch.errors import CheckpointError, ModelError
from mmsearch.models.files import SHIPPED, digest_of

TRIALS: Final = "trials"  # the facts: digest of a folder's content -> the name under which it was tried
TIMEOUT_S: Final = 120.0  # of a busy machine; the processor time is bound by the process itself
ADDRESS_BYTES: Final = 1 << 40  # while packages are imported, which reserve much and use little; then the worker's own
WORKER: Final = ("-m", "mmsearch.inference.trial_worker")


def ensure_tried(name: str, folder: Path, backbone: str | None = None) -> None:
    """Try a model out where this user's mmsearch did not before; `backbone` is the name of the one under its heads.

    Raises:
        CheckpointError: it cannot be loaded, or not within the limits.
    """
    if folder == SHIPPED:
        return
    digest = digest_of(folder)
    if digest in remembered(TRIALS):
        return
    answer = in_process({"name": name, "folder": str(folder), "backbone": backbone})
    if "missing" in answer:
        raise ModuleNotFoundError(f"No module named {answer['missing']!r}", name=str(answer["missing"]))
    if "error" in answer:
        raise CheckpointError(str(answer["error"]))
    remember(TRIALS, digest, name)


def in_process(request: Message) -> Message:
    """The answer of a fresh `trial_worker.py`. Raises: CheckpointError where it does not answer."""
    worker = Worker(WORKER, {}, timeout_s=TIMEOUT_S, memory_bytes=ADDRESS_BYTES)
    try:
        return worker.request(request)[0]
    except WorkerDied as died:
        if died.from_outside:
            raise ModelError(
                f"model {request['name']!r} could not be tried out ({died}); run the command again"
            ) from died
        raise CheckpointError(
            f"model {request['name']!r} is not loaded: one picture and a few texts went through it in a process of its "
            f"own, and it crashed or took more time or memory than a model does ({died}); name another"
        ) from died
    finally:
        worker.close()
