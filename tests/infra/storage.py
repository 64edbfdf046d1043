"""Storage in memory with faults: told to create twice it makes a twin, so that nobody else prevents one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from infra.clock import Clock
from infra.provider import (
    KINDS,
    Bound,
    Diagnosis,
    Inventory,
    ProviderFailed,
    Resource,
    Unread,
    Want,
    digest_of,
)


class Storage:
    """An account that several providers lead to, each with faults of its own."""

    name = "memory"
    place = "memory"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.there: list[Resource] = []
        self.made = 0
        self.listed_at: dict[str, float] = {}
        """By id, when lists begin to show it."""

    def listed(self) -> list[Resource]:
        """Return what lists show by now."""
        return [one for one in self.there if self.listed_at.get(one.id, 0.0) <= self.clock()]

    def put(self, kind: str, name: str, *, digest: str = "", ours: bool | None = None) -> Resource:
        """Put something there, as if it had been made by hand."""
        self.made += 1
        version = f"v{self.made}" if kind == "workers" else ""
        resource = Resource(kind, name, f"id{self.made}", digest, ours=ours, version=version)
        self.there.append(resource)
        return resource

    def twins(self) -> list[tuple[str, str]]:
        """Return what is there more than once."""
        return [key for key, count in Counter(one.key for one in self.there).items() if count > 1]


class Faulty:
    """A way to some storage. Without faults it is a good one.

    `faults` is the share of calls that fail, in one of these ways: a kind is not listed; a look is not
    answered; a creation is refused, is not answered and was done, is not answered and was not done, or is
    refused with everything else. `lies` has kinds whose list is empty, whatever there is; with `blind` they
    are not found either when they are looked for.
    """

    name = "cloudflare"
    place = "memory"

    def __init__(self, storage: Storage, luck: random.Random, faults: float = 0.0) -> None:
        self.storage = storage
        self.luck = luck
        self.faults = faults
        self.lags: tuple[float, ...] = (0.0,)
        """Seconds until lists show what was created, one of them each time."""
        self.lies: set[str] = set()
        self.blind = False
        self.unread: dict[str, Unread] = {}
        self.tells_all = True
        """Whether lists tell digest and mark of Workers."""
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str], None] = lambda verb: None

    @property
    def writes(self) -> list[str]:
        """What was created or updated, or tried to be."""
        return [name for verb, name in self.calls if verb in {"create", "update"}]

    async def inventory(self) -> Inventory:
        await self._call("list", "")
        lost = {kind: Unread("unknown", "no answer", "") for kind in KINDS if self._fails(5)} | self.unread
        shown = [one for one in self.storage.listed() if one.kind not in {*lost, *self.lies}]
        if not self.tells_all:
            shown = [one._replace(digest="", ours=None) for one in shown]
        return Inventory(shown, lost)

    async def find(self, want: Want, id: str = "") -> Resource | None:  # noqa: A002  as in the port
        await self._call("find", want.name)
        if self._fails():
            raise ProviderFailed("no answer", word="unknown")
        place = (*want.key, want.jurisdiction)
        if self.blind and want.kind in self.lies:
            return None
        found = [one for one in self.storage.there if (one.kind, one.name, one.jurisdiction) == place]
        return found[0] if found else None

    async def create(self, want: Want, bound: Bound) -> Resource:
        await self._call("create", want.name)
        fault = self.luck.choice(("refused", "done", "lost", "all")) if self._fails() else ""
        if fault in {"refused", "all"}:
            raise ProviderFailed(fault, word=fault, reach="all" if fault == "all" else "one")
        if fault == "lost":
            raise ProviderFailed("no answer", word="unknown", done=True)
        made = self.storage.put(*want.key, digest=digest_of(want, bound), ours=want.kind == "workers" or None)
        self.storage.listed_at[made.id] = self.storage.clock() + self.luck.choice(self.lags)
        if want.jurisdiction:
            self.storage.there[-1] = made = made._replace(jurisdiction=want.jurisdiction)
        await self._pause()
        if fault == "done":
            raise ProviderFailed("no answer", word="unknown", done=True)
        return made

    async def update(self, want: Want, bound: Bound) -> Resource:
        await self._call("update", want.name)
        if self._fails():
            raise ProviderFailed("no answer", word="unknown", done=True)
        [at] = [at for at, one in enumerate(self.storage.there) if one.key == want.key]
        self.storage.made += 1
        changed = {"digest": digest_of(want, bound), "version": f"v{self.storage.made}"}
        self.storage.there[at] = self.storage.there[at]._replace(**changed, ours=True)
        return self.storage.there[at]

    async def diagnose(self, found: Inventory, *, probe_writes: bool) -> Diagnosis:
        return Diagnosis({"id": None, "status": "active", "kind": "user"})

    async def _call(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        self.before(verb)
        await self._pause()

    async def _pause(self) -> None:
        """Let others go on, for as long as luck will have it."""
        for _ in range(self.luck.randrange(4)):
            await asyncio.sleep(0)

    def _fails(self, of: int = 1) -> bool:
        return self.luck.random() < self.faults / of
