"""The `Queue` port: messages that are worked on at least once.

A message is a small JSON object. Whoever receives it holds it for a while; what is not done by then is given
to somebody else, with its attempt counted. One that is given out too often goes to the dead letters, where it
is seen and can be sent again. A message may come twice, and before one that was sent earlier: whoever works
on it has to tell by what it says whether that is done already.

Holders are told apart by a receipt. Clocks of two processes may differ by some seconds: that makes a message
late, but never held by two, as long as each lets go of it when its own clock says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from infra.table import Write
from router.errors import TooLarge

Body = dict[str, Any]

MAX_BODY = 200_000
"""Bytes of JSON one message may have, on every adapter: SQS takes 256 KB, with what is around it."""

MAX_ID = 200
"""Characters an id may have."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message somebody holds. `attempt` is 1 the first time it is given out.

    It is theirs until the moment `until` (epoch seconds of the holder's own clock); after that the `receipt`
    may be void.
    """

    id: str
    body: Body
    attempt: int
    receipt: str
    until: float


class DeadLetter(NamedTuple):
    """A message nobody gets any more, and why. `died_at` is in epoch seconds."""

    id: str
    body: Body
    attempts: int
    reason: str
    died_at: float


class Queue(Protocol):
    """What an adapter has to do. `tests/contract/test_queue.py` holds all of them to it.

    Raises `StoreUnavailable` when the store does not answer: then a send may have been done all the same.
    """

    def write_of(self, body: Body, *, delay: float = 0.0, id: str = "") -> Write:  # noqa: A002
        """Return the write that sends a message when its transaction is committed; then call `flush`.

        So a message and the rows it is about are there together or not at all. `delay` is in seconds, `id` is
        what to call it, a new id when empty. Raises `TooLarge`.
        """
        ...

    async def flush(self) -> None:
        """Bring on their way what committed transactions sent. Also done by `receive`, a little later."""
        ...

    async def send(self, body: Body, *, delay: float = 0.0, id: str = "") -> str:  # noqa: A002
        """Send a message and return its id. See `write_of`."""
        ...

    async def receive(self, *, most: int, visible_seconds: float) -> list[Message]:
        """Return up to `most` messages that are due, each held for `visible_seconds`. Does not wait."""
        ...

    async def wait(self, seconds: float) -> None:
        """Return when this process sent something, at the latest after `seconds`."""
        ...

    async def extend(self, message: Message, seconds: float) -> Message:
        """Hold a message for `seconds` from now, and return it with its new receipt.

        Raises `Stale` when it is no longer theirs.
        """
        ...

    async def done(self, message: Message) -> bool:
        """Remove a message and return whether it was still theirs."""
        ...

    async def retry(self, message: Message, *, delay: float) -> None:
        """Let go of a message; it is due again in `delay` seconds. Raises as `extend`."""
        ...

    async def dead(self, message: Message, reason: str) -> None:
        """Put a message among the dead letters. Raises as `extend`."""
        ...

    async def dead_letters(
        self, *, after: str | None = None, limit: int = 50
    ) -> tuple[list[DeadLetter], str | None]:
        """Return up to `limit` dead letters by id, and the id to go on after, None at the end."""
        ...

    async def revive(self, id: str) -> None:  # noqa: A002
        """Send a dead letter again, as if it had never been given out. Raises `NotFound`."""
        ...


def check_body(body: Body) -> None:
    """Raise `TooLarge` for a message no adapter can carry."""
    if (size := len(msgspec.json.encode(body))) > MAX_BODY:
        raise TooLarge(f"a message of {size} bytes is over the limit of {MAX_BODY}")
