"""What the commands share: exit codes, option types, how a library is opened.

In: parsed options. Out: an open `Library`, a format of output, an exit code. Next: `../library.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from mmsearch.cli.terminal import Format, note

if TYPE_CHECKING:
    from mmsearch.library import Library
    from mmsearch.query.hits import Hit

EXIT_OK = 0
EXIT_NOTHING_FOUND = 1
EXIT_ERROR = 2  # one line on stderr says what and what to do
EXIT_SKIPPED = 3  # done, with files that could not be read
EXIT_INTERRUPTED = 130  # as a shell counts Ctrl-C


Device = Literal["auto", "cpu", "cuda"]
Within = Literal["image", "text"]

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
FolderOption = Annotated[
    Path | None, typer.Option("--folder", metavar="FOLDER", help="Find only what lies at or below it.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="DAY", help="Taken then or later: 2019, 2019-05 or 2019-05-31.")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="DAY", help="Taken then or before, likewise.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PathsOption = Annotated[bool, typer.Option("--paths", help="Print paths only, one a line.")]
Print0Option = Annotated[bool, typer.Option("-0", "--print0", help="Print paths ended by NUL, for 'xargs -0'.")]
QueriesOption = Annotated[
    str | None, typer.Option("--queries", metavar="FILE", help="Texts to look for, one a line; '-' is stdin.")
]


def open_library(library: Path | None, model: str | None = None, device: Device = "auto") -> Library:
    """The library of the options; nothing is read yet."""
    from mmsearch.library import Library

    return Library.open(library, model=model, device=device)


def one_blas_thread() -> None:
    """For one query, before numpy is imported: the time goes into reading memory, and a second thread would only spin.

    A third of the processor time of a search on a busy machine; a variable that is set already stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


class FilterOptions(TypedDict):
    """The filters of a search, as `Library.search` takes them."""

    within: Within | None
    folder: Path | None
    since: str | None
    until: str | None


def ask_server(
    texts: list[str],
    image: Path | None,
    k: int | None,
    options: FilterOptions,
    library: Path | None,
    model: str | None,
    device: Device,
) -> list[list[Hit]] | None:
    """The answers of a running server; None without one, or where the options name a model or a device."""
    if model is not None or device != "auto" or not (texts or image):
        return None
    from mmsearch.config import default_library, load_config
    from mmsearch.server.client import ask

    config = load_config()
    where = library.expanduser() if library is not None else config.library or default_library()
    return ask(where, texts, image=image, k=config.k if k is None else k, **options)


def format_of(as_json: bool, paths: bool, print0: bool) -> Format:
    """The format of the three flags, of which one may be given."""
    chosen = [
        style for style, wanted in ((Format.JSON, as_json), (Format.PATHS, paths), (Format.PRINT0, print0)) if wanted
    ]
    if len(chosen) > 1:
        raise typer.BadParameter("give one of --json, --paths, --print0, not two.")
    return chosen[0] if chosen else Format.TABLE


def read_queries(source: str, text: str | None, image: Path | None) -> list[str]:
    """The texts of `--queries`, without empty lines."""
    if text is not None or image is not None:
        raise typer.BadParameter("give words, --image or --queries, not two of them.")
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    return [line.strip() for line in lines if line.strip()]


def nothing_found() -> int:
    """Say so, and the exit code for it."""
    note("nothing found")
    return EXIT_NOTHING_FOUND
