"""The command line: parse, call `Library`, render. No logic of its own.

In: the arguments, from `entry.py`. Out: data on stdout, progress and warnings on stderr, an exit code: 0 found or done,
1 nothing found, 2 error (one line), 3 done with skipped files, 130 interrupted. Heavy modules are imported inside the
commands, so that `--help` answers at once. Next: `library_commands.py`, `model_commands.py`, `options.py`; then
`../library.py`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import typer.main

from mmsearch.cli import library_commands, model_commands, options
from mmsearch.cli.explain import DEBUG_VARIABLE, explain
from mmsearch.cli.terminal import CannotShow, flush, note, note_traceback, only_notes, put, silence
from mmsearch.errors import LibraryNotFound

app = typer.Typer(
    name="mmsearch",
    help="Find photos and texts by what they show and say. Start with 'mmsearch index FOLDER'.",
    add_completion=False,
    rich_markup_mode=None,  # rich costs a tenth of a second at every start
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from mmsearch import __version__

        put(f"mmsearch {__version__}")
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
    library: options.LibraryOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Pass over what matches, as in a .gitignore; repeatable."),
    ] = None,
    follow_links: Annotated[
        bool | None,
        typer.Option("--follow-links/--no-follow-links", help="Follow links out of FOLDER from now on, or no more."),
    ] = None,
    as_json: options.JsonOption = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say at the end where the time went.")] = False,
) -> int:
    """Bring the library up to date with a folder."""
    from mmsearch.cli.progress import progress_on_stderr, show_profile
    from mmsearch.cli.render import show_report

    try:
        with options.open_library(library, model, device) as opened, progress_on_stderr() as progress:
            report = opened.index(folder, progress, exclude=exclude or (), follow_links=follow_links)
    except KeyboardInterrupt:
        note("interrupted; every finished batch is kept; run the same command again to go on")
        return options.EXIT_INTERRUPTED
    show_report(report, as_json, profile=profile)
    if profile:
        show_profile(report)
    return options.EXIT_SKIPPED if report.skipped else options.EXIT_OK


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORDS...", help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option("--image", help="A picture to look for, alone or with words.")] = None,
    k: options.CountOption = None,
    within: options.WithinOption = None,
    folder: options.FolderOption = None,
    since: options.SinceOption = None,
    until: options.UntilOption = None,
    library: options.LibraryOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
    paths: options.PathsOption = False,
    print0: options.Print0Option = False,
    queries: options.QueriesOption = None,
) -> int:
    """Find files by words, by a picture, or by both together; with '--queries', by many texts at once."""
    from mmsearch.cli.render import show_answers, show_hits

    style = options.format_of(as_json, paths, print0)
    text = " ".join(words) if words else None
    filters = options.FilterOptions(within=within, folder=folder, since=since, until=until)
    if queries is not None:
        texts = options.read_queries(queries, text, image)
        answers = options.ask_server(texts, None, k, filters, library, model, device)
        if answers is None:
            with options.open_library(library, model, device) as opened:
                answers = opened.search_many(texts, k=opened.config.k if k is None else k, **filters)
        show_answers(texts, answers, style)
        return options.EXIT_OK if any(answers) else options.nothing_found()
    options.one_blas_thread()
    answers = options.ask_server([text] if text else [], image, k, filters, library, model, device)
    if answers:
        hits = answers[0]
    else:
        with options.open_library(library, model, device) as opened:
            hits = opened.search(text, image, k=opened.config.k if k is None else k, **filters)
    show_hits(hits, {"query": text} if image is None else {"query": text, "image": str(image)}, style)
    return options.EXIT_OK if hits else options.nothing_found()


@app.command()
def similar(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or a text, indexed or not.")],
    k: options.CountOption = None,
    within: options.WithinOption = None,
    folder: options.FolderOption = None,
    since: options.SinceOption = None,
    until: options.UntilOption = None,
    library: options.LibraryOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
    paths: options.PathsOption = False,
    print0: options.Print0Option = False,
) -> int:
    """Find files like a file; with '--in text', texts for a picture."""
    from mmsearch.cli.render import show_hits

    style = options.format_of(as_json, paths, print0)
    filters = options.FilterOptions(within=within, folder=folder, since=since, until=until)
    with options.open_library(library, model, device) as opened:
        hits = opened.similar(file, k=opened.config.k if k is None else k, **filters)
    show_hits(hits, {"query": str(file)}, style)
    return options.EXIT_OK if hits else options.nothing_found()


@app.command()
def status(library: options.LibraryOption = None, as_json: options.JsonOption = False) -> int:
    """Show what the library holds and which model wrote it."""
    from mmsearch.cli.render import show_status

    with options.open_library(library) as opened:
        show_status(opened.path, opened.status(), as_json)
    return options.EXIT_OK


@app.command()
def serve(
    by_socket: Annotated[bool, typer.Option("--socket", help="Answer 'mmsearch search' on this machine.")] = False,
    background: Annotated[bool, typer.Option("--background", help="Return once it answers.")] = False,
    idle_minutes: Annotated[float, typer.Option(min=0, help="End after so long without a question; 0: never.")] = 10,
    library: options.LibraryOption = None,
    device: options.DeviceOption = "auto",
) -> int:
    """Keep the model and the library warm, so that searches answer at once."""
    from mmsearch.server.serve import start

    if not by_socket:
        raise typer.BadParameter("give --socket.")
    with options.open_library(library, None, device) as opened:
        if background:
            arguments = ["--library", str(opened.path.absolute()), "--idle-minutes", str(idle_minutes)]
            start(opened.path, [*arguments, "--device", device])
            return options.EXIT_OK
        opened.serve(60 * idle_minutes, lambda path: note(f"answering on {path}"))
    return options.EXIT_OK


@app.command()
def errors(
    library: options.LibraryOption = None,
    as_json: options.JsonOption = False,
    paths: options.PathsOption = False,
    print0: options.Print0Option = False,
) -> int:
    """List the files that were skipped, with the reasons."""
    from mmsearch.cli.render import show_errors

    style = options.format_of(as_json, paths, print0)
    with options.open_library(library) as opened:
        show_errors(opened.errors(), style)
    return options.EXIT_OK


@app.command()
def doctor(
    library: options.LibraryOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without loss.")] = False,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help="Files and captions to encode again and compare.")
    ] = 32,
    as_json: options.JsonOption = False,
) -> int:
    """Check everything the library keeps; with '--repair', mend it."""
    from mmsearch.cli.render import show_checks

    with options.open_library(library, model, device) as opened:
        report = opened.doctor(repair=repair, sample=sample)
    show_checks(report, as_json)
    return options.EXIT_OK if report.sound else options.EXIT_SKIPPED


@app.command()
def rebuild(
    library: options.LibraryOption = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> int:
    """Encode the library with another model, '--model'; what that model encoded before is kept."""
    from mmsearch.cli.progress import progress_on_stderr
    from mmsearch.cli.render import show_report

    try:
        with options.open_library(library, model, device) as opened, progress_on_stderr() as progress:
            report = opened.rebuild(progress)
    except KeyboardInterrupt:
        note("interrupted; the library answers as before; run the same command again to go on")
        return options.EXIT_INTERRUPTED
    show_report(report, as_json)
    return options.EXIT_SKIPPED if report.skipped else options.EXIT_OK


app.add_typer(library_commands.commands)
app.add_typer(model_commands.commands)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises, never shows a traceback unless asked to."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    debug = os.environ.get(DEBUG_VARIABLE, "") not in ("", "0") or "--debug" in arguments
    code = options.EXIT_OK
    with only_notes(debug):
        try:
            code = _run(arguments)
            flush()
            return code
        except (CannotShow, BrokenPipeError) as error:
            silence(sys.stdout)
            if error.errno == errno.EPIPE:  # `mmsearch search ... | head` has seen enough
                return code
            note(explain(error))
            return options.EXIT_ERROR
        except KeyboardInterrupt:
            note("interrupted; nothing was changed")
            return options.EXIT_INTERRUPTED
        except Exception as error:
            if debug:
                note_traceback(error)
            note(explain(error))
            return options.EXIT_NOTHING_FOUND if isinstance(error, LibraryNotFound) else options.EXIT_ERROR


def _run(arguments: list[str]) -> int:
    """Parse and call, without the parser's own handling of errors and of Ctrl-C."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("mmsearch", arguments) as context:
            result = command.invoke(context)
    except typer.Exit as stop:  # --help, --version
        return stop.exit_code
    return result if isinstance(result, int) else options.EXIT_OK
