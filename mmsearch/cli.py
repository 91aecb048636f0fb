"""The command line: parse, call `Library`, render. No logic of its own.

In: `sys.argv`. Out: data on stdout, progress and warnings on stderr, an exit code: 0 found or done, 1 nothing found,
2 error (one line), 3 done with skipped files, 130 interrupted. Heavy modules are imported inside the commands, so that
`--help` answers at once. Next: `library.py`, then `render.py`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import typer.main

from mmsearch.errors import LibraryNotFound, MMSearchError
from mmsearch.render import Format, NoteHandler, note

if TYPE_CHECKING:
    from indexer.types import Modality
    from mmsearch.library import Library

FOUND, NOTHING, ERROR, SKIPPED, INTERRUPTED = 0, 1, 2, 3, 130
DEBUG_VARIABLE = "MMSEARCH_DEBUG"
OPTIONAL_PACKAGES = {"torch": "train", "matplotlib": "train", "onnx": "train", "sentence_transformers": "models"}

# the parent of BadParameter: older typers take it from click, newer ones carry their own
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="mmsearch",
    help="Find photos and texts by what they show and say. Start with 'mmsearch index FOLDER'.",
    add_completion=False,
    rich_markup_mode=None,  # rich costs a tenth of a second at every start
    pretty_exceptions_enable=False,
)


class Within(StrEnum):
    """What to find."""

    IMAGE = "image"
    TEXT = "text"


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


LibraryOption = Annotated[
    Path | None, typer.Option("--library", metavar="PATH", help="Folder of the library.", show_default=False)
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="'default', a trained checkpoint, or a sentence-transformers model."),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
CountOption = Annotated[int | None, typer.Option("-k", metavar="K", help="How many hits; 10 if not configured.")]
WithinOption = Annotated[Within | None, typer.Option("--in", help="Find only images or only texts.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PathsOption = Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")]
Print0Option = Annotated[bool, typer.Option("-0", "--print0", help="Print paths ended by NUL, for 'xargs -0'.")]


def _version(wanted: bool) -> None:
    if wanted:
        from mmsearch import __version__

        sys.stdout.write(f"mmsearch {__version__}\n")
        raise typer.Exit


@app.callback()
def _globals(
    version: Annotated[bool, typer.Option("--version", help="Print it.", is_eager=True, callback=_version)] = False,
    debug: Annotated[bool, typer.Option("--debug", help=f"Show tracebacks; so does {DEBUG_VARIABLE}=1.")] = False,
) -> None:
    # `main` reads --debug itself: an error of the parser must know it too
    pass


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pictures and texts, read with everything below.")],
    library: LibraryOption = None,
    model: ModelOption = None,
    device: DeviceOption = Device.AUTO,
    as_json: JsonOption = False,
) -> int:
    """Bring the library up to date with a folder."""
    from mmsearch.progress import progress_on_stderr
    from mmsearch.render import show_report

    try:
        with _open(library, model, device) as opened, progress_on_stderr() as progress:
            report = opened.index(folder, progress)
    except KeyboardInterrupt:
        note("interrupted; every finished batch is kept; run the same command again to go on")
        return INTERRUPTED
    show_report(report, as_json)
    return SKIPPED if report.skipped else FOUND


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORDS...", help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="A picture to look for, alone or with words.")] = None,
    k: CountOption = None,
    within: WithinOption = None,
    library: LibraryOption = None,
    model: ModelOption = None,
    device: DeviceOption = Device.AUTO,
    as_json: JsonOption = False,
    paths: PathsOption = False,
    print0: Print0Option = False,
) -> int:
    """Find files by words, by a picture, or by both together."""
    from mmsearch.render import show_hits

    style = _style(as_json, paths, print0)
    text = " ".join(words) if words else None
    with _open(library, model, device) as opened:
        hits = opened.search(text, image, k=opened.config.k if k is None else k, within=_modality(within))
    show_hits(hits, {"query": text} if image is None else {"query": text, "image": str(image)}, style)
    return FOUND if hits else _nothing_found()


@app.command()
def similar(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or a text, indexed or not.")],
    k: CountOption = None,
    within: WithinOption = None,
    library: LibraryOption = None,
    model: ModelOption = None,
    device: DeviceOption = Device.AUTO,
    as_json: JsonOption = False,
    paths: PathsOption = False,
    print0: Print0Option = False,
) -> int:
    """Find files like a file; with '--in text', texts for a picture."""
    from mmsearch.render import show_hits

    style = _style(as_json, paths, print0)
    with _open(library, model, device) as opened:
        hits = opened.similar(file, k=opened.config.k if k is None else k, within=_modality(within))
    show_hits(hits, {"query": str(file)}, style)
    return FOUND if hits else _nothing_found()


@app.command()
def status(library: LibraryOption = None, as_json: JsonOption = False) -> int:
    """Show what the library holds and which model wrote it."""
    from mmsearch.render import show_status

    with _open(library) as opened:
        show_status(opened.path, opened.status(), as_json)
    return FOUND


@app.command()
def errors(
    library: LibraryOption = None,
    as_json: JsonOption = False,
    paths: PathsOption = False,
    print0: Print0Option = False,
) -> int:
    """List the files that were skipped, with the reasons."""
    from mmsearch.render import show_errors

    style = _style(as_json, paths, print0)
    with _open(library) as opened:
        show_errors(opened.errors(), style)
    return FOUND


@app.command()
def rebuild(
    library: LibraryOption = None,
    model: ModelOption = None,
    device: DeviceOption = Device.AUTO,
    as_json: JsonOption = False,
) -> int:
    """Encode every file of the library again; with '--model', with another model."""
    from mmsearch.progress import progress_on_stderr
    from mmsearch.render import show_report

    try:
        with _open(library, model, device) as opened, progress_on_stderr() as progress:
            report = opened.rebuild(progress)
    except KeyboardInterrupt:
        note("interrupted; the library answers as before; run the same command again to go on")
        return INTERRUPTED
    show_report(report, as_json)
    return SKIPPED if report.skipped else FOUND


@app.command()
def heads(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the heads are written.")],
    library: LibraryOption = None,
    device: DeviceOption = Device.AUTO,
) -> int:
    """Fit closed-form heads on the vectors of a library of a bare backbone; 'rebuild --model FOLDER' uses them."""
    from mmsearch.render import show_path

    with _open(library, None, device) as opened:
        show_path(opened.fit_heads(folder))
    return FOUND


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The recipe, a TOML file.")],
    data: Annotated[list[Path] | None, typer.Option("--data", help="A data set; may be repeated.")] = None,
    model: ModelOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the run and its checkpoints.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> int:
    """Train a model from a recipe; prints the folder of the checkpoint."""
    from mmsearch.render import show_path
    from mmsearch.training.run import train as run

    logging.getLogger("mmsearch").setLevel(logging.INFO)  # a long run says where it is
    try:
        checkpoint = run(config, resume=resume, data=data, model=model, out=out)
    except KeyboardInterrupt:
        note("interrupted; the last checkpoint is kept; run the same command with --resume to go on")
        return INTERRUPTED
    show_path(checkpoint)
    return FOUND


@app.command("eval")
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set of pictures with captions.")],
    split: Annotated[str, typer.Option("--split", help="Which part of it.")] = "val",
    model: ModelOption = None,
    device: DeviceOption = Device.AUTO,
    phrasing: Annotated[bool, typer.Option("--phrasing", help="Recall of the captions as people type them.")] = False,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Captions are labels: name the photos.")] = False,
    only: Annotated[
        Path | None, typer.Option("--only", metavar="FILE", help="With --zero-shot: only photos of these labels.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Measure a model: recall both ways, median rank, ELBO, KL, active units."""
    from mmsearch.config import load_config
    from mmsearch.render import show_eval, show_facts, show_phrasing

    if phrasing and zero_shot:
        raise typer.BadParameter("give one of --phrasing, --zero-shot, not both.")
    if only is not None and not zero_shot:
        raise typer.BadParameter("--only goes with --zero-shot.")
    name = load_config().model if model is None else model
    if phrasing:
        from mmsearch.training.phrasing import evaluate_phrasing

        show_phrasing(evaluate_phrasing(data, split=split, model=name, device=device.value), as_json)
    elif zero_shot:
        from mmsearch.training.zero_shot import evaluate_zero_shot

        named = evaluate_zero_shot(data, split=split, model=name, device=device.value, only=only)
        show_facts(named.to_dict(), as_json)
    else:
        from mmsearch.training.evaluate import evaluate as run

        show_eval(run(data, split=split, model=name, device=device.value), as_json)
    return FOUND


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises, never shows a traceback unless asked to."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = os.environ.get(DEBUG_VARIABLE, "") not in ("", "0") or "--debug" in arguments
    with _quiet(debug):
        try:
            code = _run(arguments)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # `mmsearch search ... | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FOUND
        except KeyboardInterrupt:
            note("interrupted; nothing was changed")
            return INTERRUPTED
        except Exception as error:
            if debug:
                traceback.print_exc()
            note(_explain(error))
            return NOTHING if isinstance(error, LibraryNotFound) else ERROR


@contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Our own warnings become lines on stderr; those of other packages, meant for programmers, only with `debug`."""
    handler = NoteHandler()
    loggers = [logging.getLogger(name) for name in ("mmsearch", "indexer")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)


def _run(arguments: list[str]) -> int:
    """Parse and call, without the parser's own handling of errors and of Ctrl-C."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("mmsearch", arguments) as context:
            result = command.invoke(context)
    except typer.Exit as stop:  # --help, --version
        return stop.exit_code
    return result if isinstance(result, int) else FOUND


def _explain(error: Exception) -> str:
    """Any error as one line: what happened and what to do."""
    if isinstance(error, MMSearchError):
        return str(error)
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "mmsearch"
        message = error.format_message() if isinstance(error, typer.BadParameter) else getattr(error, "message", "")
        return f"{str(message or error).rstrip('.')}; see '{path} --help'"
    if isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL_PACKAGES:
        return f"this needs {error.name}; run \"pip install 'mmsearch[{OPTIONAL_PACKAGES[error.name]}]'\""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"unexpected {type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where"


def _open(library: Path | None, model: str | None = None, device: Device = Device.AUTO) -> Library:
    from mmsearch.library import Library

    return Library.open(library, model=model, device=_DEVICES[device])


_DEVICES: dict[Device, Literal["auto", "cpu", "cuda"]] = {
    Device.AUTO: "auto",
    Device.CPU: "cpu",
    Device.CUDA: "cuda",
}


def _modality(within: Within | None) -> Modality | None:
    if within is None:
        return None
    return "image" if within is Within.IMAGE else "text"


def _style(as_json: bool, paths: bool, print0: bool) -> Format:
    chosen = [
        style
        for style, wanted in ((Format.JSON, as_json), (Format.PATHS, paths), (Format.PRINT0, print0))
        if wanted
    ]
    if len(chosen) > 1:
        raise typer.BadParameter("give one of --json, --paths, --print0, not two.")
    return chosen[0] if chosen else Format.TABLE


def _nothing_found() -> int:
    note("nothing found")
    return NOTHING


if __name__ == "__main__":
    sys.exit(main())
