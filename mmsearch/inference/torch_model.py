"""A trained model on torch: on CUDA, and for model folders that were not exported to ONNX.

In: a model folder. Out: the same interface as `OnnxModel` in `onnx_model.py`, and the same vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer

from indexer.base.types import Modality, Posterior, UInt8Array
from indexer.search.query_bank import QueryBank
from mmsearch.errors import CheckpointError
from mmsearch.inference import posterior
from mmsearch.inference.preprocess import square
from mmsearch.inference.query_bank import load_bank
from mmsearch.models.checkpoint import Architecture, load_vae
from mmsearch.models.digest import check_file, read_description
from mmsearch.models.files import read_file
from mmsearch.models.tokens import tokenise
from mmsearch.models.vae import Encoding, MultimodalVAE, channels_last


class TorchModel:
    """A `MultimodalVAE` with its tokenizer on one device."""

    fuse = staticmethod(posterior.product_of_experts)
    embed_images = posterior.embed_images
    embed_texts = posterior.embed_texts

    def __init__(
        self,
        name: str,
        fingerprint: str,
        vae: MultimodalVAE,
        architecture: Architecture,
        tokenizer: Tokenizer,
        device: str,
        banks: Mapping[Modality, QueryBank | None] | None = None,
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.dim, self.side_px = architecture.latent_dim, architecture.side_px
        self.device, self._vae, self._tokenizer = device, vae, tokenizer
        self._max_tokens = architecture.max_tokens
        self._banks = dict(banks or {})

    @classmethod
    def load(cls, name: str, folder: Path, device: str) -> TorchModel:
        """Read a model folder onto a device.

        Raises:
            CheckpointError: an incomplete or damaged folder.
        """
        vae, architecture = load_vae(folder)
        path, described = folder / "tokenizer.json", read_description(folder)
        check_file(path, described)
        try:
            tokenizer = Tokenizer.from_buffer(read_file(folder, path.name))
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(f"{path} cannot be read ({error}); copy the model again") from error
        vae = channels_last(vae.to(device))
        modalities: tuple[Modality, ...] = ("image", "text")
        banks = {modality: load_bank(folder, described, modality) for modality in modalities}
        return cls(name, str(described["fingerprint"]), vae, architecture, tokenizer, device, banks)

    def prepare_image(self, image: Image.Image) -> UInt8Array:
        """One upright picture -> uint8 `[side_px, side_px, 3]`."""
        return square(image, self.side_px)

    def encode_images(self, batch: UInt8Array) -> Posterior:
        """uint8 `[n, side_px, side_px, 3]` -> posteriors `[n, d]`."""
        with posterior.one_line_for(self.name):
            return self._encode("image", torch.from_numpy(batch).permute(0, 3, 1, 2))

    def encode_texts(self, texts: Sequence[str]) -> Posterior:
        """Strings -> posteriors `[n, d]`."""
        with posterior.one_line_for(self.name):
            return self._encode("text", tokenise(self._tokenizer, texts, self._max_tokens))

    def query_bank(self, modality: Modality) -> QueryBank | None:
        """The queries it was trained with; None where its folder has none."""
        return self._banks.get(modality)

    def _encode(self, modality: str, x: torch.Tensor) -> Posterior:
        with torch.inference_mode():
            found: Encoding = self._vae.encoders[modality](x.to(self.device))
        return Posterior(found.mu.float().cpu().numpy(), found.logvar.float().cpu().numpy())
