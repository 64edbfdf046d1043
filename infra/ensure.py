"""Makes sure that what is wanted exists: look, plan, then do what the plan says and record it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from infra.apply import AT_ONCE, Application, Result
from infra.clock import Clock
from infra.ledger import Ledger
from infra.plan import Action, Allowance, Demand, Entry, View, doubts_of, plan_of
from infra.provider import KINDS, Inventory, Key, Provider, Resource, Unread, Want, unread
from infra.redact import Redactor
from infra.table import Table
from router.errors import AutopilotError

_LONGEST = 1000


class Happened(NamedTuple):
    """What came of one action, or an alert when it is blocked. `by` is the pass or whoever else asked."""

    by: str
    action: Action
    outcome: Literal["done", "failed", "blocked"]
    resource: Resource | None = None
    error: Unread | None = None


Record = Callable[[Happened], Awaitable[None]]
"""Where each action goes, for the audit and for events. An `AutopilotError` it raises is reported."""


async def unrecorded(happened: Happened) -> None:
    """Keep nothing."""


@dataclass
class Report:
    """What was found and done. Each list is in the order of the plan; `created` has updates as well."""

    plan: list[Action]
    dry_run: bool
    created: list[Resource] = field(default_factory=list)
    skipped: list[Resource] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    alerts: list[dict[str, str]] = field(default_factory=list)

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
            "alerts": self.alerts,
            "plan": [action.document() for action in self.plan],
            "dry_run": self.dry_run,
        }


def by_kind(resources: Iterable[Resource]) -> dict[str, list[dict[str, str]]]:
    """Return resources as the contract shows them: `{"kv": [{name, id}], …}`."""
    shown: dict[str, list[dict[str, str]]] = {kind: [] for kind in KINDS}
    for resource in resources:
        shown[resource.kind].append({"name": resource.name, "id": resource.id})
    return shown


class Ensurer:
    """Makes sure of things, by a provider and a ledger in a table.

    `patience` is how many seconds it waits for somebody else who is making the same thing.
    """

    def __init__(
        self,
        provider: Provider,
        table: Table,
        *,
        clock: Clock,
        allowance: Allowance = Allowance(),  # noqa: B008  a tuple, which nobody can change
        record: Record = unrecorded,
        redactor: Redactor | None = None,
        patience: float = 5.0,
    ) -> None:
        self.provider = provider
        self.allowance = allowance
        self._table = table
        self._clock = clock
        self._record = record
        self._redactor = redactor or Redactor()
        self._patience = patience

    async def survey(self, wanted: Sequence[Want], inventory: Inventory | None = None) -> View:
        """Return what exists and what is recorded. Only reads. Raises `StoreUnavailable`.

        The provider's failures are not raised; they stand in the view. With an `inventory` of before it is
        good for comparing only: what is carried out has to be read after the ledger.
        """
        entries = await self._ledger().entries()  # before the inventory: see `infra.ledger`
        inventory = inventory or await self.provider.inventory()
        lost = {kind: self._told(why) for kind, why in inventory.unread.items()}
        return await self._look(View(inventory.resources, entries, lost), wanted)

    def plan(
        self,
        demands: Sequence[Demand],
        view: View,
        *,
        needed: Collection[Key] = (),
        meant: Collection[str] = (),
    ) -> list[Action]:
        """Return the plan. See `infra.plan.plan_of`; `meant` has names that are no typing errors."""
        return plan_of(demands, view, self.allowance._replace(meant=frozenset(meant)), needed)

    async def apply(
        self, plan: list[Action], view: View, *, by: str, may_go_on: Callable[[], bool] = lambda: True
    ) -> Report:
        """Do what a plan says and report what came of it, all of it that can be done.

        `may_go_on` is asked before each action. A bug of a provider is raised once all else is done.
        """
        application = Application(
            self.provider, self._ledger(), view, patience=self._patience, by=by, may_go_on=may_go_on
        )
        results = await application.carry_out(plan)
        report = Report(plan, dry_run=False, alerts=alerts_of(plan))
        for result in results:
            if result.error:
                result.error = self._told(result.error)
                report.errors.append(_error(result.action.want, result.error))
            if result.made and result.resource:
                report.created.append(result.resource)
            elif result.resource and not result.error:
                report.skipped.append(result.resource)
            await self._tell(report, result, by)
        for result in results:
            if result.bug is not None:
                raise result.bug
        return report

    async def ensure(self, demands: Sequence[Demand], *, needed: Collection[Key] = (), by: str) -> Report:
        """Survey, plan and apply at once."""
        view = await self.survey([demand.want for demand in demands])
        return await self.apply(self.plan(demands, view, needed=needed), view, by=by)

    def _ledger(self) -> Ledger:
        return Ledger(self._table, self.provider.place, self._clock)

    async def _look(self, view: View, wanted: Sequence[Want]) -> View:
        """Look again at what a list does not tell, and at what a list no longer has."""
        found = {(one.kind, one.name, one.jurisdiction): one for one in view.resources}
        open_ones: dict[Key, Want] = {}
        for want in wanted:
            place = (*want.key, want.jurisdiction)
            entry, there = view.entries.get(want.key), found.get(place)
            if there and entry and _is_as_recorded(there, entry):
                found[place] = there._replace(digest=entry.digest, ours=True)
            elif want.kind not in view.unread and _is_open(want, there, entry):
                open_ones[want.key] = want
        places = asyncio.Semaphore(AT_ONCE)
        answers = await asyncio.gather(*(self._find(one, view, places) for one in open_ones.values()))
        unsure: dict[Key, Unread] = {}
        again: list[Key] = []
        for want, answer in zip(open_ones.values(), answers, strict=True):
            if isinstance(answer, Unread):
                unsure[want.key] = answer
                continue
            there = found.pop((*want.key, want.jurisdiction), None)
            if answer is not None:
                found[*want.key, want.jurisdiction] = answer
                again += [] if there else [want.key]
        doubts = doubts_of(view.resources, again, view.entries, self.allowance)
        return View(list(found.values()), view.entries, view.unread, unsure, doubts)

    async def _find(self, want: Want, view: View, places: asyncio.Semaphore) -> Resource | Unread | None:
        entry = view.entries.get(want.key)
        try:
            async with places:
                return await self.provider.find(want, entry.id if entry else "")
        except AutopilotError as error:
            return self._told(unread(error))

    async def _tell(self, report: Report, result: Result, by: str) -> None:
        if (outcome := _outcome(result)) is None:
            return
        try:
            await self._record(Happened(by, result.action, outcome, result.resource, result.error))
        except AutopilotError as error:
            report.errors.append(_error(result.action.want, self._told(unread(error))))

    def _told(self, why: Unread) -> Unread:
        """Return what a provider said, not too long and without secrets: it is shown, and kept for months."""
        return Unread(*(self._redactor.text(text)[:_LONGEST] for text in why))


def report_of(plan: list[Action], *, dry_run: bool) -> Report:
    """Return the report of a plan that nobody carried out."""
    report = Report(plan, dry_run)
    for action in plan:
        if action.action == "blocked":
            report.errors.append(_error(action.want, action.unread))
        elif action.resource is not None and action.action != "update":
            report.skipped.append(action.resource)
    report.alerts = alerts_of(plan)
    return report


def alerts_of(plan: list[Action]) -> list[dict[str, str]]:
    """Return what a person has to look at: a line for each thing, but one for a whole kind."""
    alerts = {}
    for action in plan:
        if action.alert:
            whole = action.code not in {"vanished", "not_ours"}
            key = (action.want.kind, "" if whole else action.want.name, action.code)
            alerts[key] = {
                "kind": key[0],
                "name": key[1],
                "code": action.code,
                "message": action.why,
                "hint": action.hint,
            }
    return list(alerts.values())


def _is_as_recorded(there: Resource, entry: Entry) -> bool:
    """Whether nobody uploaded a Worker since we did: the ledger then knows what the list leaves open."""
    return there.ours is None and bool(entry.id and there.version) and there.version == entry.version


def _is_open(want: Want, there: Resource | None, entry: Entry | None) -> bool:
    """Whether a list is not enough: a Worker it says too little of, or something it no longer has."""
    if there is None:
        return entry is not None and bool(entry.id)
    return want.kind == "workers" and there.ours is None


def _outcome(result: Result) -> Literal["done", "failed", "blocked"] | None:
    """Return what there is to record; None when nothing was done and nobody has to know."""
    if result.action.action == "blocked":
        return "blocked" if result.action.alert else None
    if result.error or result.bug:
        return "failed"
    return None if result.action.action == "keep" else "done"


def _error(want: Want, why: Unread) -> dict[str, str]:
    return {"kind": want.kind, "name": want.name, **why._asdict()}
