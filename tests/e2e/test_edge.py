"""What is uploaded as a Worker, on the real runtime: miniflare runs it on this machine, and does a task.

Needs Node and is asked for: `pytest -m edge`, or AUTOPILOT_EDGE=1. Nothing is sent to the internet but the
question to npm for the packages that `tests/edge/package-lock.json` pins, the first time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.signing import new_secret, sign
from tests.cloudflare_fake import CloudflareFake
from tests.cloudflare_products import Script
from tests.e2e.test_cloudflare import product, said
from tests.process import ROOT, autopilot

pytestmark = pytest.mark.edge

EXAMPLE = ROOT / "autopilots/examples/edge-notes"
PINNED = ROOT / "tests/edge"
FILES = ("package.json", "package-lock.json", "run.mjs")
START_SECONDS = 30.0
EXPLORER = "/cdn-cgi/explorer/api"
"""Where miniflare shows what its KV and R2 hold, as Cloudflare's API would."""
NOTE = {"id": "first", "text": "Grüße from the edge"}


@pytest.fixture(scope="module")
def runtime(request: pytest.FixtureRequest) -> Path:
    """Give a folder with the pinned miniflare, installed on first use and kept beside other caches."""
    if os.environ.get("AUTOPILOT_EDGE") != "1" and "edge" not in request.config.getoption("markexpr"):
        pytest.skip("the real edge runtime is asked for: -m edge, or AUTOPILOT_EDGE=1")
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}, not found")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pins = b"".join((PINNED / name).read_bytes() for name in FILES)
    place = cache / "autopilot-edge" / hashlib.sha256(pins).hexdigest()[:16]
    if not (place / "installed").exists():
        install(place)
    return place


def install(place: Path) -> None:
    """Let npm put what the lock file pins, and no other bytes, into a folder; skip where it cannot."""
    place.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(PINNED / name, place)
    # The program is in the platform's own package, so no install script has to run.
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(npm, cwd=place, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"npm could not install miniflare: {done.stderr.strip()[-300:]}")
    (place / "installed").touch()


@contextmanager
def running(runtime: Path, script: Script, port: int, **bindings: str) -> Iterator[str]:
    """Run an uploaded Worker at a port until the block ends; give its URL.

    `bindings` are those that people add by hand: secrets.
    """
    bound = script.metadata["bindings"]
    options = {
        "port": port,
        "compatibilityDate": script.metadata["compatibility_date"],
        "kvNamespaces": {one["name"]: one["namespace_id"] for one in bound if "namespace_id" in one},
        "r2Buckets": {one["name"]: one["bucket_name"] for one in bound if "bucket_name" in one},
        "bindings": bindings,
    }
    process = subprocess.Popen(
        ["node", "run.mjs"], cwd=runtime, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        process.stdin.write(json.dumps({"source": script.source.decode(), "options": options}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        watchdog.cancel()
        assert line.startswith("listening on http://"), line
        yield line.split()[-1].rstrip("/")
    finally:
        watchdog.cancel()
        process.stdin.close()  # the end of what it is told is the end of it, and of its workerd
        try:
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()
            process.stdout.close()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def children(process: int) -> list[int]:
    """Return the processes that a process started."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(one) for one in listed.read_text().split()] if listed.exists() else []


@asynccontextmanager
async def deployed(folder: Path, fake: CloudflareFake, port: int) -> AsyncIterator[tuple[Any, str]]:
    """Register the example as its README says and let the router make what it needs.

    Gives a client of the router and the signing secret that the registration was answered with.
    """
    body = json.loads((EXAMPLE / "registration.json").read_text())
    file = folder / "registration.json"
    file.write_text(json.dumps({**body, "endpoint": f"http://127.0.0.1:{port}"}))
    async with product(folder / "data", fake) as client:
        env = {"ORCHESTRATOR_URL": str(client.base_url)}
        registered = await asyncio.to_thread(autopilot, "register", str(file), env=env)
        assert registered.returncode == 0, registered.stderr
        ensured = await asyncio.to_thread(autopilot, "ensure-infra", env=env)
        assert ensured.returncode == 0, ensured.stdout
        assert "created 3" in ensured.stdout
        secret = re.search(r"whsec_[A-Za-z0-9+/=]+", registered.stdout)
        assert secret is not None, registered.stdout
        yield client, secret[0]


async def test_a_task_is_done_at_the_edge(runtime: Path, tmp_path: Path) -> None:
    """The Worker that was uploaded, bound to what the plan made, writes a note and reads it again."""
    fake, port = CloudflareFake(), free_port()
    async with deployed(tmp_path, fake, port) as (client, secret):
        script = fake.products.scripts["edge-notes"]
        [namespace] = fake.products.kv
        with running(runtime, script, port, SIGNING_SECRETS=secret) as url:
            write = {"task": "write_note", "meta": NOTE}
            read = {"task": "read_note", "meta": {"id": NOTE["id"]}}
            written = await said(await client.post("/autopilot/plan", json=write))
            assert (written["autopilot"], written["result"]["bytes"]) == ("edge-notes", 21)
            shown = await said(await client.post("/autopilot/plan", json=read))
            assert shown["result"] == {**written["result"], "text": NOTE["text"]}
            gone = await said(await client.post("/autopilot/plan", json={**read, "meta": {"id": "no"}}), 404)
            assert gone["result"] == {"error": "there is no note no"}
            async with httpx.AsyncClient(base_url=url + EXPLORER) as explorer:
                keys = await said(await explorer.get(f"/storage/kv/namespaces/{namespace}/keys"))
                assert [one["name"] for one in keys["result"]] == ["first"]
                objects = await said(await explorer.get("/r2/buckets/edge-notes-texts/objects"))
                [kept] = [one for one in objects["result"] if one["key"].startswith("texts/")]
                assert kept["key"] == f"texts/first/{written['result']['sha256']}"


def signed(secret: str, message_id: str, body: bytes, at: float) -> dict[str, str]:
    """Return the headers of a message."""
    seconds = int(at)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign(secret, message_id, seconds, body),
    }


def notes() -> Script:
    """Return the Worker of the example, bound to some storage."""
    bindings = [
        {"name": "NOTES", "namespace_id": "0" * 32},
        {"name": "TEXTS", "bucket_name": "edge-notes-texts"},
    ]
    source = (EXAMPLE / "worker.mjs").read_bytes()
    return Script({"compatibility_date": "2026-04-01", "bindings": bindings}, source, "")


async def test_what_is_not_signed_is_refused_at_the_edge(runtime: Path) -> None:
    """No signature, another's, an altered body, an old message and a replay: 401, and nothing is kept.

    Two secrets are both taken, as in a rotation.
    """
    body = json.dumps({"capability": "notes.write", "meta": NOTE}).encode()
    old, new, now = new_secret(), new_secret(), time.time()
    with running(runtime, notes(), 0, SIGNING_SECRETS=f"{new} {old}") as url:
        async with httpx.AsyncClient(base_url=url) as client:

            async def send(headers: dict[str, str], content: bytes = body) -> int:
                return (await client.post("/tasks", content=content, headers=headers)).status_code

            refused = [
                await send({}),
                await send(signed(new_secret(), "a", body, now)),
                await send(signed(new, "b", body, now), body + b" "),
                await send(signed(new, "c", body, now - 400)),
                await send(signed(new, "d", body, now + 400)),
                await send({**signed(new, "e", body, now), "webhook-id": "other"}),
                await send({**signed(new, "f", body, now), "webhook-signature": "v1,"}),
            ]
            assert refused == [401] * 7
            objects = await said(await client.get(f"{EXPLORER}/r2/buckets/edge-notes-texts/objects"))
            assert objects["result"] == []
            taken = [await send(signed(one, f"{n}", body, now)) for n, one in enumerate((new, old, old))]
            assert taken == [200, 200, 200]
            assert await send(signed(new, "0", body, now)) == 401
            health = await said(await client.get("/health"))
            assert (health["status"], health["autopilot"]) == ("healthy", "edge-notes")
            assert health["capabilities"] == ["notes.write", "notes.read"]


def test_without_its_secret_it_says_so_and_does_nothing(runtime: Path) -> None:
    """A fresh upload has none: it is unwell and names what is lacking, and every task is a 503."""
    with running(runtime, notes(), 0) as url:
        health = httpx.get(f"{url}/health")
        task = httpx.post(f"{url}/tasks", json={"capability": "notes.write", "meta": NOTE})
    assert (health.status_code, health.json()["lacking"]) == (503, ["SIGNING_SECRETS"])
    assert (task.status_code, task.json()["error"]) == (503, "not configured: SIGNING_SECRETS")


def test_nothing_runs_on_behind_it(runtime: Path) -> None:
    """Where the block ends, also by an error, the runtime and its `workerd` are gone."""
    before = set(children(os.getpid()))
    started: list[int] = []

    def fail() -> None:
        with running(runtime, notes(), 0):
            [node] = set(children(os.getpid())) - before
            started.extend((node, *children(node)))
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fail()
    assert len(started) > 1
    assert not [one for one in started if Path(f"/proc/{one}").exists()]
