"""Days as people write them, and what is none."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest

from indexer.search.filters import Filters
from mmsearch.errors import QueryError
from mmsearch.query.days import filters_of


@pytest.mark.parametrize("written", ["", "19", "2019-13", "2019-00", "2019-02-30", "2019/05", "0000", "2019-5-1-1"])
def test_what_is_no_day(written: str) -> None:
    with pytest.raises(QueryError, match="since is"):
        filters_of(None, written, None)


@pytest.mark.parametrize(
    ("since", "until", "first", "last"),
    [
        ("2019", "2019", date(2019, 1, 1), date(2019, 12, 31)),
        ("2019-5", " 2020-02 ", date(2019, 5, 1), date(2020, 2, 29)),
        (date(2019, 5, 31), datetime(2019, 6, 1, 3), date(2019, 5, 31), date(2019, 6, 1)),
        (None, None, None, None),
    ],
)
def test_a_year_and_a_month_stand_for_their_first_and_last_day(
    since: str | date | None, until: str | date | None, first: date | None, last: date | None
) -> None:
    assert filters_of(None, since, until) == Filters(None, first, last)


def test_the_folder_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert filters_of("~/photos", None, None) == Filters(Path("/home/me/photos"))
