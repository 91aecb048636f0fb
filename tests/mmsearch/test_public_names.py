"""The public names: complete, documented, and free until they are used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import mmsearch
import mmsearch.errors


def test_every_public_name_loads_and_is_documented() -> None:
    for name in mmsearch.__all__:
        value = getattr(mmsearch, name)
        if name != "__version__":
            assert inspect.getdoc(value), name


def test_the_list_is_sorted_without_doubles_and_holds_every_error() -> None:
    assert mmsearch.__all__ == sorted(set(mmsearch.__all__))
    assert set(mmsearch.errors.__all__) <= set(mmsearch.__all__)
    assert {"Library", "Hit", "Posterior", "IndexReport", "load_model", "__version__"} <= set(mmsearch.__all__)
    assert dir(mmsearch) == mmsearch.__all__


def test_every_error_descends_from_one() -> None:
    for name in mmsearch.errors.__all__:
        assert issubclass(getattr(mmsearch, name), mmsearch.MMSearchError)


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Librarry'; public names: .*Library"):
        mmsearch.Librarry  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import mmsearch, sys; print(sorted({'numpy', 'PIL', 'sqlalchemy', 'torch', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
