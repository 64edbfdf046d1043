"""Makes sure that what an autopilot needs exists before a task is sent to it."""

from __future__ import annotations

import asyncio

from infra.clock import Clock
from infra.ensure import Ensurer
from infra.plan import Demand, View, union
from infra.provider import wants
from router.demand import demanded
from router.errors import AutopilotError, NotReady
from router.model import Needs
from router.registry import Registry
from router.routes import Candidate

KNOWN_SECONDS = 60.0


class Readiness:
    """Remembers for `KNOWN_SECONDS` which registrations have all they need, and what there was to see."""

    def __init__(self, registry: Registry, ensurer: Ensurer, monotonic: Clock) -> None:
        self._registry = registry
        self._ensurer = ensurer
        self._monotonic = monotonic
        self._known: dict[str, tuple[tuple[str, int], float]] = {}
        self._making: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._seen: tuple[View, float] | None = None

    def known(self, candidate: Candidate) -> bool:
        """Whether nothing has to be looked up or made for it."""
        if not candidate.needy:
            return True
        version, until = self._known.get(candidate.name, (None, 0.0))
        return version == candidate.version and self._monotonic() < until

    async def make(self, candidate: Candidate) -> None:
        """Create what is missing, once for all who ask at the same time.

        Raises `NotReady` with the details when something cannot be.
        """
        version = candidate.version
        making = self._making.get(version)
        if making is None:
            making = self._making[version] = asyncio.ensure_future(self._make(candidate))

            def done(finished: asyncio.Task[None]) -> None:
                del self._making[version]
                if not finished.cancelled():
                    finished.exception()  # every caller that waited has it; one that left does not mind

            making.add_done_callback(done)
        await asyncio.shield(making)

    async def _make(self, candidate: Candidate) -> None:
        record = await self._registry.get(candidate.name)
        needs = record.autopilot.needs if record else Needs()
        own = union((candidate.name, want) for want in wants(needs))
        try:
            until = self._seen_until(own)
            if until is None:
                until = await self._ensure(candidate, own)
        except NotReady:
            raise
        except AutopilotError as error:
            details = [{"kind": "", "name": "", "code": error.code, "message": error.detail, "hint": ""}]
            raise not_ready(candidate, details) from error
        self._known[candidate.name] = (candidate.version, until)

    def _seen_until(self, own: list[Demand]) -> float | None:
        """Return until when it may be relied on that all of it was seen lately; None when it was not."""
        if self._seen is None:
            return None
        view, until = self._seen
        if self._monotonic() >= until:
            return None
        plan = self._ensurer.plan(own, view)
        return until if all(action.action == "keep" for action in plan) else None

    async def _ensure(self, candidate: Candidate, own: list[Demand]) -> float:
        """Make sure of what is missing now; return until when that may be relied on."""
        until = self._monotonic() + KNOWN_SECONDS
        view = await self._ensurer.survey([demand.want for demand in own])
        self._seen = view, until
        if self._seen_until(own) is not None:
            return until
        # What others need of the same things has a say now; what they need beside is nobody's typing error.
        needs = {demand.want.key: demand for demand in await demanded(self._registry)}
        demands = [needs.get(demand.want.key, demand) for demand in own]
        plan = self._ensurer.plan(demands, view, needed=needs)
        report = await self._ensurer.apply(plan, view, by=candidate.name)
        if not report.ok:
            raise not_ready(candidate, report.errors)
        return until


def not_ready(candidate: Candidate, details: list[dict[str, str]]) -> NotReady:
    """Return the refusal of a task whose autopilot cannot be made ready."""
    return NotReady(
        f"what '{candidate.name}' needs could not be made sure of; nothing was sent",
        details=details,
        autopilot=candidate.name,
        hint="POST /autopilot/ensure-infra shows what is missing and creates it",
    )
