"""How many calls may be made: a quarter of the account's quota, and none while Cloudflare asks to wait."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping

from infra.cloudflare.failures import Throttled

CALLS = 300
SECONDS = 300.0
"""The quota of a token is 1,200 calls in 5 minutes, and what people do in the dashboard counts too."""

KEEP = 50
"""Stop when fewer calls than this are left, or a tenth of a smaller quota."""

_PAIR = re.compile(r";\s*([a-z]+)=([0-9]{1,9})(?![0-9.])")


class Budget:
    """Counts the calls of one token in a sliding window. `monotonic` gives seconds."""

    def __init__(
        self, monotonic: Callable[[], float], *, calls: int = CALLS, seconds: float = SECONDS
    ) -> None:
        self._monotonic = monotonic
        self._calls = calls
        self._seconds = seconds
        self._made: deque[float] = deque()
        self._closed_until = float("-inf")
        self._why = ""

    def spend(self) -> None:
        """Take one call. Raises `Throttled` where none may be made now."""
        now = self._monotonic()
        if now < self._closed_until:
            raise Throttled(f"{self._why}; no calls for another {self._closed_until - now:.0f} s")
        while self._made and self._made[0] <= now - self._seconds:
            self._made.popleft()
        if len(self._made) >= self._calls:
            wait = self._made[0] + self._seconds - now
            raise Throttled(
                f"{self._calls} calls in {self._seconds:.0f} s are a quarter of the quota and are spent; "
                f"the next one in {wait:.0f} s"
            )
        self._made.append(now)

    @property
    def spent(self) -> int:
        """How many calls were made in the window."""
        since = self._monotonic() - self._seconds
        return sum(1 for made in self._made if made > since)

    def heed(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer: a 429 closes, and so does a quota that is nearly used up."""
        if status == 429:
            # Over the limit everything is refused for five minutes, whoever asks.
            seconds = retry_after(headers)
            self._close(SECONDS if seconds is None else seconds, "Cloudflare asked to wait")
            return
        left = _member(headers.get("ratelimit", ""), "r")
        quota = _member(headers.get("ratelimit-policy", ""), "q")
        least = KEEP if quota is None else min(KEEP, quota // 10)
        if left is not None and left < least:
            seconds = _member(headers.get("ratelimit", ""), "t")
            self._close(60.0 if seconds is None else float(seconds), f"{left} calls of the quota are left")

    def _close(self, seconds: float, why: str) -> None:
        until = self._monotonic() + min(seconds, 3600.0)
        if until > self._closed_until:
            self._closed_until, self._why = until, why


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, None without one or for a date."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _member(field: str, name: str) -> int | None:
    """Return a parameter of the first item in a structured list: `"default";r=50;t=30`."""
    first = field.partition(",")[0]
    return next((int(value) for key, value in _PAIR.findall(first) if key == name), None)
