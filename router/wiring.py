"""Settings become parts: the only module that names concrete classes."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

from autopilots import ai_employee, ai_stylist, page_deployer, payout_batch
from autopilots.ai_employee import EmployeeParts
from autopilots.ai_employee.checkouts import Checkouts, LocalCheckouts, StripeCheckouts
from autopilots.ai_employee.mail import Mail, OutboxMail, SmtpMail
from autopilots.ai_employee.returns import returns
from autopilots.ai_employee.schedule import fire_due
from autopilots.ai_employee.webhooks import webhooks
from autopilots.kit import Answered, Parts
from autopilots.page_deployer.pages import pages
from infra.blobs import Blobs
from infra.blobs.folder import FolderBlobs
from infra.clock import new_id
from infra.ensure import Ensurer
from infra.keyfile import key_in
from infra.local import LocalProvider
from infra.model import Model, Offline
from infra.openai_model import OpenAiModel
from infra.outbound import Guard, own_places
from infra.plan import Allowance
from infra.pool import Pool
from infra.provider import Provider
from infra.redact import Redactor
from infra.signing import SeenInTable, Verifier, new_secret
from infra.table import Table
from infra.table.sqlite import SqliteTable
from infra.transport import GuardedTransport
from router import admin
from router.api.approvals import ApprovalsApi
from router.api.audit import AuditApi
from router.api.events import EventsApi
from router.api.http import Border
from router.api.infra import InfraApi
from router.api.keys import KeysApi
from router.api.once import Once
from router.api.openapi import OpenApi
from router.api.plan import PlanApi
from router.api.registry import RegistryApi
from router.api.status import StatusApi
from router.app import App, build_app
from router.approvals import ROUTER, Approvals, parse_patterns
from router.audit import Audit
from router.auth import Gate
from router.catalogue import Catalogue
from router.choice import Chooser
from router.delivery import Delivery
from router.errors import ApprovalRequired, Invalid
from router.events import Events, Record
from router.forward import App as LocalApp
from router.forward import Forward
from router.heal import Healer
from router.health import HealthBook
from router.idempotency import Idempotency
from router.journal import Journal
from router.keys import RECORDS as KEY_RECORDS
from router.keys import Keys
from router.limits import Concurrency, Limiter, MemoryLimiter, Policy, TableLimiter
from router.model import PlanRequest, is_capability
from router.planner import Caller, Planner
from router.probe import Prober
from router.readiness import Readiness
from router.registry import RECORDS as REGISTRATIONS
from router.registry import Registry
from router.routes import Routes
from router.settings import Settings
from router.trace import Trace

BUILT_IN = (ai_employee.pilot, ai_stylist.pilot, page_deployer.pilot, payout_batch.pilot)
"""The autopilots that ship with the router, each at `local:NAME` in its process."""


AUDITED = (REGISTRATIONS, KEY_RECORDS)
"""Partitions of the store where each change leaves a record in the audit."""


@dataclass(frozen=True)
class System:
    """A process put together: the app, and what its loops call."""

    app: App
    table: Table
    routes: Routes
    prober: Prober
    healer: Healer
    journal: Journal
    audit: Audit
    events: Events
    planner: Planner
    employee: EmployeeParts
    pool: Pool
    http: httpx.AsyncClient

    async def fire_schedules(self) -> None:
        """Fire what is due of the tasks that were scheduled."""
        await fire_due(self.employee)

    async def close(self) -> None:
        """Write what waits to be written and let go of everything."""
        await self.journal.flush()
        await self.audit.close()
        await self.http.aclose()
        self.pool.close()
        await self.table.close()


def manifests() -> list[dict[str, Any]]:
    """Return the registrations of the built-in autopilots, as they stand in one process."""
    return [pilot.manifest(f"local:{pilot.name}") for pilot in BUILT_IN]


def open_table(settings: Settings) -> Table:
    """Return the table the settings name. Raises `StoreUnavailable`."""
    if settings.table:
        from infra.table.dynamodb import DynamoTable

        return DynamoTable(settings.table, time.time, endpoint_url=settings.dynamodb_endpoint or None)
    return SqliteTable(settings.data / "router.db", time.time)


def audit_key(settings: Settings) -> bytes:
    """Return the key of the audit: that of the settings, or the one in the data folder."""
    return settings.audit_key.reveal().encode() or key_in(settings.data / "audit.key")


def _limiter(settings: Settings, table: Table) -> Limiter | None:
    """Return what counts calls: in the store when several processes share it."""
    if settings.rate is None:
        return None
    policy = Policy(*settings.rate)
    return TableLimiter(policy, table, time.time) if settings.table else MemoryLimiter(policy, time.monotonic)


def build(settings: Settings, *, url: str, streams: bool = True) -> System:
    """Put a process together that is reached at `url`. Needs a running event loop.

    `streams` says that an answer may go on for as long as somebody listens.

    Raises `Invalid` for settings nothing can be made of, and `StoreUnavailable`.
    """
    blobs = FolderBlobs(settings.data / "r2")
    mail = _mail(settings, blobs)  # may refuse the settings: before anything is opened
    patterns = parse_patterns(settings.require_approval, "AUTOPILOT_REQUIRE_APPROVAL")  # as may this
    table = open_table(settings)
    guard = Guard(settings.allowed, own=own_places(url, settings.public_url))
    guard.announce()
    pool = Pool(guard)
    http = httpx.AsyncClient(transport=GuardedTransport(pool), trust_env=False, timeout=30.0)
    routes = Routes(table, clock=time.time, monotonic=time.monotonic)
    registry = Registry(table, routes, clock=time.time, new_secret=new_secret)
    catalogue = Catalogue(routes, monotonic=time.monotonic)
    health = HealthBook(time.monotonic)
    chooser = Chooser(routes, health)
    journal = Journal(table, clock=time.time, writer=new_id("w"))
    provider = _provider(settings, table, pool)
    local: dict[str, LocalApp] = {}
    forward = Forward(pool, local, time.time)
    redactor = Redactor(settings.secrets())
    ensurer = Ensurer(provider, table, clock=time.time, allowance=_allowance(settings), redactor=redactor)
    readiness = Readiness(registry, ensurer, time.monotonic)
    audit = Audit(table, key=audit_key(settings), clock=time.time, writer=new_id("w"), redactor=redactor)
    events = Events(table, clock=time.time, writer=new_id("w"), redactor=redactor)
    record = Record(audit, events)
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
    parts = _parts(settings, url, table=table, blobs=blobs, pool=pool, planner=planner)
    employee = EmployeeParts(**vars(parts), mail=mail, checkouts=_checkouts(settings, parts, http))
    local.update(_apps(parts, employee))
    prober = Prober(registry, routes, forward, health)
    healer = Healer(registry, ensurer, table, clock=time.time, new_id=new_id)
    once = Once(Idempotency(table, time.time), redactor)
    endpoints = [
        *PlanApi(planner, catalogue, routes, chooser, once).endpoints(),
        *RegistryApi(registry, catalogue, health, prober, guard, local, once).endpoints(),
        *InfraApi(healer, provider, time.time, once, redactor).endpoints(),
        *ApprovalsApi(approvals, planner, redactor).endpoints(),
        *KeysApi(keys, time.time).endpoints(),
        *AuditApi(table).endpoints(),
        *EventsApi(events, streams=streams).endpoints(),
        *StatusApi(table, time.time).endpoints(),
    ]
    endpoints += OpenApi(endpoints, local=settings.auth == "local").endpoints()
    app = build_app(
        endpoints,
        Border(
            Gate(settings.auth, settings.api_key.reveal(), keys),
            Concurrency(settings.concurrency),
            _limiter(settings, table),
            record,
            redactor,
        ),
        [*pages(parts), *returns(), *webhooks(employee, _verifier(settings, table)), *admin.routes()],
    )
    return System(app, table, routes, prober, healer, journal, audit, events, planner, employee, pool, http)


def _provider(settings: Settings, table: Table, pool: Pool) -> Provider:
    """Return who keeps the storage that autopilots need: Cloudflare, where there is a token for it."""
    if not settings.cf_token:
        return LocalProvider(table, settings.data, time.time, new_id)
    from infra.cloudflare.provider import connect
    from infra.cloudflare.wire import Harmless

    return connect(
        httpx.AsyncClient(transport=Harmless(GuardedTransport(pool)), trust_env=False),
        settings.cf_token.reveal(),
        settings.cf_account,
        settings.cf_api_base,
        clock=time.time,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        random=random.random,
        nobody=partial(new_id, "nobody"),
    )


def _allowance(settings: Settings) -> Allowance:
    """Return what an unattended pass may do."""
    return Allowance(settings.heal_max_creations, settings.recreate_vanished)


def _parts(
    settings: Settings, url: str, *, table: Table, blobs: Blobs, pool: Pool, planner: Planner
) -> Parts:
    """Return what every built-in autopilot gets to work with."""
    return Parts(
        table=table,
        blobs=blobs,
        model=_model(settings, pool),
        clock=time.time,
        new_id=new_id,
        public_url=settings.public_url or url,
        plan=partial(_plan, planner),
        redactor=Redactor(settings.secrets()),
    )


def _apps(parts: Parts, employee: EmployeeParts) -> dict[str, LocalApp]:
    """Return the apps of the built-in autopilots by name."""
    apps = {}
    for pilot in BUILT_IN:
        own = employee if pilot is ai_employee.pilot else parts
        apps[pilot.name] = cast(LocalApp, pilot.app(cast(Any, own)))
    return apps


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


def _model(settings: Settings, pool: Pool) -> Model:
    if not settings.openai_key:
        return Offline()
    return OpenAiModel(
        settings.model,
        settings.openai_key.reveal(),
        settings.openai_base_url,
        pool,
        redactor=Redactor(settings.secrets()),
    )


def _verifier(settings: Settings, table: Table) -> Verifier | None:
    """Return what verifies webhooks, None where none are set up. Every process finds the ids in the table."""
    secrets = [secret.reveal() for secret in settings.webhook_secrets]
    return Verifier(secrets, time.time, SeenInTable(table, time.time)) if secrets else None


def _mail(settings: Settings, blobs: Blobs) -> Mail:
    """Return where mail goes. Raises `Invalid` naming the variable that is wrong."""
    if not settings.smtp_url:
        return OutboxMail(blobs)
    try:
        server = urlsplit(settings.smtp_url.reveal())
        port = server.port or (465 if server.scheme == "smtps" else 587)
    except ValueError:
        server, port = urlsplit(""), 0
    if not server.hostname or server.scheme not in {"smtp", "smtps", "smtp+plain"}:
        raise Invalid([("AUTOPILOT_SMTP_URL", "must be like smtp://user:password@host:587 or smtps://host")])
    try:
        return SmtpMail(
            server.hostname,
            port,
            unquote(server.username or ""),
            unquote(server.password or ""),
            sender=settings.mail_from,
            starttls=server.scheme != "smtp+plain",
        )
    except ValueError as error:
        message = f"must be an address that mail may come from, not {settings.mail_from!r}: {error}"
        raise Invalid([("AUTOPILOT_MAIL_FROM", message)]) from None


def _checkouts(settings: Settings, parts: Parts, http: httpx.AsyncClient) -> Checkouts:
    if not settings.stripe_key:
        return LocalCheckouts(parts.table, parts.clock)
    return StripeCheckouts(settings.stripe_key.reveal(), settings.stripe_base_url or None, http)
