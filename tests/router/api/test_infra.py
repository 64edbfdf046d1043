"""Infrastructure over HTTP: see how it is, create what is missing, run a self-heal pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import LocalProvider
from infra.provider import KINDS, Diagnosis, Inventory, Permission, Unread
from infra.redact import Redactor
from infra.table import Put
from infra.table.sqlite import SqliteTable
from router.api.http import Call
from router.api.infra import InfraApi
from router.api.once import Once
from router.auth import ANYONE
from router.idempotency import Idempotency
from router.trace import Trace
from router.wiring import System
from tests.router.api.conftest import register

EVERYTHING = {
    "kvNamespaces": ["LOGS"],
    "r2Buckets": ["assets"],
    "workers": [{"name": "w", "content": "export default {}"}],
    "d1Databases": ["db"],
    "queues": ["jobs"],
}
NOTHING: dict[str, list[Any]] = {"kv": [], "r2": [], "workers": [], "d1": [], "queues": []}


def names(by_kind: dict[str, list[Any]]) -> dict[str, list[str]]:
    """Return a report's resources by kind, as names."""
    return {kind: [one["name"] for one in found] for kind, found in by_kind.items()}


def _there(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


async def ensure(api: httpx.AsyncClient, **body: Any) -> httpx.Response:
    """Post to ensure-infra."""
    return await api.post("/autopilot/ensure-infra", json=body)


async def test_diagnose_has_every_part_of_the_contract(api: httpx.AsyncClient) -> None:
    """Provider, token, permissions, what exists, what differs and the time are there; local says so."""
    answer = await api.get("/autopilot/diagnose")
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {
        "provider", "token", "permissions", "missing", "resources", "drift", "timestamp", "note",
    }  # fmt: skip
    assert body["provider"] == "local"
    assert body["token"] == {"id": None, "status": "none", "kind": "local"}
    assert "stand in for Cloudflare" in body["note"]
    assert body["resources"] == NOTHING
    assert (body["permissions"], body["missing"]) == ([], [])
    assert body["drift"] == {"missing": [], "changed": [], "unmanaged": [], "unread": []}


async def test_diagnose_shows_resources_in_the_seeds_spelling(api: httpx.AsyncClient) -> None:
    """KV has id and title, R2 a name, Workers are names."""
    await ensure(api, want=EVERYTHING)
    resources = (await api.get("/autopilot/diagnose")).json()["resources"]
    assert [one["title"] for one in resources["kv"]] == ["LOGS"]
    assert resources["kv"][0]["id"]
    assert resources["r2"] == [{"name": "assets"}]
    assert resources["workers"] == ["w"]
    assert [set(one) for one in resources["d1"] + resources["queues"]] == [{"id", "name"}] * 2


async def test_drift_names_what_is_missing_and_what_nobody_needs(api: httpx.AsyncClient) -> None:
    """A need that does not exist is missing, with who needs it; what exists unneeded is unmanaged."""
    await register(api, "a", "local:page-deployer", "a.b", needs={"r2Buckets": ["assets", "private"]})
    await register(api, "b", "local:page-deployer", "a.b", needs={"r2Buckets": ["private"]})
    await ensure(api, want={"r2Buckets": ["assets"], "queues": ["old-jobs"]})
    drift = (await api.get("/autopilot/diagnose")).json()["drift"]
    assert drift == {
        "missing": [{"kind": "r2", "name": "private", "needed_by": ["a", "b"], "why": "it does not exist"}],
        "changed": [],
        "unmanaged": [{"kind": "queues", "name": "old-jobs"}],
        "unread": [],
    }


async def test_a_part_that_cannot_be_read_says_why(api: httpx.AsyncClient, system: System) -> None:
    """With the store gone each kind that lives in it is an error, the others are listed: that is a 207."""
    await system.outside.table.close()
    answer = await api.get("/autopilot/diagnose")
    body = answer.json()
    assert answer.status_code == 207
    assert body["token"]["status"] == "none"
    for part in (body["resources"]["kv"], body["resources"]["queues"], body["drift"]):
        assert set(part["error"]) == {"code", "message", "hint"}
        assert part["error"]["code"] == "store_unavailable"
    assert (body["resources"]["r2"], body["resources"]["workers"], body["resources"]["d1"]) == ([], [], [])


LOST = Unread("10000", "Authentication error, token secret-token-1", "Give the token more permissions.")


class Lame(LocalProvider):
    """A provider that can read nothing but what it is told to."""

    name = "cloudflare"
    token = True

    async def inventory(self) -> Inventory:
        return Inventory([], dict.fromkeys(KINDS, LOST))

    async def diagnose(self, found: Inventory, *, probe_writes: bool) -> Diagnosis:
        row = Permission(
            "Workers KV Storage", "Edit", "None", f"writes: {probe_writes}", "read", "hint", "link"
        )
        if self.token:
            token = {"id": "t", "status": "active", "kind": "user"}
            return Diagnosis(token, [row], ["Workers KV Storage Write"], "https://dash.example")
        return Diagnosis(LOST, LOST)


async def diagnosis(system: System, folder: Path, *, token: bool, query: str = "") -> tuple[int, Any]:
    """Return the status and body of a diagnosis by a provider that can read nothing else."""
    provider = Lame(system.outside.table, folder, lambda: 0.0, str)
    provider.token = token
    redactor = Redactor(["secret-token-1"])
    once = Once(Idempotency(system.outside.table, lambda: 0.0), redactor)
    [endpoint, *_] = InfraApi(system.healer, provider, lambda: 0.0, once, redactor).endpoints()

    async def nothing() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"query_string": query.encode()}
    answer = await endpoint.answer(Call(scope, nothing, {}, ANYONE, Trace()))
    return answer.status, json.loads(answer.body)


async def test_when_no_part_can_be_read_that_is_a_502(system: System, tmp_path: Path) -> None:
    """Token, permissions, every kind and drift are errors with the provider's code, and without secrets."""
    status, body = await diagnosis(system, tmp_path, token=False)
    assert status == 502
    assert body["provider"] == "cloudflare"
    for part in (body["token"], body["permissions"], *body["resources"].values(), body["drift"]):
        assert part["error"]["code"] == "10000"
        assert part["error"]["hint"] == "Give the token more permissions."
        assert part["error"]["message"].startswith("Authentication error")
        assert "secret-token-1" not in part["error"]["message"]


async def test_what_a_token_may_do_is_shown_with_what_it_is_known_by(system: System, tmp_path: Path) -> None:
    """Permissions with their evidence, the groups that are missing, and where to get a token with them."""
    status, body = await diagnosis(system, tmp_path, token=True, query="probe_writes=true")
    assert status == 207
    assert body["permissions"] == [
        {
            "permission": "Workers KV Storage",
            "needs": "Edit",
            "has": "None",
            "probe": "writes: True",
            "evidence": "read",
            "hint": "hint",
            "link": "link",
        }
    ]
    assert (body["missing"], body["link"]) == (["Workers KV Storage Write"], "https://dash.example")
    assert "note" not in body
    for query in ("", "probe_writes=false"):
        _, body = await diagnosis(system, tmp_path, token=True, query=query)
        assert body["permissions"][0]["probe"] == "writes: False"


async def test_probing_writes_is_asked_for_by_true(api: httpx.AsyncClient) -> None:
    """Anything else is a 422 that names the parameter."""
    for query in ("probe_writes=1", "probe_writes=", "probe=true"):
        answer = await api.get(f"/autopilot/diagnose?{query}")
        assert answer.status_code == 422
        assert [one["field"] for one in answer.json()["errors"]] == [query.partition("=")[0]]
    assert (await api.get("/autopilot/diagnose?probe_writes=true")).status_code == 200


async def test_a_dry_run_is_the_plan_of_the_real_run_and_creates_nothing(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Both have one plan; only the real run leaves anything behind."""
    await ensure(api, want={"r2Buckets": ["assets"]})
    before = _there(tmp_path)
    dry = await ensure(api, want=EVERYTHING, dry_run=True)
    assert (dry.status_code, dry.json()["ok"], dry.json()["dry_run"]) == (200, True, True)
    assert dry.json()["created"] == NOTHING
    assert _there(tmp_path) == before
    assert (await api.get("/autopilot/diagnose")).json()["resources"]["kv"] == []
    real = (await ensure(api, want=EVERYTHING)).json()
    assert real["plan"] == dry.json()["plan"]
    assert [(one["action"], one["name"]) for one in real["plan"]] == [
        ("create", "LOGS"), ("keep", "assets"), ("create", "w"), ("create", "db"), ("create", "jobs"),
    ]  # fmt: skip
    assert names(real["skipped"]) == {**NOTHING, "r2": ["assets"]}
    assert names(real["created"]) == {
        "kv": ["LOGS"], "r2": [], "workers": ["w"], "d1": ["db"], "queues": ["jobs"],
    }  # fmt: skip


async def test_a_second_run_creates_nothing(api: httpx.AsyncClient) -> None:
    """What exists is kept, with the id it had."""
    first = (await ensure(api, want=EVERYTHING)).json()
    second = (await ensure(api, want=EVERYTHING)).json()
    assert second["ok"]
    assert second["created"] == NOTHING
    assert {one["action"] for one in second["plan"]} == {"keep"}
    assert second["skipped"] == first["created"]


async def test_without_want_everything_registered_is_made(api: httpx.AsyncClient, tmp_path: Path) -> None:
    """The union of all needs is what exists afterwards, whether the body is absent, empty or want is null."""
    await register(api, "a", "local:page-deployer", "a.b", needs={"r2Buckets": ["one-bucket"]})
    await register(
        api, "b", "local:page-deployer", "a.b", needs={"r2Buckets": ["two-bucket"], "queues": ["q"]}
    )
    absent = await api.post("/autopilot/ensure-infra")
    assert names(absent.json()["created"]) == {
        **NOTHING,
        "r2": ["one-bucket", "two-bucket"],
        "queues": ["q"],
    }
    for body in ({}, {"want": None}, {"dry_run": False}):
        assert (await ensure(api, **body)).json()["skipped"] == absent.json()["created"]
    assert (tmp_path / "r2/one-bucket").is_dir()


async def test_a_worker_is_uploaded_only_when_its_content_changed(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The same content is kept, other content is an update, and the file holds the new one."""

    async def upload(content: str) -> dict[str, Any]:
        answer = await ensure(api, want={"workers": [{"name": "w", "content": content}]})
        return answer.json()  # type: ignore[no-any-return]

    assert (await upload("one"))["plan"][0]["action"] == "create"
    assert (await upload("one"))["plan"][0]["action"] == "keep"
    changed = await upload("two")
    [row] = changed["plan"]
    assert (row["action"], row["name"], row["why"]) == ("update", "w", "what is wanted changed")
    assert (tmp_path / "workers/w.mjs").read_text().partition("\n")[2] == "two"


async def test_what_is_refused_is_a_502_with_the_same_body(api: httpx.AsyncClient, tmp_path: Path) -> None:
    """One refusal does not stop the others: the report has what was created and what was not, and why."""
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2/in-the-way").write_text("a file")
    answer = await ensure(api, want={"r2Buckets": ["in-the-way", "fine"], "queues": ["jobs"]})
    body = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/json")
    assert set(body) == {"ok", "created", "skipped", "errors", "alerts", "plan", "dry_run"}
    assert body["ok"] is False
    assert names(body["created"]) == {**NOTHING, "r2": ["fine"], "queues": ["jobs"]}
    assert [(one["kind"], one["name"]) for one in body["errors"]] == [("r2", "in-the-way")]
    assert body["errors"][0]["code"] == "store_unavailable"
    assert body["errors"][0]["message"]


async def test_a_name_like_another_one_waits_until_it_is_meant(api: httpx.AsyncClient) -> None:
    """A typing error makes no empty twin; who means it says so."""
    await ensure(api, want={"r2Buckets": ["assets"]})
    answer = await ensure(api, want={"r2Buckets": ["asset"]})
    assert answer.status_code == 502
    [error] = answer.json()["errors"]
    assert (error["code"], error["message"]) == ("did_you_mean", "it does not exist; did you mean assets?")
    assert "meant" in error["hint"]
    answer = await ensure(api, want={"r2Buckets": ["asset"]}, meant=["asset"])
    assert names(answer.json()["created"])["r2"] == ["asset"]


async def test_what_vanished_is_an_alert_and_not_made_again(api: httpx.AsyncClient, tmp_path: Path) -> None:
    """An empty bucket in the place of a full one would hide the loss."""
    want = {"r2Buckets": ["assets", "pages"]}
    await ensure(api, want=want)
    (tmp_path / "r2/assets").rmdir()
    answer = await ensure(api, want=want)
    assert answer.status_code == 502
    assert [(one["name"], one["code"]) for one in answer.json()["alerts"]] == [("assets", "vanished")]
    assert "AUTOPILOT_RECREATE_VANISHED" in answer.json()["alerts"][0]["hint"]
    assert not (tmp_path / "r2/assets").exists()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], {"body"}),
        ({"wants": {}, "dry_run": "yes"}, {"wants", "dry_run"}),
        (
            {"want": {"r2Buckets": ["X"], "buckets": []}, "dry_run": 1},
            {"want.r2Buckets[0]", "want.buckets", "dry_run"},
        ),
        ({"want": ["assets"]}, {"want"}),
        (
            {"want": {"workers": [{"name": "../w", "content": ""}]}},
            {"want.workers[0].name", "want.workers[0].content"},
        ),
        ({"want": {"kvNamespaces": ["A", "A"]}}, {"want.kvNamespaces"}),
        ({"want": {}, "meant": "LOGS"}, {"meant"}),
        ({"want": {}, "meant": ["LOGS", 1]}, {"meant"}),
    ],
)
async def test_a_wrong_want_names_every_field(api: httpx.AsyncClient, body: Any, fields: set[str]) -> None:
    """Unknown kinds, names that storage would not take and wrong types are a 422, all at once."""
    answer = await api.post("/autopilot/ensure-infra", json=body)
    assert answer.status_code == 422
    assert {one["field"] for one in answer.json()["errors"]} == fields
    assert (await api.get("/autopilot/diagnose")).json()["resources"] == NOTHING


async def test_a_self_heal_pass_covers_everything_registered(
    api: httpx.AsyncClient, tmp_path: Path, system: System
) -> None:
    """`POST /__scheduled` makes the union of all needs, answers its report and keeps it (D-05)."""
    await register(api, "a", "local:page-deployer", "a.b", needs={"r2Buckets": ["one-bucket"]})
    await register(api, "b", "local:page-deployer", "a.b", needs={"kvNamespaces": ["LOGS"]})
    answer = await api.post("/__scheduled")
    body = answer.json()
    assert (answer.status_code, body["ok"]) == (200, True)
    assert names(body["created"]) == {**NOTHING, "r2": ["one-bucket"], "kv": ["LOGS"]}
    assert (tmp_path / "r2/one-bucket").is_dir()
    again = (await api.post("/__scheduled")).json()
    assert again["created"] == NOTHING
    kept = [item.document for item in (await system.outside.table.range("heal")).items]
    assert [one["id"] for one in kept] == [body["id"], again["id"]]
    assert kept[0]["plan"] == body["plan"]


async def test_a_pass_that_could_not_make_everything_is_a_502(api: httpx.AsyncClient, tmp_path: Path) -> None:
    """The report is the answer then too, and says what failed."""
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2/in-the-way").write_text("a file")
    await register(api, "a", "local:page-deployer", "a.b", needs={"r2Buckets": ["in-the-way"]})
    answer = await api.post("/__scheduled")
    assert (answer.status_code, answer.json()["ok"]) == (502, False)
    assert answer.json()["errors"][0]["name"] == "in-the-way"


async def test_two_passes_never_run_at_once(api: httpx.AsyncClient, tmp_path: Path, system: System) -> None:
    """While another holds the lease a pass is a 409; when that one is over or dead it runs."""
    health = (await api.get("/health")).json()
    assert health["status"] == "healthy"
    held = {"owner": "heal_other", "fence": 1, "until": 9_999_999_999.0}
    await system.outside.table.transact([Put(("lease", "#heal"), held)])
    refused = await api.post("/__scheduled")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    await system.outside.table.transact([Put(("lease", "#heal"), {**held, "until": 1.0})])
    assert (await api.post("/__scheduled")).status_code == 200
    other = SqliteTable(tmp_path / "router.db", lambda: 0.0)
    try:
        lease = await other.get(("lease", "#heal"))
    finally:
        await other.close()
    assert lease is not None
    assert lease.document["until"] == 0.0, "the pass gave its lease back"


async def test_an_autopilot_cannot_take_the_pass_lease_by_its_name(api: httpx.AsyncClient) -> None:
    """Leases of autopilots and of passes share a partition; no valid name collides."""
    refused = await register(api, "#heal", "local:page-deployer", "a.b", lease_seconds=60)
    assert refused.status_code == 422
    assert (await api.post("/__scheduled")).status_code == 200
