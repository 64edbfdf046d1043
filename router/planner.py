"""The way of one task: find its capability, choose an autopilot, make sure it is ready, send.

Explaining is the same decision without the sending.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from infra.clock import NewId
from router.approvals import ROUTER, Approvals
from router.catalogue import Catalogue
from router.choice import Chooser
from router.delivery import Delivery, Errand, Outcome
from router.errors import (
    ApprovalRequired,
    Forbidden,
    ForwardFailed,
    LoopDetected,
    NoAutopilot,
    TaskRequired,
)
from router.family import Families, waits
from router.forward import MAX_HOPS, Forward, Message
from router.health import HealthBook
from router.keys import Identity
from router.model import PlanRequest
from router.readiness import Readiness
from router.registry import Record, Registry
from router.routes import Candidate, Routes
from router.trace import Trace

_SCHEDULING = "task.schedule"


class Caller(NamedTuple):
    """What a plan inherits from the call that brought it."""

    trace: Trace
    key: str = ""
    """The caller's idempotency key, empty for none."""
    hops: int = 0
    may: Callable[[str], bool] = lambda _: True
    """Whether it may send tasks of a capability."""
    name: str = ROUTER
    """Who asks, as keys and the audit name them."""
    approved: str = ""
    """The capability for which somebody else approved this very task, empty while nobody did."""


def authority(identity: Identity) -> Callable[[str], bool]:
    """Return which capabilities a caller may send tasks of.

    A scheduled task is sent later in the router's own name, so scheduling takes the right to send any.
    """
    if "admin" in identity.scopes:
        return _anything
    return lambda capability: identity.may_plan("*" if capability == _SCHEDULING else capability)


def _anything(_: str) -> bool:
    return True


class Planner:
    """Plans tasks. `timeout` is the seconds a call has when it names none."""

    def __init__(
        self,
        *,
        registry: Registry,
        routes: Routes,
        catalogue: Catalogue,
        chooser: Chooser,
        health: HealthBook,
        readiness: Readiness,
        forward: Forward,
        delivery: Delivery,
        approvals: Approvals,
        new_id: NewId,
        timeout: float = 30.0,
    ) -> None:
        self._registry = registry
        self._routes = routes
        self._catalogue = catalogue
        self._chooser = chooser
        self._health = health
        self._readiness = readiness
        self._delivery = delivery
        self._approvals = approvals
        self._families = Families(registry, routes, forward, new_id)
        self._new_id = new_id
        self._timeout = timeout

    async def plan(self, request: PlanRequest, caller: Caller) -> Outcome:
        """Send a task and return the answer, be it a success or a 4xx.

        Raises `TaskRequired`, `UnknownTask`, `NoAutopilot`, `Invalid` for a `meta` that the capability
        refuses, `ApprovalRequired` and `NotReady` with nothing sent, `LoopDetected`, `ForwardFailed`,
        `Deadline`, and `StoreUnavailable` when the registry cannot be read.
        """
        started = time.monotonic()  # what the event loop counts in as well
        if caller.hops >= MAX_HOPS:
            raise LoopDetected(f"the task has been through {caller.hops} routers already")
        capability = await self._capability(request)
        _check_allowed(caller, capability)
        message_id = self._new_id("msg")
        errand = Errand(
            request=request,
            capability=capability,
            message=Message(
                id=message_id,
                body=_envelope(request, capability),
                trace=caller.trace,
                key=caller.key or message_id,
                hops=caller.hops,
            ),
            keyed=bool(caller.key) and not caller.approved,  # what was approved goes to one, and no other
            actor=caller.name,
            deadline=started + self.seconds(request),
            started=started,
        )
        candidates = await self._candidates(request, capability)
        if not candidates and request.autopilot is None:
            family = await self._families.of(capability)
            if family and caller.approved != capability and self._family_waits(family, capability):
                raise await self._ask(request, capability, caller)
            if await self._families.configure(errand, family):
                candidates = await self._candidates(request, capability)
        if not candidates:
            raise await _nobody(self._registry, request, capability)
        if caller.approved != capability and self._waits(candidates, capability):
            self._check_taken(candidates, request, capability)
            raise await self._ask(request, capability, caller)
        return await self._delivery.send(errand, candidates)

    def seconds(self, request: PlanRequest) -> float:
        """Return how long a plan may take in all."""
        return request.timeout_ms / 1000 if request.timeout_ms else self._timeout

    async def explain(self, request: PlanRequest, caller: Caller) -> dict[str, Any]:
        """Return the decision that `plan` would take now, with each candidate's rank and reason.

        Nothing is sent, nothing is created and nobody is configured. Raises what `plan` raises before it
        sends.
        """
        capability = await self._capability(request)
        _check_allowed(caller, capability)
        candidates = await self._candidates(request, capability)
        family: list[Record] = []
        if not candidates and request.autopilot is None:
            family = await self._families.of(capability)
        if not candidates and not family:
            raise await _nobody(self._registry, request, capability)
        waiting = self._waits(candidates, capability) or self._family_waits(family, capability)
        chosen = self._chooser.choose(candidates)
        if chosen is not None:
            self._delivery.check(chosen, request.value)
        return {
            "mode": "explain",
            "task": request.task,
            "capability": capability,
            "autopilot": chosen.name if chosen else None,
            "ready": self._readiness.known(chosen) if chosen else None,
            "requires_approval": waiting,
            "would_configure": [record.autopilot.name for record in family],
            "candidates": [
                {
                    "autopilot": one.candidate.name,
                    "rank": place,
                    "chosen": one.candidate is chosen,
                    "reason": one.note,
                    "health": self._health.of(one.candidate.name).state().value,
                    "priority": one.candidate.priority,
                    "weight": one.candidate.weight,
                    "in_flight": self._health.of(one.candidate.name).in_flight,
                }
                for place, one in enumerate(self._chooser.explain(candidates), start=1)
            ],
        }

    async def _capability(self, request: PlanRequest) -> str:
        if request.capability is not None:
            return request.capability
        if not request.task:
            raise TaskRequired
        return await self._catalogue.capability_of(request.task)

    async def _candidates(self, request: PlanRequest, capability: str) -> tuple[Candidate, ...]:
        found = await self._routes.candidates(capability)
        if request.autopilot is None:
            return found
        return tuple(one for one in found if one.name == request.autopilot)

    def _waits(self, candidates: tuple[Candidate, ...], capability: str) -> bool:
        """Whether tasks of a capability wait for approval: an operator wants that, or one who offers it."""
        return self._approvals.required(capability) or (bool(candidates) and candidates[0].guarded)

    def _family_waits(self, family: list[Record], capability: str) -> bool:
        return self._approvals.required(capability) or any(waits(record, capability) for record in family)

    def _check_taken(self, candidates: tuple[Candidate, ...], request: PlanRequest, capability: str) -> None:
        """Raise what sending would raise now: nobody is to approve a task that would be refused."""
        chosen = self._chooser.choose(candidates)
        if chosen is None:
            raise ForwardFailed(f"nobody that offers {capability} has a lease that still runs")
        self._delivery.check(chosen, request.value)

    async def _ask(self, request: PlanRequest, capability: str, caller: Caller) -> ApprovalRequired:
        """Keep a task until somebody else approves it."""
        approval = await self._approvals.ask(request, capability, name=caller.name, key=caller.key)
        return ApprovalRequired(approval.asked())


def _check_allowed(caller: Caller, capability: str) -> None:
    if not caller.may(capability):
        lacks = f"this key lacks the scope 'plan:{capability}'"
        raise Forbidden(lacks, actor=caller.name, scope=f"plan:{capability}")


def _envelope(request: PlanRequest, capability: str) -> bytes:
    """Return what an autopilot receives. `meta` goes in as the bytes that came."""
    task = msgspec.json.encode(request.task)
    return b'{"task":%b,"capability":"%b","meta":%b}' % (task, capability.encode(), request.meta)


async def _nobody(registry: Registry, request: PlanRequest, capability: str) -> NoAutopilot:
    records, _ = await registry.page(after=None, limit=50)
    text = f"No autopilot currently supports {capability}"
    return NoAutopilot(
        f"'{request.autopilot}' does not offer {capability}" if request.autopilot else text,
        error=text,
        hint="Register an autopilot that offers this capability, or configure one of its family to.",
        registeredAutopilots=[
            {
                "name": record.autopilot.name,
                "capabilities": [one.name for one in record.autopilot.capabilities],
            }
            for record in records
        ],
    )
