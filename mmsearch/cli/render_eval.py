"""What measuring found, as tables: recall, phrasing, fusion, uncertainty.

In: a report of `mmsearch eval` as a dict, which is used up. Out: what `terminal.py` prints.
Next: `render.py`, for a library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsearch.cli.render import show_facts
from mmsearch.cli.terminal import as_cell, put, put_matrix, put_table


def show_eval(facts: dict[str, Any]) -> None:
    """Print what an evaluation found: recall both ways, how the latent space is used, bounds on the likelihood."""
    recalls = {name: facts.pop(name) for name in ("text_to_image", "image_to_text")}
    put_matrix(recalls | {f"by cosine alone, {name}": row for name, row in facts.pop("cosine").items()})
    backbone = facts.pop("backbone")
    matrices = [{f"backbone alone, {name}": row for name, row in backbone.items()}]
    matrices += [facts.pop(name) for name in ("latent", "bounds")]
    for matrix in matrices:
        if matrix:
            put()
            put_matrix(matrix)
    put()
    show_facts(facts, as_json=False)


def show_phrasing(facts: dict[str, Any]) -> None:
    """Print the recall of each wording, what it loses in percent of the plain recall, and which lose over a fifth."""
    shown = [("text_to_image", "r1", "to image R@1"), ("text_to_image", "r10", "R@10")]
    shown += [("image_to_text", "r1", "to text R@1"), ("image_to_text", "r10", "R@10")]
    rows = [("", "changed", *(title for *_, name in shown for title in (name, "loss")), "")]
    variants = facts.pop("variants")
    for name, found in variants.items():
        cells = [as_cell(cell) for way, k, _ in shown for cell in (found[way][k], found["loss"][f"{way}_{k}"])]
        mark = "over a fifth lost" if found["over_a_fifth"] else ""
        rows.append((name.replace("_", " "), as_cell(found["changed"]), *cells, mark))
    put_table(rows)
    put()
    put_table([(name.replace("_", " "), found["example"]) for name, found in variants.items()])
    put()
    show_facts(facts, as_json=False)


def show_fusion(facts: dict[str, Any]) -> None:
    """Print the recall of each way of fusing, by the number of captions fused in, and whether the product won."""
    put_table(_fusion_rows("", facts.pop("fusions")))
    put()
    if by_cosine := facts.pop("cosine"):
        put_table(_fusion_rows("by cosine alone", by_cosine))
        put()
    show_facts(facts, as_json=False)


def _fusion_rows(title: str, fusions: Mapping[str, Any]) -> list[tuple[str, ...]]:
    titles = ["captions", "R@1", "R@5", "R@10", "over average", "95 %", "by itself"]
    rows = [(title, *titles, "half with: R@1", "R@10", "half without: R@1", "R@10")]
    for captions, ways in fusions.items():
        for name, found in ways.items():
            gain = found["gain"] or {}
            cells = [as_cell(found["recall"][k]) for k in ("r1", "r5", "r10")]
            cells += [as_cell(gain.get("r1")), _interval(gain), as_cell(found["itself"])]
            cells += [
                as_cell((found[half] or {}).get(k)) for half in ("half_with", "half_without") for k in ("r1", "r10")
            ]
            rows.append((name.replace("_", " "), captions, *cells))
    return rows


def show_uncertainty(facts: dict[str, Any]) -> None:
    """Print the spread of posteriors as things are taken away, and how well signals tell wrong first hits."""
    for what, title in (("words", "captions, first words"), ("blur", "photos, blur radius in pixels")):
        grown = facts.pop(what)
        put(f"{title} ({grown['items']})")
        put_matrix(grown.pop("levels"))
        correlations = f"rank correlation {grown['spearman']}, within an item {grown['spearman_items']}"
        put(f"{correlations}, rises in {grown['rises']} % of them")
        put()
    put_matrix(facts.pop("altered"))
    rows = [("wrong first hits", "AUROC", "95 %")]
    for prefix, areas in (("", facts.pop("errors")), ("variance adds ", facts.pop("variance_adds"))):
        for name, area in areas.items():
            shown = area or {}
            rows.append((prefix + name.replace("_", " "), as_cell(shown.get("value")), _interval(shown)))
    put()
    put_table(rows)
    put()
    show_facts(facts, as_json=False)


def _interval(bounds: Mapping[str, object]) -> str:
    return f"{as_cell(bounds['low'])} to {as_cell(bounds['high'])}" if bounds else "-"
