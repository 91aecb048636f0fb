"""The tests have a home of their own: nothing of the person who runs them is read or written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield
