"""`mmsearch train RECIPE --table`: what each part of the VAE is worth, every variant with several seeds.

    features of the untouched trunks, once -> variants and seeds, by the same loop -> the same measures -> CSV, Markdown

In: a recipe whose heads alone are trained (`table.toml`). Out: a folder with `table.csv` (a line a run), `table.md`
(mean and spread) and a folder for each run. A run whose numbers are there is not computed again. The weights measured
are the averaged ones of the last epoch: none is picked by the photos it is measured on. Next:
`evaluation/recall.py`, `evaluation/bounds.py`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from indexer.base.types import Posterior
from mmsearch.data.augmentation_cache import AugmentationCache
from mmsearch.errors import ConfigError
from mmsearch.evaluation.bounds import bounds
from mmsearch.evaluation.evaluate import latent_use
from mmsearch.evaluation.recall import Recall, Retrieval, retrieval
from mmsearch.models.vae import Encoding, ImageEncoder, MultimodalVAE, TextEncoder
from mmsearch.models.variants import Variant
from mmsearch.training.cca import LinearDecoder, fit_heads
from mmsearch.training.corpus import Corpus, read_corpus
from mmsearch.training.features import training_part, trunk_features
from mmsearch.training.learning_curves import replace_text, write_csv
from mmsearch.training.loop import Loop
from mmsearch.training.objective import Contrast
from mmsearch.training.pretrained_init import fresh_heads, pretrained
from mmsearch.training.recipe import Recipe, load_recipe, with_overrides
from mmsearch.training.stages import FeatureStage

log = logging.getLogger(__name__)

SEEDS = (0, 1, 2)
SAMPLES = 50  # K of the importance-weighted bound
ROWS: Mapping[Variant, str] = {
    "cca": "linear CCA, closed form",
    "ae": "autoencoder",
    "elbo": "ELBO of the product",
    "mvae": "MVAE",
    "mmvae": "MMVAE",
    "mopoe": "MoPoE",
    "mvtcae": "MVTCAE",
    "contrast": "contrast alone",
    "full": "full objective",
}
_NO_POSTERIOR = ("ae", "contrast")  # trained without noise or without a prior: no bound, no divergence
_NO_DECODER = ("contrast",)
_OF_POSTERIOR = ("elbo", "iw50", "kl_image", "kl_text", "units_image", "units_text")
_RECALLS = ("i2t_r1", "i2t_r10", "t2i_r1", "t2i_r10")
_SEARCH = (*_RECALLS, "elbo", "iw50")
_INSIDE = (*_OF_POSTERIOR[2:], "error_image_image", "error_text_text", "error_image_text", "error_text_image")
COLUMNS = (*_SEARCH, *_INSIDE)
_FORMATS: Mapping[str, str] = {"r1": ".1f", "r10": ".1f", "elbo": ".0f", "iw50": ".0f", "kl": ".1f", "units": ".0f"}


@dataclass(frozen=True, eq=False)
class Data:
    """Features that every row is trained and measured on, in the corpus' order."""

    corpus: Corpus
    images: Tensor  # [photos, f]
    texts: Tensor  # [captions, g]

    @property
    def first_texts(self) -> Tensor:
        """The place of each photo's first caption, and behind them the number of captions `[photos + 1]`."""
        return torch.tensor([0, *np.cumsum([len(c) for c in self.corpus.captions])])


class _Unwatched(FeatureStage):
    """Without a look at the validation photos after each epoch: a tenth of the time, and nothing is picked by it."""

    def validate(self, vae: MultimodalVAE) -> Retrieval:
        """Not measured."""
        nothing = Recall(math.nan, math.nan, math.nan, math.nan)
        return Retrieval(nothing, nothing)


def run_table(
    config_path: Path,
    *,
    out: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    variants: Sequence[Variant] = tuple(ROWS),
) -> Path:
    """Train and measure every variant with every seed; returns the Markdown file.

    Raises:
        ConfigError: a recipe that does not train heads alone.
        DataError: a data set that cannot be used.
        ModelError: published weights that are missing.
    """
    recipe = load_recipe(config_path)
    if recipe.model.architecture != "pretrained":
        raise ConfigError(f"{config_path}: a table needs model.architecture = 'pretrained'; take table.toml")
    return table(recipe, read_data(recipe), out or Path(recipe.out) / recipe.name, seeds, variants)


def table(
    recipe: Recipe, data: Data, folder: Path, seeds: Sequence[int] = SEEDS, variants: Sequence[Variant] = tuple(ROWS)
) -> Path:
    """The same from features in hand. The files are written anew after each run."""
    found: list[dict[str, object]] = []
    for seed in seeds:  # all rows once before any row twice: a table that was cut off has every row
        for variant in variants:
            run = with_overrides(recipe, variant=variant, seed=seed)
            numbers = _numbers(run, data, folder / f"{variant}-{seed}")
            found.append({"variant": variant, "seed": seed, **numbers})
            write_csv(folder / "table.csv", found)
            replace_text(folder / "table.md", markdown(found))
    return folder / "table.md"


def read_data(recipe: Recipe) -> Data:
    """Corpus and features of a recipe; the trunks run only over what no earlier run has seen."""
    corpus = read_corpus(recipe)
    vae, _, tokenizer = pretrained(recipe.model)
    image, text = cast(ImageEncoder, vae.encoders["image"]), cast(TextEncoder, vae.encoders["text"])
    views = AugmentationCache(Path(recipe.cache), corpus.photos, image.trunk, recipe.augmentation, recipe.seed)
    images, texts = trunk_features(views, image, text, corpus, tokenizer, recipe.model.max_tokens)
    return Data(corpus, images, texts)


def train_row(recipe: Recipe, data: Data, folder: Path) -> MultimodalVAE:
    """Heads and decoders of one variant and seed: the averaged weights of the last epoch."""
    torch.manual_seed(recipe.seed)
    images, texts, photo = training_part(data.corpus, data.images, data.texts)
    vae, _ = fresh_heads(recipe.model, images, texts)  # as on any frozen features
    if recipe.objective.variant == "cca":
        cca = fit_heads(vae, images, texts, photo)
        decoders = {modality: LinearDecoder(cca, m) for m, modality in enumerate(("image", "text"))}
        return MultimodalVAE(dict(vae.encoders.items()), decoders).eval()
    contrast = Contrast(recipe.objective.temperature)
    loop = Loop(recipe, vae, contrast, _Unwatched(recipe, data.corpus, data.images, data.texts), folder)
    loop.run(resume=True)
    return cast(MultimodalVAE, loop.average.module).eval()


def measure(vae: MultimodalVAE, variant: Variant, data: Data) -> dict[str, float | None]:
    """Every column of the table, on the validation photos; None where a number would mean nothing.

    Recall is that of the means of each modality alone. Bounds and errors are of each photo with its first caption.
    """
    corpus, first = data.corpus, data.first_texts
    photos = range(corpus.train, len(corpus.photos))
    owner = np.repeat(np.arange(len(photos)), [len(corpus.captions[p]) for p in photos])
    with torch.no_grad():
        image = vae.encoders["image"].from_features(data.images[corpus.train :])  # type: ignore[operator]
        text = vae.encoders["text"].from_features(data.texts[first[corpus.train] :])  # type: ignore[operator]
    ranked = retrieval(image.mu.numpy(), text.mu.numpy(), owner)
    numbers: dict[str, float | None] = {column: ranked.columns[column] for column in _RECALLS}
    pairs = {"image": image, "text": Encoding(*(part[first[corpus.train : -1] - first[corpus.train]] for part in text))}
    return numbers | _latent(vae, variant, pairs) | _errors(vae, variant, pairs)


def _latent(vae: MultimodalVAE, variant: Variant, pairs: Mapping[str, Encoding]) -> dict[str, float | None]:
    """Bounds of the joint posterior, divergences and active units of each modality's own."""
    if variant in _NO_POSTERIOR:
        return dict.fromkeys(_OF_POSTERIOR)
    every = torch.arange(len(pairs["image"].mu))
    joint = bounds(vae, pairs, every, samples=SAMPLES, variant=variant)["joint"]
    used = [latent_use(Posterior(e.mu.numpy(), e.logvar.numpy())) for e in (pairs["image"], pairs["text"])]
    values = (joint.elbo, joint.importance_weighted, *(u.kl for u in used), *(float(u.active_units) for u in used))
    return dict(zip(_OF_POSTERIOR, values, strict=True))


def _errors(vae: MultimodalVAE, variant: Variant, pairs: Mapping[str, Encoding]) -> dict[str, float | None]:
    """Mean squared error of each modality from the mean of each, in units of the training set's variance."""
    numbers: dict[str, float | None] = {}
    for source in ("image", "text"):
        for target in ("image", "text"):
            with torch.no_grad():
                error = (vae.decoders[target](pairs[source].mu) - pairs[target].target).square().mean()
            numbers[f"error_{source}_{target}"] = None if variant in _NO_DECODER else error.item()
    return numbers


def _numbers(recipe: Recipe, data: Data, folder: Path) -> dict[str, float | None]:
    """Of one run: read where they are, else computed and kept. Another recipe makes another run."""
    file, described = folder / "numbers.json", _identity(recipe)
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["recipe"] == described:
            return cast("dict[str, float | None]", kept["numbers"])
        raise ConfigError(f"{folder} holds a run of another recipe; give another folder with --out")
    log.info("%s", folder.name)
    variant = recipe.objective.variant
    numbers = measure(train_row(recipe, data, folder), variant, data)
    replace_text(file, json.dumps({"recipe": described, "numbers": numbers}, indent=1) + "\n")
    return numbers


def _identity(recipe: Recipe) -> dict[str, object]:
    """What the numbers of a run depend on, as JSON keeps it."""
    s = recipe.schedule
    known = {
        "data": [source.path for source in recipe.data],
        "model": asdict(recipe.model),
        "objective": asdict(recipe.objective),
        "schedule": [s.warm_epochs, s.warm_batch, s.texts, s.rate_warm, s.weight_decay, s.average],
        "seed": recipe.seed,
    }
    identity: dict[str, object] = json.loads(json.dumps(known))
    return identity


def markdown(found: Sequence[Mapping[str, object]]) -> str:
    """Two tables, a row a variant: mean over the seeds, and behind it the standard deviation."""
    heads = {
        _SEARCH: "| | image to text R@1 | R@10 | text to image R@1 | R@10 | ELBO | IW bound, K = 50 |",
        _INSIDE: "| | KL image | KL text | active units image | text | error image→image | text→text | image→text "
        "| text→image |",
    }
    parts = []
    for columns, head in heads.items():
        lines = [head, "|---" * (len(columns) + 1) + "|"]
        for variant, name in ROWS.items():
            runs = [row for row in found if row["variant"] == variant]
            if runs:
                lines.append(f"| {name} | " + " | ".join(_cell(runs, column) for column in columns) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(rows: Sequence[Mapping[str, object]], column: str) -> str:
    values = [float(cast(float, row[column])) for row in rows if row[column] is not None]
    if not values:
        return "-"
    form = _FORMATS.get(column.split("_")[-1], _FORMATS.get(column.split("_")[0], ".3f"))
    mean = format(np.mean(values), form)
    if len(values) == 1:
        return mean
    return f"{mean} ± {format(np.std(values, ddof=1), form)}"
