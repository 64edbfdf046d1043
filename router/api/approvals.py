"""Tasks that wait for approval: see them, approve them, refuse them."""

from __future__ import annotations

from typing import Any

import msgspec

from infra.redact import Redactor
from router.api.http import Call, Endpoint, Reply, encode, json, limit_of
from router.approvals import APPROVAL_ID, DIGEST, Approval, Approvals, State, meta_of
from router.auth import Scope
from router.errors import AutopilotError, Invalid, NotFound
from router.model import PlanRequest
from router.planner import Caller, Planner

_PAGE = 200


class ApprovalsApi:
    """`/autopilot/approvals`, for those who decide, and for whoever asked to see what became of it."""

    def __init__(self, approvals: Approvals, planner: Planner, redactor: Redactor) -> None:
        self._approvals = approvals
        self._planner = planner
        self._redactor = redactor

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        path = "/autopilot/approvals"
        return [
            Endpoint("GET", path, Scope.OPERATE, self.listing),
            Endpoint("GET", f"{path}/{{id}}", Scope.KEY, self.get),
            Endpoint("POST", f"{path}/{{id}}/approve", Scope.OPERATE, self.approve, "approval.approve"),
            Endpoint("POST", f"{path}/{{id}}/refuse", Scope.OPERATE, self.refuse, "approval.refuse"),
        ]

    async def listing(self, call: Call) -> Reply:
        """List tasks that wait, or waited, for approval, a page at a time."""
        status, after, limit = _list_query(call.query("status", "limit", "cursor"))
        shown: list[dict[str, Any]] = []
        while True:
            page, following = await self._approvals.page(after=after, limit=_PAGE)
            for approval in page:
                if status is None or approval.state is status:
                    shown.append(self._shown(approval))
                    if len(shown) == limit:
                        more = following is not None or approval is not page[-1]
                        return _page(shown, approval.id if more else None)
            after = following
            if after is None:
                return _page(shown, None)

    async def get(self, call: Call) -> Reply:
        """Show a task that waits, or waited, for approval, and what came of it."""
        approval = await self._approvals.get(_id(call))
        if call.identity.name != approval.requested_by and not call.identity.may("operate"):
            raise _unknown()  # that there is one is nobody else's business
        text = await self._approvals.task(approval.id)
        outcome = await self._approvals.outcome(approval.id)
        document = {
            **self._shown(approval),
            **self._task(text),
            "outcome": None if outcome is None else msgspec.Raw(outcome.encode()),
        }
        return json({"ok": True, "approval": document})

    async def approve(self, call: Call) -> Reply:
        """Approve a task that somebody else asked for, and send it."""
        digest = _digest(await call.json_or_nothing())
        approval, request = await self._approvals.approve(_id(call), call.identity, digest=digest)
        _note(call, approval)
        return await self._send(call, approval, request)

    async def refuse(self, call: Call) -> Reply:
        """Refuse a task that somebody else asked for: it is never sent."""
        digest = _digest(await call.json_or_nothing())
        approval = await self._approvals.refuse(_id(call), call.identity, digest=digest)
        _note(call, approval)
        return json({"ok": True, "approval": self._shown(approval)})

    async def _send(self, call: Call, approval: Approval, request: PlanRequest) -> Reply:
        """Send an approved task. That it failed is part of the answer: it was decided all the same."""
        caller = Caller(call.trace, key=approval.id, name=approval.requested_by, approved=approval.capability)
        try:
            outcome = await self._planner.plan(request, caller)
        except AutopilotError as error:
            failed = await self._approvals.failed(approval, error)
            return json({"ok": False, "approval": self._shown(failed), "outcome": None})
        body = encode(outcome)
        done = await self._approvals.answered(approval, outcome.status, body)
        return json({"ok": outcome.ok, "approval": self._shown(done), "outcome": msgspec.Raw(body)})

    def _shown(self, approval: Approval) -> dict[str, Any]:
        return {**approval.document(), "error": self._redactor.value(approval.error)}

    def _task(self, text: str | None) -> dict[str, Any]:
        """Return what is to be read before a decision, without secrets: the meta, and the text it is in."""
        if text is None:
            return {"meta": None, "text": None, "redacted": False}
        shown = self._redactor.text(text)
        return {"meta": self._redactor.value(meta_of(text)), "text": shown, "redacted": shown != text}


def _page(shown: list[dict[str, Any]], following: str | None) -> Reply:
    return json({"approvals": shown, "count": len(shown), "next": following})


def _note(call: Call, approval: Approval) -> None:
    call.note(
        approval.id,
        capability=approval.capability,
        digest=approval.digest,
        requested_by=approval.requested_by,
    )


def _id(call: Call) -> str:
    """Return the id in a path. Raises `NotFound` for what can be none."""
    approval_id = call.path("id")
    if not APPROVAL_ID.fullmatch(approval_id):
        raise _unknown()
    return approval_id


def _unknown() -> NotFound:
    return NotFound("there is no approval of that id")


def _digest(body: Any) -> str | None:
    """Return the digest in a decision's body, None without one. Raises `Invalid`."""
    if not isinstance(body, dict):
        raise Invalid([("body", "must be an object")])
    problems = [(field[:64], "is not a known field") for field in body if field != "digest"]
    digest = body.get("digest")
    if digest is not None and not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
        problems.append(("digest", "must be 64 hexadecimal digits, as the approval shows them"))
    if problems:
        raise Invalid(problems)
    return digest


def _list_query(query: dict[str, str]) -> tuple[State | None, str | None, int]:
    problems: list[tuple[str, str]] = []
    limit = limit_of(query, problems)
    states = {state.value: state for state in State}
    status = query.get("status")
    if status is not None and status not in states:
        problems.append(("status", f"must be one of {', '.join(states)}"))
    cursor = query.get("cursor")
    if cursor and not APPROVAL_ID.fullmatch(cursor):
        problems.append(("cursor", "must be the 'next' of an earlier page"))
    if problems:
        raise Invalid(problems)
    return states.get(status or ""), cursor or None, limit
