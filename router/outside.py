"""Settings become adapters: what stores, sends, judges and is called. With `router.wiring` the only module
that names concrete classes."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit

import httpx

from autopilots.ai_employee.checkouts import Checkouts, LocalCheckouts, StripeCheckouts
from autopilots.ai_employee.mail import Mail, OutboxMail, SmtpMail
from infra.blobs import Blobs
from infra.blobs.folder import FolderBlobs
from infra.clock import new_id
from infra.keyfile import key_in
from infra.local import LocalProvider
from infra.model import Model, Offline
from infra.openai_model import OpenAiModel
from infra.outbound import Guard, own_places
from infra.pool import Pool
from infra.provider import Provider
from infra.queue import Queue
from infra.queue.table import CLOCKS_APART, TableQueue
from infra.redact import Redactor
from infra.signing import SeenInTable, Verifier
from infra.table import Table
from infra.table.sqlite import SqliteTable
from infra.transport import GuardedTransport
from router.errors import Invalid
from router.limits import Limiter, MemoryLimiter, Policy, TableLimiter
from router.settings import Settings


@dataclass(frozen=True)
class Outside:
    """What a process has to do with that is not the process itself."""

    table: Table
    queue: Queue
    blobs: Blobs
    guard: Guard
    pool: Pool
    http: httpx.AsyncClient
    """For every call that is no forward; through the same guard."""
    provider: Provider
    model: Model
    mail: Mail
    checkouts: Checkouts
    redactor: Redactor

    async def close(self) -> None:
        """Let go of everything."""
        await self.http.aclose()
        self.pool.close()
        await self.table.close()


def open_outside(settings: Settings, *, url: str) -> Outside:
    """Open all of it, for a process that is reached at `url`. Needs a running event loop.

    Raises `Invalid` for settings nothing can be made of, before anything is opened, and `StoreUnavailable`.
    """
    blobs = FolderBlobs(settings.data / "r2")
    mail = _mail(settings, blobs)
    table = open_table(settings)
    guard = Guard(settings.allowed, own=own_places(url, settings.public_url))
    guard.announce()
    pool = Pool(guard)
    http = httpx.AsyncClient(transport=GuardedTransport(pool), trust_env=False, timeout=30.0)
    redactor = Redactor(settings.secrets())
    return Outside(
        table=table,
        # One machine has one clock, and a file is used by the processes of one machine.
        queue=TableQueue(table, time.time, "work", apart=CLOCKS_APART if settings.table else 0.0),
        blobs=blobs,
        guard=guard,
        pool=pool,
        http=http,
        provider=_provider(settings, table, pool),
        model=_model(settings, pool, redactor),
        mail=mail,
        checkouts=_checkouts(settings, table, http),
        redactor=redactor,
    )


def open_table(settings: Settings) -> Table:
    """Return the table the settings name. Raises `StoreUnavailable`."""
    if settings.table:
        from infra.table.dynamodb import DynamoTable

        return DynamoTable(settings.table, time.time, endpoint_url=settings.dynamodb_endpoint or None)
    return SqliteTable(settings.data / "router.db", time.time)


def audit_key(settings: Settings) -> bytes:
    """Return the key of the audit: that of the settings, or the one in the data folder."""
    return settings.audit_key.reveal().encode() or key_in(settings.data / "audit.key")


def limiter_of(settings: Settings, table: Table) -> Limiter | None:
    """Return what counts calls: in the store when several processes share it."""
    if settings.rate is None:
        return None
    policy = Policy(*settings.rate)
    return TableLimiter(policy, table, time.time) if settings.table else MemoryLimiter(policy, time.monotonic)


def verifier_of(settings: Settings, table: Table) -> Verifier | None:
    """Return what verifies webhooks, None where none are set up. Every process finds the ids in the table."""
    secrets = [secret.reveal() for secret in settings.webhook_secrets]
    return Verifier(secrets, time.time, SeenInTable(table, time.time)) if secrets else None


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


def _model(settings: Settings, pool: Pool, redactor: Redactor) -> Model:
    if not settings.openai_key:
        return Offline()
    return OpenAiModel(
        settings.model,
        settings.openai_key.reveal(),
        settings.openai_base_url,
        pool,
        redactor=redactor,
    )


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


def _checkouts(settings: Settings, table: Table, http: httpx.AsyncClient) -> Checkouts:
    if not settings.stripe_key:
        return LocalCheckouts(table, time.time)
    return StripeCheckouts(settings.stripe_key.reveal(), settings.stripe_base_url or None, http)
