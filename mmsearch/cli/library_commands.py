"""The commands that look after a library: relocate, prune, backup, export, import.

In: parsed options. Out: what changed, on stdout, and an exit code. `app.py` adds them to its own: a person sees one
program. Next: `../library.py`, then `indexer/maintenance/` and `indexer/transfer/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmsearch.cli import options

commands = typer.Typer()


@commands.command()
def relocate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The folder as it was indexed; it may be gone.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Where it is now.")],
    library: options.LibraryOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Tell the library that an indexed folder has moved; nothing is encoded again."""
    from mmsearch.cli.render import show_facts

    with options.open_library(library) as opened:
        files = opened.relocate(old, new)
    show_facts({"files": files, "old": str(old), "new": str(new)}, as_json)
    return options.EXIT_OK


@commands.command()
def prune(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Only what is at or below it; else everything.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be forgotten.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Forget FOLDER although it is offline: a lost disk.")
    ] = False,
    excluded: Annotated[
        bool, typer.Option("--excluded", help="Forget also files that are on disk and excluded now.")
    ] = False,
    library: options.LibraryOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Forget files that are gone for good. Nothing else ever removes a file from the library."""
    from mmsearch.cli.render import show_pruned

    with options.open_library(library) as opened:
        report = opened.prune(folder, dry_run=dry_run, offline=offline, excluded=excluded)
    show_pruned(report, as_json)
    return options.EXIT_OK


@commands.command()
def backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A folder that is not there yet.")],
    library: options.LibraryOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Copy the library while it is in use; the copy is a library, for 'search --library DEST'."""
    from mmsearch.cli.render import show_facts

    with options.open_library(library) as opened:
        show_facts(opened.backup(dest).to_dict(), as_json)
    return options.EXIT_OK


@commands.command()
def export(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A folder that is not there yet, or a name in .tar.")],
    library: options.LibraryOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Write the library as Parquet and safetensors, for other programs and for 'import'."""
    from mmsearch.cli.render import show_facts

    with options.open_library(library) as opened:
        show_facts(opened.export(dest).to_dict(), as_json)
    return options.EXIT_OK


@commands.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder or a .tar that 'export' wrote.")],
    library: options.LibraryOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Make a new library from an archive, which need not be trusted."""
    from mmsearch.cli.render import show_facts

    with options.open_library(library) as opened:
        show_facts(opened.import_(source).to_dict(), as_json)
    return options.EXIT_OK
