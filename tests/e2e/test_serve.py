"""The server as a process: how it starts, how it ends, and what survives either."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from router.cli import main
from router.errors import Conflict, StoreUnavailable
from router.heal import Healer
from router.serve import _every, _pass, bind, serve, url_of
from router.settings import read
from tests.process import Served, serving
from tests.upstream import Received, Told, upstream

KEY = "a-key-of-32-characters-for-tests"


def register(client: httpx.Client, name: str, **more: Any) -> httpx.Response:
    """Register an autopilot."""
    body = {"name": name, "endpoint": "local:page-deployer", "capabilities": ["a.b"], **more}
    return client.post("/autopilot/registry", json=body)


Start = Callable[..., tuple[int, str]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """Give what starts a server that must not stay up: it returns its exit status and what it told."""

    def run(*arguments: str, **env: str) -> tuple[int, str]:
        for name in [name for name in os.environ if name.startswith("AUTOPILOT_")]:
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        status = main(["serve", *arguments])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return status, captured.err

    return run


def test_it_says_listening_once_it_answers(tmp_path: Path) -> None:
    """The first request after the line is answered; SIGTERM ends it with status 0 within 5 seconds."""
    with serving(tmp_path) as one:
        assert httpx.get(f"{one.url}/ready").json() == {"ready": True}
        started = time.perf_counter()
        assert one.stop() == 0
        assert time.perf_counter() - started < 5
        assert one.process.stdout is not None
        assert one.process.stdout.read() == ""
    assert "Traceback" not in one.log.read_text()


def test_an_interrupt_ends_it_as_well(tmp_path: Path) -> None:
    """Ctrl-C is a clean end too."""
    with serving(tmp_path) as one:
        assert one.stop(signal.SIGINT) == 0
    assert "Traceback" not in one.log.read_text()


async def test_a_task_on_its_way_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """With an autopilot that never answers, SIGTERM still ends the server within 5 seconds."""
    arrived = asyncio.Event()

    def tell(request: Received) -> Told:
        if request.path == "/tasks":
            arrived.set()
        return Told(hang=request.path == "/tasks")

    async with upstream() as slow:
        slow.tell = tell
        with serving(tmp_path) as one:
            async with httpx.AsyncClient(base_url=one.url, timeout=20) as client:
                body = {"name": "slow", "endpoint": slow.url, "capabilities": ["web.pages.generate"]}
                assert (await client.post("/autopilot/registry", json=body)).status_code == 201
                task = asyncio.create_task(client.post("/autopilot/plan", json={"task": "generate_page"}))
                await asyncio.wait_for(arrived.wait(), 10)
                started = time.perf_counter()
                status = await asyncio.to_thread(one.stop)
                assert time.perf_counter() - started < 5
                assert status == 0
                with suppress(httpx.HTTPError):
                    assert (await task).status_code >= 500


async def test_a_task_that_finishes_in_time_is_answered_before_the_end(tmp_path: Path) -> None:
    """What is under way when SIGTERM comes gets its answer; then the server ends at once."""
    with serving(tmp_path) as one:

        def tell(request: Received) -> Told:
            if request.path == "/tasks":
                one.process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            return Told()

        async with upstream() as up, httpx.AsyncClient(base_url=one.url, timeout=20) as client:
            up.tell = tell
            body = {"name": "a", "endpoint": up.url, "capabilities": ["web.pages.generate"]}
            assert (await client.post("/autopilot/registry", json=body)).status_code == 201
            answer = await client.post("/autopilot/plan", json={"task": "generate_page"})
            assert answer.json()["result"] == {"done": True}
            started = time.perf_counter()
            assert await asyncio.to_thread(one.process.wait, 15) == 0
            assert time.perf_counter() - started < 5


def test_a_name_look_up_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """With a resolver that is silent, a registration is answered in time and so is SIGTERM, uvloop or not."""
    (tmp_path / "uvloop.py").write_text("raise ImportError")  # its look-ups are out of Python's reach
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\n"
        "def silent(*_, real=socket.getaddrinfo, **__):\n"
        "    if 'invalid' in str(_[0]):\n"
        "        time.sleep(8)\n"
        "    return real(*_, **__)\n"
        "socket.getaddrinfo = silent\n"
    )
    with serving(tmp_path / "data", env={"PYTHONPATH": str(tmp_path)}) as one:
        body = {"name": "later", "endpoint": "https://nobody.invalid", "capabilities": ["a.b"]}
        started = time.perf_counter()
        answer = httpx.post(f"{one.url}/autopilot/registry", json=body)
        assert answer.status_code == 201
        assert "does not resolve yet" in answer.json()["warnings"][0]
        assert time.perf_counter() - started < 7
        started = time.perf_counter()
        assert one.stop() == 0
        assert time.perf_counter() - started < 5


def test_it_refuses_to_be_reached_by_others_without_a_key(start: Start, tmp_path: Path) -> None:
    """0.0.0.0 and the like without AUTOPILOT_API_KEY are wrong usage, said with the variable's name."""
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        status, told = start("--host", host, "--port", "0", "--data", str(tmp_path))
        assert status == 2, host
        assert "AUTOPILOT_API_KEY" in told
        assert "without a key anyone could use the router" in told
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_wrong_are_all_named(start: Start, tmp_path: Path) -> None:
    """Nothing starts, nothing is made, and no key is printed."""
    status, told = start(
        "--host", "0.0.0.0", "--data", str(tmp_path / "new"),
        AUTOPILOT_AUTH="local", AUTOPILOT_API_KEY="canary", AUTOPILOT_ALLOW_ENDPOINTS="10.0.0.0/99",
    )  # fmt: skip
    assert status == 2
    for name in ("AUTOPILOT_AUTH", "AUTOPILOT_API_KEY", "AUTOPILOT_ALLOW_ENDPOINTS"):
        assert name in told
    assert "canary" not in told
    assert not (tmp_path / "new").exists()


def test_mail_without_a_sender_is_said_at_the_start(start: Start, tmp_path: Path) -> None:
    """A setting only the wiring can judge ends in its name as well, not in a traceback."""
    status, told = start("--port", "0", "--data", str(tmp_path), AUTOPILOT_SMTP_URL="smtp://127.0.0.1")
    assert status == 2
    assert told.startswith("AUTOPILOT_MAIL_FROM: ")


def test_an_address_nobody_can_listen_on_is_said_so(start: Start, tmp_path: Path) -> None:
    """A port that is taken or cannot be, and a host that is none here, are named; the status is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, told = start("--port", port, "--data", str(tmp_path))
    assert status == 1
    assert told.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert start("--port", "99999", "--data", str(tmp_path))[0] == 1
    for host in ("192.0.2.1", "nobody.invalid", "ü" * 70):
        status, told = start("--host", host, "--data", str(tmp_path), AUTOPILOT_API_KEY=KEY)
        assert status == 1, host
        assert told.startswith(f"cannot listen on {host}:8080: ")
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_is_said_so(start: Start, tmp_path: Path) -> None:
    """A file in its place is a failure told in one line."""
    (tmp_path / "file").write_text("no folder")
    status, told = start("--port", "0", "--data", str(tmp_path / "file"))
    assert status == 1
    assert told.startswith("cannot open ")
    assert len(told.splitlines()) == 1


def test_with_a_key_it_serves_others_and_wants_the_key(tmp_path: Path) -> None:
    """On 0.0.0.0 every call but the public ones carries the key."""
    with serving(tmp_path, "--host", "0.0.0.0", env={"AUTOPILOT_API_KEY": KEY}) as one:
        url = one.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/autopilot/list").status_code == 401
        signed = {"authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{url}/autopilot/list", headers=signed).status_code == 200
    assert KEY not in one.log.read_text()


def test_nobody_is_local_by_saying_so(tmp_path: Path) -> None:
    """Headers of proxies do not change who calls, and do not lock the local out."""
    with serving(tmp_path) as one:
        for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
            answer = httpx.get(f"{one.url}/autopilot/list", headers={header: "203.0.113.9"})
            assert answer.status_code == 200, header


def test_what_was_done_survives_a_restart(tmp_path: Path) -> None:
    """Registrations with their revision, deployed pages and storage are there after the next start."""
    page = {"slug": "kept", "html": "<h1>Kept</h1>"}
    with serving(tmp_path) as one, httpx.Client(base_url=one.url) as client:
        register(client, "page-deployer", capabilities=["web.pages.deploy"])
        register(client, "twice")
        register(client, "twice", priority=7)
        register(client, "gone")
        client.delete("/autopilot/registry/gone")
        deployed = client.post("/autopilot/plan", json={"task": "deploy_page", "meta": page}).json()
        client.post("/autopilot/ensure-infra", json={"want": {"queues": ["jobs"]}})
        assert deployed["ok"]
        assert one.stop() == 0
    with serving(tmp_path) as again, httpx.Client(base_url=again.url) as client:
        rows = client.get("/autopilot/list").json()["autopilots"]
        assert [(row["name"], row["revision"]) for row in rows] == [("page-deployer", 1), ("twice", 2)]
        assert rows[1]["priority"] == 7
        assert "Kept" in client.get("/pages/kept").text
        assert [one["name"] for one in client.get("/autopilot/diagnose").json()["resources"]["queues"]] == [
            "jobs"
        ]
        planned = client.post("/autopilot/plan", json={"task": "deploy_page", "meta": page}).json()
        assert planned["result"]["version"] == deployed["result"]["version"]


def test_a_kill_loses_no_registration_that_was_acknowledged(tmp_path: Path) -> None:
    """SIGKILL in the middle of 1,000 registrations: each that was answered 201 is there afterwards, whole."""
    acknowledged: dict[str, str] = {}
    with serving(tmp_path) as one:
        asyncio.run(_register_until_it_is_killed(one, acknowledged))
        assert one.process.wait(timeout=15) == -signal.SIGKILL
    assert 300 <= len(acknowledged) < 1000
    with serving(tmp_path) as again, httpx.Client(base_url=again.url) as client:
        kept = {row["name"]: row for row in _everyone(client)}
        assert set(acknowledged) <= set(kept)
        assert [name for name, etag in acknowledged.items() if f'"{kept[name]["revision"]}"' != etag] == []
        offering = {row["name"] for row in _everyone(client, capability="web.pages.generate")}
        assert offering == set(kept), "no registration without its rows, no rows without a registration"
        for name in (min(acknowledged), max(acknowledged)):
            body = {"task": f"do_{name.replace('-', '_')}", "mode": "explain"}
            assert client.post("/autopilot/plan", json=body).json()["capability"] == "web.pages.generate"
    database = sqlite3.connect(tmp_path / "router.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


async def _register_until_it_is_killed(one: Served, acknowledged: dict[str, str]) -> None:
    numbers = iter(range(1000))
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(base_url=one.url, limits=limits) as client:

        async def worker() -> None:
            for number in numbers:
                name = f"a-{number:04}"
                body = {
                    "name": name,
                    "endpoint": "local:ai-stylist",
                    "capabilities": ["web.pages.generate"],
                    "tasks": {f"do_{name.replace('-', '_')}": "web.pages.generate"},
                }
                answer = await client.post("/autopilot/registry", json=body)
                assert answer.status_code == 201
                acknowledged[name] = answer.headers["etag"]
                if len(acknowledged) == 300:
                    one.process.kill()

        ends = await asyncio.gather(*(worker() for _ in range(16)), return_exceptions=True)
    assert all(end is None or isinstance(end, httpx.TransportError) for end in ends), ends


def _everyone(client: httpx.Client, **query: str) -> Iterator[dict[str, Any]]:
    """Give every row of the list."""
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = client.get("/autopilot/list", params={"limit": "200", **query, **more}).json()
        yield from page["autopilots"]
        cursor = page["next"]
        if cursor is None:
            return


@contextmanager
def raw(url: str) -> Iterator[socket.socket]:
    """Give a connection to say to a server what no client would."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


def test_what_is_no_http_is_answered_400_and_breaks_nothing(served: Served) -> None:
    """Broken requests are refused one by one; the server goes on."""
    for request in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        b"POST /autopilot/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /autopilot/plan HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ):
        with raw(served.url) as connection:
            connection.sendall(request)
            answer = connection.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), request
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_a_caller_that_leaves_in_the_middle_breaks_nothing(served: Served) -> None:
    """Half a body and a closed connection leave no error in the log."""
    with raw(served.url) as connection:
        connection.sendall(
            b"POST /autopilot/plan HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b'content-length: 500\r\n\r\n{"task":'
        )
    assert httpx.get(f"{served.url}/health").status_code == 200
    assert "Traceback" not in served.log.read_text()


def test_head_sends_no_body(served: Served) -> None:
    """On the wire a HEAD is the header of a GET and nothing after it."""
    with raw(served.url) as connection:
        connection.sendall(b"HEAD /autopilot/list HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: " in head
    assert b"server:" not in head.lower()
    assert body == b""


@pytest.fixture
def collector() -> Iterator[None]:
    """Give the collector back as it was: a server tunes it for itself."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
async def test_the_loops_do_their_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule fires, health is seen without a task, and missing storage is made without being asked."""
    monkeypatch.setattr("router.serve.HEAL_SCHEDULE", "* * * * * *")  # every second
    bound = bind("127.0.0.1", 0)
    url = url_of(bound)
    ready = asyncio.Event()
    running = asyncio.create_task(
        serve(read({"AUTOPILOT_DATA": str(tmp_path)}), bound, lambda _: ready.set())
    )
    try:
        await asyncio.wait_for(ready.wait(), 10)
        async with httpx.AsyncClient(base_url=url) as client, upstream() as ill:
            ill.tell = lambda _: Told(200, b'{"status":"degraded"}')
            body: dict[str, Any] = {"name": "ill", "endpoint": ill.url, "capabilities": ["a.b"]}
            body["needs"] = {"queues": ["jobs"]}
            assert (await client.post("/autopilot/registry", json=body)).status_code == 201
            built_in = {"name": "ai-employee", "endpoint": "local:ai-employee"}
            body = {**built_in, "capabilities": ["task.schedule", "crm.lead.create", "crm.lead.update"]}
            assert (await client.post("/autopilot/registry", json=body)).status_code == 201
            meta = {"task": "create_lead", "meta": {"email": "a@example.com"}, "at": "2020-01-01T00:00:00Z"}
            plan = {"capability": "task.schedule", "meta": meta}
            assert (await client.post("/autopilot/plan", json=plan)).json()["ok"]
            update = {"email": "a@example.com", "note": "x"}
            plan = {"capability": "crm.lead.update", "meta": update}
            fired = probed = healed = False
            deadline = time.perf_counter() + 8
            while not (fired and probed and healed) and time.perf_counter() < deadline:
                await asyncio.sleep(0.05)
                fired = (await client.post("/autopilot/plan", json=plan)).json()["ok"]
                rows = (await client.get("/autopilot/list?capability=a.b")).json()["autopilots"]
                probed = rows[0]["health"] == "degraded"
                diagnosed = (await client.get("/autopilot/diagnose")).json()
                healed = [one["name"] for one in diagnosed["resources"]["queues"]] == ["jobs"]
            assert (fired, probed, healed) == (True, True, True)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 10)


async def test_a_loop_goes_on_after_any_failure(caplog: pytest.LogCaptureFixture) -> None:
    """What is expected to fail is a warning, what is not an error with its traceback; each is told once."""
    calls = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls in {1, 2}:
            raise StoreUnavailable("the store is away")
        if calls == 4:
            raise ValueError("nobody expected this")
        if calls == 6:
            done.set()

    task = asyncio.create_task(_every(0.0, "work", work))
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "work: the store is away"), ("ERROR", "work failed")]


async def test_self_heal_goes_on_after_any_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A pass that another runs, a store that is away and what nobody expected do not end the passes."""
    caplog.set_level("INFO")
    failures: list[Exception] = [Conflict(), StoreUnavailable("the store is away"), ValueError("unexpected")]

    class Failing:
        async def heal(self) -> dict[str, Any]:
            if failures:
                raise failures.pop(0)
            alert = {"kind": "kv", "name": "", "code": "emptied", "message": "the list is empty", "hint": ""}
            return {"created": {"kv": [1, 2], "r2": []}, "errors": [], "alerts": [alert]}

    for _ in range(4):
        await _pass(cast(Healer, Failing()))
    assert [record.getMessage() for record in caplog.records] == [
        "self-heal: the store is away",
        "self-heal failed",
        "self-heal: created 2, errors 0",
        "self-heal: kv: the list is empty",
    ]
