"""Lists are whole or refused, whatever a server does with page numbers and cursors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.cloudflare.failures import Incomplete
from infra.cloudflare.pages import MAX_PAGES, by_cursor, by_page, whole
from infra.cloudflare.wire import Answer

ROWS = [{"id": f"id-{n:03}"} for n in range(45)]
Server = Callable[[int], Answer]


def pages(size: int, **info: Any) -> Server:
    """Return a server that does as it should, and says `info` beside."""
    return lambda page: Answer(ROWS[(page - 1) * size : page * size], info)


async def read(server: Server) -> tuple[int, list[Any]]:
    """Return how many pages were asked for, and the rows."""
    asked = 0

    async def fetch(page: int) -> Answer:
        nonlocal asked
        asked += 1
        assert page == asked
        return server(page)

    rows = await by_page(fetch, "id")
    return asked, rows


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        (pages(45, total_count=45), 1),
        (pages(20, total_count=45), 3),
        (pages(20, total_pages=3), 3),
        (pages(20, total_count=45, total_pages=9), 3),
        (pages(20, per_page=20), 3),
        (pages(45, per_page=1000), 1),
        # Without a word even a short page is no end: the server may give fewer rows than it was asked for.
        (pages(20), 4),
        (pages(100), 2),
        (lambda _: Answer(ROWS, {}), 2),  # a server without pages
        (lambda _: Answer([], {}), 1),
        (lambda page: Answer(ROWS if page == 1 else [], {"total_pages": 9}), 2),
        (lambda _: Answer([], {"total_count": 0}), 1),
        (pages(20, total_count="45"), 4),
        (pages(20, total_count=True), 4),
        (pages(20, total_count=None, total_pages=-1), 4),
    ],
)
async def test_every_page_is_read_to_a_proved_end(server: Server, asked: int) -> None:
    """A total that is reached, the last page, a short or an empty one, or a server that knows no pages."""
    calls, rows = await read(server)
    assert calls == asked
    assert rows in (ROWS, [])
    assert len(rows) == (45 if server(1).result else 0)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (lambda _: Answer(ROWS[:20], {}), "page 2 repeats"),
        (lambda _: Answer(ROWS[:20], {"per_page": 20}), "page 2 repeats"),
        (lambda _: Answer(ROWS[:21], {"page": 1}), "page 2 repeats"),
        (lambda page: Answer(ROWS[:7] if page == 1 else ROWS[7:8], {}), "page 3 repeats"),
        (lambda _: Answer(ROWS[:20], {"total_count": 45}), "page 2 repeats"),
        (lambda page: Answer(ROWS[:20] if page == 1 else [], {"total_count": 45}), "20 of 45"),
        (lambda _: Answer([], {"total_count": 45}), "0 of 45"),
        (lambda _: Answer(ROWS[:20], {"total_count": 3}), "20 rows were listed where there should be 3"),
        (lambda _: Answer(ROWS[:20], {"total_count": 0}), "20 rows were listed where there should be 0"),
        (lambda page: Answer([{"id": f"{page}"}], {}), f"no end after {MAX_PAGES} pages"),
        (lambda _: Answer(None, {}), "the list is none"),
        (lambda _: Answer({"id": "x"}, {}), "the list is none"),
        (lambda _: Answer([{"title": "x"}], {}), "a row has no id"),
        (lambda _: Answer([{"id": ""}], {}), "a row has no id"),
        (lambda _: Answer([{"id": 7}], {}), "a row has no id"),
        (lambda _: Answer(["x"], {}), "a row has no id"),
    ],
)
async def test_a_list_without_a_provable_end_is_refused(server: Server, why: str) -> None:
    """Half a list is never given out."""
    with pytest.raises(Incomplete, match=why):
        await read(server)


async def test_a_total_that_moves_while_it_is_read_is_followed() -> None:
    """Something that is created meanwhile changes the total, and is in the list."""
    totals = {1: 44, 2: 45, 3: 45}
    _, rows = await read(
        lambda page: Answer(ROWS[(page - 1) * 20 : page * 20], {"total_count": totals[page]})
    )
    assert len(rows) == 45


Cursors = Callable[[str], Answer]


def cursors(size: int) -> Cursors:
    """Return a server of cursors that does as it should."""

    def server(cursor: str) -> Answer:
        at = int(cursor or "0")
        info = {"cursor": str(at + size)} if at + size < len(ROWS) else {}
        return Answer({"rows": ROWS[at : at + size]}, info)

    return server


async def follow(server: Cursors) -> tuple[int, list[Any]]:
    """Return how many pages were asked for, and the rows."""
    asked = 0

    async def fetch(cursor: str) -> Answer:
        nonlocal asked
        asked += 1
        return server(cursor)

    rows = await by_cursor(fetch, "rows", "id")
    return asked, rows


async def test_cursors_are_followed_to_the_last_page() -> None:
    """The bug of lists of 20: an account with 45 buckets has 45."""
    assert await follow(cursors(20)) == (3, ROWS)
    assert await follow(cursors(45)) == (1, ROWS)
    assert await follow(lambda _: Answer({"rows": []}, {"cursor": ""})) == (1, [])


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (lambda _: Answer({"rows": ROWS[:20]}, {"cursor": "same"}), "repeats"),
        (lambda cursor: Answer({"rows": ROWS[:20]}, {"cursor": cursor + "x"}), "repeats"),
        (lambda cursor: Answer({"rows": [{"id": cursor or "0"}]}, {"cursor": "a"}), "repeats"),
        (lambda _: Answer({"rows": []}, {"cursor": "x"}), "repeats"),
        (lambda cursor: Answer({"rows": [{"id": cursor + "x"}]}, {"cursor": cursor + "x"}), "no end after"),
        (lambda _: Answer({"rows": ROWS}, {"cursor": 7}), "is no text"),
        (lambda _: Answer(ROWS, {}), "the list is none"),
        (lambda _: Answer({"buckets": ROWS}, {}), "the list is none"),
    ],
)
async def test_a_cursor_that_leads_nowhere_is_refused(server: Cursors, why: str) -> None:
    """Non-advancing cursors, endless ones and other shapes."""
    with pytest.raises(Incomplete, match=why):
        await follow(server)


def test_a_list_in_one_page_believes_a_total() -> None:
    """One that says there are more is not whole."""
    assert whole(Answer(ROWS, {}), "id") == ROWS
    assert whole(Answer(ROWS, {"total_count": 45}), "id") == ROWS
    with pytest.raises(Incomplete, match="45 of 46"):
        whole(Answer(ROWS, {"total_count": 46}), "id")
