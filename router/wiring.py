"""Parts become a process: with `router.outside` the only module that names concrete classes."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import msgspec

from autopilots import ai_employee, ai_stylist, page_deployer, payout_batch, runner
from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.returns import returns
from autopilots.ai_employee.schedule import fire_due
from autopilots.ai_employee.webhooks import webhooks
from autopilots.kit import Answered, Parts, Pilot
from autopilots.page_deployer.pages import pages
from autopilots.runner import RunnerParts
from infra.clock import new_id
from infra.ensure import Ensurer
from infra.plan import Allowance
from infra.signing import new_secret
from infra.transport import GuardedTransport, carry
from router import admin
from router.api.approvals import ApprovalsApi
from router.api.audit import AuditApi
from router.api.events import EventsApi
from router.api.http import Border, Endpoint
from router.api.infra import InfraApi
from router.api.keys import KeysApi
from router.api.once import Once
from router.api.openapi import OpenApi
from router.api.plan import PlanApi
from router.api.registry import RegistryApi
from router.api.status import StatusApi
from router.api.tasks import TasksApi
from router.app import App, build_app
from router.approvals import ROUTER, Approvals, parse_patterns
from router.audit import Audit
from router.auth import Gate
from router.callbacks import SECONDS as CALL_SECONDS
from router.callbacks import Callbacks
from router.catalogue import Catalogue
from router.choice import Chooser
from router.delivery import Delivery
from router.errors import ApprovalRequired
from router.events import Events, Record
from router.forward import App as LocalApp
from router.forward import Forward
from router.heal import Healer, tell
from router.health import HealthBook
from router.idempotency import Idempotency
from router.journal import Journal
from router.keys import RECORDS as KEY_RECORDS
from router.keys import Keys
from router.limits import Concurrency
from router.model import PlanRequest, is_capability
from router.outside import Outside, audit_key, limiter_of, open_outside, verifier_of
from router.planner import Caller, Planner
from router.probe import Prober
from router.progress import Progress
from router.readiness import Readiness
from router.registry import RECORDS as REGISTRATIONS
from router.registry import Registry
from router.routes import Routes
from router.settings import RunnerSettings, Settings
from router.taskrows import CALL, TURN, TaskRows
from router.tasks import Tasks
from router.trace import Trace
from router.turns import Turns
from router.worker import Handler, Worker

BUILT_IN = (ai_employee.pilot, ai_stylist.pilot, page_deployer.pilot, payout_batch.pilot)
"""The autopilots that ship with the router, each at `local:NAME` in its process."""

ON_REQUEST = (runner.pilot,)
"""Those that are part of a process only where its settings ask for them."""

AUDITED = (REGISTRATIONS, KEY_RECORDS)
"""Partitions of the store where each change leaves a record in the audit."""


def manifests(pilots: Sequence[Pilot[Any]] = BUILT_IN) -> list[dict[str, Any]]:
    """Return the registrations of built-in autopilots, as they stand in one process."""
    return [pilot.manifest(f"local:{pilot.name}") for pilot in pilots]


@dataclass(frozen=True)
class Inside:
    """What decides and sends, whoever asks."""

    routes: Routes
    registry: Registry
    catalogue: Catalogue
    health: HealthBook
    chooser: Chooser
    journal: Journal
    audit: Audit
    events: Events
    record: Record
    keys: Keys
    approvals: Approvals
    ensurer: Ensurer
    forward: Forward
    planner: Planner
    local: dict[str, LocalApp]
    """The apps of this process by name, which autopilots at `local:NAME` are."""


@dataclass(frozen=True)
class Deferred:
    """What is done after the answer: asynchronous tasks, and the calls that tell of their ends."""

    rows: TaskRows
    tasks: Tasks
    callbacks: Callbacks
    worker: Worker


@dataclass(frozen=True)
class System:
    """A process put together: the app, and what its loops call."""

    app: App
    outside: Outside
    inside: Inside
    deferred: Deferred
    prober: Prober
    healer: Healer
    employee: EmployeeParts

    async def fire_schedules(self) -> None:
        """Fire what is due of the tasks that were scheduled."""
        await fire_due(self.employee)

    async def close(self) -> None:
        """Write what waits to be written and let go of everything."""
        await self.inside.journal.flush()
        await self.inside.audit.close()
        await self.outside.close()


def build(settings: Settings, *, url: str, stays: bool = True) -> System:
    """Put a process together that is reached at `url`. Needs a running event loop.

    `stays` says that it goes on when it has answered: it streams, and works on what is queued. Raises
    `Invalid` for settings nothing can be made of, and `StoreUnavailable`.
    """
    patterns = parse_patterns(settings.require_approval, "AUTOPILOT_REQUIRE_APPROVAL")
    outside = open_outside(settings, url=url)
    inside = _inside(settings, outside, patterns)
    parts = _parts(settings, url, outside, inside.planner)
    employee = EmployeeParts(**vars(parts), mail=outside.mail, checkouts=outside.checkouts)
    inside.local.update(_apps(parts, employee))
    if settings.runner is not None:
        hands = _runner_parts(settings.runner, parts, outside)
        inside.local[runner.pilot.name] = cast(LocalApp, runner.pilot.app(hands))
    prober = Prober(inside.registry, inside.routes, inside.forward, inside.health)
    healer = Healer(inside.registry, inside.ensurer, outside.table, clock=time.time, new_id=new_id)
    deferred = _deferred(settings, outside, inside)
    endpoints = _endpoints(outside, inside, deferred, prober, healer, stays=stays)
    endpoints += OpenApi(endpoints, local=settings.auth == "local").endpoints()
    border = Border(
        Gate(settings.auth, settings.api_key.reveal(), inside.keys),
        Concurrency(settings.concurrency),
        limiter_of(settings, outside.table),
        inside.record,
        outside.redactor,
    )
    signed = webhooks(employee, verifier_of(settings, outside.table))
    app = build_app(endpoints, border, [*pages(parts), *returns(), *signed, *admin.routes()])
    return System(app, outside, inside, deferred, prober, healer, employee)


def _inside(settings: Settings, outside: Outside, patterns: tuple[str, ...]) -> Inside:
    table, redactor = outside.table, outside.redactor
    routes = Routes(table, clock=time.time, monotonic=time.monotonic)
    registry = Registry(table, routes, clock=time.time, new_secret=new_secret)
    catalogue = Catalogue(routes, monotonic=time.monotonic)
    health = HealthBook(time.monotonic)
    chooser = Chooser(routes, health)
    journal = Journal(table, clock=time.time, writer=new_id("w"))
    audit = Audit(table, key=audit_key(settings), clock=time.time, writer=new_id("w"), redactor=redactor)
    events = Events(table, clock=time.time, writer=new_id("w"), redactor=redactor)
    record = Record(audit, events)
    ensurer = _ensurer(settings, outside, record, events)
    readiness = Readiness(registry, ensurer, time.monotonic)
    local: dict[str, LocalApp] = {}
    forward = Forward(outside.pool, local, time.time)
    delivery = Delivery(
        chooser=chooser,
        health=health,
        readiness=readiness,
        forward=forward,
        journal=journal,
        clock=time.time,
        record=record,
    )
    keys = Keys(table, clock=time.time, monotonic=time.monotonic, random_bytes=os.urandom)
    approvals = Approvals(table, keys, clock=time.time, new_id=new_id, patterns=patterns)
    planner = Planner(
        registry=registry,
        routes=routes,
        catalogue=catalogue,
        chooser=chooser,
        health=health,
        readiness=readiness,
        forward=forward,
        delivery=delivery,
        approvals=approvals,
        new_id=new_id,
    )
    return Inside(
        routes=routes,
        registry=registry,
        catalogue=catalogue,
        health=health,
        chooser=chooser,
        journal=journal,
        audit=audit,
        events=events,
        record=record,
        keys=keys,
        approvals=approvals,
        ensurer=ensurer,
        forward=forward,
        planner=planner,
        local=local,
    )


def _deferred(settings: Settings, outside: Outside, inside: Inside) -> Deferred:
    rows = TaskRows(outside.table, outside.queue, time.time)
    progress = Progress(rows, inside.events, time.time)
    tasks = Tasks(
        outside.table,
        rows,
        progress,
        inside.planner,
        inside.approvals,
        redactor=outside.redactor,
        clock=time.time,
        new_id=new_id,
    )
    turns = Turns(rows, progress, inside.planner, inside.approvals, clock=time.time, dice=random.random)
    callbacks = Callbacks(
        rows,
        progress,
        partial(carry, outside.pool, "POST", seconds=CALL_SECONDS),
        outside.guard.addresses,
        tasks.shown,
        secrets=[secret.reveal() for secret in settings.callback_secrets],
        clock=time.time,
        dice=random.random,
    )
    handlers: dict[str, Handler] = {TURN: turns, CALL: callbacks}
    worker = Worker(outside.queue, handlers, clock=time.time, dice=random.random)
    return Deferred(rows, tasks, callbacks, worker)


def _ensurer(settings: Settings, outside: Outside, record: Record, events: Events) -> Ensurer:
    return Ensurer(
        outside.provider,
        outside.table,
        clock=time.time,
        allowance=Allowance(settings.heal_max_creations, settings.recreate_vanished),
        record=partial(tell, record, events),
        redactor=outside.redactor,
    )


def _endpoints(
    outside: Outside, inside: Inside, deferred: Deferred, prober: Prober, healer: Healer, *, stays: bool
) -> list[Endpoint]:
    """Return every endpoint but the description of all of them."""
    once = Once(Idempotency(outside.table, time.time), outside.redactor)
    registry = RegistryApi(
        inside.registry, inside.catalogue, inside.health, prober, outside.guard, inside.local, once
    )
    plan = PlanApi(
        inside.planner,
        inside.catalogue,
        inside.routes,
        inside.chooser,
        once,
        deferred.tasks if stays else None,
        deferred.callbacks,
    )
    return [
        *plan.endpoints(),
        *TasksApi(deferred.tasks, deferred.rows).endpoints(),
        *registry.endpoints(),
        *InfraApi(healer, outside.provider, time.time, once, outside.redactor).endpoints(),
        *ApprovalsApi(inside.approvals, inside.planner, outside.redactor).endpoints(),
        *KeysApi(inside.keys, time.time).endpoints(),
        *AuditApi(outside.table).endpoints(),
        *EventsApi(inside.events, streams=stays).endpoints(),
        *StatusApi(outside.table, time.time).endpoints(),
    ]


def _parts(settings: Settings, url: str, outside: Outside, planner: Planner) -> Parts:
    """Return what every built-in autopilot gets to work with."""
    return Parts(
        table=outside.table,
        blobs=outside.blobs,
        model=outside.model,
        clock=time.time,
        new_id=new_id,
        public_url=settings.public_url or url,
        plan=partial(_plan, planner),
        redactor=outside.redactor,
    )


def _apps(parts: Parts, employee: EmployeeParts) -> dict[str, LocalApp]:
    """Return the apps of the built-in autopilots by name."""
    apps = {}
    for pilot in BUILT_IN:
        own = employee if pilot is ai_employee.pilot else parts
        apps[pilot.name] = cast(LocalApp, pilot.app(cast(Any, own)))
    return apps


def _runner_parts(settings: RunnerSettings, parts: Parts, outside: Outside) -> RunnerParts:
    """Return what the runner gets to work with. The redactor knows what it may hand on."""
    return RunnerParts(
        **vars(parts),
        root=settings.root,
        transport=GuardedTransport(outside.pool),
        environment=settings.environment,
        allowed=settings.allowed,
        given={name: secret.reveal() for name, secret in settings.given.items()},
        monotonic=time.monotonic,
        allow_shell=settings.shell,
    )


async def _plan(planner: Planner, task: str, meta: Mapping[str, Any], *, idempotency_key: str) -> Answered:
    """Plan a task on behalf of an autopilot. See `autopilots.kit.Plan`."""
    direct = is_capability(task)
    request = PlanRequest(
        task=None if direct else task,
        capability=task if direct else None,
        meta=msgspec.json.encode(meta),
        value=dict(meta),
    )
    try:
        outcome = await planner.plan(request, Caller(Trace(), key=idempotency_key))
    except ApprovalRequired as waiting:
        return Answered(ok=False, status=202, autopilot=ROUTER, result=waiting.approval)
    result = msgspec.json.decode(bytes(outcome.result))
    return Answered(ok=outcome.ok, status=outcome.status, autopilot=outcome.autopilot, result=result)
