"""The tests have a home of their own: nothing of the person who runs them is read or written.

A model folder is tried out in the process of the test: a fresh process that imports torch, for each of hundreds of tiny
models, would take minutes. `mmsearch/inference/test_trial.py` tests the process itself.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from indexer.base.worker import Message
from mmsearch.inference import trial


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _tried_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def try_out(request: Message) -> Message:
        from mmsearch.inference.trial_worker import try_out

        return try_out(request, limited=False)

    monkeypatch.setattr(trial, "in_process", try_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Two processes hand each other reports in UTF-8, and what a test printed may hold names that are not."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
