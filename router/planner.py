"""The way of one task: find its capability, choose an autopilot, make sure it is ready, send.

Explaining is the same decision without the sending.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from infra.clock import NewId
from router.catalogue import Catalogue
from router.choice import Chooser
from router.delivery import Delivery, Errand, Outcome
from router.errors import (
    Conflict,
    Deadline,
    Forbidden,
    Invalid,
    LoopDetected,
    NoAutopilot,
    NotFound,
    TaskRequired,
)
from router.forward import MAX_HOPS, AttemptFailed, Forward, Message, Reply
from router.health import HealthBook
from router.model import MAX_CAPABILITIES, Capability, PlanRequest
from router.parse import parse_capability
from router.readiness import Readiness
from router.registry import Record, Registry
from router.routes import Candidate, Routes
from router.trace import Trace


class Caller(NamedTuple):
    """What a plan inherits from the call that brought it."""

    trace: Trace
    key: str = ""
    """The caller's idempotency key, empty for none."""
    hops: int = 0
    may: Callable[[str], bool] = lambda _: True
    """Whether it may send tasks of a capability."""
    name: str = "router"
    """Who asks, as keys and the audit name them."""


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
        new_id: NewId,
        timeout: float = 30.0,
    ) -> None:
        self._registry = registry
        self._routes = routes
        self._catalogue = catalogue
        self._chooser = chooser
        self._health = health
        self._readiness = readiness
        self._forward = forward
        self._delivery = delivery
        self._new_id = new_id
        self._timeout = timeout

    async def plan(self, request: PlanRequest, caller: Caller) -> Outcome:
        """Send a task and return the answer, be it a success or a 4xx.

        Raises `TaskRequired`, `UnknownTask`, `NoAutopilot`, `Invalid` for a `meta` that the capability
        refuses, `NotReady` with nothing sent, `LoopDetected`, `ForwardFailed`, `Deadline`, and
        `StoreUnavailable` when the registry cannot be read.
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
            keyed=bool(caller.key),
            actor=caller.name,
            deadline=started + self.seconds(request),
            started=started,
        )
        candidates = await self._candidates(request, capability)
        if not candidates and request.autopilot is None:
            candidates = await self._configure(errand)
        if not candidates:
            raise await self._nobody(request, capability)
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
        family = []
        if not candidates and request.autopilot is None:
            family = [record.autopilot.name for record in await self._family(capability)]
        if not candidates and not family:
            raise await self._nobody(request, capability)
        chosen = self._chooser.choose(candidates)
        if chosen is not None:
            self._delivery.check(chosen, request.value)
        return {
            "mode": "explain",
            "task": request.task,
            "capability": capability,
            "autopilot": chosen.name if chosen else None,
            "ready": self._readiness.known(chosen) if chosen else None,
            "would_configure": family,
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

    async def _configure(self, errand: Errand) -> tuple[Candidate, ...]:
        """Ask those that offer the family, in the order of their names, to add the capability."""
        body = msgspec.json.encode({"enable": errand.capability})
        for record in await self._family(errand.capability):
            name = record.autopilot.name
            asked = record.candidate(Capability(errand.capability))
            message = errand.message._replace(id=self._new_id("msg"), body=body)
            try:
                reply = await self._forward.post(asked, "/configure", message, errand.deadline)
            except AttemptFailed as error:
                if error.late:
                    raise Deadline(f"'{name}' was asked to add {errand.capability}: {error}") from None
                continue
            if not 200 <= reply.status < 300:
                continue
            try:
                await self._registry.add_capability(name, _configured(errand.capability, reply))
            except (NotFound, Conflict):
                continue  # it was removed meanwhile, or it is full
            return await self._routes.candidates(errand.capability)
        return ()

    async def _family(self, capability: str) -> list[Record]:
        """Return those that may be asked to add a capability: callers make names up, and none learns all."""
        names = await self._routes.family(capability.partition(".")[0])
        records = [await self._registry.get(name) for name in names]
        return [one for one in records if one and len(one.autopilot.capabilities) < MAX_CAPABILITIES]

    async def _nobody(self, request: PlanRequest, capability: str) -> NoAutopilot:
        records, _ = await self._registry.page(after=None, limit=50)
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


def _check_allowed(caller: Caller, capability: str) -> None:
    if not caller.may(capability):
        lacks = f"this key lacks the scope 'plan:{capability}'"
        raise Forbidden(lacks, actor=caller.name, scope=f"plan:{capability}")


def _envelope(request: PlanRequest, capability: str) -> bytes:
    """Return what an autopilot receives. `meta` goes in as the bytes that came."""
    task = msgspec.json.encode(request.task)
    return b'{"task":%b,"capability":"%b","meta":%b}' % (task, capability.encode(), request.meta)


def _configured(name: str, reply: Reply) -> Capability:
    """Return the capability that was added; its schema is taken over when the answer brings a valid one."""
    try:
        answer = msgspec.json.decode(reply.result)
        offered = parse_capability(answer["capability"])
    except (msgspec.DecodeError, KeyError, TypeError, Invalid):
        return Capability(name)
    return offered if offered.name == name else Capability(name)
