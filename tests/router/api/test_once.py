"""Idempotency keys over HTTP."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.router.api.conftest import register
from tests.router.api.test_plan import plan
from tests.upstream import Told, Upstream

KEY = {"idempotency-key": '"order-7"'}


async def test_the_same_key_gets_the_first_answer(api: httpx.AsyncClient, up: Upstream) -> None:
    """A repeat, quoted or bare, is answered from memory and says so in header and body."""
    await register(api, "pages", up.url, "web.pages.generate")
    first = await plan(api, {"task": "generate_page", "meta": {"a": 1, "b": 2}}, **KEY)
    again = await plan(
        api, {"meta": {"b": 2, "a": 1}, "task": "generate_page"}, **{"idempotency-key": "order-7"}
    )
    assert len(up.tasks) == 1
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.status_code == first.status_code == 200
    assert again.json() == {**first.json(), "idempotent_replay": True}


async def test_the_same_key_with_another_body_is_refused(api: httpx.AsyncClient, up: Upstream) -> None:
    """A key stands for one body."""
    await register(api, "pages", up.url, "web.pages.generate")
    await plan(api, {"task": "generate_page", "meta": {"a": 1}}, **KEY)
    other = await plan(api, {"task": "generate_page", "meta": {"a": 2}}, **KEY)
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert len(up.tasks) == 1


async def test_a_hundred_duplicates_at_once_make_one_call(api: httpx.AsyncClient, up: Upstream) -> None:
    """Whoever comes while the first call runs is told so; the autopilot hears of the task once."""
    await register(api, "pages", up.url, "web.pages.generate")
    answers = await asyncio.gather(*(plan(api, {"task": "generate_page"}, **KEY) for _ in range(100)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    assert len(up.tasks) == 1


async def test_a_failure_that_may_have_had_an_effect_is_repeated_as_it_was(
    api: httpx.AsyncClient, up: Upstream
) -> None:
    """A 502 after sending is replayed, status and media type too, and nothing is sent again."""
    await register(api, "pages", up.url, "web.pages.generate")
    up.tell = lambda request: Told(500) if request.path == "/tasks" else Told()
    first = await plan(api, {"task": "generate_page"}, **KEY)
    again = await plan(api, {"task": "generate_page"}, **KEY)
    assert (first.status_code, again.status_code, len(up.tasks)) == (502, 502, 1)
    assert again.headers["content-type"] == "application/problem+json"
    assert again.json() == first.json()


async def test_a_failure_without_effect_leaves_the_key_free(api: httpx.AsyncClient, up: Upstream) -> None:
    """What never reached an autopilot, for want of one or of a connection, may be tried again."""
    assert (await plan(api, {"task": "generate_page"}, **KEY)).status_code == 422
    await register(api, "pages", "http://127.0.0.1:9", "web.pages.generate")
    assert (await plan(api, {"task": "generate_page"}, **KEY)).status_code == 502
    await register(api, "pages", up.url, "web.pages.generate")
    assert (await plan(api, {"task": "generate_page"}, **KEY)).json()["ok"]


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, "né".encode("latin-1").decode("latin-1")])
async def test_a_key_that_is_none_is_refused(api: httpx.AsyncClient, key: str) -> None:
    """Empty, blank-ridden, overlong and non-ASCII keys are named as the problem."""
    answer = await api.post(
        "/autopilot/plan", json={"task": "generate_page"}, headers={b"idempotency-key": key.encode("latin-1")}
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_a_registration_is_done_once_per_key(api: httpx.AsyncClient, up: Upstream) -> None:
    """A repeated registration gets the first answer, its status, ETag and secret; nothing changes."""
    body = {"name": "pages", "endpoint": up.url, "capabilities": ["web.pages.generate"]}
    first = await api.post("/autopilot/registry", json=body, headers=KEY)
    again = await api.post("/autopilot/registry", json=body, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["etag"] == first.headers["etag"] == '"1"'
    assert again.json() == first.json()
    assert (await api.get("/autopilot/registry/pages")).json()["autopilot"]["revision"] == 1


async def test_infrastructure_is_ensured_once_per_key(api: httpx.AsyncClient) -> None:
    """A repeat shows what the first call created, though it exists by now."""
    body = {"want": {"r2Buckets": ["the-bucket"]}}
    first = await api.post("/autopilot/ensure-infra", json=body, headers=KEY)
    again = await api.post("/autopilot/ensure-infra", json=body, headers=KEY)
    assert first.json()["created"]["r2"][0]["name"] == "the-bucket"
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
