"""Keeps what registered autopilots need in existence: all of it in one pass, or what somebody asks for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from infra.clock import Clock, NewId, rfc3339
from infra.ensure import Ensurer, Happened, Report, by_kind, report_of
from infra.plan import Action, Demand, View, union
from infra.provider import KINDS, Inventory, Resource, Want
from infra.table import MAX_DOCUMENT, Lease, Table, claim, release
from router.audit import Deed
from router.demand import demanded
from router.errors import Conflict
from router.events import Events, Record
from router.registry import Registry

_LEASE = ("lease", "#heal")
_LEASE_SECONDS = 300.0
_PASSES = "heal"
_KEEP_SECONDS = 90 * 86_400


async def tell(record: Record, events: Events, happened: Happened) -> None:
    """Keep what came of an action: what was done is audited, what failed or needs a person is an event.

    Raises `StoreUnavailable`.
    """
    action, error = happened.action, happened.error
    target = f"{action.want.kind}/{action.want.name}"
    detail: dict[str, Any] = {"why": action.why, "needed_by": [*action.needed_by]}
    if happened.outcome == "done":
        if happened.resource is not None:
            detail["id"] = happened.resource.id
        await record.write(Deed(happened.by, f"infra.{action.action}", target, detail))
        return
    if error is not None:
        detail.update(error._asdict())
    await events.publish(f"infra.{happened.outcome}", happened.by, {"target": target, **detail})


class Healer:
    """Compares what is needed with what there is, and creates what is missing."""

    def __init__(
        self, registry: Registry, ensurer: Ensurer, table: Table, *, clock: Clock, new_id: NewId
    ) -> None:
        self._registry = registry
        self._ensurer = ensurer
        self._table = table
        self._clock = clock
        self._new_id = new_id

    async def heal(self) -> dict[str, Any]:
        """Run one pass over everything needed and keep its report. Raises `Conflict` while another runs.

        Its steps: lease, needs, inventory, plan, check, apply and record, report.
        """
        owner = self._new_id("heal")
        lease = await self._lease(owner)
        try:
            started = self._clock()
            needs = await demanded(self._registry)
            view = await self._inventory(needs)
            plan = self._ensurer.plan(needs, view)
            lease = await self._check(lease)
            report = await self._apply(plan, view, lease)
            return await self._report(report, owner, started)
        finally:
            await release(self._table, lease)

    async def ensure(
        self, wanted: Sequence[Want] | None, *, dry_run: bool, meant: Collection[str] = ()
    ) -> Report:
        """Create what is missing of `wanted`, or of everything needed when it is None.

        `meant` has names that are no typing errors, though something else is called nearly so. Beside a pass
        nothing is made twice: the ledger sees to that.
        """
        needs = await demanded(self._registry)
        demands = _of(wanted, needs)
        view = await self._inventory(demands)
        needed = {demand.want.key for demand in needs}
        plan = self._ensurer.plan(demands, view, needed=needed, meant=meant)
        if dry_run:
            return report_of(plan, dry_run=True)
        return await self._ensurer.apply(plan, view, by=self._new_id("ensure"))

    async def drift(self, found: Inventory) -> dict[str, Any]:
        """Return how what was `found` differs from what is needed. Raises `StoreUnavailable`.

        `missing` and `changed` things are needed, `unmanaged` ones are needed by nobody; of the kinds in
        `unread` nothing is known.
        """
        needs = await demanded(self._registry)
        view = await self._ensurer.survey([demand.want for demand in needs], found)
        plan = self._ensurer.plan(needs, view)
        there = {one.key for one in view.resources}
        known = [one for one in plan if one.want.kind not in view.unread and one.want.key not in view.unsure]
        names = {one.want.key for one in plan}
        return {
            "missing": [_differing(one) for one in known if one.want.key not in there],
            "changed": [_differing(one) for one in known if one.want.key in there and _is_changed(one)],
            "unmanaged": [
                {"kind": one.kind, "name": one.name} for one in view.resources if one.key not in names
            ],
            "unread": [kind for kind in KINDS if kind in view.unread],
        }

    async def _lease(self, owner: str) -> Lease:
        lease = await claim(self._table, self._clock, _LEASE, owner, _LEASE_SECONDS)
        if lease is None:
            raise Conflict("another pass is running")
        return lease

    async def _inventory(self, demands: Sequence[Demand]) -> View:
        return await self._ensurer.survey([demand.want for demand in demands])

    async def _check(self, lease: Lease) -> Lease:
        """Renew the lease. Raises `Conflict` when it ran out: another pass may have begun meanwhile."""
        renewed = await claim(self._table, self._clock, lease.key, lease.owner, _LEASE_SECONDS)
        if renewed is None or renewed.fence != lease.fence:
            raise Conflict("the pass took too long to look and lost its lease; nothing was changed")
        return renewed

    async def _apply(self, plan: list[Action], view: View, lease: Lease) -> Report:
        return await self._ensurer.apply(
            plan, view, by=lease.owner, may_go_on=lambda: self._clock() < lease.until
        )

    async def _report(self, report: Report, owner: str, started: float) -> dict[str, Any]:
        document = {"id": owner, "timestamp": rfc3339(started), **report.document()}
        sort = f"{int(started * 1000):013d}-{owner}"
        await self._table.put((_PASSES, sort), _kept(document), expires_at=started + _KEEP_SECONDS)
        return document


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a report: not what was left as it is, of long lists what fits the store."""
    kept = {name: value for name, value in document.items() if name != "skipped"}
    kept["plan"] = [action for action in document["plan"] if action["action"] != "keep"]
    cuts = (_cut(kept, most) for most in (500, 100, 20))
    return next((cut for cut in cuts if len(msgspec.json.encode(cut)) < MAX_DOCUMENT), _cut(kept, 1))


def _cut(report: dict[str, Any], most: int) -> dict[str, Any]:
    """Return a report with lists of at most so many; `omitted` counts what is left out of them."""
    lists = [report[name] for name in ("plan", "errors", "alerts")] + list(report["created"].values())
    return {
        **report,
        "created": {kind: found[:most] for kind, found in report["created"].items()},
        "errors": report["errors"][:most],
        "alerts": report["alerts"][:most],
        "plan": [{**action, "needed_by": action["needed_by"][:most]} for action in report["plan"][:most]],
        "omitted": sum(max(0, len(found) - most) for found in lists),
    }


def _of(wanted: Sequence[Want] | None, needs: list[Demand]) -> list[Demand]:
    """Return the demands that were asked for; who else needs the same thing has a say in how it is to be."""
    if wanted is None:
        return needs
    asked = {want.key for want in wanted}
    others = {one.want.key: one for one in needs if one.want.key in asked}
    claims = [("", want) for want in wanted]
    claims += [(name, one.want) for one in others.values() for name in one.needed_by]
    return [_with(one, others.get(one.want.key)) for one in union(claims)]


def _with(demand: Demand, other: Demand | None) -> Demand:
    return demand._replace(conflict=other.conflict) if other and other.conflict else demand


def _is_changed(action: Action) -> bool:
    return action.action == "update" or action.code in {"not_ours", "elsewhere"}


def _differing(action: Action) -> dict[str, Any]:
    document = action.document()
    return {name: document[name] for name in ("kind", "name", "needed_by", "why")}


def shown(found: Inventory) -> dict[str, Any]:
    """Return an inventory in the spelling of the seed's diagnose; `Unread` in place of what was not read."""
    kinds = by_kind(found.resources)
    lists: dict[str, Any] = {
        "kv": [{"id": one["id"], "title": one["name"]} for one in kinds["kv"]],
        "r2": [_bucket(one) for one in found.resources if one.kind == "r2"],
        "workers": [one["name"] for one in kinds["workers"]],
        "d1": kinds["d1"],
        "queues": kinds["queues"],
    }
    return {**lists, **found.unread}


def _bucket(one: Resource) -> dict[str, str]:
    return {"name": one.name, **({"jurisdiction": one.jurisdiction} if one.jurisdiction else {})}
