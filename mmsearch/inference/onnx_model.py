"""A trained model on ONNX Runtime, the CPU path: sessions open when first needed, a query for words opens none.

In: a model folder. Out: posteriors. Pictures run through the image graph, long lists of texts through the text graph,
one or two texts through `minilm_numpy.py`. Without torch. Next: `preprocess.py`, `minilm_numpy.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.base.profile import cores
from indexer.base.types import Modality, Posterior, UInt8Array
from indexer.search.query_bank import QueryBank
from mmsearch.errors import CheckpointError
from mmsearch.inference import posterior
from mmsearch.inference.preprocess import square
from mmsearch.inference.query_bank import load_bank
from mmsearch.models.digest import WEIGHTS, check_file
from mmsearch.models.files import read_file

if TYPE_CHECKING:  # a search for words decodes nothing, and runs nothing in threads
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    from mmsearch.inference.minilm_numpy import NumpyTextEncoder

MAX_TEXTS_IN_NUMPY = 2  # a query needs no session, which takes far longer to open than numpy to encode
ROWS_PER_RUN: Final = 4  # pictures cost the same one by one as 32 at once, and the cores end nearly together
_VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})


class OnnxModel:
    """A trained model on ONNX Runtime. Sessions are opened when first needed: a text query never loads the trunk."""

    fuse = staticmethod(posterior.product_of_experts)
    embed_images = posterior.embed_images
    embed_texts = posterior.embed_texts

    def __init__(self, name: str, folder: Path, described: dict[str, Any]) -> None:
        self.name, self.folder, self._described = name, folder, described
        self.fingerprint = str(described["fingerprint"])
        self.dim = int(described["architecture"]["latent_dim"])
        self.side_px = int(described["architecture"]["side_px"])
        self._sessions: dict[str, Any] = {}
        self._tokenizer: Any = None
        self._numpy: NumpyTextEncoder | None = None
        self._banks: dict[Modality, QueryBank | None] = {}
        self._cores = cores()
        self._pool: ThreadPoolExecutor | None = None

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        """One upright picture -> uint8 `[side_px, side_px, 3]`."""
        return square(image, self.side_px)

    def encode_images(self, batch: UInt8Array) -> Posterior:
        """uint8 `[n, side_px, side_px, 3]` -> posteriors `[n, d]`."""
        with posterior.one_line_for(self.name):
            return self._run("image", {"pixels": batch})

    def encode_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`; longer texts are cut at the model's `max_tokens`."""
        if self._tokenizer is None:
            check_file(self.folder / "tokenizer.json", self._described)
            self._tokenizer = _tokenizer(self.folder, int(self._described["architecture"]["max_tokens"]))
        with posterior.one_line_for(self.name):
            return self._encoded(texts)

    def _encoded(self, texts: Sequence[str]) -> Posterior:
        ids = np.array([e.ids for e in self._tokenizer.encode_batch(list(texts))], np.int64)  # [n, t]
        if len(texts) <= MAX_TEXTS_IN_NUMPY and self._described["architecture"].get("kind") == "pretrained":
            return self._in_numpy(ids)
        return self._run("text", {"ids": ids})

    def query_bank(self, modality: Modality) -> QueryBank | None:
        """The queries it was trained with, which scores are corrected by; None where its folder has none."""
        if modality not in self._banks:
            self._banks[modality] = load_bank(self.folder, self._described, modality)
        return self._banks[modality]

    def _in_numpy(self, ids: NDArray[np.int64]) -> Posterior:
        from mmsearch.inference.minilm_numpy import NumpyTextEncoder

        if self._numpy is None:
            check_file(self.folder / WEIGHTS, self._described)
            self._numpy = NumpyTextEncoder(self.folder / "model.safetensors")
        return self._numpy.encode(ids)

    def _run(self, modality: str, rows: dict[str, NDArray[Any]]) -> Posterior:
        """Run a graph on its one input `[n, ...]`, a few rows at a time, on every core.

        Each run has one thread. Threads of ONNX Runtime's own share a single run, wait for one another at every layer
        and keep their cores busy while they do: beside the threads that decode, that cost half as much again.
        """
        session, ((name, batch),) = self._session(modality), rows.items()
        size = max(1, min(ROWS_PER_RUN, -(-len(batch) // self._cores)))
        parts = [batch[start : start + size] for start in range(0, max(1, len(batch)), size)]
        if len(parts) == 1:
            return Posterior(*session.run(None, {name: batch}))
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="encode")
        done = list(self._pool.map(lambda part: session.run(None, {name: part}), parts))
        return Posterior(*(np.concatenate(both) for both in zip(*done, strict=True)))

    def _session(self, modality: str) -> Any:
        if modality not in self._sessions:
            graph = _graph(self.folder, modality)
            check_file(graph, self._described)
            if not self._sessions and self._numpy is None:  # once: ONNX Runtime would read any bytes as weights
                check_file(self.folder / WEIGHTS, self._described)
            self._sessions[modality] = _open_session(graph)
        return self._sessions[modality]


def _graph(folder: Path, modality: str) -> Path:
    """The graph to run: in int8 arithmetic where the folder has one and the processor multiplies bytes, else float32.

    Both read the same weights. Without those instructions int8 gains little, and older x86 processors add byte
    products with saturation, which spoils the vectors.
    """
    fast = folder / f"{modality}-int8.onnx"
    return fast if fast.exists() and multiplies_bytes() else folder / f"{modality}.onnx"


@cache
def multiplies_bytes() -> bool:
    """Whether the processor has VNNI, by Linux's account of it; elsewhere nothing was measured."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in _VNNI for line in text.splitlines() if line.startswith("flags") for flag in line.split())


def _open_session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # it would print names of the model, past our own door; errors are raised
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        first = str(error).strip().splitlines()[0][:200]
        raise CheckpointError(f"{path} cannot be loaded ({first}); copy the model again") from error


def _tokenizer(folder: Path, max_tokens: int) -> Any:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(read_file(folder, path.name).decode())
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"{path} cannot be read ({error}); copy the model again") from error
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=0)
    return tokenizer
