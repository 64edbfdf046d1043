"""Headers that may be there once only: of two, a proxy in front may have judged the other one."""

from __future__ import annotations

import httpx
import pytest

from router.headers import SINGLE
from tests.router.api.conftest import register

BODY = b'{"task":"generate_page","meta":{}}'


@pytest.mark.parametrize("name", sorted(name.decode() for name in SINGLE))
@pytest.mark.parametrize("same", [True, False])
async def test_a_header_that_decides_something_is_there_once(
    api: httpx.AsyncClient, name: str, same: bool
) -> None:
    """Two of one kind are refused with the name of the header, also when they agree."""
    values = {"host": "127.0.0.1:8080", "content-type": "application/json", "content-length": str(len(BODY))}
    first = values.get(name, "1")
    headers = [(name, first), (name, first if same else "2")]
    headers += [(other, value) for other, value in values.items() if other != name]
    answer = await api.post("/autopilot/plan", content=BODY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert answer.json()["detail"] == f"the header {name} is given twice"


async def test_it_holds_for_every_endpoint_and_before_anything_is_done(api: httpx.AsyncClient) -> None:
    """A call with two idempotency keys is not carried out under either."""
    twice = [("idempotency-key", "one"), ("idempotency-key", "two"), ("content-type", "application/json")]
    body = b'{"name":"one","endpoint":"local:ai-stylist","capabilities":["a.b"]}'
    answer = await api.post("/autopilot/registry", content=body, headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    answer = await api.get("/autopilot/list", headers=[("origin", "http://a"), ("origin", "http://b")])
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert (await api.get("/autopilot/list")).json()["count"] == 0


async def test_lists_may_be_given_in_several_headers(api: httpx.AsyncClient) -> None:
    """Headers that are lists, or that nobody here reads, may repeat."""
    repeated = [("accept", "application/json"), ("accept", "*/*"), ("x-forwarded-for", "a"), ("via", "b")]
    answer = await api.get("/autopilot/list", headers=[*repeated, ("x-forwarded-for", "c"), ("via", "d")])
    assert answer.status_code == 200
    assert (await register(api, "one", "local:ai-stylist", "a.b")).status_code == 201
