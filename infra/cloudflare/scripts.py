"""Worker scripts: what is uploaded, the mark and the digest that it carries, and the steps around an upload.

The digest goes up last: a Worker whose route or schedule could not be set shows none, and is put up again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.cloudflare.client import Client
from infra.cloudflare.failures import CloudflareError, Missing, Refused
from infra.cloudflare.pages import Row
from infra.provider import Bound, Resource, Want, digest_of
from router.model import Binding, Worker

MARK = "autopilot-router"
_DIGEST = "autopilot-digest-"
_NOTE = "workers/tag"
"""The annotation that a version carries. Who changes a Worker by hand makes a version without it."""

SECRETS = ("secret_text", "secret_key")
"""Bindings that people add by hand: an upload that does not keep them drops them without a word."""


async def rows(client: Client) -> list[Resource]:
    """Return every script. One call shows them all, but not whether somebody changed one of ours."""
    return [_listed(row) for row in await client.workers.rows()]


async def find(client: Client, want: Want, _: str) -> Resource | None:
    """Look at one script closely: what changed it behind our back leaves it without a digest."""
    settings = await client.workers.settings(want.name)
    if settings is None:
        return None
    notes = settings.get("annotations")
    tags = _tags(settings) or []
    digest = _digest(tags)
    if isinstance(notes, dict) and notes.get(_NOTE) != f"{_DIGEST}{digest}":
        digest = ""
    if digest and isinstance(want.spec, Worker) and await _reached_otherwise(client, want.spec):
        digest = ""
    if want.name not in client.workers.etags:
        await client.workers.rows()
    version = client.workers.etags.get(want.name, "")
    return Resource("workers", want.name, want.name, digest, ours=MARK in tags, version=version)


async def _reached_otherwise(client: Client, worker: Worker) -> bool:
    """Whether route or schedules are not as they are wanted. Costs nothing where none are."""
    if worker.workers_dev and not await client.workers.routed(worker.name):
        return True
    return bool(worker.crons) and set(await client.workers.schedules(worker.name)) != set(worker.crons)


async def put(client: Client, want: Want, bound: Bound, *, fresh: bool) -> Resource:
    """Upload a Worker, let it answer under workers.dev and be started by its schedules as it is wanted.

    `fresh` says that there is none yet. Raises `CloudflareError`.
    """
    worker = want.spec
    if not isinstance(worker, Worker):
        raise Refused(f"there is no source for the Worker {want.name}")
    digest = digest_of(want, bound)
    metadata = _metadata(worker, bound)
    around = not fresh or worker.workers_dev or bool(worker.crons)
    if fresh and around:
        # Neither route nor schedule can be set before the script is there.
        await client.workers.upload(worker.name, worker.content, metadata)
    try:
        if around:
            await _route(client, worker)
            await client.workers.schedule(worker.name, worker.crons)
        row = await client.workers.upload(worker.name, worker.content, _sealed(metadata, digest))
    except CloudflareError as error:
        error.done = error.done or (fresh and around)
        raise
    return Resource("workers", want.name, want.name, digest, ours=True, version=_text(row, "etag"))


async def _route(client: Client, worker: Worker) -> None:
    """Open or close the route. Raises `NotEnabled` where the account has no name under workers.dev yet."""
    try:
        await client.workers.route(worker.name, enabled=worker.workers_dev)
    except Missing:
        if worker.workers_dev:
            await client.workers.subdomain()
        raise


def _metadata(worker: Worker, bound: Bound) -> dict[str, Any]:
    """Return the metadata of an upload that is not the last one."""
    return {
        "compatibility_date": worker.compatibility_date,
        "bindings": [_binding(name, one, bound) for name, one in sorted(worker.bindings.items())],
        "keep_bindings": list(SECRETS),
        "tags": [MARK],
    }


def _sealed(metadata: Mapping[str, Any], digest: str) -> dict[str, Any]:
    note = f"{_DIGEST}{digest}"
    return {**metadata, "tags": [MARK, note], "annotations": {_NOTE: note, "workers/message": f"by {MARK}"}}


def _binding(name: str, binding: Binding, bound: Bound) -> dict[str, str]:
    """Return a binding as an upload states it."""
    kind, wanted = binding.target
    resource = bound[binding.target]
    if kind == "kv":
        return {"type": "kv_namespace", "name": name, "namespace_id": resource.id}
    if kind == "d1":
        return {"type": "d1", "name": name, "id": resource.id}
    if kind == "queues":
        return {"type": "queue", "name": name, "queue_name": wanted}
    where = {"jurisdiction": resource.jurisdiction} if resource.jurisdiction else {}
    return {"type": "r2_bucket", "name": name, "bucket_name": wanted, **where}


def _listed(row: Row) -> Resource:
    """Return a script as a list shows it.

    One with our mark may have been changed by hand since, which leaves its tags as they are: only a look at
    its latest version tells. One that is shown without the mark is not ours.
    """
    tags = _tags(row)
    ours = None if tags is None or MARK in tags else False
    return Resource("workers", row["id"], row["id"], ours=ours, version=_text(row, "etag"))


def _tags(row: Row) -> list[str] | None:
    """Return the tags of a script, None where the answer does not tell them."""
    tags = row.get("tags")
    return [one for one in tags if isinstance(one, str)] if isinstance(tags, list) else None


def _digest(tags: list[str]) -> str:
    return next((tag.removeprefix(_DIGEST) for tag in tags if tag.startswith(_DIGEST)), "")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
