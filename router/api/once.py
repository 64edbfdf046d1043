"""Calls that carry an idempotency key: the first does its work, later ones get its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from infra.redact import Redactor
from router.api.http import REPLAYED, Call, Reply, problem_reply
from router.errors import AutopilotError
from router.idempotency import Answer, Effect, Idempotency

_FIRST = b'"idempotent_replay":false}'
_AGAIN = b'"idempotent_replay":true}'


class Once:
    """Runs an endpoint's work under the idempotency key of its call, if it has one."""

    def __init__(self, idempotency: Idempotency, redactor: Redactor) -> None:
        self._idempotency = idempotency
        self._redactor = redactor

    async def answer(
        self, call: Call, route: str, body: Any, *, seconds: float, work: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        """Return what `work` answers within `seconds`, or what it answered to the same key before.

        Raises `Invalid`, `Conflict` and `StoreUnavailable` as `Idempotency.run`, and what `work` raises
        before it did anything.
        """
        key = call.idempotency_key()
        if not key:
            return await work()

        async def effect() -> Effect:
            try:
                reply = await work()
            except AutopilotError as error:
                if not error.done:
                    raise
                reply = problem_reply(self._redactor, error, call.trace.id)
            return Effect(_kept(reply), done=True)

        answer = await self._idempotency.run(
            route=route, caller=call.identity.name, key=key, body=body, seconds=seconds, work=effect
        )
        return _reply(answer)


def _kept(reply: Reply) -> Answer:
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers)
    return Answer(reply.status, reply.body, (("content-type", reply.media_type.decode()), *headers))


def _reply(answer: Answer) -> Reply:
    (_, media_type), *rest = answer.headers
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in rest)
    body = answer.body
    if answer.replayed:
        headers = (*headers, REPLAYED)
        if body.endswith(_FIRST):
            body = body.removesuffix(_FIRST) + _AGAIN
    return Reply(answer.status, body, headers, media_type.encode())
