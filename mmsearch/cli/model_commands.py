"""The commands that fetch, make or measure a model: download, heads, tune, train, eval.

In: parsed options. Out: a model folder or figures on stdout, an exit code. `app.py` adds them to its own, so that a
person sees one program. Next: `../library.py`, `../tuning/tune.py`, `../training/run.py`, `../evaluation/evaluate.py`.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli import options
from mmsearch.cli.terminal import note

if TYPE_CHECKING:
    from indexer.base.types import Progress, ProgressCallback


commands = typer.Typer()


@commands.command()
def heads(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the heads are written.")],
    library: options.LibraryOption = None,
    device: options.DeviceOption = "auto",
) -> int:
    """Fit closed-form heads on the vectors of a library of a bare backbone; 'rebuild --model FOLDER' uses them."""
    from mmsearch.cli.render import show_path

    with options.open_library(library, None, device) as opened:
        show_path(opened.fit_heads(folder))
    return options.EXIT_OK


@commands.command()
def tune(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Where the tuned model is written; else in the library.")
    ] = None,
    library: options.LibraryOption = None,
    device: options.DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only measure what it would bring.")] = False,
    no_rebuild: Annotated[
        bool, typer.Option("--no-rebuild", help="Write the model and leave the library as it is.")
    ] = False,
    as_json: options.JsonOption = False,
) -> int:
    """Fit the library's model to the library's own captions, if that makes the search better."""
    from mmsearch.cli.render import show_facts

    logging.getLogger("mmsearch").setLevel(logging.INFO)  # minutes: it says where it is
    try:
        with options.open_library(library, None, device) as opened, ExitStack() as shown:
            report = opened.tune(folder, rebuild=not no_rebuild, dry_run=dry_run, progress=_progress_in(shown))
    except KeyboardInterrupt:
        note("interrupted; the library answers as before; run the same command again to go on")
        return options.EXIT_INTERRUPTED
    show_facts(report.to_dict(), as_json)
    if report.accepted:
        return options.EXIT_OK
    change = f"from {report.recall_before:.1f} to {report.recall_after:.1f}, noise {report.noise:.1f}"
    note(f"mean recall on {report.held_out} held-out photos would go {change}: no gain; nothing was changed")
    return options.EXIT_NOTHING_FOUND


def _progress_in(shown: ExitStack) -> ProgressCallback:
    """Progress whose clock starts at the first file, after the minutes of fitting."""
    from mmsearch.cli.progress import progress_on_stderr

    begun: list[ProgressCallback] = []

    def update(progress: Progress) -> None:
        if not begun:
            begun.append(shown.enter_context(progress_on_stderr()))
        begun[0](progress)

    return update


@commands.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sentence-transformers model, or its folder here.")],
) -> int:
    """Fetch a model from the hub, try it out and print its folder; '--model NAME' then needs no network."""
    from mmsearch.cli.render import show_path
    from mmsearch.inference.hub import download as fetch
    from mmsearch.inference.load_model import load_model

    folder = fetch(name)
    load_model(name, "cpu")
    show_path(folder)
    return options.EXIT_OK


@commands.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The recipe, a TOML file; not needed with --model.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="A data set; may be repeated.")] = None,
    model: options.ModelOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the run and its checkpoints.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    variant: Annotated[str | None, typer.Option("--variant", help="Another objective: ae, elbo, mvae, ...")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed than the recipe's.")] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Every objective with three seeds, measured side by side.")
    ] = False,
) -> int:
    """Train a model from a recipe, or heads on the model named; prints the folder of the checkpoint."""
    from mmsearch.cli.render import show_path
    from mmsearch.training.run import train as run

    logging.getLogger("mmsearch").setLevel(logging.INFO)  # a long run says where it is
    try:
        if table:
            if config is None or data or model or variant or seed is not None:
                raise typer.BadParameter("--table goes with CONFIG and --out alone.")
            from mmsearch.training.table import run_table

            checkpoint = run_table(config, out=out)
        else:
            checkpoint = run(config, resume=resume, data=data, model=model, out=out, variant=variant, seed=seed)
    except KeyboardInterrupt:
        note("interrupted; the last checkpoint is kept; run the same command with --resume to go on")
        return options.EXIT_INTERRUPTED
    show_path(checkpoint)
    return options.EXIT_OK


@commands.command("eval")
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set of pictures with captions.")],
    split: Annotated[str, typer.Option("--split", help="Which part of it.")] = "val",
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    phrasing: Annotated[bool, typer.Option("--phrasing", help="Recall of the captions as people type them.")] = False,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Captions are labels: name the photos.")] = False,
    fusion: Annotated[bool, typer.Option("--fusion", help="Recall of photos fused with their captions.")] = False,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Does the variance know what is wrong?")] = False,
    only: Annotated[
        Path | None, typer.Option("--only", metavar="FILE", help="With --zero-shot: only photos of these labels.")
    ] = None,
    as_json: options.JsonOption = False,
) -> int:
    """Measure a model: recall both ways, median rank, ELBO, KL, active units; or one of the four questions."""
    from mmsearch.cli import render_eval
    from mmsearch.cli.render import show_facts
    from mmsearch.cli.terminal import put_json
    from mmsearch.config import load_config
    from mmsearch.evaluation.subject import Subject

    if phrasing + zero_shot + fusion + uncertainty > 1:
        raise typer.BadParameter("give one of --phrasing, --zero-shot, --fusion, --uncertainty, not two.")
    if only is not None and not zero_shot:
        raise typer.BadParameter("--only goes with --zero-shot.")
    name = load_config().model if model is None else model
    subject = Subject.load(data, split=split, model=name, device=device)
    if phrasing:
        from mmsearch.evaluation.phrasing import evaluate_phrasing

        facts, show = evaluate_phrasing(subject).to_dict(), render_eval.show_phrasing
    elif zero_shot:
        from mmsearch.evaluation.zero_shot import evaluate_zero_shot

        facts, show = evaluate_zero_shot(subject, only=only).to_dict(), show_facts
    elif fusion:
        from mmsearch.evaluation.fusion_eval import evaluate_fusion

        facts, show = evaluate_fusion(subject).to_dict(), render_eval.show_fusion
    elif uncertainty:
        from mmsearch.evaluation.uncertainty import evaluate_uncertainty

        facts, show = evaluate_uncertainty(subject).to_dict(), render_eval.show_uncertainty
    else:
        from mmsearch.evaluation.evaluate import evaluate as run

        facts, show = run(subject).to_dict(), render_eval.show_eval
    put_json(facts) if as_json else show(facts)
    return options.EXIT_OK
