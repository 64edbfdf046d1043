"""Tells whoever asked for an asynchronous task of its end: a call signed by Standard Webhooks.

The body is the task as `GET /autopilot/tasks/{id}` shows it. Any 2xx is well; 410 says not to call again;
what else is answered, or is not, is tried again for about a day, with full jitter and no sooner than
`Retry-After` asks. Every call about one end has one `webhook-id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from infra.clock import Clock
from infra.outbound import parse_url
from infra.pool import Answer, NotSent, Unanswered
from infra.queue import Message
from infra.signing import sign
from router import __version__
from router.backoff import Dice, retry_after
from router.errors import EndpointRefused, Invalid, Stale
from router.progress import Progress
from router.task import Callback, CallState, Task
from router.taskrows import TaskRows
from router.worker import Later

Post = Callable[[str, list[tuple[bytes, bytes]], bytes], Awaitable[Answer]]
"""Posts a body to a URL with headers, within `SECONDS`. Raises as `infra.transport.carry`."""
Addresses = Callable[[Any], Awaitable[Any]]
"""Looks up and judges the addresses of a `Url`: `Guard.addresses`."""

SECONDS = 15.0
CEILINGS = (5.0, 300.0, 1800.0, 7200.0, 14400.0, 28800.0, 36000.0, 43200.0, 43200.0)
"""The longest wait after each failure; the mean is half of it, so that the last call is after about a day."""
MOST_CALLS = len(CEILINGS) + 1
MOST_DELIVERIES = 15
MAX_BODY = 256 << 10
"""Bytes a call may have: of a longer one, the result is left out, with its size in its place."""
MOST_ASKED = 86_400.0
"""Seconds that `Retry-After` may ask for."""
_RESOLVE_SECONDS = 3.0
_GONE = 410
_WAITED_FOR = frozenset({429, 503})


class Callbacks:
    """The handler of messages about calls. `secrets` sign them; without one nobody can be called."""

    def __init__(
        self,
        rows: TaskRows,
        progress: Progress,
        post: Post,
        addresses: Addresses,
        shown: Callable[[Task], dict[str, Any]],
        *,
        secrets: Sequence[str],
        clock: Clock,
        dice: Dice,
    ) -> None:
        self._rows = rows
        self._progress = progress
        self._post = post
        self._addresses = addresses
        self._shown = shown
        self._secrets = secrets
        self._clock = clock
        self._dice = dice

    async def check(self, url: str) -> None:
        """Raise `Invalid` when nobody can be called, and `EndpointRefused` for an address that may not be."""
        if not self._secrets:
            unset = "is not offered here: AUTOPILOT_CALLBACK_SECRET, which would sign the calls, is not set"
            raise Invalid([("callback_url", unset)])
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                await self._addresses(parse_url(url))
        except OSError:
            return  # it may resolve by then

    async def __call__(self, message: Message, seconds: float) -> None:
        """Make the call that the message asks for. Raises `Later` where the process has no time for it."""
        task = await self._rows.find(message.body["task"])
        if task is None or task.callback is None or task.turn != message.body["turn"]:
            return  # it was forgotten, or sent again: there will be another end to tell of
        before = task.callback
        if before.status is not CallState.PENDING or before.attempts != message.body["number"] - 1:
            return  # that call was made
        if seconds < SECONDS + 1:
            raise Later(0.0)
        if message.attempt > MOST_DELIVERIES:
            callback, delay = replace(before, status=CallState.FAILED, next_at=None), None
        else:
            callback, delay = await self._call(task, before)
        await self._note(task, before, callback, delay)

    async def _note(self, task: Task | None, before: Callback, made: Callback, delay: float | None) -> None:
        """Keep what came of a call, unless the task was sent again meanwhile."""
        turn = task.turn if task is not None else 0
        while task is not None and (task.turn, task.callback) == (turn, before):
            try:
                await self._progress.called(task, made, delay)
            except Stale:  # its answer, which came after it was cancelled, was kept at the same moment
                task = await self._rows.find(task.id)
            else:
                return

    async def _call(self, task: Task, before: Callback) -> tuple[Callback, float | None]:
        """Call once. Return what is known then, and the seconds until the next call, None for none."""
        made = replace(before, attempts=before.attempts + 1, next_at=None)
        asked: float | None = None
        try:
            answer = await self._post(before.url, *await self._message(task))
        except (NotSent, EndpointRefused):
            trouble = "could not be reached"
        except Unanswered as error:
            trouble = str(error)
        else:
            if 200 <= answer.status < 300:
                return replace(made, status=CallState.DELIVERED, last_error=None), None
            trouble = f"answered {answer.status}"
            if answer.status == _GONE:
                return replace(made, status=CallState.FAILED, last_error=trouble), None
            if answer.status in _WAITED_FOR:
                asked = _asked(answer, self._clock())
        made = replace(made, last_error=trouble[:500])
        if made.attempts >= MOST_CALLS:
            return replace(made, status=CallState.FAILED), None
        delay = self._dice() * CEILINGS[made.attempts - 1]
        return made, max(delay, min(asked or 0.0, MOST_ASKED))

    async def _message(self, task: Task) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and the body of a call."""
        body = self._body(task, await self._rows.outcome_of(task))
        message_id, now = f"{task.id}_{task.turn}", int(self._clock())
        signatures = " ".join(sign(secret, message_id, now, body) for secret in self._secrets)
        return [
            (b"content-type", b"application/json"),
            (b"user-agent", f"autopilot-router/{__version__}".encode()),
            (b"traceparent", task.traceparent.encode()),
            (b"webhook-id", message_id.encode()),
            (b"webhook-timestamp", b"%d" % now),
            (b"webhook-signature", signatures.encode()),
        ], body

    def _body(self, task: Task, outcome: bytes | None) -> bytes:
        document = self._shown(task)
        document["outcome"] = None if outcome is None else msgspec.Raw(outcome)
        body = msgspec.json.encode(document)
        if len(body) > MAX_BODY and outcome is not None:
            shorter = {**msgspec.json.decode(outcome), "result": {"omitted_bytes": len(outcome)}}
            body = msgspec.json.encode({**document, "outcome": shorter})
        return body


def _asked(answer: Answer, now: float) -> float | None:
    return next((retry_after(value, now) for name, value in answer.headers if name == b"retry-after"), None)
