"""The models of the package `multivae`, built from this project's own layers, for `multivae_parity.py`.

In: a `MultimodalVAE` with feature heads. Out: the package's MVAE, MMVAE, MoPoE or MVTCAE around the very same heads and
decoders: whatever differs afterwards is the package's objective and its algebra of posteriors. Two forms of each:

    package   its own objective, product of experts and settings; experts are free Gaussians, the prior not in them
    matched   the settings of `MATCHED`, our convention of experts and, for MoPoE and MVTCAE, our product with the prior

    settings  the package's own objective and algebra with the settings of `MATCHED`, a step between the two; for MoPoE,
              which has none to set, our product, and still each item drawn from one subset (`copies`)

Where `matched` differs from ours, one side has a fault: their losses agree number by number (`disagreement`).
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mmsearch.models import variants
from mmsearch.models.gaussian import log_density, product_of_experts
from mmsearch.models.heads import FeatureDecoder, GaussianHead
from mmsearch.models.vae import FeatureEncoder, MultimodalVAE

Form = Literal["matched", "settings", "package"]
Name = Literal["mvae", "mmvae", "mopoe", "mvtcae"]
NAMES: tuple[Name, ...] = ("mvae", "mmvae", "mopoe", "mvtcae")
Gaussian = tuple[Tensor, Tensor]  # mean and log variance, each [n, d]
OURS: dict[Name, Callable[..., variants.Value]] = {
    "mvae": variants.mvae,
    "mmvae": variants.mmvae,
    "mopoe": variants.mopoe,
    "mvtcae": variants.mvtcae,
}
_STAND_INS = ("", ".datasets", ".datasets.utils", ".transforms", ".utils", ".models")


class _StandIn(types.ModuleType):
    """Any name asked of it is an empty class."""

    __path__: list[str] = []  # noqa: RUF012  marks a package, as the import system wants it

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_multivae(folder: Path) -> Any:
    """The package's `models`, from the folder it was installed into.

    Its data sets (MNIST, CelebA) import torchvision at the top, and no model does. torchvision must match torch's build
    exactly, which a CPU build cannot promise, so empty modules stand in for it, in this process only.

    Raises:
        SystemExit: the package is not there; the line to type.
    """
    if not (folder / "multivae").is_dir():
        raise SystemExit(f"no multivae in {folder}; pip install --no-deps --target {folder} multivae pythae nltk")
    for part in _STAND_INS if "torchvision" not in sys.modules else ():
        module = _StandIn(f"torchvision{part}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    sys.path.append(str(folder))  # last: what the environment has already comes first
    import multivae.models

    return multivae.models


def build(models: Any, name: Name, form: Form, vae: MultimodalVAE) -> Any:
    """The package's model around the heads and decoders of `vae`, which it trains in place; it takes raw features.

    Args:
        models: what `import_multivae` returned.
        name: which objective.
        form: the package's conventions or ours.
        vae: modality -> an encoder with a `head`, and a `FeatureDecoder`.
    """
    ours = form == "matched" or (form == "settings" and name == "mopoe")
    experts: _Experts = "free" if not ours else "evidence" if name == "mvae" else "posterior"
    encoders = {m: _encoder(cast(FeatureEncoder, encoder).head, experts) for m, encoder in vae.encoders.items()}
    decoders = {m: _decoder(decoder) for m, decoder in vae.decoders.items()}
    settings = MATCHED[name] if form != "package" else _PACKAGE[name]
    latent = encoders["image"].head.mu.out_features
    cls, config = _CLASSES[name]
    kind = getattr(models, cls)
    if ours and name in ("mopoe", "mvtcae"):
        kind = _with_our_product(kind)
    model = kind(getattr(models, config)(n_modalities=len(encoders), latent_dim=latent, **settings), encoders, decoders)
    set_likelihoods(model)
    return model


def set_likelihoods(model: Any) -> None:
    """Our likelihood, of standardised features with a learned variance each, for the package's of variance one.

    The package has no learned variance, but takes any function of reconstruction and target. To be called again on a
    copy of a model, whose functions still hold the first one's weights.
    """
    for m in model.encoders:
        model.recon_log_probs[m] = partial(_log_prob, model.encoders[m].head, model.decoders[m].decoder)


def _log_prob(head: GaussianHead, decoder: FeatureDecoder, reconstruction: Tensor, target: Tensor) -> Tensor:
    return log_density(head.standardise(target), reconstruction, decoder.logvar.clamp_min(-6.0))


_CLASSES = {
    "mvae": ("MVAE", "MVAEConfig"),
    "mmvae": ("MMVAE", "MMVAEConfig"),
    "mopoe": ("MoPoE", "MoPoEConfig"),
    "mvtcae": ("MVTCAE", "MVTCAEConfig"),
}
_PACKAGE: dict[Name, dict[str, object]] = {  # beside the package's defaults
    "mvae": {},
    "mmvae": {"K": 1},  # one draw from each expert, as in ours; the default of 10 decodes ten times as much a step
    "mopoe": {},
    "mvtcae": {},
}
MATCHED: dict[Name, dict[str, object]] = {
    "mvae": {"warmup": 0},
    "mmvae": {"prior_and_posterior_dist": "normal", "K": 1, "loss": "iwae_looser", "learn_prior": False},
    "mopoe": {},
    "mvtcae": {"alpha": 2 / 3, "beta": 1.0},  # Hwang et al. 2021 with all divergences weighted alike, as ours
}
_Experts = Literal["free", "evidence", "posterior"]


def _encoder(head: nn.Module, experts: _Experts) -> Any:
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.base_architectures import BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.head(x)
            if experts != "posterior":
                inside = (-logvar).clamp_min(1e-12)  # softplus(raw)
                raw = inside + (-(-inside).expm1()).log()  # the expert's own log precision, the prior taken out
                # ours is the mean after the product with the prior, an expert's stands before it
                mu, logvar = (mu * (1 + (-raw).exp()) if experts == "evidence" else mu), -raw
            return ModelOutput(embedding=mu, log_covariance=logvar)

    return Encoder()


def _decoder(decoder: nn.Module) -> Any:
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.base_architectures import BaseDecoder

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.decoder(z))

    return Decoder()


def _with_our_product(kind: Any) -> Any:
    """The package's class with `product_of_experts` in place of its own `poe`."""

    class Matched(kind):  # type: ignore[misc]
        def _poe_fusion(self, mus: Tensor, logvars: Tensor) -> tuple[Tensor, Tensor]:  # MoPoE
            return product_of_experts(list(mus), list(logvars))

        def _inference(self, inputs: Any, **_: object) -> Any:  # MVTCAE
            latents = super()._inference(inputs)
            experts = list(latents["modalities"].values())
            latents["joint"] = list(
                product_of_experts([e.embedding for e in experts], [e.log_covariance for e in experts])
            )
            return latents

    Matched.__name__ = kind.__name__
    return Matched


def batch_of(inputs: Mapping[str, Tensor]) -> Any:
    """Raw features by modality as the package takes them."""
    from multivae.data.datasets.base import MultimodalBaseDataset

    return MultimodalBaseDataset(dict(inputs))


def copies(name: Name, form: Form) -> int:
    """How often an item stands in a batch, in the same order.

    The package's MoPoE draws the first third of a batch from one subset, the second from the next; ours draws every
    item from each of the three.
    """
    return 3 if (name, form) == ("mopoe", "matched") else 1


def loss_of(model: Any, inputs: Mapping[str, Tensor], epoch: int) -> Tensor:
    """The package's loss, nats a pair.

    `epoch` counts from 1 and drives MVAE's warm-up of beta; without it the package takes the first, where beta is 0.
    """
    loss: Tensor = model(batch_of(inputs), epoch=epoch).loss
    return loss / len(inputs["image"]) if model.model_name == "MMVAE" else loss  # a sum, where the others give a mean


def disagreement(models: Any, name: Name, form: Form = "matched") -> tuple[float, float]:
    """Theirs less ours on one fixed batch with the same weights and noise: the loss, and the gradient's largest part.

    In float64, nats. Each item stands in the batch three times, in the same order, for the sake of `copies`.
    """
    draw = torch.Generator().manual_seed(0)
    sizes, latent, hidden = {"image": 24, "text": 18}, 16, 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = MultimodalVAE(
            {m: FeatureEncoder(f, hidden, latent, dropout=0.0) for m, f in sizes.items()},
            {m: FeatureDecoder(latent, hidden, f) for m, f in sizes.items()},
        ).double()
        for p in vae.parameters():  # also those that start at zero
            p.data += 0.2 * torch.randn_like(p)
    inputs = {m: torch.randn(20, f, generator=draw, dtype=torch.float64).repeat(3, 1) for m, f in sizes.items()}
    eps = torch.randn(20, latent, generator=draw, dtype=torch.float64).repeat(3, 1)
    weights = list(vae.parameters())
    with fixed_noise(eps):
        encodings = vae.encode(inputs)
        likelihoods = {m: partial(vae.decoder(m).log_prob, e.target) for m, e in encodings.items()}
        ours = -OURS[name]({m: (e.mu, e.logvar) for m, e in encodings.items()}, likelihoods).value.mean()
        theirs = loss_of(build(models, name, form, vae), inputs, epoch=1000)
    pairs = zip(torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights), strict=True)
    return float((theirs - ours).detach()), max(float((a - b).abs().max()) for a, b in pairs)


@contextmanager
def fixed_noise(eps: Tensor) -> Iterator[None]:
    """Every latent is drawn with the same noise `[n, d]`, here and in the package, so that their losses compare."""
    normal = torch.distributions.normal._standard_normal
    randn = torch.randn
    torch.distributions.normal._standard_normal = lambda shape, **_: eps.expand(shape)
    torch.randn = lambda *_, **__: eps  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.distributions.normal._standard_normal = normal
        torch.randn = randn
