"""Asynchronous tasks in a real server that is killed, and one that is stopped, while it works on them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from infra.signing import new_secret, verify
from router.worker import HOLD_SECONDS
from tests.process import Served, serving
from tests.upstream import Received, Told, Upstream, upstream

SECRET = new_secret()
COUNT = 200
KILLED_AT = 70
PATIENCE = 60.0


@asynccontextmanager
async def server(data: Path) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    """Run a server on a folder, with a client of it."""
    running = serving(data, env={"AUTOPILOT_CALLBACK_SECRET": SECRET})
    async with AsyncExitStack() as stack:
        served = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        client = httpx.AsyncClient(base_url=served.url, trust_env=False)
        yield served, await stack.enter_async_context(client)


async def register(client: httpx.AsyncClient, up: Upstream) -> None:
    """Register an autopilot that counts."""
    body = {"name": "counter", "endpoint": up.url, "capabilities": ["count.up"]}
    assert (await client.post("/autopilot/registry", json=body)).status_code == 201


async def submit(client: httpx.AsyncClient, **more: Any) -> str:
    """Submit a task and return its id."""
    body = {"capability": "count.up", "mode": "async", **more}
    answer = await client.post("/autopilot/plan", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def states(client: httpx.AsyncClient) -> Counter[str]:
    """Return how many tasks are in each state."""
    page = (await client.get("/autopilot/tasks", params={"limit": 200})).json()
    return Counter(task["status"] for task in page["tasks"])


async def until(client: httpx.AsyncClient, wanted: Mapping[str, int]) -> float:
    """Wait until the tasks are in these states, and return how long that took."""
    began = time.monotonic()
    while (seen := await states(client)) != wanted:
        assert time.monotonic() - began < PATIENCE, seen
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def until_sent(up: Upstream) -> None:
    """Wait until an autopilot was sent something."""
    for _ in range(1_000):
        if up.tasks:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was sent")


class Counting:
    """An upstream that does a thing once for each idempotency key, and is told of ends."""

    def __init__(self, up: Upstream) -> None:
        self.effects: Counter[str] = Counter()
        self.hooks: list[Received] = []
        self.enough = asyncio.Event()
        self.open = False
        """Whether it has time; before, it asks to come again in a second."""
        up.tell = self.tell

    def tell(self, request: Received) -> Told:
        """Answer a task, a call, or a question after its health."""
        if request.path == "/hook":
            self.hooks.append(request)
            return Told(204, b"")
        if request.path == "/tasks" and not self.open:
            return Told(503, b"{}", {"retry-after": "1"})
        if request.path == "/tasks":
            self.effects[request.headers["idempotency-key"]] += 1
            if len(self.effects) == KILLED_AT:
                self.enough.set()
        return Told()


async def test_200_tasks_and_a_kill_in_the_middle(tmp_path: Path) -> None:
    """All of them end well, each under one key, none is lost, and of each end somebody is told."""
    async with upstream() as up:
        counting = Counting(up)
        async with server(tmp_path) as (served, client):
            await register(client, up)
            hook = f"{up.url}/hook"
            ids = await asyncio.gather(*(submit(client, callback_url=hook) for _ in range(COUNT)))
            counting.open = True
            await asyncio.wait_for(counting.enough.wait(), PATIENCE)
            served.process.send_signal(signal.SIGKILL)
        async with server(tmp_path) as (_, client):
            known = await states(client)
            assert known.total() == COUNT, "what was answered 202 is there"
            assert known["completed"] < COUNT, "and it was killed before all was done"
            assert await until(client, {"completed": COUNT}) < HOLD_SECONDS + 20
            assert {*counting.effects} == {*ids}, "each under its own key"
            again = [key for key, count in counting.effects.items() if count > 1]
            assert len(again) <= 16, "only what was being sent when the server was killed is sent again"
            for task in ids[:5]:
                shown = (await client.get(f"/autopilot/tasks/{task}")).json()
                assert shown["outcome"]["result"] == {"done": True}
            assert await _all_told(counting, COUNT) == {_first_call(task, counting) for task in ids}


def _first_call(task: str, counting: Counting) -> str:
    """Return the id of the calls about a task's end: however often it was tried, they have one."""
    [name] = {one.headers["webhook-id"] for one in counting.hooks if one.json()["id"] == task}
    assert name.startswith(f"{task}_")
    return name


async def _all_told(counting: Counting, count: int) -> set[str]:
    """Return the ids of the calls, once there are so many: each is signed, and about a task that ended."""
    began = time.monotonic()
    while len({one.headers["webhook-id"] for one in counting.hooks}) < count:
        assert time.monotonic() - began < PATIENCE
        await asyncio.sleep(0.05)
    for one in counting.hooks:
        headers = [(name.encode(), value.encode()) for name, value in one.headers.items()]
        assert verify([SECRET], headers, one.body, time.time()) == one.headers["webhook-id"]
        assert one.json()["status"] == "completed"
    return {one.headers["webhook-id"] for one in counting.hooks}


async def test_a_server_that_stops_leaves_its_tasks_to_the_next(tmp_path: Path) -> None:
    """Within five seconds, though an autopilot hangs; the next server sends the task again at once."""
    async with upstream() as up:
        up.tell = lambda request: Told(hang=request.path == "/tasks")
        async with server(tmp_path) as (served, client):
            await register(client, up)
            task = await submit(client)
            await until(client, {"running": 1})
            await until_sent(up)
            began = time.monotonic()
            assert await asyncio.to_thread(served.stop) == 0
            assert time.monotonic() - began < 5
            assert "Traceback" not in served.log.read_text()
        up.tell = lambda _: Told()
        async with server(tmp_path) as (_, client):
            assert await until(client, {"completed": 1}) < HOLD_SECONDS / 2
        assert [one.headers["idempotency-key"] for one in up.tasks] == [task, task]
