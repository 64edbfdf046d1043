"""Whole lists or none. A pager that cannot prove it saw the end raises `Incomplete`.

What is missing from a list gets created, so half a list is worse than no list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from infra.cloudflare.failures import Incomplete
from infra.cloudflare.wire import Answer

Row = dict[str, Any]

MAX_PAGES = 100
_ROUND = 10


async def by_page(fetch: Callable[[int], Awaitable[Answer]], key: str) -> list[Row]:
    """Return the rows of every page from 1 on. `key` is the member that tells rows apart.

    The end is proved by a total that is reached, the last page's number, a page that is shorter than the
    server says its pages are, or an empty one. A server that says nothing of pages and gives the same rows
    for every number has one page; but a round number of rows looks like a cap, and is refused.
    """
    rows: dict[str, Row] = {}
    for page in range(1, MAX_PAGES + 1):
        answer = await fetch(page)
        found = _keyed(answer.result, key)
        before = len(rows)
        rows.update(found)
        if _is_last(answer, page, len(found), len(rows)):
            return list(rows.values())
        if len(rows) == before:
            if page == 2 and not answer.info and len(rows) % _ROUND:
                return list(rows.values())
            raise Incomplete(f"page {page} repeats earlier rows")
    raise Incomplete(f"no end after {MAX_PAGES} pages")


def _is_last(answer: Answer, page: int, found: int, rows: int) -> bool:
    """Whether a page is shown to be the last. Raises `Incomplete` where that is contradicted."""
    total = _count(answer, "total_count")
    if total is not None:
        if rows > total:
            raise Incomplete(f"{rows} rows were listed where there should be {total}")
        if not found and rows < total:
            raise Incomplete(f"{rows} of {total} rows were listed")
        return rows == total
    pages, size = _count(answer, "total_pages"), _count(answer, "per_page")
    if pages is not None:
        return page >= pages or not found
    return not found or (size is not None and found < size)


async def by_cursor(fetch: Callable[[str], Awaitable[Answer]], member: str, key: str) -> list[Row]:
    """Return the rows of every page, whose result is an object with the rows under `member`.

    `fetch` gets the cursor of the page before, empty at first. A page without a cursor is the last.
    """
    rows: dict[str, Row] = {}
    cursor = ""
    for _ in range(MAX_PAGES):
        answer = await fetch(cursor)
        found = answer.result.get(member) if isinstance(answer.result, dict) else None
        before = len(rows)
        rows.update(_keyed(found, key))
        following = answer.info.get("cursor") or ""
        if not isinstance(following, str):
            raise Incomplete("the cursor of the next page is no text")
        if not following:
            return list(rows.values())
        if len(rows) == before or following == cursor:
            raise Incomplete("the next page repeats the one before")
        cursor = following
    raise Incomplete(f"no end after {MAX_PAGES} pages")


def whole(answer: Answer, key: str) -> list[Row]:
    """Return the rows of a list that comes in one page. A total that says otherwise is believed."""
    rows = list(_keyed(answer.result, key).values())
    total = _count(answer, "total_count")
    if total is not None and total != len(rows):
        raise Incomplete(f"{len(rows)} of {total} rows were listed")
    return rows


def _keyed(result: object, key: str) -> dict[str, Row]:
    if not isinstance(result, list):
        raise Incomplete("the list is none")
    rows = {}
    for one in result:
        name = one.get(key) if isinstance(one, dict) else None
        if not isinstance(name, str) or not name:
            raise Incomplete(f"a row has no {key}")
        rows[name] = one
    return rows


def _count(answer: Answer, name: str) -> int | None:
    value = answer.info.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
