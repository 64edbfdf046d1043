"""The grammar of needs: what storage may be called, and how a Worker is to run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from router.errors import Invalid, Problem
from router.fields import Fields, matches, no_duplicates, one_of, text, truth
from router.model import DEFAULT_DATE, Binding, Bucket, Needs, Worker

MAX_NEEDS = 50
MAX_WORKER = 200_000
MAX_CRONS = 5
JURISDICTIONS = ("eu", "us", "fedramp", "fedramp-high")
LOCATIONS = ("apac", "eeur", "enam", "weur", "wnam", "oc")
BINDINGS = {"kv": "kvNamespaces", "r2": "r2Buckets", "d1": "d1Databases", "queue": "queues"}
"""What a Worker may be bound to, and where the same needs have to list it."""

STORAGE: Mapping[str, tuple[str, re.Pattern[str], str]] = {
    "kvNamespaces": (
        "kv_namespaces",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"),
        "letters, digits, _ and -, at most 128",
    ),
    "r2Buckets": (
        "r2_buckets",
        re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"),
        "3 to 63 of a-z, 0-9 and -, not - at either end",
    ),
    "d1Databases": (
        "d1_databases",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
        "letters, digits, _ and -, at most 64",
    ),
    "queues": (
        "queues",
        re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
        "1 to 63 of a-z, 0-9 and -, not - at either end",
    ),
}
"""The lists of names: the attribute of `Needs`, what a name looks like, and that in words."""

WORKER = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
BINDING = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
DATE = re.compile(
    r"20[0-9]{2}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))|20(?:[02468][048]|[13579][26])-02-29"
)


def _times(number: str, *others: str) -> str:
    """Return the expression for one field of a cron expression, whose numbers look so."""
    one = "|".join([rf"(?:\*|{number}(?:-{number})?)(?:/[1-9][0-9]?)?", *others])
    return f"(?:{one})(?:,(?:{one}))*"


_DAY = "(?:3[01]|[12][0-9]|0?[1-9])"
_MONTH = "(?:1[0-2]|0?[1-9]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"
_WEEKDAY = "(?:[1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)"
CRON = re.compile(
    " ".join(
        (
            _times("[0-5]?[0-9]"),
            _times("(?:2[0-3]|[01]?[0-9])"),
            _times(_DAY, "LW?", f"{_DAY}W"),
            _times(_MONTH),
            _times(_WEEKDAY, f"{_WEEKDAY}(?:L|#[1-5])"),
        )
    )
)
"""As Cloudflare reads it: days of the week count from 1, which is Sunday."""


def parse_needs(value: object, at: str = "") -> Needs:
    """Return the needs in a JSON body, such as `want` of `ensure-infra`."""
    fields = Fields({})
    needs = needs_of(value, fields, at)
    if fields.problems:
        raise Invalid(fields.problems)
    return needs


def needs_of(value: object, outer: Fields, at: str = "needs") -> Needs:
    """Return needs that are a part of a body; their problems are kept in `outer`."""
    fields = Fields(value, at)
    found: dict[str, tuple[Any, ...]] = {}
    listed: dict[str, list[str]] = {}
    for kind, (attribute, pattern, rule) in STORAGE.items():
        parse = partial(_bucket if kind == "r2Buckets" else _name, matches(pattern, rule))
        given = fields.each(kind, MAX_NEEDS, parse)
        listed[kind] = [one if isinstance(one, str) else one.name for one in given]
        no_duplicates(fields, kind, listed[kind])
        found[attribute] = tuple(given)
    workers = fields.each("workers", MAX_NEEDS, partial(_worker, listed))
    no_duplicates(fields, "workers", [one.name for one in workers])
    for kind in fields.left:
        fields.wrong(kind[:64], f"is no kind of storage: {', '.join([*STORAGE, 'workers'])}")
    if sum(len(worker.content) for worker in workers) > MAX_WORKER:
        fields.wrong("workers", f"may have at most {MAX_WORKER} characters of source together")
    outer.problems += fields.problems
    return Needs(workers=tuple(workers), **found)


def _name(check: Callable[[Any], str | None], value: Any, at: str, outer: Fields) -> str | None:
    complaint = check(value)
    if complaint:
        outer.problems.append(Problem(at, complaint))
        return None
    return str(value)


def _bucket(check: Callable[[Any], str | None], value: Any, at: str, outer: Fields) -> str | Bucket | None:
    if not isinstance(value, dict):
        return _name(check, value, at, outer)
    fields = Fields(value, at)
    bucket = Bucket(
        name=fields.required("name", "", check),
        jurisdiction=fields.take("jurisdiction", "", one_of(*JURISDICTIONS)),
        location_hint=fields.take("location_hint", "", one_of(*LOCATIONS)),
    )
    fields.close()
    outer.problems += fields.problems
    if fields.problems:
        return None
    return bucket if bucket.jurisdiction or bucket.location_hint else bucket.name


def _worker(listed: Mapping[str, list[str]], value: Any, at: str, outer: Fields) -> Worker | None:
    fields = Fields(value, at)
    if fields.problems:
        outer.problems += fields.problems
        return None
    rule = "1 to 63 of a-z, 0-9, - and _, a letter or digit at either end"
    date = matches(DATE, f"must be a date such as {DEFAULT_DATE}")
    crons = fields.each("crons", MAX_CRONS, _cron)
    no_duplicates(fields, "crons", crons)
    worker = Worker(
        name=fields.required("name", "", matches(WORKER, rule)),
        content=fields.required("content", "", text(MAX_WORKER, least=1, lines=True)),
        compatibility_date=fields.take("compatibility_date", DEFAULT_DATE, date),
        bindings=_bindings(fields, listed),
        workers_dev=fields.take("workers_dev", default=False, check=truth),
        crons=tuple(crons),
    )
    fields.close()
    outer.problems += fields.problems
    return None if fields.problems else worker


def _bindings(outer: Fields, listed: Mapping[str, list[str]]) -> dict[str, Binding]:
    found = {}
    for name, value in outer.take("bindings", {}, _binding_table).items():
        fields = Fields(value, f"{outer.at}.bindings.{name[:64]}")
        if not BINDING.fullmatch(name):
            outer.problems.append(Problem(fields.at, "is called by letters, digits and _, at most 64"))
        given = {
            kind: fields.take(kind, "", _among(listed[where], where)) for kind, where in BINDINGS.items()
        }
        fields.close()
        if not fields.problems and sum(map(bool, given.values())) != 1:
            outer.problems.append(Problem(fields.at, f"must name exactly one of {', '.join(BINDINGS)}"))
        outer.problems += fields.problems
        found[name] = Binding(**given)
    return found


def _binding_table(value: object) -> str | None:
    if not isinstance(value, dict):
        return "must be an object of names to what they are bound to"
    return None if len(value) <= MAX_NEEDS else f"must have at most {MAX_NEEDS}"


def _among(names: list[str], where: str) -> Callable[[Any], str | None]:
    """Return a check for one of the names that the same needs list: a binding creates nothing by itself."""
    return lambda value: None if value in names else f"must be one of these {where}"


def _cron(value: Any, at: str, outer: Fields) -> str | None:
    complaint = matches(CRON, "must be a cron expression of five fields, such as */15 * * * *")
    return _name(complaint, value, at, outer)
