"""The corpus of bad bodies over HTTP: what is wrong is refused with its status, and nothing breaks."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of, register

ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "corpora/bad_bodies.json").read_text(encoding="utf-8")
)
KEY = "a-key-of-32-characters-for-tests"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run the whole module on one loop, so that the corpus meets one router."""
    return "asyncio"


@pytest.fixture(scope="module")
async def built(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Give a router that wants a key and may call public addresses only."""
    folder = str(tmp_path_factory.mktemp("bodies"))
    settings = read({"AUTOPILOT_DATA": folder, "AUTOPILOT_API_KEY": KEY}, host="0.0.0.0")
    one = build(settings, url="http://127.0.0.1:8080")
    yield one
    await one.close()


@pytest.fixture
async def caller(built: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client with the key."""
    async with client_of(built) as client:
        client.headers["authorization"] = f"Bearer {KEY}"
        yield client


def body_of(row: dict[str, Any]) -> bytes:
    """Return a row's body as bytes."""
    return base64.b64decode(row["body_b64"]) if "body_b64" in row else row["body"].encode()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
async def test_each_body_gets_a_status_it_may_get(caller: httpx.AsyncClient, row: dict[str, Any]) -> None:
    """Every row of the corpus is answered as it says, errors as problem documents, never with a 5xx."""
    headers = {"content-type": row["content_type"]} if row["content_type"] else {}
    answer = await caller.post(row["path"], content=body_of(row), headers=headers)
    accepted = row.get("accept_status", [row["expect_status"]])
    code = answer.json().get("code")
    assert answer.status_code in accepted or code in row.get("accept_code", []), answer.text[:500]
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "code", "error", "trace_id"} <= set(answer.json())
        assert answer.json()["status"] == answer.status_code
        assert len(answer.content) < 20_000, "an answer to a huge body is not huge itself"
        assert "Traceback" not in answer.text


async def test_the_corpus_left_nothing_but_its_good_registrations(
    built: System, caller: httpx.AsyncClient
) -> None:
    """Posted all at once, the bad registrations leave no record, and the router works as before."""
    for row in ROWS:
        await caller.post(
            row["path"], content=body_of(row), headers={"content-type": row["content_type"] or "text/plain"}
        )
    kept = {row["name"] for row in (await caller.get("/autopilot/list?limit=200")).json()["autopilots"]}
    good = {
        json.loads(row["body"])["name"]
        for row in ROWS
        if row["path"] == "/autopilot/registry" and row["expect_status"] < 300
    }
    assert kept == good
    records = {item.key[1] for item in (await built.outside.table.range("autopilot")).items}
    assert records == good
    for path in ("/health", "/autopilot/list", "/autopilot/catalogue"):
        assert (await caller.get(path)).status_code == 200
    assert (await register(caller, "alive", "https://alive.invalid", "a.b")).status_code == 201


@pytest.mark.parametrize("path", ["/autopilot/registry", "/autopilot/ensure-infra", "/autopilot/plan"])
@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({}, b"{", 415, "media_type"),
        ({"content-type": "text/plain"}, b"{}", 415, "media_type"),
        ({"content-type": "application/json; charset=utf-16"}, b"{}", 415, "media_type"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 415, "media_type"),
        ({"content-type": "application/json"}, b"{", 400, "malformed"),
        ({"content-type": "application/json"}, b"[]", 422, "invalid_body"),
        ({"content-type": "application/json"}, b'"' + b"x" * (1 << 20) + b'"', 413, "too_large"),
    ],
)
async def test_every_endpoint_with_a_body_reads_it_by_the_same_rules(
    caller: httpx.AsyncClient, path: str, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    """Media type, encoding, syntax, kind and size are judged alike everywhere."""
    answer = await caller.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_body_without_a_length_is_cut_off_at_the_limit(caller: httpx.AsyncClient) -> None:
    """A chunked body is read no further than a mebibyte."""
    read_so_far = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read_so_far
        while read_so_far < 64 << 20:
            read_so_far += 65_536
            yield b" " * 65_536

    answer = await caller.post(
        "/autopilot/plan", content=endless(), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert read_so_far < 2 << 20
