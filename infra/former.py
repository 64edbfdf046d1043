"""The provider port: who keeps the storage that autopilots need, and how missing storage is made.

A provider only ever lists and creates. Nothing in this product deletes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from router.errors import AutopilotError
from router.model import Needs

KINDS = ("kv", "r2", "workers", "d1", "queues")
"""The kinds of storage, as reports name them."""


class Resource(NamedTuple):
    """Something that exists. `id` is the provider's; `digest` is a Worker's content hash, else empty."""

    kind: str
    name: str
    id: str
    digest: str = ""


class Want(NamedTuple):
    """Something that has to exist. `content` is a Worker's source, else empty."""

    kind: str
    name: str
    content: str = ""


class Provider(Protocol):
    """What an adapter has to do. Any `AutopilotError` it raises is reported, with its code."""

    name: str
    """`cloudflare` or `local`, as `diagnose` shows it."""

    async def inventory(self) -> list[Resource]:
        """Return everything that exists, of every kind."""
        ...

    async def create(self, want: Want) -> Resource:
        """Make one thing, or update a Worker to the content given."""
        ...

    async def diagnose(self) -> Mapping[str, Any]:
        """Return `token`, `permissions` and `missing` as the contract's diagnose shows them."""
        ...


class Action(NamedTuple):
    """One line of a plan."""

    action: Literal["create", "update", "keep", "blocked"]
    kind: str
    name: str
    why: str


@dataclass
class Report:
    """What `ensure` found and did. Each list holds names with ids, in the order of the plan."""

    plan: list[Action]
    dry_run: bool
    created: list[Resource] = field(default_factory=list)
    skipped: list[Resource] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything wanted exists now (or, in a dry run, whether nothing speaks against it)."""
        return not self.errors

    def document(self) -> dict[str, Any]:
        """Return it as `ensure-infra` answers it."""
        return {
            "ok": self.ok,
            "created": by_kind(self.created),
            "skipped": by_kind(self.skipped),
            "errors": self.errors,
            "plan": [action._asdict() for action in self.plan],
            "dry_run": self.dry_run,
        }


def wants(needs: Needs) -> Iterator[Want]:
    """Give the single things that `needs` lists."""
    for name in needs.kv_namespaces:
        yield Want("kv", name)
    for bucket in needs.r2_buckets:
        yield Want("r2", bucket if isinstance(bucket, str) else bucket.name)
    for worker in needs.workers:
        yield Want("workers", worker.name, worker.content)
    for name in needs.d1_databases:
        yield Want("d1", name)
    for name in needs.queues:
        yield Want("queues", name)


def by_kind(resources: list[Resource]) -> dict[str, list[dict[str, str]]]:
    """Return resources as the contract shows them: `{"kv": [{name, id}], …}`."""
    shown: dict[str, list[dict[str, str]]] = {kind: [] for kind in KINDS}
    for resource in resources:
        shown[resource.kind].append({"name": resource.name, "id": resource.id})
    return shown


def digest_of(content: str) -> str:
    """Return the hash that tells one Worker's content from another's."""
    return hashlib.sha256(content.encode()).hexdigest()


def plan_of(wanted: list[Want], inventory: list[Resource]) -> list[Action]:
    """Return what has to be done so that everything wanted exists, a line for each of `wanted`. Pure.

    A Worker that is wanted with two contents is blocked: each pass would undo the one before.
    """
    there = {(one.kind, one.name): one for one in inventory}
    contents: dict[tuple[str, str], set[str]] = {}
    for want in wanted:
        contents.setdefault((want.kind, want.name), set()).add(want.content)
    plan = []
    for want in wanted:
        resource = there.get((want.kind, want.name))
        if len(contents[want.kind, want.name]) > 1:
            plan.append(Action("blocked", want.kind, want.name, "it is wanted with different contents"))
        elif resource is None:
            plan.append(Action("create", want.kind, want.name, "it does not exist"))
        elif want.kind == "workers" and resource.digest != digest_of(want.content):
            plan.append(Action("update", want.kind, want.name, "its content changed"))
        else:
            plan.append(Action("keep", want.kind, want.name, "it exists"))
    return plan


async def ensure(provider: Provider, wanted: list[Want], *, dry_run: bool = False) -> Report:
    """Create what is missing of `wanted`, all of it that can be, and report what happened.

    Raises what `provider.inventory` raises: without knowing what exists, nothing is created.
    """
    wanted = list(dict.fromkeys(wanted))
    inventory = {(one.kind, one.name): one for one in await provider.inventory()}
    report = Report(plan_of(wanted, list(inventory.values())), dry_run)
    todo = []
    for want, action in zip(wanted, report.plan, strict=True):
        if action.action == "keep":
            report.skipped.append(inventory[want.kind, want.name])
        elif action.action == "blocked":
            report.errors.append(_error(want, "conflict", action.why))
        elif not dry_run:
            todo.append(want)
    done = await asyncio.gather(*(provider.create(want) for want in todo), return_exceptions=True)
    for want, result in zip(todo, done, strict=True):
        if isinstance(result, Resource):
            report.created.append(result)
        elif isinstance(result, AutopilotError):
            report.errors.append(_error(want, result.code, result.detail))
        else:
            raise result
    return report


def _error(want: Want, code: str, message: str) -> dict[str, str]:
    return {"kind": want.kind, "name": want.name, "code": code, "message": message}
