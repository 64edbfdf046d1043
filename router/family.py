"""Asks those that offer a family of capabilities to add one to those they have."""

from __future__ import annotations

import msgspec

from infra.clock import NewId
from router.delivery import Errand
from router.errors import Conflict, Deadline, Invalid, NotFound
from router.forward import AttemptFailed, Forward, Reply
from router.model import MAX_CAPABILITIES, Capability
from router.parse import parse_capability
from router.registry import Record, Registry
from router.routes import Routes


class Families:
    """Finds who may be asked for a capability that nobody has, and asks them."""

    def __init__(self, registry: Registry, routes: Routes, forward: Forward, new_id: NewId) -> None:
        self._registry = registry
        self._routes = routes
        self._forward = forward
        self._new_id = new_id

    async def of(self, capability: str) -> list[Record]:
        """Return those that may be asked to add a capability: callers make names up, and none learns all."""
        names = await self._routes.family(capability.partition(".")[0])
        records = [await self._registry.get(name) for name in names]
        return [one for one in records if one and len(one.autopilot.capabilities) < MAX_CAPABILITIES]

    async def configure(self, errand: Errand, records: list[Record]) -> bool:
        """Ask one after the other to add the errand's capability, until one does; return whether one did.

        Raises `Deadline`, and `StoreUnavailable` when what was added cannot be kept.
        """
        body = msgspec.json.encode({"enable": errand.capability})
        for record in records:
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
                await self._registry.add_capability(name, _configured(errand.capability, reply, record))
            except (NotFound, Conflict):
                continue  # it was removed meanwhile, or it is full
            return True
        return False


def waits(record: Record, capability: str) -> bool:
    """Whether what a registration adds to its family waits for approval, as the family's entry does."""
    word = capability.partition(".")[0]
    return any(
        one.requires_approval and one.extends_family and one.family == word
        for one in record.autopilot.capabilities
    )


def _configured(name: str, reply: Reply, record: Record) -> Capability:
    """Return the capability that was added; its schema is taken over when the answer brings a valid one."""
    try:
        answer = msgspec.json.decode(reply.result)
        offered = parse_capability(answer["capability"])
    except (msgspec.DecodeError, KeyError, TypeError, Invalid):
        offered = Capability(name)
    added = offered if offered.name == name else Capability(name)
    return msgspec.structs.replace(added, requires_approval=True) if waits(record, name) else added
