"""Cron expressions in a time zone: whether one is valid, and when it comes next."""

from __future__ import annotations

import datetime
import re
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

_FIELD = re.compile(r"(\*|[0-9]+|[a-z]{3}|l)([-,/#](\*|[0-9]+|[a-z]{3}|l))*", re.IGNORECASE)


def cron_expression(text: str) -> str:
    """Return a cron expression with single blanks, or raise `ValueError`."""
    fields = text.split()
    # croniter also takes random and hashed fields, which two processes would read differently.
    if len(fields) != 5 or not all(_FIELD.fullmatch(one) for one in fields):
        raise ValueError("not a cron expression of five fields: minute hour day month weekday")
    if not croniter.is_valid(" ".join(fields)):
        raise ValueError("not a valid cron expression")
    return " ".join(fields)


def zone_name(name: str) -> str:
    """Return the name of a time zone, or raise `ValueError`."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone we know") from None
    return name


def _zone(name: str) -> datetime.tzinfo:
    # UTC needs no time zone database, which not every platform has.
    return datetime.UTC if name == "UTC" else ZoneInfo(name)


def next_time(cron: str, timezone: str, after: float) -> float | None:
    """Return the first time of `cron` after `after` (epoch seconds), or None when there is none.

    A time that the clocks skip in spring fires at the first minute that exists. A time that comes twice in
    autumn fires once, unless the hour field has a `*`: then every real hour counts.
    """
    start = datetime.datetime.fromtimestamp(after, _zone(timezone))
    times = croniter(cron, start, max_years_between_matches=9)
    try:
        found: datetime.datetime = times.get_next(datetime.datetime)
        while found.fold and "*" not in cron.split()[1]:
            found = times.get_next(datetime.datetime)
    except CroniterError:
        return None
    return found.timestamp()
