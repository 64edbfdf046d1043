"""Cloudflare's own client drives the fake: what ours and theirs see is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import cloudflare
import pytest

from infra.provider import Want
from router.model import Binding, Worker
from tests.cloudflare_fake import ACCOUNT, ROOT, USER_TOKEN, on_loopback
from tests.cloudflare_products import Thing
from tests.infra.cloudflare.conftest import Rig

SOURCE = "export default {}"


@pytest.fixture
async def theirs(rig: Rig) -> AsyncIterator[Any]:
    """Give their client of the fake."""
    rig.fake.tokens[USER_TOKEN].reads_itself = True
    async with (
        on_loopback(rig.fake) as server,
        cloudflare.AsyncCloudflare(api_token=USER_TOKEN, base_url=server.url + ROOT, max_retries=0) as client,
    ):
        yield client


async def test_what_they_create_we_list(theirs: Any, rig: Rig) -> None:
    """Every kind, by the same names and ids."""
    at = {"account_id": ACCOUNT}
    space = await theirs.kv.namespaces.create(title="CACHE", **at)
    bucket = await theirs.r2.buckets.create(name="assets", location_hint="weur", **at)
    database = await theirs.d1.database.create(name="crm", **at)
    queue = await theirs.queues.create(queue_name="jobs", **at)
    metadata = {
        "main_module": "worker.mjs",
        "compatibility_date": "2026-04-01",
        "bindings": [{"type": "kv_namespace", "name": "KV", "namespace_id": space.id}],
    }
    module = ("worker.mjs", SOURCE.encode(), "application/javascript+module")
    script = await theirs.workers.scripts.update("edge", metadata=metadata, files=[module], **at)
    found = await rig.provider().inventory()
    assert found.unread == {}
    assert {(one.kind, one.name, one.id) for one in found.resources} == {
        ("kv", "CACHE", space.id),
        ("r2", "assets", bucket.name),
        ("d1", "crm", database.uuid),
        ("queues", "jobs", queue.queue_id),
        ("workers", "edge", script.id),
    }


async def test_what_we_create_they_list(theirs: Any, rig: Rig) -> None:
    """Every kind, and a Worker with what it is bound to, its mark, its route and its schedules."""
    at = {"account_id": ACCOUNT}
    provider = rig.provider()
    bound = {}
    for kind, name in (("kv", "CACHE"), ("r2", "assets"), ("d1", "crm"), ("queues", "jobs")):
        made = await provider.create(Want(kind, name), {})
        bound[made.key] = made
    worker = Worker(
        "edge", SOURCE, bindings={"KV": Binding(kv="CACHE")}, workers_dev=True, crons=("*/15 * * * *",)
    )
    made = await provider.create(Want("workers", "edge", worker), bound)
    assert [one.id async for one in theirs.kv.namespaces.list(**at)] == [bound["kv", "CACHE"].id]
    assert [one.name for one in (await theirs.r2.buckets.list(**at)).buckets] == ["assets"]
    assert [one.uuid async for one in theirs.d1.database.list(**at)] == [bound["d1", "crm"].id]
    assert [one.queue_id async for one in theirs.queues.list(**at)] == [bound["queues", "jobs"].id]
    assert [one.etag async for one in theirs.workers.scripts.list(**at)] == [made.version]
    settings = await theirs.workers.scripts.script_and_version_settings.get("edge", **at)
    assert settings.annotations.workers_tag == f"autopilot-digest-{made.digest}"
    assert [(one.name, one.namespace_id) for one in settings.bindings] == [("KV", bound["kv", "CACHE"].id)]
    assert (await theirs.workers.scripts.subdomain.get("edge", **at)).enabled
    schedules = (await theirs.workers.scripts.schedules.get("edge", **at)).schedules
    assert [one.cron for one in schedules] == ["*/15 * * * *"]


async def test_pages_are_read_by_both(theirs: Any, rig: Rig) -> None:
    """45 namespaces are 45 for either; of 45 buckets their list shows 20, ours all."""
    for n in range(45):
        rig.fake.products.kv[f"{n:032}"] = Thing({"id": f"{n:032}", "title": f"T{n}"})
        rig.fake.products.r2["default", f"bucket-{n}"] = Thing({"name": f"bucket-{n}"})
    assert len([one async for one in theirs.kv.namespaces.list(account_id=ACCOUNT)]) == 45
    assert len((await theirs.r2.buckets.list(account_id=ACCOUNT)).buckets) == 20
    assert len((await rig.provider().inventory()).resources) == 90


async def test_the_token_is_the_same_for_both(theirs: Any, rig: Rig) -> None:
    """Its status, its policies, and how a refusal is told."""
    assert (await theirs.user.tokens.verify()).status == "active"
    details = await theirs.user.tokens.get(rig.fake.tokens[USER_TOKEN].id)
    assert details.policies[0].permission_groups[0].name == "Workers KV Storage Write"
    await theirs.kv.namespaces.create(account_id=ACCOUNT, title="CACHE")
    with pytest.raises(cloudflare.BadRequestError) as caught:
        await theirs.kv.namespaces.create(account_id=ACCOUNT, title="CACHE")
    assert [one.code for one in caught.value.errors] == [10014]
    rig.fake.tokens[USER_TOKEN].grants = {}
    with pytest.raises(cloudflare.PermissionDeniedError):
        await theirs.queues.create(account_id=ACCOUNT, queue_name="jobs")
