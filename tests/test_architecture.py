"""The architecture, checked on the source: no import circles, SQL in one package, tests mirror it, short files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("indexer", "mmsearch")
LINES_LIMIT = 400
SQL = frozenset({"sqlalchemy", "sqlite3", "alembic"})
Graph = dict[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name; a package by its own."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imports_of(name: str) -> Iterator[str]:
    """What a module imports when it runs, in functions too; not what only a type checker reads."""
    pending: list[ast.AST] = [tree_of(name)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            pending.extend(ast.iter_child_nodes(node))


def module_of(imported: str) -> str | None:
    """The module of this project that an import loads: `indexer.store.Store` is in `indexer.store`."""
    while imported and imported not in modules():
        imported = imported.rpartition(".")[0]
    return imported or None


@cache
def graph() -> Graph:
    edges: Graph = {}
    for name in modules():
        edges[name] = {found for found in map(module_of, imports_of(name)) if found is not None and found != name}
    return edges


def circles(edges: Graph) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected components; Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in edges[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in order:
            visit(name)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_the_graph_has_the_imports_inside_functions() -> None:
    assert "indexer.ingest.ingest" in graph()["indexer.store"]
    assert "PIL" not in {name.partition(".")[0] for name in imports_of("indexer.base.types")}, "type checking only"


def test_no_import_circles() -> None:
    assert circles(graph()) == []


def test_indexer_does_not_know_mmsearch() -> None:
    assert [
        name for name, used in graph().items() if name.startswith("indexer") and any("mmsearch" in u for u in used)
    ] == []


def test_sql_is_in_the_catalog_only() -> None:
    using = {name for name in modules() if {one.partition(".")[0] for one in imports_of(name)} & SQL}
    assert {name for name in using if not name.startswith("indexer.catalog")} == set()


def test_every_catalog_is_opened_through_one_door() -> None:
    calls = {
        (name, ast.unparse(node.func))
        for name in modules()
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Call)
    }
    names = {(name, called.rpartition(".")[2]) for name, called in calls}
    assert {name for name, called in calls if called in ("sqlite3.connect", "sqlite3.dbapi2.connect")} == {
        "indexer.catalog.door"
    }
    assert {name for name, called in names if called in ("create_engine", "engine_from_config", "create_pool")} == {
        "indexer.catalog.database"
    }


def test_connections_have_a_type() -> None:
    untyped = [
        f"{name}:{node.lineno}"
        for name in modules()
        if name != "indexer.catalog.database"  # where the driver hands over a connection of its own
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.arg) and "connection" in node.arg and node.annotation is not None
        if ast.unparse(node.annotation) == "Any"
    ]
    assert untyped == []


# what writes to a terminal by itself; opened descriptors are the streams of other processes
PRINTING = re.compile(
    r"\b(print|typer\.echo|click\.echo|(typer|click)\.secho|pprint|traceback\.print_\w+|logging\.basicConfig|"
    r"(logging\.)?StreamHandler|sys\.(__)?std(out|err)(__)?(\.buffer)?\.(write|writelines))$"
)
PRINTS = {
    "mmsearch.cli.terminal": "the one door",
    "mmsearch.data.scenes": "a program of its own that writes drawn scenes for training, below the command line",
}


def test_only_one_module_prints() -> None:
    printing = {
        name
        for name in modules()
        for node in ast.walk(tree_of(name))
        if isinstance(node, ast.Call) and PRINTING.search(ast.unparse(node.func))
    }
    assert printing == set(PRINTS)
    assert {name for name in modules() if any(one.startswith("rich") for one in imports_of(name))} == {
        "mmsearch.cli.progress"  # a bar of numbers
    }


@pytest.mark.parametrize("package", ["indexer"])
def test_files_are_short(package: str) -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {n: lines for n, lines in lengths.items() if n.startswith(package) and lines > LINES_LIMIT} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_has_a_test_file_of_its_name(package: str) -> None:
    missing = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name.startswith("__") or "migrations" in path.parts:
            continue
        folder = ROOT / "tests" / path.relative_to(ROOT).parent
        if not list(folder.glob(f"test_{path.name}")):
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []
