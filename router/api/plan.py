"""Tasks: plan one, and see which there are."""

from __future__ import annotations

from typing import Any

import msgspec

from infra.body import parse
from router.api.http import Call, Endpoint, Reply, encode, json
from router.api.once import Once
from router.auth import Scope
from router.callbacks import Callbacks
from router.catalogue import Catalogue
from router.choice import Chooser
from router.errors import ApprovalRequired, Invalid
from router.keys import Identity
from router.model import PlanRequest
from router.parse import parse_plan
from router.planner import Caller, Planner, authority
from router.routes import Routes
from router.tasks import Tasks

_SUBMISSION = 10.0
"""Seconds that taking an asynchronous task takes at most."""


class _MetaText(msgspec.Struct):
    meta: msgspec.Raw = msgspec.Raw(b"{}")


_meta_text = msgspec.json.Decoder(_MetaText).decode


class PlanApi:
    """`/autopilot/plan` and `/autopilot/catalogue`. `tasks` is None where nobody would work on them."""

    def __init__(
        self,
        planner: Planner,
        catalogue: Catalogue,
        routes: Routes,
        chooser: Chooser,
        once: Once,
        tasks: Tasks | None,
        callbacks: Callbacks,
    ) -> None:
        self._planner = planner
        self._tasks = tasks
        self._callbacks = callbacks
        self._once = once
        self._catalogue = catalogue
        self._routes = routes
        self._chooser = chooser

    def endpoints(self) -> list[Endpoint]:
        """Return what this answers."""
        return [
            Endpoint("POST", "/autopilot/plan", Scope.PLAN, self.plan),
            Endpoint("GET", "/autopilot/catalogue", Scope.READ, self.catalogue),
        ]

    async def plan(self, call: Call) -> Reply:
        """Plan a task, or explain how it would be planned."""
        body = await call.body()
        request = _request(body)
        identity = call.identity
        caller = Caller(
            call.trace, call.idempotency_key(), call.hops(), authority(identity), name=identity.name
        )
        if request.mode == "explain":
            return json(await self._planner.explain(request, caller))

        if not caller.key and request.mode == "sync":
            return await self._plan(request, caller)

        async def work() -> Reply:
            if request.mode == "async":
                return await self._submit(request, caller, identity)
            return await self._plan(request, caller)

        seconds = _SUBMISSION if request.mode == "async" else self._planner.seconds(request)
        return await self._once.answer(call, "plan", parse(body), seconds=seconds, work=work)

    async def _submit(self, request: PlanRequest, caller: Caller, identity: Identity) -> Reply:
        if self._tasks is None:
            raise Invalid([("mode", "async is not offered here: nothing works on what is queued")])
        if request.callback_url is not None:
            await self._callbacks.check(request.callback_url)
        task = await self._tasks.submit(request, caller, identity)
        where = f"/autopilot/tasks/{task.id}".encode()
        return json({"id": task.id, "status": task.state.value}, 202, ((b"location", where),))

    async def _plan(self, request: PlanRequest, caller: Caller) -> Reply:
        try:
            outcome = await self._planner.plan(request, caller)
        except ApprovalRequired as waiting:
            return _accepted(waiting.approval, caller)
        return Reply(outcome.status if 400 <= outcome.status < 500 else 200, encode(outcome))

    async def catalogue(self, call: Call) -> Reply:
        """List every task with who can serve it now."""
        call.query()
        tasks = []
        for entry in await self._catalogue.entries():
            candidates = await self._routes.candidates(entry.capability)
            serving = [one.candidate.name for one in self._chooser.explain(candidates) if one.serves]
            tasks.append({**entry._asdict(), "autopilots": serving})
        return json({"tasks": tasks, "count": len(tasks)})


def _accepted(approval: dict[str, Any], caller: Caller) -> Reply:
    """Return the answer to a task that waits for approval."""
    path = f"/autopilot/approvals/{approval['id']}"
    hint = f"POST {path}/approve, with a key of the scope operate that is not yours, sends the task"
    document = {**approval, "hint": hint, "trace_id": caller.trace.id}
    return json(document, 202, ((b"location", path.encode()),))


def _request(body: bytes) -> PlanRequest:
    value: Any = parse(body)
    if type(value) is dict and len(value) == 2:
        # What nearly every call looks like, without the machinery that reports what is wrong with one.
        task, meta = value.get("task"), value.get("meta")
        if type(task) is str and type(meta) is dict and 0 < len(task) <= 200 and task.isidentifier():
            return PlanRequest(task, None, bytes(_meta_text(body).meta), meta)
    return parse_plan(value, bytes(_meta_text(body).meta) if type(value) is dict else b"{}")
