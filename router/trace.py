"""W3C trace context: which calls belong together."""

from __future__ import annotations

import re

from infra.clock import randomness

_TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")


class Trace:
    """A trace this call belongs to: the caller's, or a new one."""

    __slots__ = ("_flags", "id")

    def __init__(self, traceparent: bytes | None = None) -> None:
        match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        if match is None:
            self.id = randomness.take(16).hex()
            self._flags = "00"
        else:
            self.id = match[1].decode("ascii")
            # Sampled and random are known; the other bits are reserved and must not be passed on.
            self._flags = f"{int(match[2], 16) & 3:02x}"

    def child(self) -> str:
        """Return the `traceparent` of a call made on behalf of this one."""
        return f"00-{self.id}-{randomness.take(8).hex()}-{self._flags}"
