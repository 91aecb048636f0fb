"""The errors that need a model are branches of the indexer's tree, as the module's header draws them."""

from __future__ import annotations

import inspect

import pytest

from indexer.base import errors as below
from mmsearch import errors

OWN = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == errors.__name__
}


@pytest.mark.parametrize("name", OWN)
def test_each_is_caught_by_the_root_and_drawn(name: str) -> None:
    assert issubclass(OWN[name], below.MMSearchError)
    assert name in (errors.__doc__ or "")
    assert len(OWN[name].__bases__) == 1
    assert str(OWN[name]("found 3; expected 2; type this")) == "found 3; expected 2; type this"


def test_the_indexers_errors_are_the_same_classes() -> None:
    shared = {name for name, one in vars(below).items() if inspect.isclass(one) and name in vars(errors)}
    assert {"MMSearchError", "LibraryError"} <= shared
    assert all(getattr(errors, name) is getattr(below, name) for name in shared)
