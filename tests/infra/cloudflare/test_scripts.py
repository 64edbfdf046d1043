"""Workers: what is uploaded, with which mark, and what happens when a step around the upload fails."""

from __future__ import annotations

import pytest

from infra.cloudflare.failures import Denied, Exists, Garbled, Missing, NotEnabled, Refused, Unknown
from infra.cloudflare.provider import CloudflareProvider
from infra.cloudflare.scripts import MARK
from infra.provider import Bound, Resource, Want, digest_of
from router.model import Binding, Worker
from tests.cloudflare_fake import PAGE, Fault, refusal
from tests.infra.cloudflare.conftest import Rig
from tests.infra.cloudflare.schema import metadata_of
from tests.upstream import Told

SOURCE = "export default { fetch() { return new Response('one') } }"
PLAIN = Want("workers", "edge", Worker("edge", SOURCE))
BUSY = Want(
    "workers",
    "edge",
    Worker("edge", SOURCE, workers_dev=True, crons=("*/15 * * * *", "0 4 * * *")),
)


async def only(provider: CloudflareProvider) -> Resource:
    """Return the only thing there is."""
    found = await provider.inventory()
    assert not found.unread
    [resource] = found.resources
    return resource


async def test_a_plain_worker_is_one_upload(rig: Rig, provider: CloudflareProvider) -> None:
    """It carries our mark and the digest; a list shows its version, a look shows all of it."""
    made = await provider.create(PLAIN, {})
    digest = digest_of(PLAIN, {})
    assert (made.digest, made.ours, made.id) == (digest, True, "edge")
    assert rig.fake.writes == [("PUT", rig.fake.writes[0][1])]
    metadata = metadata_of(rig.fake.requests[-1])
    assert metadata["tags"] == [MARK, f"autopilot-digest-{digest}"]
    assert metadata["annotations"]["workers/tag"] == f"autopilot-digest-{digest}"
    assert len(metadata["annotations"]["workers/tag"]) <= 100
    assert metadata["compatibility_date"] == "2026-04-01"
    assert metadata["keep_bindings"] == ["secret_text", "secret_key"]
    assert await only(provider) == made._replace(ours=None, digest="")
    assert await provider.find(PLAIN) == made


async def test_what_stands_there_is_not_overwritten(rig: Rig, provider: CloudflareProvider) -> None:
    """A Worker of that name is somebody's: it exists, and is not touched."""
    client = rig.client()
    await client.workers.upload("edge", "export default 1", {})
    before = rig.fake.products.scripts["edge"]
    with pytest.raises(Exists) as caught:
        await provider.create(PLAIN, {})
    assert caught.value.done
    assert rig.fake.products.scripts["edge"] is before
    found = await provider.find(PLAIN)
    assert found is not None
    assert (found.ours, found.digest) == (False, "")
    assert (await only(provider)).ours is None  # a list without tags does not tell
    before.metadata["tags"] = ["theirs"]
    assert (await only(provider)).ours is False


async def test_bindings_carry_ids_and_jurisdictions(rig: Rig, provider: CloudflareProvider) -> None:
    """Each kind is bound as its product wants it, to what was just created."""
    bound: dict[tuple[str, str], Resource] = {}
    for want in (Want("kv", "CACHE"), Want("r2", "assets"), Want("d1", "crm"), Want("queues", "jobs")):
        bound[want.key] = await provider.create(want, {})
    rig.fake.products.r2["eu", "private"] = rig.fake.products.r2["default", "assets"]
    bound["r2", "private"] = Resource("r2", "private", "private", jurisdiction="eu")
    bindings = {
        "KV": Binding(kv="CACHE"),
        "ASSETS": Binding(r2="assets"),
        "PRIVATE": Binding(r2="private"),
        "DB": Binding(d1="crm"),
        "JOBS": Binding(queue="jobs"),
    }
    await provider.create(Want("workers", "edge", Worker("edge", SOURCE, bindings=bindings)), bound)
    assert metadata_of(rig.fake.requests[-1])["bindings"] == [
        {"type": "r2_bucket", "name": "ASSETS", "bucket_name": "assets"},
        {"type": "d1", "name": "DB", "id": bound["d1", "crm"].id},
        {"type": "queue", "name": "JOBS", "queue_name": "jobs"},
        {"type": "kv_namespace", "name": "KV", "namespace_id": bound["kv", "CACHE"].id},
        {"type": "r2_bucket", "name": "PRIVATE", "bucket_name": "private", "jurisdiction": "eu"},
    ]


async def test_a_binding_the_token_may_not_use_is_denied(rig: Rig, provider: CloudflareProvider) -> None:
    """And says that it is the binding."""
    kv = await provider.create(Want("kv", "CACHE"), {})
    bound: Bound = {kv.key: kv}
    rig.fake.products.off_limits = {"kv_namespace"}
    worker = Worker("edge", SOURCE, bindings={"KV": Binding(kv="CACHE")})
    with pytest.raises(Denied) as caught:
        await provider.create(Want("workers", "edge", worker), bound)
    assert "bound to something" in caught.value.hint


async def test_a_route_and_schedules_are_set_before_the_digest(
    rig: Rig, provider: CloudflareProvider
) -> None:
    """Uploaded, routed, scheduled, and uploaded once more with the digest that says it is all done."""
    rig.fake.products.route_lag = 2
    made = await provider.create(BUSY, {})
    script = rig.fake.products.scripts["edge"]
    assert (script.enabled, [one["cron"] for one in script.crons]) == (True, ["*/15 * * * *", "0 4 * * *"])
    ends = [path.rpartition("/")[2] for _, path in rig.fake.writes]
    assert ends == ["edge", "subdomain", "subdomain", "subdomain", "schedules", "edge"]
    assert made.digest == digest_of(BUSY, {})
    assert await provider.find(BUSY) == made
    assert await rig.provider().find(BUSY) == made  # for another process too


@pytest.mark.parametrize("step", ["subdomain", "schedules"])
async def test_a_worker_that_is_only_half_set_up_shows_no_digest(
    rig: Rig, provider: CloudflareProvider, step: str
) -> None:
    """It is ours, and it is not as it is wanted: the next pass puts it up again."""
    rig.fake.faults = [Fault("", step, PAGE, times=9)]
    with pytest.raises(Unknown) as caught:
        await provider.create(BUSY, {})
    assert caught.value.done
    rig.fake.faults = []
    half = await provider.find(BUSY)
    assert half is not None
    assert (half.ours, half.digest) == (True, "")
    made = await provider.update(BUSY, {})
    assert (await provider.find(BUSY)) == made
    assert rig.fake.products.scripts["edge"].enabled


async def test_an_update_closes_what_is_no_longer_wanted(rig: Rig, provider: CloudflareProvider) -> None:
    """Route and schedules follow the wanted ones, secrets stay, and it is one upload."""
    await provider.create(BUSY, {})
    script = rig.fake.products.scripts["edge"]
    script.secrets = [{"type": "secret_text", "name": "KEY"}]
    uploads = script.uploads
    made = await provider.update(PLAIN, {})
    script = rig.fake.products.scripts["edge"]
    assert (script.enabled, script.crons, len(script.secrets)) == (False, [], 1)
    assert script.uploads == uploads + 1
    assert made.digest == digest_of(PLAIN, {})


async def test_a_close_look_finds_what_was_changed_by_hand(rig: Rig, provider: CloudflareProvider) -> None:
    """A new version without our note, a route that was closed, schedules that were changed: no digest."""
    wanted = digest_of(BUSY, {})
    await provider.create(BUSY, {})

    async def digest() -> str:
        found = await provider.find(BUSY)
        assert found is not None
        assert found.ours
        return found.digest

    script = rig.fake.products.scripts["edge"]
    assert await digest() == wanted
    script.enabled = False
    assert await digest() == ""
    script.enabled = True
    script.crons = script.crons[:1]
    assert await digest() == ""
    await provider.update(BUSY, {})
    assert await digest() == wanted
    rig.fake.products.scripts["edge"].metadata["annotations"] = {}
    assert await digest() == ""


async def test_a_server_without_annotations_is_believed_by_its_tags(
    rig: Rig, provider: CloudflareProvider
) -> None:
    """Where settings show none, the tags have to do."""
    await provider.create(PLAIN, {})
    del rig.fake.products.scripts["edge"].metadata["annotations"]
    found = await provider.find(PLAIN)
    assert found is not None
    assert found.digest == digest_of(PLAIN, {})


async def test_a_list_that_shows_no_tags_leaves_it_to_a_look(rig: Rig, provider: CloudflareProvider) -> None:
    """It does not tell whose they are; the look does."""
    await provider.create(PLAIN, {})
    rig.fake.products.shows_tags = False
    assert (await only(provider)).ours is None
    found = await provider.find(PLAIN)
    assert found is not None
    assert (found.ours, found.digest) == (True, digest_of(PLAIN, {}))


async def test_an_account_without_a_workers_dev_name_says_so(rig: Rig, provider: CloudflareProvider) -> None:
    """On the first upload, or when the route is opened: a person has to choose one."""
    rig.fake.products.subdomain = None
    with pytest.raises(NotEnabled) as caught:
        await provider.create(PLAIN, {})
    assert "workers.dev subdomain" in caught.value.hint
    gone = refusal(404, 10007, "not found")
    rig.fake.products.subdomain = "example"
    rig.fake.faults = [
        Fault("POST", "/subdomain", gone, times=3),
        Fault("GET", "workers/subdomain", gone),
    ]
    with pytest.raises(NotEnabled):
        await provider.create(BUSY, {})
    rig.fake.faults = [Fault("POST", "/subdomain", gone, times=9)]
    with pytest.raises(Missing):
        await provider.update(BUSY, {})
    rig.fake.faults = [Fault("POST", "/subdomain", gone, times=9)]
    with pytest.raises(Missing):
        await provider.update(PLAIN, {})


async def test_a_script_that_does_not_pass_is_refused(rig: Rig, provider: CloudflareProvider) -> None:
    """With the reason; and what has no source at all is not uploaded."""
    with pytest.raises(Refused, match="no default export"):
        await provider.create(Want("workers", "edge", Worker("edge", "let x = 1")), {})
    with pytest.raises(Refused, match="no source"):
        await provider.create(Want("workers", "edge"), {})
    assert rig.fake.products.scripts == {}


async def test_an_upload_that_is_answered_oddly_may_be_done(rig: Rig, provider: CloudflareProvider) -> None:
    """A success of another shape: the Worker is there now, whatever the answer says."""
    odd = Told(200, b'{"success":true,"errors":[],"messages":[],"result":"odd"}')
    for step in (provider.create, provider.update):
        rig.fake.faults = [Fault("PUT", "edge", odd, done=True)]
        if step == provider.update:
            rig.fake.faults.insert(0, Fault("PUT", "schedules", odd, done=True))
        with pytest.raises(Garbled) as caught:
            await step(PLAIN, {})
        assert caught.value.done
        assert "edge" in rig.fake.products.scripts
