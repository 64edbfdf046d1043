"""What the runner gets to work with beyond the parts every autopilot has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from autopilots.kit import Parts
from infra.clock import Clock


@dataclass(frozen=True)
class RunnerParts(Parts):
    """The kit's parts, a folder, and what commands and calls may have. `redactor` has to know the values of
    `given`."""

    root: Path
    """The folder, with no symbolic link in its path."""
    transport: httpx.AsyncBaseTransport
    """Carries all calls, and guards where they go."""
    environment: Mapping[str, str]
    """The variables that every command finds: where programs and the home folder are, the language."""
    allowed: frozenset[str]
    """The names of the variables that tasks may ask for."""
    given: Mapping[str, str]
    """Those of them that are set."""
    monotonic: Clock
    """Seconds on a clock that nobody sets."""
    allow_shell: bool = False
    """Whether a task may be a script."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    running: set[str] = field(default_factory=set)
    """What this process has begun under an idempotency key and not ended."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Files are changed one after the other: each change is made of what was read before it."""
