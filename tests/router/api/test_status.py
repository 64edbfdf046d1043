"""`/health` and `/ready`: what load balancers, scripts and people ask first."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from router import __version__
from router.settings import read
from router.wiring import System, build
from tests.router.api.conftest import client_of


async def test_health_has_every_field_of_the_contract(api: httpx.AsyncClient) -> None:
    """A process whose store answers is healthy, and says what it is, which version and since when."""
    answer = await api.get("/health")
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"status", "service", "version", "uptime", "timestamp", "store"}
    assert (body["status"], body["service"]) == ("healthy", "autopilot-orchestrator")
    assert (body["version"], body["store"]) == (__version__, "sqlite")
    assert 0 <= body["uptime"] < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", body["timestamp"])


async def test_ready_is_true_while_the_store_answers(api: httpx.AsyncClient) -> None:
    """Nothing but the one word is said."""
    answer = await api.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


async def test_a_store_that_does_not_answer_is_said_with_the_reason(
    api: httpx.AsyncClient, system: System, tmp_path: Path
) -> None:
    """Both turn to 503 and say why, but not where the store is: anybody may ask."""
    await system.outside.table.close()
    health, ready = await api.get("/health"), await api.get("/ready")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert health.json()["reason"] == "The store is unavailable"
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "The store is unavailable"})
    assert str(tmp_path) not in health.text + ready.text


async def test_no_secret_is_shown_to_anybody(tmp_path: Path) -> None:
    """With every secret setting filled, none of them is in an answer that needs no key."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_API_KEY": "canary-key-of-the-admin",
        "OPENAI_API_KEY": "canary-openai",
        "STRIPE_API_KEY": "canary-stripe",
        "AUTOPILOT_MAIL_FROM": "school@example.com",
        "AUTOPILOT_SMTP_URL": "smtp://user:canary-smtp@127.0.0.1:25",
        "CF_API_TOKEN": "canary-cloudflare",
    }
    settings = read(environment)
    assert "canary" not in repr(settings)
    built = build(settings, url="http://127.0.0.1:8080")
    async with client_of(built) as client:
        for path in ("/health", "/ready", "/nothing", "/autopilot/list", "/pages/none"):
            answer = await client.get(path)
            assert "canary" not in answer.text + str(answer.headers), path
    await built.close()
