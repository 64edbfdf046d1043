"""A fake Cloudflare and a client of it that never waits: sleeping moves the clock."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from infra.cloudflare.client import Client
from infra.cloudflare.provider import CloudflareProvider, connect
from infra.cloudflare.wire import Harmless, Wire
from tests.cloudflare_fake import ACCOUNT, USER_TOKEN, CloudflareFake, FakeTransport
from tests.fakes import FakeClock
from tests.infra.cloudflare.schema import Schema

API = "http://127.0.0.1:9/client/v4"
"""Nothing listens there: the transport of a rig knows no sockets."""


class Rig:
    """A fake, and what talks to it. `naps` holds how long was slept each time."""

    def __init__(self, fake: CloudflareFake, clock: FakeClock) -> None:
        self.fake = fake
        self.clock = clock
        self.naps: list[float] = []
        self.http = httpx.AsyncClient(transport=Harmless(FakeTransport(fake)))

    async def sleep(self, seconds: float) -> None:
        """Let time pass without waiting for it."""
        self.naps.append(seconds)
        self.clock.forward(seconds)

    def wire(self, token: str = USER_TOKEN) -> Wire:
        """Return what sends calls with a token."""
        return Wire(self.http, token, root=API, monotonic=self.clock, sleep=self.sleep, random=lambda: 0.5)

    def client(self, token: str = USER_TOKEN, account: str = ACCOUNT) -> Client:
        """Return a client with a token."""
        return Client(self.wire(token), account)

    def provider(self, token: str = USER_TOKEN, account: str = ACCOUNT) -> CloudflareProvider:
        """Return the provider with a token."""
        return connect(
            self.http,
            token,
            account,
            API,
            clock=self.clock,
            monotonic=self.clock,
            sleep=self.sleep,
            random=lambda: 0.5,
            nobody=lambda: "nobody-0123456789",
        )


@pytest.fixture(scope="session")
def schema() -> Schema:
    """Give the judge of requests and answers."""
    return Schema()


@pytest.fixture
def fake(clock: FakeClock, schema: Schema) -> Iterator[CloudflareFake]:
    """Give a fake whose every exchange is held to the public schema afterwards."""
    one = CloudflareFake(clock)
    yield one
    for request, told in one.answers[:100]:
        schema.check(request, told)


@pytest.fixture
def rig(fake: CloudflareFake, clock: FakeClock) -> Rig:
    """Give a fake and clients of it."""
    return Rig(fake, clock)


@pytest.fixture
def client(rig: Rig) -> Client:
    """Give a client whose token may do everything."""
    return rig.client()


@pytest.fixture
def provider(rig: Rig) -> CloudflareProvider:
    """Give a provider whose token may do everything."""
    return rig.provider()
