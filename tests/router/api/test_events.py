"""`/autopilot/events`: a page at a time, and as they happen, over a real connection."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.redact import Redactor
from infra.table import Table
from router.api.events import EventsApi
from router.api.http import Border, Call, Endpoint, Reply
from router.app import build_app
from router.auth import Gate, Scope
from router.events import Events
from router.wiring import manifests
from tests.fakes import FakeClock
from tests.process import Served, serving

STREAM = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server."""
    with serving(tmp_path_factory.mktemp("events")) as one:
        yield one


def register(served: Served, number: int) -> None:
    """Make an event."""
    manifest = {**manifests()[number], "description": "again"}
    assert httpx.post(f"{served.url}/autopilot/registry", json=manifest).status_code in {200, 201}


def told(lines: Iterator[str]) -> dict[str, Any]:
    """Return the next event of a stream."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and "data" in fields:
            event: dict[str, Any] = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (event["id"], event["type"])
            return event
        name, _, value = line.partition(": ")
        fields[name] = value
    pytest.fail("the stream ended")


def test_they_are_sent_as_they_happen_and_taken_up_again(served: Served) -> None:
    """A listener gets what was, then what comes; with the last id it had it goes on behind that one."""
    register(served, 0)
    with httpx.stream("GET", f"{served.url}/autopilot/events", headers=STREAM, timeout=20) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        first = told(lines)
        assert (first["type"], first["payload"]["target"]) == ("autopilot.register", "ai-employee")
        register(served, 1)
        second = told(lines)
        assert second["payload"]["target"] == "ai-stylist"
    register(served, 2)
    headers = {**STREAM, "last-event-id": second["id"]}
    with httpx.stream("GET", f"{served.url}/autopilot/events", headers=headers, timeout=20) as answer:
        assert told(answer.iter_lines())["payload"]["target"] == "page-deployer"
    listed = httpx.get(f"{served.url}/autopilot/events", params={"after": first["id"], "limit": 1}).json()
    assert [event["id"] for event in listed["events"]] == [second["id"]]
    assert listed["next"] == second["id"]


def test_a_listener_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """On SIGTERM the stream ends as a stream does, and the server with it."""
    with (
        serving(tmp_path) as one,
        httpx.stream("GET", f"{one.url}/autopilot/events", headers=STREAM, timeout=20) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        one.process.send_signal(signal.SIGTERM)
        assert not any(lines)
        assert one.process.wait(timeout=5) == 0
        assert "Traceback" not in one.log.read_text()


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("after=x", {}, "after"),
        ("", {"last-event-id": "x"}, "Last-Event-ID"),
        ("after=x", {"last-event-id": "1700000000000-w-00000001"}, "after"),
        ("limit=0", {}, "limit"),
        ("since=1", {}, "since"),
    ],
)
def test_what_is_no_place_to_go_on_from_is_refused(
    served: Served, query: str, headers: dict[str, str], field: str
) -> None:
    """Also for a stream: before it begins."""
    for more in ({}, STREAM):
        answer = httpx.get(f"{served.url}/autopilot/events?{query}", headers={**headers, **more})
        assert answer.status_code == 422
        assert [problem["field"] for problem in answer.json()["errors"]] == [field]


def test_a_head_has_no_stream(served: Served) -> None:
    """Whoever asks for the head only is not kept."""
    answer = httpx.head(f"{served.url}/autopilot/events", headers=STREAM, timeout=5)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.fixture
async def buffered(table: Table, clock: FakeClock) -> AsyncIterator[tuple[Events, httpx.AsyncClient]]:
    """Give events and a client of an app that cannot stream."""
    events = Events(table, clock=clock, writer="w1", redactor=Redactor())

    async def plan(_: Call) -> Reply:
        return Reply(200, b"{}")

    endpoints = [
        Endpoint("POST", "/autopilot/plan", Scope.PLAN, plan),
        *EventsApi(events, streams=False).endpoints(),
    ]
    app = build_app(endpoints, Border(Gate("local")))
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield events, client


async def test_where_nothing_streams_there_is_what_there_is(
    buffered: tuple[Events, httpx.AsyncClient],
) -> None:
    """The answer has the events so far and says when to come again."""
    events, client = buffered
    await events.publish("a.b", "test", {})
    answer = await client.get("/autopilot/events", headers=STREAM)
    assert answer.text.startswith("retry: 2000\n\nid: ")
    assert answer.text.count("event: a.b\n") == 1
