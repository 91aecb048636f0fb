"""The model at run time: pictures and words in, posteriors out. ONNX Runtime on a CPU, torch on CUDA.

In: a name, a folder written by `mmsearch train`, or a sentence-transformers model. Out: a `Model`, which is the
`Encoder` of the indexer and of the query. The CPU path imports neither torch nor sentence-transformers.
Next: `onnx_model.py`, `torch_model.py`, `backbone_model.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from indexer.base.types import Encoder, Modality, Posterior
from indexer.search.query_bank import QueryBank
from mmsearch.errors import CheckpointError, ModelError
from mmsearch.inference.pictures import Picture
from mmsearch.inference.query_bank import load_bank
from mmsearch.models.digest import check_fingerprint

PRETRAINED = Path(__file__).parents[1] / "pretrained"
log = logging.getLogger(__name__)


class Model(Encoder, Protocol):
    """An `Encoder` that also takes files and whole lists."""

    def embed_images(self, images: Sequence[Picture]) -> Posterior:
        """Paths, PIL images or uint8 arrays -> posteriors, `mu` and `logvar` float32 `[n, d]`."""

    def embed_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors, `mu` and `logvar` float32 `[n, d]`."""


def load_model(name_or_path: str | Path = "default", device: str = "auto") -> Model:
    """Load a model.

    Args:
        name_or_path: `default` (ships with the package), a folder written by `mmsearch train`, or the name of a
            sentence-transformers model that embeds both pictures and texts, such as `clip-ViT-B-32`.
        device: `auto` (CUDA where there is a GPU and torch, else the CPU), `cpu` or `cuda`.

    Raises:
        ModelError: no such model, or no such device.
        CheckpointError: a model folder that is incomplete or damaged.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"device {device!r} is not known; choose auto, cpu or cuda")
    name, folder = str(name_or_path), _folder_of(name_or_path)
    if name != "default" and not (folder / "model.json").exists():
        if folder.is_dir() and not (folder / "modules.json").exists() and not (folder / "config.json").exists():
            raise CheckpointError(
                f"no model in {folder}: model.json is missing; name a folder that mmsearch train wrote"
            )
        from mmsearch.inference.backbone_model import load_backbone

        return load_backbone(name, torch_device(device))
    described = _description(folder)
    if described["architecture"].get("kind") == "backbone":
        from mmsearch.inference.backbone_model import load_trained_backbone

        return load_trained_backbone(folder, torch_device(device))
    on_gpu = device == "cuda" or (device == "auto" and _has_gpu())
    if not on_gpu and (folder / "image.onnx").exists():
        from mmsearch.inference.onnx_model import OnnxModel

        return OnnxModel(name, folder, described)
    from mmsearch.inference.torch_model import TorchModel

    return TorchModel.load(name, folder, torch_device(device))


def load_query_bank(name_or_path: str | Path, fingerprint: str, modality: Modality) -> QueryBank | None:
    """The query bank in a model's folder, without the model; None where it has none, or holds other weights by now."""
    try:
        folder = _folder_of(name_or_path)
        described = _description(folder)
        return load_bank(folder, described, modality) if described["fingerprint"] == fingerprint else None
    except CheckpointError as error:
        log.info("%s; scores are cosines", error)
        return None


def _folder_of(name_or_path: str | Path) -> Path:
    return PRETRAINED / "default" if str(name_or_path) == "default" else Path(name_or_path).expanduser()


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        described["architecture"]["latent_dim"], described["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a model ({error}); copy or train the model again") from error
    check_fingerprint(folder, described)
    return dict(described)


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
