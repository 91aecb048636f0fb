"""The model at run time: pictures and words in, posteriors out. ONNX Runtime on a CPU, torch on CUDA.

In: a name, a folder written by `mmsearch train`, or a sentence-transformers model. Out: a `Model`, which is the
`Encoder` of the indexer and of the query. The CPU path imports neither torch nor sentence-transformers. What was named
is first found, then tried out once (`trial.py`), then loaded; nothing here opens a socket.
Next: `onnx_model.py`, `torch_model.py`, `backbone_model.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from indexer.base.types import Encoder, Modality, Posterior
from indexer.search.query_bank import QueryBank
from mmsearch.errors import CheckpointError, ModelError, ModelNotNamed
from mmsearch.inference.known_models import DEFAULT_MODEL, known_models, label, remember_model
from mmsearch.inference.pictures import Picture
from mmsearch.inference.query_bank import load_bank
from mmsearch.models.digest import DESCRIPTION, read_description
from mmsearch.models.files import SHIPPED

PRETRAINED: Final = SHIPPED.parent
log = logging.getLogger(__name__)


class Model(Encoder, Protocol):
    """An `Encoder` that also takes files and whole lists."""

    def embed_images(self, images: Sequence[Picture]) -> Posterior:
        """Paths, PIL images or uint8 arrays -> posteriors, `mu` and `logvar` float32 `[n, d]`."""

    def embed_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors, `mu` and `logvar` float32 `[n, d]`."""


class Found(NamedTuple):
    """A model on this machine, looked at and not loaded.

    Attributes:
        name: as it was named.
        folder: where it lies.
        described: its checked `model.json`; None for a bare backbone.
        backbone: the one under its heads.
    """

    name: str
    folder: Path
    described: dict[str, Any] | None = None
    backbone: Found | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """What loading it imports that takes long."""
        if self.described is None or self.backbone is not None:
            return ("torch", "sentence_transformers", "transformers")
        return ("onnxruntime", "tokenizers") if (self.folder / "image.onnx").exists() else ("torch", "tokenizers")


def load_model(name_or_path: str | Path = DEFAULT_MODEL, device: str = "auto") -> Model:
    """Load a model that is on this machine, and remember that this user named it.

    Args:
        name_or_path: `default` (ships with the package), a folder written by `mmsearch train`, or the name of a
            sentence-transformers model that embeds both pictures and texts, such as `clip-ViT-B-32`; the latter was
            fetched by `mmsearch download` before.
        device: `auto` (CUDA where there is a GPU and torch, else the CPU), `cpu` or `cuda`.

    Raises:
        ModelError: no such model, or no such device.
        CheckpointError: a model folder that is incomplete or damaged, or more than data.
        ModelNotNamed: heads on a backbone that this user never named.
    """
    model = open_model(name_or_path, device)
    if str(name_or_path) != DEFAULT_MODEL:
        remember_model(model, name_or_path)
    return model


def open_model(name_or_path: str | Path, device: str) -> Model:
    """`load_model`, for a model that is remembered by whoever asks, or not at all."""
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"device {device!r} is not known; choose auto, cpu or cuda")
    return load_found(find_tried(str(name_or_path)), device)


def find_tried(name: str) -> Found:
    """A model, found and tried out; see `trial.py`. Raises: as `load_model`."""
    found = find(name)
    if found.folder != SHIPPED:
        from mmsearch.inference.trial import ensure_tried

        if found.backbone is not None:
            ensure_tried(found.backbone.name, found.backbone.folder)
        ensure_tried(name, found.folder, found.backbone.name if found.backbone else None)
    return found


def find(name: str, *, folder: Path | None = None, backbone: str | None = None) -> Found:
    """Where a model lies and what it is; `folder` and `backbone` where these are known. Raises: as `load_model`."""
    given = folder or (SHIPPED if name == DEFAULT_MODEL else Path(name).expanduser())
    if name == DEFAULT_MODEL or (given / DESCRIPTION).exists():
        described = read_description(given)
        if described["architecture"].get("kind") != "backbone":
            return Found(name, given, described)
        under = backbone or _backbone_of(given, described)
        return Found(name, given, described, find(under))
    if given.is_dir() and not (given / "modules.json").exists() and not (given / "config.json").exists():
        raise CheckpointError(f"no model in {given}: model.json is missing; name a folder that mmsearch train wrote")
    from mmsearch.inference.hub import place_of

    return Found(name, folder or place_of(name))


def load_found(found: Found, device: str) -> Model:
    """The model, in this process. Raises: as `load_model`."""
    if found.backbone is not None and found.described is not None:
        from mmsearch.inference.backbone_model import load_trained_backbone

        return load_trained_backbone(
            found.name, found.folder, found.described, found.backbone.name, torch_device(device)
        )
    if found.described is None:
        from mmsearch.inference.backbone_model import load_backbone

        return load_backbone(found.name, torch_device(device))
    on_gpu = device == "cuda" or (device == "auto" and _has_gpu())
    if not on_gpu and (found.folder / "image.onnx").exists():
        from mmsearch.inference.onnx_model import OnnxModel

        return OnnxModel(found.name, found.folder, found.described)
    from mmsearch.inference.torch_model import TorchModel

    return TorchModel.load(found.name, found.folder, torch_device(device))


def _backbone_of(folder: Path, described: dict[str, Any]) -> str:
    """What this user calls the backbone that heads were made on; the name in their folder is a label."""
    made_on = str(described.get("backbone_fingerprint"))
    name = known_models().get(made_on)
    if name is None:
        raise ModelNotNamed(
            f"the heads in {folder} stand on a model that was never named here, called "
            f"{label(described['architecture'].get('backbone', ''))} ({made_on[:12]}); if you trust it, name it once: "
            "'mmsearch download NAME', or its folder there"
        )
    return name


def load_query_bank(name_or_path: str | Path, fingerprint: str, modality: Modality) -> QueryBank | None:
    """The query bank in a model's folder, without the model; None where it has none, or holds other weights by now."""
    try:
        folder = SHIPPED if str(name_or_path) == DEFAULT_MODEL else Path(name_or_path).expanduser()
        described = read_description(folder)
        return load_bank(folder, described, modality) if described["fingerprint"] == fingerprint else None
    except CheckpointError as error:
        log.info("%s; scores are cosines", error)
        return None


def _has_gpu() -> bool:
    """Whether a GPU is likely there; asked before torch is imported, which takes longer than a search."""
    return Path("/proc/driver/nvidia/version").exists() and _cuda_works()


def _cuda_works() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def torch_device(device: str) -> str:
    """`auto`, `cpu` or `cuda` -> the device torch runs on.

    Raises:
        ModelError: CUDA was asked for where there is none.
    """
    if device == "cuda" and not _cuda_works():
        raise ModelError("device cuda: no GPU that torch can use; choose --device cpu")
    return "cuda" if device == "cuda" or (device == "auto" and _has_gpu()) else "cpu"
