"""Events: in order, a page at a time, and nothing secret in them."""

from __future__ import annotations

import asyncio

import pytest

from infra.redact import Redactor
from infra.table import Table
from router.audit import Audit, Deed
from router.errors import StoreUnavailable
from router.events import KEEP_SECONDS, SCAN, Events, Record, is_id
from tests.fakes import FakeClock
from tests.router.faults import Failing, fail

DEED = Deed("ann", "key.create", "k1", {"scopes": ["read"]}, "0" * 32)


def events_of(table: Table, clock: FakeClock, writer: str = "w1", *, known: tuple[str, ...] = ()) -> Events:
    """Return the events of one process."""
    return Events(table, clock=clock, writer=writer, redactor=Redactor(known))


async def kinds(
    events: Events, *, after: str | None = None, limit: int = 50, kind: str | None = None
) -> list[str]:
    """Return the types of one page."""
    return [event["type"] for event in (await events.page(after=after, limit=limit, kind=kind))[0]]


async def test_event(table: Table, clock: FakeClock) -> None:
    """An event says what happened, who did it, when and on which trace."""
    events = events_of(table, clock)
    event_id = await events.publish("infra.heal", "heal", {"created": 2}, "f" * 32)
    assert is_id(event_id)
    (event,), following = await events.page(after=None, limit=10)
    assert event == {
        "id": event_id,
        "type": "infra.heal",
        "source": "heal",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "payload": {"created": 2},
        "trace_id": "f" * 32,
    }
    assert following is None


async def test_order(table: Table, clock: FakeClock) -> None:
    """Events of two processes are in the order of time, and so they stay when a clock is put back."""
    one, other = events_of(table, clock, "w1"), events_of(table, clock, "w2")
    for number in range(20):
        await (one, other)[number % 2].publish(f"n.{number}", "test", {})
        clock.forward(1)
    assert await kinds(one) == [f"n.{number}" for number in range(20)]
    clock.forward(-3600)
    late = await other.publish("n.20", "test", {})
    assert await kinds(one, after=late) == []
    assert (await kinds(one))[-1] == "n.20"


async def test_at_the_same_moment(table: Table, clock: FakeClock) -> None:
    """Events that are written at once do not overtake one another: whoever read some misses none."""
    events = events_of(table, clock)
    seen: list[str] = []

    async def read() -> None:
        after = None
        while len(seen) < 50:
            page, _ = await events.page(after=after, limit=50)
            seen.extend(event["id"] for event in page)
            after = seen[-1] if seen else None
            await asyncio.sleep(0)

    reading = asyncio.ensure_future(read())
    ids = await asyncio.gather(*(events.publish("n", "test", {}) for _ in range(50)))
    await asyncio.wait_for(reading, 10)
    assert seen == sorted(ids)


async def test_pages(table: Table, clock: FakeClock) -> None:
    """A page goes on where the one before ended, also of one type, and the last one says that it is."""
    events = events_of(table, clock)
    for number in range(25):
        await events.publish(f"n.{number % 2}", "test", {"n": number})
    for kind, expected in ((None, list(range(25))), ("n.1", list(range(1, 25, 2))), ("n.7", [])):
        found, after = [], None
        while True:
            page, after = await events.page(after=after, limit=5, kind=kind)
            assert len(page) <= 5
            found += [event["payload"]["n"] for event in page]
            if after is None:
                break
        assert found == expected


async def test_rare_type(table: Table, clock: FakeClock) -> None:
    """A page of a rare type looks at so many events and says where to go on."""
    events = events_of(table, clock)
    for _ in range(SCAN + 1):
        await events.publish("n", "test", {})
    page, after = await events.page(after=None, limit=200, kind="rare")
    assert page == []
    assert after is not None
    assert await events.page(after=after, limit=200, kind="rare") == ([], None)


async def test_kept_for_a_month(table: Table, clock: FakeClock) -> None:
    """An event is gone after 30 days."""
    events = events_of(table, clock)
    await events.publish("n", "test", {})
    clock.forward(KEEP_SECONDS - 1)
    assert await kinds(events) == ["n"]
    clock.forward(2)
    assert await kinds(events) == []


async def test_no_secret(table: Table, clock: FakeClock) -> None:
    """What is secret is stars in an event, wherever it stands."""
    events = events_of(table, clock, known=("canary-one",))
    await events.publish("n", "canary-one", {"canary-one": ["x canary-one"]})
    ((event,), _) = await events.page(after=None, limit=1)
    assert "canary" not in str(event)


class TestWaiting:
    """Waiting for what comes."""

    async def test_news(self, table: Table, clock: FakeClock) -> None:
        """Who waits is woken by the next event."""
        events = events_of(table, clock)
        waiting = asyncio.ensure_future(events.wait(3600))
        await asyncio.sleep(0)
        await events.publish("n", "test", {})
        assert await asyncio.wait_for(waiting, 10)

    async def test_nothing(self, table: Table, clock: FakeClock) -> None:
        """Without one the wait ends, to look for those of other processes."""
        assert await events_of(table, clock).wait(0.001)

    async def test_end(self, table: Table, clock: FakeClock) -> None:
        """At the end nobody waits on."""
        events = events_of(table, clock)
        waiting = asyncio.ensure_future(events.wait(3600))
        await asyncio.sleep(0)
        events.close()
        assert not await asyncio.wait_for(waiting, 10)
        assert not await events.wait(3600)


class TestRecord:
    """What was done is in the audit and among the events."""

    async def test_both(self, table: Table, clock: FakeClock) -> None:
        """A deed is a record of the audit and an event of the same type."""
        events = events_of(table, clock)
        audit = Audit(table, key=b"k" * 32, clock=clock, writer="w1", redactor=Redactor())
        await Record(audit, events).write(DEED)
        ((event,), _) = await events.page(after=None, limit=10)
        assert (event["type"], event["source"]) == ("key.create", "ann")
        assert event["payload"] == {"target": "k1", "scopes": ["read"]}
        assert (await table.range("audit:w1")).items

    async def test_no_event(self, table: Table, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
        """A deed that is in the audit holds, though it could not be told as an event."""
        failing = Failing(table)
        failing.at("put", before=fail)
        audit = Audit(table, key=b"k" * 32, clock=clock, writer="w1", redactor=Redactor())
        await Record(audit, events_of(failing, clock)).write(DEED)
        assert "key.create is in the audit, but not among the events" in caplog.text

    async def test_no_audit(self, table: Table, clock: FakeClock) -> None:
        """A deed that the audit does not take is no event either."""
        failing = Failing(table)
        failing.at("transact", before=fail)
        audit = Audit(failing, key=b"k" * 32, clock=clock, writer="w1", redactor=Redactor())
        events = events_of(table, clock)
        with pytest.raises(StoreUnavailable):
            await Record(audit, events).write(DEED)
        assert await kinds(events) == []
