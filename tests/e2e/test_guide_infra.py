"""What the seed's guide says of infrastructure, word for word, with the fake Cloudflare as the account.

`tests/e2e/test_guide.py` does the same where folders stand in for Cloudflare.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

from router.serve import HEAL_SCHEDULE
from tests.cloudflare_fake import ACCOUNT, HERE, USER_TOKEN, CloudflareFake, Fault, refusal
from tests.e2e.test_cloudflare import product, said, there
from tests.e2e.test_guide import AUTO_FIX, DIAGNOSE, HEALTH, LIST, REGISTER, RUN_A_TASK, SCHEDULED, do
from tests.process import run

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
WANT = {
    "kvNamespaces": ["REGISTRY", "AI_EMPLOYEE_LOGS"],
    "r2Buckets": ["efh-assets", "efh-images", "efh-pages"],
}
"""What the guide's auto-fix asks for."""


async def typed(line: str, client: httpx.AsyncClient) -> tuple[int, Any]:
    """Run one of the guide's lines against the server; return the status and the JSON of the answer."""
    return await asyncio.to_thread(do, line, str(client.base_url).rstrip("/"))


async def registered(client: httpx.AsyncClient) -> None:
    """Run the guide's registration script."""
    env = {"ORCHESTRATOR_URL": str(client.base_url).rstrip("/")}
    done = await asyncio.to_thread(run, "bash", "scripts/register-autopilots.sh", env=env)
    assert done.returncode == 0, done.stderr


async def test_the_deployment_is_verified(tmp_path: Path) -> None:
    """Step 4: healthy, four autopilots listed, and diagnose reads the whole account."""
    async with product(tmp_path, CloudflareFake()) as client:
        await registered(client)
        status, health = await typed(HEALTH, client)
        assert (status, health["status"], health["service"]) == (200, "healthy", "autopilot-orchestrator")
        status, listed = await typed(LIST, client)
        assert (status, listed["count"], len(listed["autopilots"])) == (200, 4, 4)
        status, shown = await typed(DIAGNOSE, client)
        assert (status, shown["provider"], shown["token"]["status"]) == (200, "cloudflare", "active")


async def test_infrastructure_is_fixed(tmp_path: Path) -> None:
    """Auto-fix: namespaces and buckets are made, with their ids; the same line again makes nothing."""
    fake = CloudflareFake()
    async with product(tmp_path, fake) as client:
        status, fixed = await typed(AUTO_FIX, client)
        assert (status, fixed["ok"], fixed["errors"], fixed["dry_run"]) == (200, True, [], False)
        ids = {one.row["title"]: one.row["id"] for one in fake.products.kv.values()}
        assert {one["name"]: one["id"] for one in fixed["created"]["kv"]} == ids
        assert [one["name"] for one in fixed["created"]["r2"]] == WANT["r2Buckets"]
        assert there(fake)["kv"] == sorted(WANT["kvNamespaces"])
        assert there(fake)["r2"] == [f"default/{name}" for name in WANT["r2Buckets"]]
        assert [one["action"] for one in fixed["plan"]] == ["create"] * 5
        assert all(one["why"] for one in fixed["plan"])
        written = list(fake.writes)
        status, again = await typed(AUTO_FIX, client)
        assert (status, again["ok"], fake.writes) == (200, True, written)
        assert {one["name"] for kind in ("kv", "r2") for one in again["skipped"][kind]} == {
            *WANT["kvNamespaces"],
            *WANT["r2Buckets"],
        }


async def test_it_heals_itself(tmp_path: Path) -> None:
    """The five steps: what is missing is found and made, each action is on record, and what is there is left.

    What was made and is gone later is not replaced by something empty; the pass says so.
    """
    assert HEAL_SCHEDULE == "*/15 * * * *"
    fake = CloudflareFake()
    async with product(tmp_path, fake) as client:
        status, _ = await typed(REGISTER, client)
        assert status == 201
        status, healed = await typed(SCHEDULED, client)
        assert (status, healed["ok"]) == (200, True)
        assert there(fake)["kv"] == ["AI_EMPLOYEE_LOGS"]
        assert there(fake)["r2"] == ["default/efh-private"]
        assert {(one["action"], one["name"]) for one in healed["plan"]} == {
            ("create", "AI_EMPLOYEE_LOGS"),
            ("create", "efh-private"),
        }
        assert all(one["needed_by"] == ["ai-employee"] for one in healed["plan"])
        audit = await said(await client.get("/autopilot/audit"))
        kept = {one["payload"]["target"] for one in audit["events"] if one["type"] == "infra.create"}
        assert kept == {"kv/AI_EMPLOYEE_LOGS", "r2/efh-private"}
        written = list(fake.writes)
        assert (await typed(SCHEDULED, client))[1]["ok"]
        fake.products.r2.clear()
        fake.products.kv.clear()
        _, alarmed = await typed(SCHEDULED, client)
        assert fake.writes == written
        assert {one["action"] for one in alarmed["plan"]} == {"blocked"}
        assert alarmed["alerts"]


async def test_the_system_is_checked(tmp_path: Path) -> None:
    """Diagnose has the guide's members in its spelling, from what is really there."""
    fake = CloudflareFake()
    async with product(tmp_path, fake) as client:
        await typed(AUTO_FIX, client)
        worker = {"name": "efh-agent", "content": "export default {}"}
        await client.post("/autopilot/ensure-infra", json={"want": {"workers": [worker]}})
        status, shown = await typed(DIAGNOSE, client)
    assert status == 200
    assert shown["token"] == {"id": fake.tokens[USER_TOKEN].id, "status": "active", "kind": "user"}
    resources = shown["resources"]
    assert sorted(one["title"] for one in resources["kv"]) == sorted(WANT["kvNamespaces"])
    assert {one["id"] for one in resources["kv"]} == set(fake.products.kv)
    assert resources["r2"] == [{"name": name} for name in WANT["r2Buckets"]]
    assert resources["workers"] == ["efh-agent"]
    assert TIME.fullmatch(shown["timestamp"])


class Trouble(NamedTuple):
    """Something wrong, and what is said of it in the `part` of diagnose where it shows.

    `made` are the kinds that auto-fix can make all the same; `env` is what the server is told besides.
    """

    change: Callable[[CloudflareFake], None]
    status: int
    part: str
    code: str
    message: str
    hint: str
    made: tuple[str, ...] = ()
    env: Mapping[str, str] = MappingProxyType({})


def _without(product: str) -> Callable[[CloudflareFake], None]:
    def change(fake: CloudflareFake) -> None:
        del fake.tokens[USER_TOKEN].grants[product]

    return change


def _nothing(fake: CloudflareFake) -> None:
    pass


def _elsewhere(fake: CloudflareFake) -> None:
    fake.tokens[USER_TOKEN].only_from = ["198.51.100.1"]


def _revoked(fake: CloudflareFake) -> None:
    fake.tokens.clear()


DENIED = "Authentication error [code: 10000]"
TROUBLES = {
    "no right to KV": Trouble(
        _without("kv"), 207, "kv", "10000", DENIED, "edit rights on Workers Scripts, Workers KV", ("r2",)
    ),
    "no right to R2": Trouble(
        _without("r2"), 207, "r2", "10000", DENIED, "Workers KV Storage and Workers R2 Storage", ("kv",)
    ),
    "no right to Workers": Trouble(
        _without("workers"), 207, "workers", "10000", DENIED, "edit rights on Workers Scripts", ("kv", "r2")
    ),
    "R2 is off": Trouble(
        lambda fake: fake.not_enabled.add("r2"),
        207,
        "r2",
        "10042",
        "Please enable R2 through the Cloudflare Dashboard.",
        "Open R2 in the Cloudflare dashboard once and accept its terms; no token can do that.",
        ("kv",),
    ),
    "the token is revoked": Trouble(
        _revoked, 502, "token", "1000", "Invalid API Token [code: 1000]", "If it was rolled or deleted"
    ),
    "the token may not be used from here": Trouble(
        _elsewhere,
        502,
        "token",
        "9109",
        f"Cannot use the access token from location: {HERE}",
        "The token has a client IP condition.",
    ),
    "another account": Trouble(
        _nothing, 207, "kv", "10000", DENIED, "for this very account", (), {"CF_ACCOUNT_ID": "f" * 32}
    ),
    "no account's id": Trouble(
        _nothing,
        207,
        "kv",
        "7003",
        "Could not route to /accounts/my-account",
        "CF_ACCOUNT_ID must be the 32 hexadecimal digits",
        (),
        {"CF_ACCOUNT_ID": "my-account"},
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_each_trouble_has_its_sentence(tmp_path: Path, name: str) -> None:
    """Diagnose says what is wrong and what a person can do; auto-fix makes what it can, and says the rest."""
    trouble, fake = TROUBLES[name], CloudflareFake()
    trouble.change(fake)
    async with product(tmp_path, fake, **trouble.env) as client:
        status, shown = await typed(DIAGNOSE, client)
        assert status == trouble.status, shown
        error = {**shown, **shown["resources"]}[trouble.part]["error"]
        assert error["code"] == trouble.code
        assert trouble.message in error["message"]
        assert trouble.hint in error["hint"]
        assert ("no account ffff" in shown["token"].get("warning", "")) is (name == "another account")
        status, fixed = await typed(AUTO_FIX, client)
    failed = {"kv", "r2"} - set(trouble.made)
    assert (status, fixed["ok"]) == ((502, False) if failed else (200, True))
    assert {one["kind"] for one in fixed["errors"]} == failed
    assert all(one["message"] and one["hint"] for one in fixed["errors"])
    assert {kind for kind, names in there(fake).items() if names} == set(trouble.made)


async def test_no_autopilot_supports_it(tmp_path: Path) -> None:
    """The guide's text with who is there; its fix, registering one, makes the task go."""
    async with product(tmp_path, CloudflareFake()) as client:
        status, refused = await typed(RUN_A_TASK, client)
        assert (status, refused["error"]) == (422, "No autopilot currently supports web.pages.generate")
        assert refused["registeredAutopilots"] == []
        await registered(client)
        status, done = await typed(RUN_A_TASK, client)
        assert (status, done["ok"], done["autopilot"]) == (200, True, "ai-stylist")


async def test_infrastructure_is_not_ready(tmp_path: Path) -> None:
    """The guide's text with what is missing; its fix, auto-fix once the cause is gone, makes the task go."""
    fake = CloudflareFake()
    fake.not_enabled.add("r2")
    body = {"name": "stylist", "endpoint": "local:ai-stylist", "capabilities": ["web.pages.generate"]}
    async with product(tmp_path, fake) as client:
        await said(await client.post("/autopilot/registry", json={**body, "needs": WANT}), 201)
        status, refused = await typed(RUN_A_TASK, client)
        assert (status, refused["error"]) == (503, "Infrastructure not ready")
        assert {one["name"] for one in refused["details"]} == set(WANT["r2Buckets"])
        assert {one["code"] for one in refused["details"]} == {"10042"}
        fake.not_enabled.clear()
        assert (await typed(AUTO_FIX, client))[0] == 200
        status, done = await typed(RUN_A_TASK, client)
        assert (status, done["ok"], done["autopilot"]) == (200, True, "stylist")


async def test_a_task_cannot_be_forwarded(tmp_path: Path) -> None:
    """The guide's text with what was tried; its fix, the right endpoint, makes the task go."""
    body = {"name": "stylist", "capabilities": ["web.pages.generate"]}
    async with product(tmp_path, CloudflareFake()) as client:
        wrong = {**body, "endpoint": "http://127.0.0.1:9"}
        await said(await client.post("/autopilot/registry", json=wrong), 201)
        status, failed = await typed(RUN_A_TASK, client)
        assert (status, failed["error"]) == (502, "Failed to forward task")
        assert [one["autopilot"] for one in failed["attempts"]][:1] == ["stylist"]
        right = {**body, "endpoint": "local:ai-stylist"}
        await said(await client.post("/autopilot/registry", json=right))
        status, done = await typed(RUN_A_TASK, client)
        assert (status, done["ok"]) == (200, True)


async def test_names_that_a_product_refuses_never_reach_it(tmp_path: Path) -> None:
    """Registration and auto-fix name each with its rule, and Cloudflare is not even asked."""
    bad: dict[str, list[Any]] = {
        "kvNamespaces": ["", "K" * 129],
        "r2Buckets": ["Efh_Assets", "ab", "-assets", "a" * 64],
        "workers": [{"name": "Efh.Agent", "content": "export default {}"}],
        "d1Databases": ["c r m"],
        "queues": ["Jobs"],
    }
    rules = {
        "kvNamespaces": "letters, digits, _ and -, at most 128",
        "r2Buckets": "3 to 63 of a-z, 0-9 and -, not - at either end",
        "workers": "1 to 63 of a-z, 0-9, - and _, a letter or digit at either end",
        "d1Databases": "letters, digits, _ and -, at most 64",
        "queues": "1 to 63 of a-z, 0-9 and -, not - at either end",
    }
    fake = CloudflareFake()
    body = {"name": "agent", "endpoint": "local:ai-stylist", "capabilities": ["web.pages.generate"]}
    async with product(tmp_path, fake) as client:
        asked = len(fake.requests)
        for path, sent, at in (
            ("/autopilot/registry", {**body, "needs": bad}, "needs"),
            ("/autopilot/ensure-infra", {"want": bad}, "want"),
        ):
            refused = await said(await client.post(path, json=sent), 422)
            problems = {one["field"]: one["message"] for one in refused["errors"]}
            assert len(problems) == sum(map(len, bad.values()))
            for field, message in problems.items():
                kind = field.removeprefix(f"{at}.").partition("[")[0]
                assert rules[kind] in message, (field, message)
        assert len(fake.requests) == asked
        assert (await said(await client.get("/autopilot/list")))["count"] == 0


async def test_nothing_is_made_of_what_cannot_be_read(tmp_path: Path) -> None:
    """A list that is not answered stops its own kind; what could be read is made."""
    fake = CloudflareFake()
    fake.faults = [Fault("GET", f"/accounts/{ACCOUNT}/r2", refusal(500, 10001, "internal error"), times=99)]
    async with product(tmp_path, fake) as client:
        status, fixed = await typed(AUTO_FIX, client)
        assert (status, fixed["ok"]) == (502, False)
        actions = {one["name"]: one["action"] for one in fixed["plan"]}
    assert actions == {
        **dict.fromkeys(WANT["kvNamespaces"], "create"),
        **dict.fromkeys(WANT["r2Buckets"], "blocked"),
    }
    assert fake.calls("POST", "/r2") == 0
    assert there(fake)["kv"] == sorted(WANT["kvNamespaces"])
