"""The kinds of storage as rows of one table: how each is listed, looked up and created, and what that needs.

Another kind is another row, and another class of calls in `infra.cloudflare.client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from infra.cloudflare import scripts
from infra.cloudflare.client import Client
from infra.cloudflare.failures import Denied, Exists, Garbled, NotEnabled, Refused
from infra.cloudflare.pages import Row
from infra.provider import Bound, Resource, Want
from router.model import Bucket

JURISDICTIONS = ("default", "eu")
"""Where every account may keep buckets."""

RESTRICTED = ("us", "fedramp", "fedramp-high")
"""Where only some accounts may: one that is refused there has nothing there."""


class Kind(NamedTuple):
    """One row. `allowed` are the codes of `probe`, a creation that cannot succeed, when it was authorised."""

    kind: str
    permission: str
    """As the dashboard calls it; the API's groups are this with `Read` or `Write` behind it."""
    key: str
    """What the dashboard's links to a new token call it."""
    groups: tuple[str, str]
    """The ids of the groups that read and that write."""
    rows: Callable[[Client], Awaitable[list[Resource]]]
    find: Callable[[Client, Want, str], Awaitable[Resource | None]]
    create: Callable[[Client, Want, Bound], Awaitable[Resource]]
    probe: Callable[[Client, str], Awaitable[object]]
    allowed: tuple[int, ...]

    @property
    def reads(self) -> str:
        """The permission group that lets a token list these."""
        return f"{self.permission} Read"

    @property
    def writes(self) -> str:
        """The permission group that lets a token create these."""
        return f"{self.permission} Write"


def _named(kind: str, row: Row, name: str, identity: str) -> Resource:
    """Return a row as a resource. Raises `Garbled` where it has no name or id."""
    if not isinstance(row.get(name), str) or not isinstance(row.get(identity), str):
        raise Garbled(f"a row of {kind} has no {name} or no {identity}")
    return Resource(kind, row[name], row[identity])


def _made(want: Want, resource: Resource) -> Resource:
    """Return what a creation answered. Raises `Garbled` where it speaks of something else."""
    if resource.name != want.name:
        raise Garbled(f"{want.name} was to be created, and the answer speaks of {resource.name}")
    return resource


async def _kv_rows(client: Client) -> list[Resource]:
    return [_named("kv", row, "title", "id") for row in await client.kv.rows()]


async def _kv_find(client: Client, want: Want, known: str) -> Resource | None:
    """Look by id where one is known: a whole list costs more. A title belongs to one namespace only."""
    if known:
        row = await client.kv.get(known)
        if row is not None and row.get("title") == want.name:
            return _named("kv", row, "title", "id")
    return _one(want, await _kv_rows(client))


async def _kv_create(client: Client, want: Want, _: Bound) -> Resource:
    return _made(want, _named("kv", await client.kv.create(want.name), "title", "id"))


def _bucket(row: Row, jurisdiction: str) -> Resource:
    """Return a bucket of the jurisdiction that was asked. Its name is its id."""
    resource = _named("r2", row, "name", "name")
    return resource if jurisdiction == "default" else resource._replace(jurisdiction=jurisdiction)


async def _r2_rows(client: Client) -> list[Resource]:
    places = (*JURISDICTIONS, *RESTRICTED)
    # All of them are waited for: a call that goes on after the failure of another belongs to no pass.
    lists = await asyncio.gather(*(_r2_in(client, place) for place in places), return_exceptions=True)
    found: list[Resource] = []
    names: set[str] = set()
    for place, listed in zip(places, lists, strict=True):
        if isinstance(listed, BaseException):
            raise listed
        found += [_bucket(row, place) for row in listed if _is_in(row, place, names)]
        names.update(one.name for one in found)
    return found


def _is_in(row: Row, place: str, names: set[str]) -> bool:
    """Whether a row that was listed for a jurisdiction is of it. Where it does not say, it is of the first.

    A server that knows no jurisdictions shows the same buckets for each.
    """
    said = row.get("jurisdiction")
    return said.lower() == place if isinstance(said, str) else row.get("name") not in names


async def _r2_in(client: Client, jurisdiction: str) -> list[Row]:
    try:
        return await client.r2.rows(jurisdiction)
    except (Refused, Denied, NotEnabled):
        if jurisdiction in JURISDICTIONS:
            raise
        return []


async def _r2_find(client: Client, want: Want, _: str) -> Resource | None:
    row = await client.r2.get(want.name, want.jurisdiction or "default")
    return None if row is None else _bucket(row, want.jurisdiction or "default")


async def _r2_create(client: Client, want: Want, _: Bound) -> Resource:
    hint = want.spec.location_hint if isinstance(want.spec, Bucket) else ""
    place = want.jurisdiction or "default"
    return _made(want, _bucket(await client.r2.create(want.name, place, location=hint), place))


async def _d1_rows(client: Client) -> list[Resource]:
    return [_named("d1", row, "name", "uuid") for row in await client.d1.rows()]


async def _d1_find(client: Client, want: Want, _: str) -> Resource | None:
    return _one(want, await _d1_rows(client))


async def _d1_create(client: Client, want: Want, _: Bound) -> Resource:
    return _made(want, _named("d1", await client.d1.create(want.name), "name", "uuid"))


async def _queue_rows(client: Client) -> list[Resource]:
    return [_named("queues", row, "queue_name", "queue_id") for row in await client.queues.rows()]


async def _queue_find(client: Client, want: Want, _: str) -> Resource | None:
    return _one(want, await _queue_rows(client))


async def _queue_create(client: Client, want: Want, _: Bound) -> Resource:
    return _made(want, _named("queues", await client.queues.create(want.name), "queue_name", "queue_id"))


async def _worker_create(client: Client, want: Want, bound: Bound) -> Resource:
    """Upload a Worker where there is none: an upload would replace what stands there."""
    if await client.workers.settings(want.name) is not None:
        error = Exists(f"a Worker called {want.name} exists already")
        error.done = True
        raise error
    return await scripts.put(client, want, bound, fresh=True)


def _one(want: Want, found: Sequence[Resource]) -> Resource | None:
    return next((one for one in found if one.name == want.name), None)


TABLE = (
    Kind(
        "kv",
        "Workers KV Storage",
        "workers_kv_storage",
        ("8b47d2786a534c08a1f94ee8f9f599ef", "f7f0eda5697f475c90846e879bab8666"),
        _kv_rows,
        _kv_find,
        _kv_create,
        probe=lambda client, _: client.kv.create(""),
        allowed=(10019,),
    ),
    Kind(
        "r2",
        "Workers R2 Storage",
        "workers_r2",
        ("b4992e1108244f5d8bfbd5744320c2e1", "bf7481a1826f439697cb59a20b22293e"),
        _r2_rows,
        _r2_find,
        _r2_create,
        probe=lambda client, _: client.r2.create("A"),
        allowed=(10005,),
    ),
    Kind(
        "workers",
        "Workers Scripts",
        "workers_scripts",
        ("1a71c399035b4950a1bd1466bbe4f420", "e086da7e2179491d91ee5f35b3ca210a"),
        scripts.rows,
        scripts.find,
        _worker_create,
        probe=lambda client, nobody: client.workers.route(nobody, enabled=False, patient=False),
        allowed=(10007,),
    ),
    Kind(
        "d1",
        "D1",
        "d1",
        ("192192df92ee43ac90f2aeeffce67e35", "09b2857d1c31407795e75e3fed8617a1"),
        _d1_rows,
        _d1_find,
        _d1_create,
        probe=lambda client, _: client.d1.create(""),
        allowed=(7400,),
    ),
    Kind(
        "queues",
        "Queues",
        "queues",
        ("84a7755d54c646ca87cd50682a34bf7c", "366f57075ffc42689627bcf8242a1b6d"),
        _queue_rows,
        _queue_find,
        _queue_create,
        probe=lambda client, _: client.queues.create(""),
        allowed=(11003, 10026),
    ),
)

KIND = {row.kind: row for row in TABLE}
