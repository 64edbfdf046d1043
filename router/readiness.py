"""Makes sure that what an autopilot needs exists before a task is sent to it."""

from __future__ import annotations

import asyncio

from infra.clock import Clock
from infra.former import Provider, ensure, wants
from router.errors import AutopilotError, NotReady
from router.model import Needs
from router.registry import Registry
from router.routes import Candidate

KNOWN_SECONDS = 60.0


class Readiness:
    """Remembers for `KNOWN_SECONDS` which registrations have all they need."""

    def __init__(self, registry: Registry, provider: Provider, monotonic: Clock) -> None:
        self._registry = registry
        self._provider = provider
        self._monotonic = monotonic
        self._known: dict[str, tuple[tuple[str, int], float]] = {}
        self._making: dict[tuple[str, int], asyncio.Task[None]] = {}

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
        try:
            report = await ensure(self._provider, list(wants(needs)))
        except AutopilotError as error:
            details = [{"kind": "", "name": "", "code": error.code, "message": error.detail}]
            raise self._not_ready(candidate, details) from error
        if not report.ok:
            raise self._not_ready(candidate, report.errors)
        self._known[candidate.name] = (candidate.version, self._monotonic() + KNOWN_SECONDS)

    def _not_ready(self, candidate: Candidate, details: list[dict[str, str]]) -> NotReady:
        return NotReady(
            f"what '{candidate.name}' needs could not be made sure of; nothing was sent",
            details=details,
            autopilot=candidate.name,
            hint="POST /autopilot/ensure-infra shows what is missing and creates it",
        )
