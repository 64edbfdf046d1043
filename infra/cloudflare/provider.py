"""Cloudflare behind the provider port: lists, looks, creates, uploads again, and says what it may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from infra.clock import Clock
from infra.cloudflare import scripts
from infra.cloudflare.client import Client
from infra.cloudflare.diagnose import diagnose
from infra.cloudflare.failures import CloudflareError, Garbled
from infra.cloudflare.kinds import KIND, TABLE, Kind
from infra.cloudflare.wire import ROOT, Sleep, Wire
from infra.provider import Bound, Diagnosis, Inventory, Key, Resource, Unread, Want, unread

LOOKS = 4
LOOK_SECONDS = 0.5
"""A thing whose creation ended without a clear answer is looked for this often, and this long apart: what was
just made is not known everywhere."""


class CloudflareProvider:
    """The storage of one account. `nobody` gives a name that no Worker has."""

    name = "cloudflare"

    def __init__(
        self, client: Client, token: str, root: str, *, clock: Clock, sleep: Sleep, nobody: Callable[[], str]
    ) -> None:
        self._client = client
        self._token = token
        self._root = root
        self._clock = clock
        self._sleep = sleep
        self._nobody = nobody
        self._unclear: set[Key] = set()

    @property
    def place(self) -> str:
        """See `Provider.place`. Where no account is configured it is the only one the token sees.

        A token of another account then finds nothing of what is recorded, which stops everything: it never
        passes for the same storage.
        """
        account = self._client.account.configured or "only"
        return f"cloudflare/{account}" if self._root == ROOT else f"{self._root}/{account}"

    async def inventory(self) -> Inventory:
        """See `Provider.inventory`."""
        try:
            await self._client.account.id()
        except CloudflareError as error:
            return Inventory((), {kind.kind: unread(error) for kind in TABLE})
        lists = await asyncio.gather(*(self._rows(kind) for kind in TABLE))
        found = dict(zip(KIND, lists, strict=True))
        return Inventory(
            [one for listed in found.values() if not isinstance(listed, Unread) for one in listed],
            {kind: listed for kind, listed in found.items() if isinstance(listed, Unread)},
        )

    async def _rows(self, kind: Kind) -> list[Resource] | Unread:
        try:
            return await kind.rows(self._client)
        except CloudflareError as error:
            return unread(error)

    async def find(self, want: Want, id: str = "") -> Resource | None:  # noqa: A002  as in the port
        """See `Provider.find`. Raises `CloudflareError`."""
        looks = LOOKS if want.key in self._unclear else 1
        for look in range(looks):
            if look:
                await self._sleep(LOOK_SECONDS)
            found = await KIND[want.kind].find(self._client, want, id)
            if found is not None:
                self._unclear.discard(want.key)
                return found
        return None

    async def create(self, want: Want, bound: Bound) -> Resource:
        """See `Provider.create`. Raises `CloudflareError`."""
        try:
            return await KIND[want.kind].create(self._client, want, bound)
        except CloudflareError as error:
            error.done = error.done or isinstance(error, Garbled)
            if error.done:
                self._unclear.add(want.key)
            raise

    async def update(self, want: Want, bound: Bound) -> Resource:
        """See `Provider.update`. Raises `CloudflareError`."""
        try:
            return await scripts.put(self._client, want, bound, fresh=False)
        except Garbled as error:
            error.done = True
            raise

    async def diagnose(self, found: Inventory, *, probe_writes: bool) -> Diagnosis:
        """See `Provider.diagnose`."""
        return await diagnose(
            self._client,
            self._token,
            found,
            clock=self._clock,
            nobody=self._nobody,
            probe_writes=probe_writes,
        )


def connect(
    http: httpx.AsyncClient,
    token: str,
    account_id: str = "",
    root: str = "",
    *,
    clock: Clock,
    monotonic: Clock,
    sleep: Sleep,
    random: Callable[[], float],
    nobody: Callable[[], str],
) -> CloudflareProvider:
    """Return the provider of what a token may reach. `random` gives numbers from 0 to 1.

    `account_id` empty means the only account that the token sees, `root` empty Cloudflare's own API. Raises
    `BadToken` for a token that must never be used here.
    """
    root = (root or ROOT).rstrip("/")
    wire = Wire(http, token, root=root, monotonic=monotonic, sleep=sleep, random=random)
    return CloudflareProvider(Client(wire, account_id), token, root, clock=clock, sleep=sleep, nobody=nobody)
