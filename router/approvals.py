"""Tasks that wait until somebody else approves them.

    ("approval", ID)            what was asked for, by whom, what was decided, and what came of it
    ("approval:task", ID)       {"text"}: the task itself, kept only while it may still have to be sent
    ("approval:outcome", ID)    {"text"}: what the task answered

Who asked cannot decide. Whoever decides does so about one text, which has the task, its capability, the
autopilot it is pinned to and its meta as they came, and which its hash stands for. The task is sent with the
approval's id as its idempotency key: an approval whose process died before it knew the answer is sent again
by whoever approved it, and the autopilot knows it by that key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec

from infra.clock import Clock, NewId, rfc3339
from infra.table import Delete, Item, Key, Put, Table, Write
from router.errors import AutopilotError, Conflict, Forbidden, Invalid, NotFound, Stale, TooLarge
from router.keys import _OURS, Identity, Keys, covers, is_pattern
from router.model import PlanRequest
from router.parse import MAX_TIMEOUT_MS

VALID_SECONDS = 900.0
"""How long a task waits for a decision, and how long after one it may still be sent."""
LEASE_SECONDS = MAX_TIMEOUT_MS / 1000 + 10
"""Longer than any task takes: after that whoever was sending an approved one is taken for dead."""
KEEP_SECONDS = 30 * 86_400.0
MAX_META = 160_000
"""Bytes a meta that waits may have: as a text in a document it may take twice as many."""
MAX_OUTCOME = 160_000
"""Bytes of an outcome that is kept; of a larger one only the result's size is."""

ROUTER = "router"
"""Who asks for what nobody called for just now, such as the task of a schedule."""
KEYLESS = "local"
"""Who calls from this machine without a key."""

APPROVAL_ID = re.compile(r"[0-9A-Za-z_]{1,64}")
DIGEST = re.compile(r"[0-9a-f]{64}")

_APPROVALS, _TASKS, _OUTCOMES = "approval", "approval:task", "approval:outcome"


class State(Enum):
    """What became of a request."""

    WAITING = "awaiting_approval"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    """Nobody decided in time."""


class Approval(msgspec.Struct, frozen=True):
    """A task that waits, or waited. Times are epoch seconds; `digest` is the SHA-256 of its text, in hex.

    Once it is approved, `running_until` says until when somebody is taken to be sending it; `answered` is
    the status the autopilot answered, `error` why there was no answer the last time, and `sent_to` the only
    autopilot that may get the task again, because it may have got it already.
    """

    id: str
    task: str | None
    capability: str
    autopilot: str | None
    requested_by: str
    requested_at: float
    digest: str
    state: State = State.WAITING
    decided_by: str | None = None
    decided_at: float | None = None
    running_until: float | None = None
    answered: int | None = None
    error: dict[str, str] | None = None
    sent_to: str | None = None
    revision: int = 0

    @property
    def until(self) -> float:
        """Until when somebody may decide."""
        return self.requested_at + VALID_SECONDS

    @property
    def kept_until(self) -> float:
        """Until when it is known that there was such a request."""
        return self.requested_at + KEEP_SECONDS

    def asked(self) -> dict[str, Any]:
        """Return what whoever asked is told."""
        return {
            "status": self.state.value,
            "id": self.id,
            "task": self.task,
            "capability": self.capability,
            "expires_at": rfc3339(self.until),
        }

    def document(self) -> dict[str, Any]:
        """Return it as the API shows it, without the task itself and without its outcome."""
        return {
            **self.asked(),
            "autopilot": self.autopilot,
            "digest": self.digest,
            "requested_by": self.requested_by,
            "requested_at": rfc3339(self.requested_at),
            "decided_by": self.decided_by,
            "decided_at": None if self.decided_at is None else rfc3339(self.decided_at),
            "answered": self.answered,
            "error": self.error,
        }


def parse_patterns(text: str, variable: str) -> tuple[str, ...]:
    """Return the capability patterns in a comma-separated text. Raises `Invalid` naming the variable."""
    patterns = tuple(entry for part in text.split(",") if (entry := part.strip()))
    wrong = [one for one in patterns if not is_pattern(one)]
    if wrong:
        rule = "a pattern is a capability, such as payouts.batch.run, all under some words, payouts.*, or *"
        raise Invalid([(variable, f"{one[:80]!r} is no pattern of capabilities: {rule}") for one in wrong])
    return patterns


class Approvals:
    """Requests in a table. `patterns` are the capabilities whose tasks wait whatever is registered."""

    def __init__(
        self, table: Table, keys: Keys, *, clock: Clock, new_id: NewId, patterns: Sequence[str] = ()
    ) -> None:
        self._table = table
        self._keys = keys
        self._clock = clock
        self._new_id = new_id
        self._patterns = tuple(patterns)

    def required(self, capability: str) -> bool:
        """Whether this installation wants approval for a capability, whoever offers it."""
        return bool(self._patterns) and _covered(self._patterns, capability)

    async def ask(self, request: PlanRequest, capability: str, *, name: str, key: str = "") -> Approval:
        """Keep a task until somebody decides. Under one idempotency key it is one request, however often.

        Raises `TooLarge` for a meta over `MAX_META`, and `StoreUnavailable`.
        """
        if len(request.meta) > MAX_META:
            raise TooLarge(f"the meta of a task that waits for approval may have at most {MAX_META} bytes")
        text = _text_of(request, capability)
        digest = digest_of(text)
        approval = Approval(
            id=_id_of(name, key, digest) if key else self._new_id("apv"),
            task=request.task,
            capability=capability,
            autopilot=request.autopilot,
            requested_by=name,
            requested_at=self._clock(),
            digest=digest,
        )
        kept = Put((_TASKS, approval.id), {"text": text}, if_revision=0, expires_at=approval.until)
        try:
            return await self._write(approval, kept)
        except Stale:
            return await self.get(approval.id)  # the same call once more

    async def get(self, approval_id: str) -> Approval:
        """Return a request. Raises `NotFound`."""
        item = await self._table.get((_APPROVALS, approval_id))
        if item is None:
            raise NotFound("there is no approval of that id")
        return self._approval(item)

    async def page(self, *, after: str | None, limit: int) -> tuple[list[Approval], str | None]:
        """Return up to `limit` requests by id, and a cursor."""
        page = await self._table.range(_APPROVALS, after=after, limit=limit)
        return [self._approval(item) for item in page.items], page.after

    async def task(self, approval_id: str) -> str | None:
        """Return the text of a task, None once it can no longer be sent."""
        return await _text_at(self._table, (_TASKS, approval_id))

    async def outcome(self, approval_id: str) -> str | None:
        """Return the JSON text of what an approved task answered, None while there is no answer."""
        return await _text_at(self._table, (_OUTCOMES, approval_id))

    async def approve(
        self, approval_id: str, identity: Identity, *, digest: str | None = None
    ) -> tuple[Approval, PlanRequest]:
        """Approve a task, and return it: from now on only this caller may send it.

        Whoever approved one that has no answer yet may do so again, once nobody is sending it. Raises
        `NotFound`; `Forbidden` for whoever asked, or may have; `Conflict` when it was decided, has expired or
        is being sent, when `digest` is another than that of the task, and when whoever asked may no longer.
        """
        approval = await self.get(approval_id)
        now = self._clock()
        _check_decider(approval, identity)
        if approval.state is not State.APPROVED:
            _check_waiting(approval)
        else:
            _check_unanswered(approval, identity, now)
        kept = await self._table.get((_TASKS, approval_id))
        if kept is None:
            raise Conflict("it has expired: too much time has passed since it was approved")
        _check_digest(approval, digest, kept.document["text"])
        if not await _may_still_ask(self._keys, approval, now):
            raise Conflict(f"{approval.requested_by!r} may no longer ask for this: refuse it")
        approved = msgspec.structs.replace(
            approval,
            state=State.APPROVED,
            decided_by=identity.name,
            decided_at=approval.decided_at or now,
            running_until=now + LEASE_SECONDS,
            error=None,
        )
        ends = (approval.decided_at or now) + VALID_SECONDS
        written = await self._decide(approved, Put(kept.key, kept.document, kept.revision, ends))
        return written, _request_of(kept.document["text"], approval.sent_to)

    async def refuse(self, approval_id: str, identity: Identity, *, digest: str | None = None) -> Approval:
        """Refuse a task: it is not sent, and its text is no longer kept. Raises as `approve`."""
        approval = await self.get(approval_id)
        _check_decider(approval, identity)
        _check_digest(approval, digest)
        return await self._refuse(approval, identity.name)

    async def withdraw(self, approval_id: str, by: str) -> Approval:
        """Refuse a task that is not wanted any more, whoever asked. Raises `NotFound` and `Conflict`."""
        return await self._refuse(await self.get(approval_id), by)

    async def answered(self, approval: Approval, status: int, outcome: bytes) -> Approval:
        """Keep what an approved task answered, its whole JSON; the task's text is no longer needed."""
        done = msgspec.structs.replace(approval, running_until=None, answered=status)
        kept = {"text": _fitting(outcome).decode("utf-8")}
        put = Put((_OUTCOMES, approval.id), kept, expires_at=approval.kept_until)
        return await self._finish(done, Delete((_TASKS, approval.id)), put)

    async def failed(self, approval: Approval, error: AutopilotError) -> Approval:
        """Keep why an approved task got no answer: whoever approved it may send it again at once."""
        told = {"code": error.code, "detail": error.detail[:500]}
        to = error.extra.get("autopilot", approval.sent_to) if error.done else approval.sent_to
        ended = msgspec.structs.replace(approval, running_until=None, error=told, sent_to=to)
        return await self._finish(ended)

    async def _finish(self, approval: Approval, *writes: Write) -> Approval:
        try:
            return await self._write(approval, *writes)
        except AutopilotError:
            # It was sent, which whoever approved it gets to know. Sending it again does nothing twice.
            return approval

    async def _refuse(self, approval: Approval, by: str) -> Approval:
        _check_waiting(approval)
        now = self._clock()
        refused = msgspec.structs.replace(approval, state=State.REFUSED, decided_by=by, decided_at=now)
        return await self._decide(refused, Delete((_TASKS, approval.id)))

    async def _decide(self, approval: Approval, *writes: Write) -> Approval:
        try:
            return await self._write(approval, *writes)
        except Stale:
            raise Conflict("somebody else decided at the same moment") from None

    async def _write(self, approval: Approval, *writes: Write) -> Approval:
        """Write a request as it is now, unless it was changed since it was read."""
        document = msgspec.to_builtins(approval)
        revision = document.pop("revision")
        put = Put((_APPROVALS, approval.id), document, revision, approval.kept_until)
        revisions = await self._table.transact([put, *writes])
        return msgspec.structs.replace(approval, revision=revisions[0])

    def _approval(self, item: Item) -> Approval:
        approval = msgspec.convert({**item.document, "revision": item.revision}, Approval)
        over = approval.state is State.WAITING and self._clock() >= approval.until
        return msgspec.structs.replace(approval, state=State.EXPIRED) if over else approval


@lru_cache(maxsize=4096)
def _covered(patterns: tuple[str, ...], capability: str) -> bool:
    """Whether one of the patterns covers a capability. Every plan asks that."""
    return any(covers(pattern, capability) for pattern in patterns)


async def _text_at(table: Table, key: Key) -> str | None:
    item = await table.get(key)
    return None if item is None else str(item.document["text"])


async def _may_still_ask(keys: Keys, approval: Approval, now: float) -> bool:
    """Whether whoever asked for a task could ask for it now."""
    name, then = approval.requested_by, rfc3339(now)
    if name in _OURS:
        return True
    return any(
        one["name"] == name
        and one["revoked_at"] is None
        and (one["expires_at"] is None or then < one["expires_at"])
        and Identity(name, frozenset(one["scopes"])).may_plan(approval.capability)
        for one in await keys.list()
    )


def _check_decider(approval: Approval, identity: Identity) -> None:
    """Raise `Forbidden` for whoever asked, and for everyone who may have."""
    if identity.name == KEYLESS:
        raise Forbidden(
            "a decision takes a key, since without one anybody may call, whoever asked as well: "
            "'autopilot keys create NAME operate' makes one",
            actor=identity.name,
        )
    if identity.name == approval.requested_by:
        raise Forbidden("whoever asked for a task cannot decide about it", actor=identity.name)
    if approval.requested_by == ROUTER and identity.may("plan"):
        raise Forbidden(
            "the router asked for this by itself, as a schedule makes it: a key that may not plan decides, "
            "since any other may be the one that scheduled it",
            actor=identity.name,
        )


def _check_waiting(approval: Approval) -> None:
    if approval.state is State.EXPIRED:
        raise Conflict(f"it has expired: nobody decided within {VALID_SECONDS / 60:.0f} minutes")
    if approval.state is not State.WAITING:
        raise Conflict(f"it is {approval.state.value} already")


def _check_unanswered(approval: Approval, identity: Identity, now: float) -> None:
    """Raise `Conflict` unless an approved task has no answer, and this caller may send it again."""
    if approval.answered is not None or approval.decided_by != identity.name:
        raise Conflict("it is approved already")
    until = approval.running_until
    if until is not None and now < until:
        raise Conflict(f"it is being sent; if nothing is known by {rfc3339(until)}, try again")


def _check_digest(approval: Approval, digest: str | None, text: str | None = None) -> None:
    """Raise `Conflict` when what was shown, or what is kept, is not what was asked for."""
    if digest is not None and digest != approval.digest:
        raise Conflict("the digest is that of another task than the one that waits")
    if text is not None and digest_of(text) != approval.digest:
        raise Conflict("the task that is kept is not the one that was asked for")


class _Task(msgspec.Struct):
    task: str | None
    capability: str
    autopilot: str | None
    timeout_ms: int | None
    meta: msgspec.Raw


def meta_of(text: str) -> Any:
    """Return the meta in the text of a task."""
    return msgspec.json.decode(msgspec.json.decode(text, type=_Task).meta)


def _text_of(request: PlanRequest, capability: str) -> str:
    """Return the one text of a task: what is decided about, what its digest is of, and what is sent."""
    asked = _Task(request.task, capability, request.autopilot, request.timeout_ms, msgspec.Raw(request.meta))
    return msgspec.json.encode(asked).decode("utf-8")


def _request_of(text: str, sent_to: str | None) -> PlanRequest:
    """Return the task in a text. One that an autopilot may have got already goes to that one only."""
    asked = msgspec.json.decode(text, type=_Task)
    return PlanRequest(
        task=asked.task,
        capability=asked.capability,
        meta=bytes(asked.meta),
        value=msgspec.json.decode(asked.meta),
        timeout_ms=asked.timeout_ms,
        autopilot=sent_to or asked.autopilot,
    )


def _fitting(outcome: bytes) -> bytes:
    """Return the JSON of an outcome, without a result that is too large to be kept."""
    if len(outcome) <= MAX_OUTCOME:
        return outcome
    return msgspec.json.encode({**msgspec.json.decode(outcome), "result": {"omitted_bytes": len(outcome)}})


def _id_of(name: str, key: str, digest: str) -> str:
    """Return the id of what somebody asks for under an idempotency key."""
    text = msgspec.json.encode([name, key, digest]).decode("utf-8")
    return f"apv_{digest_of(text)[:24]}"


def digest_of(text: str) -> str:
    """Return the hash of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
