"""Asks autopilots for their health in the background, at a bounded rate however many there are.

A round probes those that tasks went to lately, and the next few of all the others in turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from router.errors import AutopilotError
from router.forward import Forward
from router.health import HealthBook
from router.model import Capability
from router.registry import Record, Registry
from router.routes import Candidate, Routes

log = logging.getLogger("router.probe")

TIMEOUT_SECONDS = 3.0
AT_ONCE = 8
USED_PER_ROUND = 200
OTHERS_PER_ROUND = 50

_ANY = Capability("health.check")
"""A probe is about no capability, but a candidate is an autopilot as one capability sees it."""


class Prober:
    """Probes autopilots and tells `health`."""

    def __init__(self, registry: Registry, routes: Routes, forward: Forward, health: HealthBook) -> None:
        self._registry = registry
        self._routes = routes
        self._forward = forward
        self._health = health
        self._cursor: str | None = None
        self._soon: set[asyncio.Task[None]] = set()

    async def probe(self, record: Record) -> None:
        """Probe one autopilot now."""
        await self._probe(record.candidate(_ANY))

    def soon(self, record: Record) -> None:
        """Probe one autopilot in the background: it was just registered."""
        if len(self._soon) < AT_ONCE:
            task = asyncio.get_running_loop().create_task(self.probe(record))
            self._soon.add(task)
            task.add_done_callback(self._soon.discard)

    async def round(self) -> None:
        """Probe those used lately and the next of the others."""
        used = {one.name: one for one in self._routes.used()[:USED_PER_ROUND]}
        try:
            records, self._cursor = await self._registry.page(after=self._cursor, limit=OTHERS_PER_ROUND)
        except AutopilotError as error:
            log.warning("cannot read whom to probe: %s", error)
            records = []
        others = [one.candidate(_ANY) for one in records if one.autopilot.name not in used]
        await self._probe_all([*used.values(), *others])

    async def _probe_all(self, candidates: Iterable[Candidate]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(candidate: Candidate) -> None:
            async with slots:
                await self._probe(candidate)

        await asyncio.gather(*(one(candidate) for candidate in candidates))

    async def _probe(self, candidate: Candidate) -> None:
        health = self._health.of(candidate.name)
        before = health.state()
        deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
        health.probed(await self._forward.probe(candidate, deadline), self._health.monotonic())
        after = health.state()
        if before is not after:
            log.info("autopilot %s is %s, was %s", candidate.name, after.value, before.value)
