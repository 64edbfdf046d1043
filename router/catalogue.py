"""Which capability a task needs: the built-in table, and what registrations bring."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from infra.clock import Clock
from router.errors import Invalid, UnknownTask
from router.model import Autopilot, is_task
from router.routes import Routes


class Entry(NamedTuple):
    """A task. `source` is `built-in` or the name of the autopilot that brought it."""

    task: str
    capability: str
    description: str
    source: str


BUILT_IN = {
    task: Entry(task, capability, description, "built-in")
    for task, capability, description in (
        ("generate_page", "web.pages.generate", "Generate a branded page"),
        ("deploy_page", "web.pages.deploy", "Deploy a page so that its URL answers"),
        ("generate_asset", "web.asset.generate", "Generate a marketing image"),
        ("process_email", "email.process", "Read an incoming email and suggest what to do"),
        ("create_lead", "crm.lead.create", "Create a lead in the CRM"),
        ("send_followup", "email.send", "Send a follow-up email"),
        ("make_checkout", "payment.checkout.create", "Create a checkout for a payment"),
        ("enroll_student", "lms.enrollment.create", "Enroll a student in a course"),
        ("run_payout_batch", "payouts.batch.run", "Pay out the approved commissions"),
        ("pay_affiliate_now", "payouts.transfer.single", "Pay one affiliate at once"),
        ("ingest_intake_doc", "files.intake.upload", "Take in a document"),
    )
}


class Catalogue:
    """Looks tasks up. What registrations bring is remembered for `bound` seconds."""

    def __init__(self, routes: Routes, *, monotonic: Clock, bound: float = 2.0) -> None:
        self._routes = routes
        self._monotonic = monotonic
        self._bound = bound
        self._brought: dict[str, tuple[str, float, int]] = {}
        """By task: its capability, when it was read, and after how many changes made here."""

    async def capability_of(self, task: str) -> str:
        """Return the capability of a task. Raises `UnknownTask` with all tasks and the nearest names."""
        built_in = BUILT_IN.get(task)
        if built_in is not None:
            return built_in.capability
        now, changes = self._monotonic(), self._routes.changes
        known = self._brought.get(task)
        if known is not None and now - known[1] < self._bound and known[2] == changes:
            return known[0]
        self._brought.pop(task, None)
        capability = await self._routes.task(task) if is_task(task) else None
        if capability is None:
            names = sorted(entry.task for entry in await self.entries())
            raise UnknownTask(
                f"Unknown task: {task}",
                error=f"Unknown task: {task}",
                availableTasks=names,
                did_you_mean=difflib.get_close_matches(task, names, n=3, cutoff=0.5),
            )
        self._brought[task] = (capability, now, changes)
        return capability

    async def entries(self) -> list[Entry]:
        """Return every task, sorted by name."""
        entries = dict(BUILT_IN)
        for task, (capability, name) in (await self._routes.tasks()).items():
            entries.setdefault(task, Entry(task, capability, "", name))
        return sorted(entries.values())

    async def check(self, autopilot: Autopilot) -> None:
        """Raise `Invalid` when a registration brings a task that already means something else."""
        taken = []
        for task, capability in autopilot.tasks.items():
            built_in = BUILT_IN.get(task)
            # What only this very autopilot brings it may change.
            means = built_in.capability if built_in else await self._routes.task(task, but=autopilot.name)
            if means is not None and means != capability:
                taken.append((f"tasks.{task}", f"already stands for {means}"))
        if taken:
            raise Invalid(taken)
