"""Days as a person writes them: `2019`, `2019-05`, `2019-05-31`.

In: a text or a date. Out: the first or the last day it stands for. Next: `../../indexer/search/filters.py`.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime
from pathlib import Path

from indexer.search.filters import Filters
from mmsearch.errors import QueryError

_WRITTEN = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?", re.ASCII)


def filters_of(folder: str | Path | None, since: str | date | None, until: str | date | None) -> Filters:
    """What a search is narrowed to, by a folder and by days.

    Args:
        folder: an indexed folder, or one below it; or a file.
        since: a day, or a month or a year, from whose first day on.
        until: the same, to whose last day.

    Raises:
        QueryError: not a day, or `until` before `since`.
    """
    first = None if since is None else _day(since, "since", last=False)
    last = None if until is None else _day(until, "until", last=True)
    if first is not None and last is not None and last < first:
        raise QueryError(f"there is no day from {first} to {last}; give 'until' a day that is not before 'since'")
    return Filters(None if folder is None else Path(folder).expanduser(), first, last)


def _day(given: str | date, what: str, last: bool) -> date:
    if isinstance(given, datetime):
        return given.date()
    if isinstance(given, date):
        return given
    found = _WRITTEN.fullmatch(given.strip())
    try:
        if found is None:
            raise ValueError
        year, month, day = (None if part is None else int(part) for part in found.groups())
        assert year is not None
        month = month if month is not None else 12 if last else 1
        if day is None:
            day = calendar.monthrange(year, month)[1] if last else 1
        return date(year, month, day)
    except (ValueError, calendar.IllegalMonthError):
        known = "a year, a month or a day, as 2019, 2019-05 or 2019-05-31"
        raise QueryError(f"{what} is {given!r}; give {known}") from None
