"""The variants of the VAE against an independent implementation of them, the PyPI package `multivae`.

    pip install --no-deps --target .cache/multivae multivae==1.0.3 pythae==0.1.2 nltk
    python -m tests.bench.multivae_parity

In: the features, architecture, batches, optimiser, epochs and seeds of `mmsearch.training.table`, and the numbers in
its folder. Out: a Markdown table of ours beside theirs, and how far the losses are apart on one batch with the same
weights. Each run is kept in `runs/multivae`, so that a table that was cut off goes on. The package and its needs are no
dependency of the project: on demand, never part of `make test`. Next: `multivae_models.py`, what is set to what.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmsearch.evaluation.recall import retrieval
from mmsearch.models.checkpoint import Architecture
from mmsearch.models.checkpoint import build as build_vae
from mmsearch.models.gaussian import log_density, reparameterise
from mmsearch.models.vae import FeatureEncoder, MultimodalVAE
from mmsearch.models.variants import mixture_log_density
from mmsearch.training.recipe import Recipe, load_recipe, with_overrides
from mmsearch.training.stages import FeatureStage
from mmsearch.training.table import Data, read_data
from tests.bench.common import ROOT, machine
from tests.bench.multivae_models import (
    NAMES,
    Form,
    Name,
    batch_of,
    build,
    copies,
    disagreement,
    import_multivae,
    loss_of,
    set_likelihoods,
)

PACKAGES = ROOT / ".cache" / "multivae"
FORMS: tuple[Form, ...] = ("package", "matched", "settings")
COLUMNS = ("i2t_r1", "i2t_r10", "t2i_r1", "t2i_r10", "elbo")
Numbers = Mapping[str, float]
LABELS: Mapping[Name, str] = {"mvae": "MVAE", "mmvae": "MMVAE", "mopoe": "MoPoE", "mvtcae": "MVTCAE"}
WHAT = {
    "ours": "ours",
    "matched": "multivae, our conventions",
    "settings": "multivae, our settings",
    "package": "multivae as it comes",
}


def fresh_vae(recipe: Recipe, data: Data) -> MultimodalVAE:
    """The table's architecture with its standardisation, not yet trained."""
    torch.manual_seed(recipe.seed)
    architecture = Architecture(
        kind="backbone",
        latent_dim=recipe.model.latent_dim,
        hidden_dim=recipe.model.hidden_dim,
        image_features=data.images.shape[1],
        text_features=data.texts.shape[1],
    )
    vae = build_vae(architecture, recipe.model.dropout)
    train = data.corpus.train
    for m, features in (("image", data.images[:train]), ("text", data.texts[: data.first_texts[train]])):
        cast(FeatureEncoder, vae.encoders[m]).head.fit_standardisation(features)
    return vae


def train(model: Any, recipe: Recipe, data: Data, copied: int = 1) -> Any:
    """A plain loop over the package's `forward`, the table's budget: the averaged weights of the last epoch."""
    s = recipe.schedule
    stage = FeatureStage(recipe, data.corpus, data.images, data.texts)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=s.rate_warm, weight_decay=s.weight_decay)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(s.average))
    steps, step = s.warm_epochs * stage.steps_per_epoch(), 0
    for epoch in range(s.warm_epochs):
        torch.manual_seed(recipe.seed * 1000 + epoch)
        model.train()
        for batch in stage.batches(epoch):
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
            optimizer.param_groups[0]["lr"] = s.rate_warm * min(1.0, (step + 1) / (0.05 * steps)) * cosine
            inputs = {"image": batch.image[batch.photo], "text": batch.text}
            loss = loss_of(model, {m: x.repeat(copied, 1) for m, x in inputs.items()}, epoch + 1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
            step += 1
    set_likelihoods(average.module)
    return average.module.eval()


def measure(model: Any, data: Data) -> dict[str, float]:
    """Recall on the validation photos by the package's own means, and its joint ELBO, nats a pair."""
    corpus, first = data.corpus, data.first_texts
    images, texts = data.images[corpus.train :], data.texts[first[corpus.train] :]
    owner = np.repeat(np.arange(len(images)), [len(c) for c in corpus.captions[corpus.train :]])
    ranked = retrieval(_means(model, "image", images, texts), _means(model, "text", images, texts), owner)
    torch.manual_seed(0)
    first_of_each = texts[first[corpus.train : -1] - first[corpus.train]]
    with torch.no_grad():
        elbos = torch.cat([
            joint_elbo(model, {"image": x, "text": y})
            for x, y in zip(images.split(250), first_of_each.split(250), strict=True)
        ])  # fmt: skip
    return {
        "i2t_r1": ranked.image_to_text.r1, "i2t_r10": ranked.image_to_text.r10,
        "t2i_r1": ranked.text_to_image.r1, "t2i_r10": ranked.text_to_image.r10,
        "elbo": float(elbos.double().mean()),
    }  # fmt: skip


def _means(model: Any, modality: str, images: Tensor, texts: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    inputs = {"image": images, "text": texts}
    blank = {m: torch.zeros(len(inputs[modality]), x.shape[1]) for m, x in inputs.items()}  # MoPoE encodes them all
    with torch.no_grad():
        z = model.encode(batch_of(blank | {modality: inputs[modality]}), modality, return_mean=True).z
    return cast("np.ndarray[Any, np.dtype[np.float32]]", z.numpy())


def joint_elbo(model: Any, inputs: Mapping[str, Tensor], samples: int = 8) -> Tensor:
    """`E_q[log p(X|z) + log p(z) - log q(z|X)]` of the package's own posterior given both, nats `[n]`.

    A mixture is stratified. MMVAE by the package's own terms, which know its Laplace and its learned prior.
    """
    data = batch_of(inputs)
    if model.model_name == "MMVAE":
        found = model(data, compute_loss=False, detailed_output=True, K=samples)
        terms = model.compute_k_lws(found["qz_xs"], found["zss"], found["recon"], data)[0]  # {m: [K, n]}
        return torch.stack([terms[m].mean(0) for m in inputs]).mean(0)  # [n]
    if model.model_name == "MVAE":
        components = [model.compute_mu_log_var_subset(data, list(inputs))]
    elif model.model_name == "MoPoE":
        components = list(model.inference(data)["subsets"].values())
    else:
        components = [model._inference(data)["joint"]]
    values = []
    for mu, logvar in components * samples:
        z = reparameterise(mu, logvar)  # [n, d]
        likelihoods = [model.recon_log_probs[m](model.decoders[m](z).reconstruction, x) for m, x in inputs.items()]
        divergence = mixture_log_density(z, components) - log_density(z, 0 * z, 0 * z).sum(-1)  # [n]
        values.append(torch.cat(likelihoods, dim=-1).sum(-1) - divergence)
    return torch.stack(values).mean(0)


def numbers_of(models: Any, name: Name, form: Form, recipe: Recipe, data: Data, folder: Path) -> Numbers:
    """Of one run: read where they are, else trained, measured and kept."""
    file = folder / f"{name}-{form}-{recipe.seed}.json"
    whole = json.loads(json.dumps(asdict(recipe)))
    described = {part: whole[part] for part in ("data", "validation", "seed", "model", "schedule")}
    if file.exists() and (kept := json.loads(file.read_text(encoding="utf-8")))["recipe"] == described:
        return cast(Numbers, kept["numbers"])
    started = time.monotonic()
    model = train(build(models, name, form, fresh_vae(recipe, data)), recipe, data, copies(name, form))
    numbers = measure(model, data)
    print(f"{name} {form} seed {recipe.seed}: {numbers}, {time.monotonic() - started:.0f} s", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({"recipe": described, "numbers": numbers}, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, file)
    return numbers


def all_numbers(out: Path, table: Path) -> dict[tuple[Name, str], list[Numbers]]:
    """The numbers of all runs there are: `NAME-FORM-SEED.json` here, `NAME-SEED/numbers.json` in the table's folder."""
    files = {(name, what): sorted(out.glob(f"{name}-{what}-*.json")) for name in NAMES for what in FORMS}
    files |= {(name, "ours"): sorted(table.glob(f"{name}-*/numbers.json")) for name in NAMES}
    return {
        key: [cast(Numbers, json.loads(file.read_text(encoding="utf-8"))["numbers"]) for file in found]
        for key, found in files.items()
    }


def markdown(found: Mapping[tuple[Name, str], Sequence[Numbers]]) -> str:
    """Mean and standard deviation over the seeds; bold where mean plus and minus deviation of ours lies clear of it."""
    lines = [
        "| | image to text R@1 | R@10 | text to image R@1 | R@10 | ELBO | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in NAMES:
        for what in WHAT:
            if runs := found.get((name, what)):
                cells = [_cell(runs, found.get((name, "ours"), ()), column) for column in COLUMNS]
                lines.append(f"| {LABELS[name]}, {WHAT[what]} | {' | '.join(cells)} | {len(runs)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Numbers], reference: Sequence[Numbers], column: str) -> str:
    values, own = ([run[column] for run in part] for part in (runs, reference))
    form = ".0f" if column == "elbo" else ".1f"
    if len(values) < 2:
        return f"{values[0]:{form}}"
    mean, spread = np.mean(values), np.std(values, ddof=1)
    text = f"{mean:{form}} ± {spread:{form}}"
    clear = len(own) > 1 and abs(mean - np.mean(own)) > spread + np.std(own, ddof=1)
    return f"**{text}**" if clear else text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=ROOT / "mmsearch" / "training" / "table.toml")
    parser.add_argument("--table", type=Path, default=ROOT / "runs" / "table", help="the folder of our own numbers")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "multivae")
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="where multivae was installed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--kept", action="store_true", help="train nothing: the table of the runs that there are")
    given = parser.parse_args()
    if given.kept:
        print(markdown(all_numbers(given.out, given.table)))
        return
    models = import_multivae(given.packages)
    for name in NAMES:
        loss, gradient = disagreement(models, name)
        print(f"{LABELS[name]}: losses differ by {loss:.1e} nats, gradients by at most {gradient:.1e}", flush=True)
    recipe = load_recipe(given.recipe)
    data = read_data(recipe)
    for seed in given.seeds:
        for form in given.forms:
            for name in given.names:
                numbers_of(models, name, form, with_overrides(recipe, seed=seed), data, given.out)
    print(f"\n{markdown(all_numbers(given.out, given.table))}\n{machine('torch')}")


if __name__ == "__main__":
    main()
