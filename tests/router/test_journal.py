"""Log rows: written in groups, soon, and kept while the store does not take them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from router import journal as journal_module
from router.journal import MOST_WAITING, ROWS_PER_DOCUMENT, Journal, Row
from tests.fakes import START
from tests.router.parts import Core, until

DAY = "2026-01-01"


def row(number: int = 0, *, ts: float = START, status: int = 200, error: str = "") -> Row:
    """Give a row that its duration tells from others."""
    return Row(ts, "generate_page", "web.pages.generate", "a", status, float(number), 1, "t" * 32, error)


@pytest.fixture
async def journal(parts: Core, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Give a journal that writes only when told to."""
    monkeypatch.setattr(journal_module, "DELAY_SECONDS", 3600.0)
    return parts.journal


async def numbers(journal: Journal, limit: int = 100_000) -> list[float]:
    """Return the numbers of the rows that were written, newest first."""
    return [one["duration_ms"] for one in await journal.rows(DAY, limit=limit)]


async def test_a_row_as_the_log_shows_it(journal: Journal) -> None:
    """With time, level and whether it went well."""
    journal.forwarded(row(3))
    await journal.flush()
    assert await journal.rows(DAY) == [
        {
            "ts": "2026-01-01T00:00:00.000Z",
            "task": "generate_page",
            "capability": "web.pages.generate",
            "autopilot": "a",
            "status": 200,
            "duration_ms": 3.0,
            "attempts": 1,
            "trace_id": "t" * 32,
            "error": "",
            "ok": True,
            "level": "info",
        }
    ]


@pytest.mark.parametrize(
    ("status", "ok", "level"),
    [(200, True, "info"), (299, True, "info"), (404, False, "warning"), (502, False, "error")],
)
def test_the_level_follows_the_status(status: int, ok: bool, level: str) -> None:
    """The caller's mistakes are warnings, ours and the autopilots' are errors."""
    shown = row(status=status).document()
    assert (shown["ok"], shown["level"]) == (ok, level)


async def test_rows_are_written_in_one_document(parts: Core, journal: Journal) -> None:
    """A busy router pays one write for hundreds of rows."""
    for number in range(ROWS_PER_DOCUMENT):
        journal.forwarded(row(number))
    await journal.flush()
    assert parts.table.count("put", "log:") == 1
    assert await numbers(journal) == list(map(float, reversed(range(ROWS_PER_DOCUMENT))))


async def test_more_rows_than_a_document_holds_are_cut(parts: Core, journal: Journal) -> None:
    """Into as few documents as they need, in order."""
    for number in range(2 * ROWS_PER_DOCUMENT + 1):
        journal.forwarded(row(number))
    await journal.flush()
    assert parts.table.count("put", "log:") == 3
    assert await numbers(journal) == list(map(float, reversed(range(2 * ROWS_PER_DOCUMENT + 1))))
    assert await numbers(journal, 7) == [float(2 * ROWS_PER_DOCUMENT - n) for n in range(7)]


async def test_the_longest_rows_fit_a_document(journal: Journal) -> None:
    """Five hundred of the largest are within what the store takes."""
    long = Row(START, "t" * 64, "c" * 128, "n" * 64, 502, 123456.789, 9, "t" * 32, "store_unavailable")
    for _ in range(ROWS_PER_DOCUMENT):
        journal.forwarded(long)
    await journal.flush()
    assert len(await numbers(journal)) == ROWS_PER_DOCUMENT


async def test_nothing_to_write_writes_nothing(parts: Core, journal: Journal) -> None:
    """No empty documents."""
    await journal.flush()
    assert parts.table.calls == []
    assert await journal.rows(DAY) == []


async def test_rows_are_written_by_themselves(parts: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after the first of them, and again after the next; nobody has to ask."""
    monkeypatch.setattr(journal_module, "DELAY_SECONDS", 0.0)
    for round_number in range(1, 4):
        for number in range(10):
            parts.journal.forwarded(row(number))
        await until(lambda: parts.journal._flushing is None)
        assert parts.table.count("put", "log:") == round_number
    assert len(await numbers(parts.journal)) == 30


async def test_a_flush_waits_for_the_one_before(parts: Core, journal: Journal) -> None:
    """When it returns all rows are written, whoever writes them: a process may end then."""
    journal.forwarded(row(1))
    gate = asyncio.Event()
    put = parts.table.inner.put

    async def slow(*args: object, **more: object) -> int:
        await gate.wait()
        return await put(*args, **more)  # type: ignore[arg-type]

    parts.table.inner.put = slow  # type: ignore[method-assign]
    first = asyncio.create_task(journal.flush())
    await until(lambda: parts.table.count("put"))
    second = asyncio.create_task(journal.flush())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not second.done()
    gate.set()
    await asyncio.gather(first, second)
    assert await numbers(journal) == [1.0]


async def test_rows_wait_while_the_store_fails(
    parts: Core, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """None is lost, their order stays, and the log says it once, not ten times a second."""
    parts.table.down = True
    with caplog.at_level(logging.WARNING, "router.journal"):
        for number in range(5):
            journal.forwarded(row(number))
            await journal.flush()
    assert len(caplog.records) == 1
    assert "store is down" in caplog.text
    parts.table.down = False
    journal.forwarded(row(5))
    await journal.flush()
    assert journal.lost == 0
    assert await numbers(journal) == [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    parts.table.down = True
    journal.forwarded(row(6))
    await journal.flush()
    assert len(caplog.records) == 2


async def test_a_store_that_fails_halfway_keeps_the_rest(parts: Core, journal: Journal) -> None:
    """What was written is not written again."""
    for number in range(3 * ROWS_PER_DOCUMENT):
        journal.forwarded(row(number))
    enter = parts.table._enter

    def second_fails(verb: str, partition: str) -> None:
        parts.table.down = verb == "put" and parts.table.count("put") == 1
        enter(verb, partition)

    parts.table._enter = second_fails  # type: ignore[method-assign]
    await journal.flush()
    assert len(await numbers(journal)) == ROWS_PER_DOCUMENT
    await journal.flush()
    assert await numbers(journal) == list(map(float, reversed(range(3 * ROWS_PER_DOCUMENT))))


async def test_only_so_many_rows_wait(parts: Core, journal: Journal) -> None:
    """Beyond that the oldest are given up, and counted."""
    parts.table.down = True
    for number in range(MOST_WAITING + 30):
        journal.forwarded(row(number))
    await journal.flush()
    assert journal.lost == 30
    journal.forwarded(row(MOST_WAITING + 30))
    await journal.flush()
    assert journal.lost == 31
    parts.table.down = False
    await journal.flush()
    found = await numbers(journal)
    assert (len(found), found[0], found[-1]) == (MOST_WAITING, MOST_WAITING + 30.0, 31.0)
    assert journal.lost == 31


async def test_a_quiet_day_is_read_across_its_documents(journal: Journal) -> None:
    """However many there are, newest first, up to the limit."""
    for number in range(120):
        journal.forwarded(row(number))
        await journal.flush()
    assert await numbers(journal) == [float(number) for number in reversed(range(120))]
    assert await numbers(journal, 60) == [float(number) for number in range(119, 59, -1)]


async def test_days_are_apart_and_rows_expire(parts: Core, journal: Journal) -> None:
    """Each row is found under its day, for thirty days."""
    journal.forwarded(row(1))
    await journal.flush()
    parts.clock.forward(86_400)
    journal.forwarded(row(2, ts=START + 86_400))
    await journal.flush()
    assert await numbers(journal) == [1.0]
    assert [one["duration_ms"] for one in await journal.rows("2026-01-02")] == [2.0]
    parts.clock.forward(29 * 86_400)
    assert await numbers(journal) == []
    assert len(await journal.rows("2026-01-02")) == 1


async def test_two_processes_do_not_overwrite_each_other(parts: Core, journal: Journal) -> None:
    """Rows of the same moment from different writers are all there."""
    other = Journal(parts.table, clock=parts.clock, writer="w2")
    for one in (journal, other):
        one.forwarded(row(1))
        await one.flush()
        one.forwarded(row(2))
        await one.flush()
    assert sorted(await numbers(journal)) == [1.0, 1.0, 2.0, 2.0]
