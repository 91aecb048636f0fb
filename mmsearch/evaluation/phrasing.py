"""`mmsearch eval --phrasing`: what is left of the recall when captions are worded the way people type.

    captions -> each everyday variant of them -> recall both ways -> loss against the captions as they are

In: a data set with captions and a model. Out: a `PhrasingReport`, a line for each variant. The variants are pure
functions of the caption and a seed, so that two models are asked in the same words. Pictures are encoded once. Ranked
as a search ranks: by cosine, less the hubness of photos, and of the texts of each variant, where the model has a bank.
Next: `zero_shot.py`, the same model asked for names alone.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmsearch.evaluation.recall import Recall, Retrieval, hubness_of, retrieval
from mmsearch.evaluation.subject import Report, Subject

TOLERATED_LOSS = 20.0  # percent of the plain recall; a fifth is what a person would notice
_WORDS_A_TYPO = 6
_MIN_LETTERS_TYPO = 3  # "a" and "of" with a slip are other words or none
_FUNCTION_WORDS = """
a an the this that these those some and or but as if than so not of in on at by to from for with without into onto over
under through is are was were be been being am has have had do does did can will would i you he she it its we they them
his her their our your my who which what while there
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True)
class Phrased:
    """What one way of wording is worth.

    Attributes:
        example: the first caption it alters, altered.
        changed: percent of the captions that it alters.
        loss: percent of the plain recall that is lost, by `text_to_image_r1` and so on; negative where it gains, None
            where there was nothing to lose.
        over_a_fifth: one of these losses is above 20 percent.
    """

    example: str
    changed: float
    text_to_image: Recall
    image_to_text: Recall
    loss: Mapping[str, float | None]
    over_a_fifth: bool


@dataclass(frozen=True)
class PhrasingReport(Report):
    """What `mmsearch eval --phrasing` found; recalls are percent. The variant `plain` is the captions as they are."""

    model: str
    fingerprint: str
    data: str
    split: str
    images: int
    texts: int
    seed: int
    variants: Mapping[str, Phrased]
    seconds: float = 0.0


def evaluate_phrasing(subject: Subject, *, seed: int = 0) -> PhrasingReport:
    """Measure a model with captions worded in everyday ways. A variant that alters no caption is left out.

    Args:
        subject: model and examples.
        seed: of the typos.

    Raises:
        DecodeError: a picture that cannot be read.
    """
    model, plain = subject.model, subject.captions
    photos = subject.pictures().mu  # [n, d]
    photo_hubness = hubness_of(model, "text", photos)

    def measure(texts: list[str], what: str) -> Retrieval:
        mu = subject.texts(texts, what).mu  # [m, d]
        text_hubness = hubness_of(model, "image", mu)
        return retrieval(photos, mu, subject.owner, image_hubness=photo_hubness, text_hubness=text_hubness)

    before = measure(plain, "captions")
    variants = {"plain": _phrased(plain, plain, before, before)}
    for name, rephrase in VARIANTS.items():
        texts = [text for example in subject.examples for text in rephrase(example.captions, seed)]
        if texts != plain:
            variants[name] = _phrased(plain, texts, before, measure(texts, name))
    return PhrasingReport(**subject.facts, images=len(subject.examples), texts=len(plain), seed=seed, variants=variants)


def photo_of(caption: str) -> str:
    """`A black dog` -> `photo of a black dog`; a first word in capitals (`BMW`) keeps them."""
    first = caption.split(maxsplit=1)[0] if caption.split() else ""
    return f"photo of {caption[0].lower() + caption[1:] if first[1:].islower() or len(first) == 1 else caption}"


def typos(caption: str, seed: int = 0) -> str:
    """One slip in six words, at least one: two letters swapped, one dropped or one doubled.

    The slips depend on the caption and the seed alone. A caption without a word of three letters stays as it is.
    """
    draw = random.Random(f"{seed} {caption}")
    words = caption.split()
    able = [i for i, word in enumerate(words) if sum(map(str.isalpha, word)) >= _MIN_LETTERS_TYPO]
    spoken = sum(any(map(str.isalnum, word)) for word in words)
    slips = max(1, (spoken + _WORDS_A_TYPO // 2) // _WORDS_A_TYPO)
    for i in draw.sample(able, min(slips, len(able))):
        words[i] = _mistyped(words[i], draw)
    return " ".join(words)


def no_punctuation(caption: str) -> str:
    """`A man's T-shirt .` -> `A mans T shirt`; a caption of nothing else stays as it is."""
    joined = caption.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    bare = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in joined)
    return " ".join(bare.split()) or caption


def keywords(caption: str) -> str:
    """The words that name something: without punctuation and function words. If none is left, the caption."""
    words = no_punctuation(caption).split()
    return " ".join(word for word in words if word.lower() not in FUNCTION_WORDS) or caption


def plural(caption: str) -> str:
    """A label of one word in the plural: `tram` -> `trams`, `city` -> `cities`; anything longer stays as it is."""
    word = caption.strip()
    if not word.isalpha():
        return caption
    if word[-1] in "yY" and word[-2:-1].lower() not in ("", *"aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.lower().endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def first_half(caption: str) -> str:
    """The first half of the words, the one in the middle included."""
    words = caption.split()
    return " ".join(words[: (len(words) + 1) // 2])


def with_the_next(captions: Sequence[str]) -> list[str]:
    """Each caption of a photo followed by the next one, the last by the first; a single caption stays as it is."""
    if len(captions) < 2:
        return list(captions)
    return [f"{one} {two}" for one, two in zip(captions, [*captions[1:], captions[0]], strict=True)]


def _each(rephrase: Callable[[str], str]) -> Callable[[Sequence[str], int], list[str]]:
    return lambda captions, seed: [rephrase(caption) for caption in captions]


# all captions of one photo, seed -> a text for each
VARIANTS: Mapping[str, Callable[[Sequence[str], int], list[str]]] = {
    "photo_of": _each(photo_of),
    "upper_case": _each(str.upper),
    "typos": lambda captions, seed: [typos(caption, seed) for caption in captions],
    "no_punctuation": _each(no_punctuation),
    "keywords": _each(keywords),
    "plural": _each(plural),
    "first_half": _each(first_half),
    "long_sentence": lambda captions, seed: with_the_next(captions),
}


def _mistyped(word: str, draw: random.Random) -> str:
    letters = [i for i, c in enumerate(word) if c.isalpha()]
    swaps = [i for i in letters if i + 1 in letters and word[i] != word[i + 1]]
    kind = draw.choice(("swap", "drop", "double") if swaps else ("drop", "double"))
    i = draw.choice(swaps if kind == "swap" else letters)
    if kind == "swap":
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[:i] + word[i + 1 :] if kind == "drop" else word[: i + 1] + word[i:]


def _phrased(plain: Sequence[str], texts: Sequence[str], before: Retrieval, after: Retrieval) -> Phrased:
    altered = [text for old, text in zip(plain, texts, strict=True) if text != old]
    loss: dict[str, float | None] = {}
    for way, old in before.ways.items():
        loss[f"{way}_r1"] = _lost(old.r1, after.ways[way].r1)
        loss[f"{way}_r10"] = _lost(old.r10, after.ways[way].r10)
    return Phrased(
        example=(altered or plain)[0],
        changed=100 * len(altered) / len(plain),
        text_to_image=after.text_to_image,
        image_to_text=after.image_to_text,
        loss=loss,
        over_a_fifth=any(lost is not None and lost > TOLERATED_LOSS for lost in loss.values()),
    )


def _lost(old: float, new: float) -> float | None:
    """Percent of `old`; rounded, so that exactly a fifth is not a bit more."""
    return round(100 * (old - new) / old, 9) if old else None
