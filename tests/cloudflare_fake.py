"""A Cloudflare API on loopback, or in process: its gateway, its tokens, its traps, and faults to switch on.

Behaviour is that of the public schema and of what people report of the live API: product-scoped codes, lists
of 20, jurisdictions apart, bare failures, pages of HTML, creations that are done though nobody hears of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from infra.clock import rfc3339
from tests.cloudflare_products import Asked, Json, Products, Refusal, page_of
from tests.fakes import FakeClock
from tests.upstream import Received, Told, Upstream, upstream

ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
ROOT = "/client/v4"
USER_TOKEN = "cfut_" + "u" * 40
ACCOUNT_TOKEN = "cfat_" + "a" * 40
HERE = "203.0.113.7"
"""Where the fake believes its callers to be."""

GROUPS = {
    "kv": "Workers KV Storage",
    "r2": "Workers R2 Storage",
    "workers": "Workers Scripts",
    "d1": "D1",
    "queues": "Queues",
    "account": "Account Settings",
}
EVERYTHING = {**dict.fromkeys(GROUPS, "edit"), "account": "read"}
PAGE = Told(520, b"<!DOCTYPE html><title>520: Web server is returning an unknown error</title>")


@dataclass
class Token:
    """A token: what it is, and `grants`, the products it may `read` or `edit`."""

    secret: str = USER_TOKEN
    kind: str = "user"
    id: str = "ed17574386854bf78a67040be0a770b0"
    status: str = "active"
    grants: dict[str, str] = field(default_factory=lambda: dict(EVERYTHING))
    expires_on: str | None = None
    only_from: list[str] = field(default_factory=list)
    reads_itself: bool = False

    def may(self, product: str, level: str) -> bool:
        """Whether it may do something: who may edit may read."""
        return self.grants.get(product) in {"edit", level}


@dataclass
class Fault:
    """Something that goes wrong `times` times, for requests with `method` and `part` in their path.

    `told` is answered in place of the truth; None: no answer comes at all. `done`: the request is carried
    out before that. `tamper` changes an answer instead.
    """

    method: str = ""
    part: str = ""
    told: Told | None = None
    times: int = 1
    done: bool = False
    tamper: Callable[[Json], None] | None = None

    def strikes(self, request: Received) -> bool:
        """Whether it is this request's turn."""
        if self.times and self.method in {"", request.method} and self.part in request.path:
            self.times -= 1
            return True
        return False


def refusal(status: int, code: int, message: str, **headers: str) -> Told:
    """Return a failure as the API words it, in its bare form."""
    body = {"success": False, "errors": [{"code": code, "message": message}]}
    return Told(status, json.dumps(body).encode(), headers)


_ACCOUNT = r"/accounts/(?P<account>[^/]*)"
_NAME = r"/([^/]+)"
ROUTES: list[tuple[str, str, str, str, str]] = [
    # method, path, product, what it needs, who answers
    ("GET", "/user/tokens/verify", "", "", "verify"),
    ("GET", f"{_ACCOUNT}/tokens/verify", "", "", "verify"),
    ("GET", f"/user/tokens{_NAME}", "", "", "details"),
    ("GET", f"{_ACCOUNT}/tokens{_NAME}", "", "", "details"),
    ("GET", "/accounts", "", "", "accounts"),
    ("GET", _ACCOUNT, "account", "read", "account"),
    ("GET", f"{_ACCOUNT}/storage/kv/namespaces", "kv", "read", "kv_list"),
    ("POST", f"{_ACCOUNT}/storage/kv/namespaces", "kv", "edit", "kv_create"),
    ("GET", f"{_ACCOUNT}/storage/kv/namespaces{_NAME}", "kv", "read", "kv_get"),
    ("GET", f"{_ACCOUNT}/r2/buckets", "r2", "read", "r2_list"),
    ("POST", f"{_ACCOUNT}/r2/buckets", "r2", "edit", "r2_create"),
    ("GET", f"{_ACCOUNT}/r2/buckets{_NAME}", "r2", "read", "r2_get"),
    ("GET", f"{_ACCOUNT}/workers/scripts", "workers", "read", "workers_list"),
    ("PUT", f"{_ACCOUNT}/workers/scripts{_NAME}", "workers", "edit", "workers_upload"),
    ("GET", f"{_ACCOUNT}/workers/scripts{_NAME}/settings", "workers", "read", "workers_settings"),
    ("GET", f"{_ACCOUNT}/workers/scripts{_NAME}/subdomain", "workers", "read", "workers_route"),
    ("POST", f"{_ACCOUNT}/workers/scripts{_NAME}/subdomain", "workers", "edit", "workers_route"),
    ("GET", f"{_ACCOUNT}/workers/scripts{_NAME}/schedules", "workers", "read", "workers_schedules"),
    ("PUT", f"{_ACCOUNT}/workers/scripts{_NAME}/schedules", "workers", "edit", "workers_schedules"),
    ("GET", f"{_ACCOUNT}/workers/subdomain", "workers", "read", "workers_subdomain"),
    ("GET", f"{_ACCOUNT}/d1/database", "d1", "read", "d1_list"),
    ("POST", f"{_ACCOUNT}/d1/database", "d1", "edit", "d1_create"),
    ("GET", f"{_ACCOUNT}/queues", "queues", "read", "queues_list"),
    ("POST", f"{_ACCOUNT}/queues", "queues", "edit", "queues_create"),
]
_ROUTES = [(method, re.compile(path), product, level, who) for method, path, product, level, who in ROUTES]


class _Identity:
    """What is said of tokens and accounts."""

    accounts: list[Json]
    invalid_status: int

    def _verify(self, token: Token, asked: Asked, path: str) -> Any:
        """Say what the token is. Each kind is unknown where the other is verified."""
        if path.startswith("/user") != (token.kind == "user"):
            raise Refusal(self.invalid_status, 1000, "Invalid API Token")
        shown = {"id": token.id, "status": token.status}
        return shown | ({"expires_on": token.expires_on} if token.expires_on else {})

    def _details(self, token: Token, asked: Asked, path: str) -> Any:
        """Show the policies of a token to one that may read them."""
        if not token.reads_itself or path.startswith("/user") != (token.kind == "user"):
            raise Refusal(403, 9109, "Unauthorized to access requested resource")
        if asked.names[0] != token.id:
            raise Refusal(404, 1003, "Token not found")
        names = [
            f"{GROUPS[product]} {'Write' if level == 'edit' else 'Read'}"
            for product, level in token.grants.items()
        ]
        policy = {
            "id": "f267e341f3dd4697bd3b9f71dd96247f",
            "effect": "allow",
            "resources": {f"com.cloudflare.api.account.{ACCOUNT}": "*"},
            "permission_groups": [{"id": f"{n:032x}", "name": name} for n, name in enumerate(names)],
        }
        condition = {"request_ip": {"in": token.only_from}} if token.only_from else None
        shown = {"id": token.id, "name": "a token", "status": token.status, "policies": [policy]}
        return shown | ({"condition": condition} if condition else {})

    def _accounts(self, token: Token, asked: Asked, path: str) -> Any:
        """List the accounts the token sees. Whatever page is asked for, the first comes."""
        if not token.may("account", "read"):
            return [], page_of(asked, [], 20, 50)[1]
        shown, info = page_of(
            Asked({"per_page": asked.query.get("per_page", "")}, {}, b""), self.accounts, 20, 50
        )
        return shown, info

    def _account(self, token: Token, asked: Asked, path: str) -> Any:
        """Show the account."""
        return self.accounts[0]


class CloudflareFake(_Identity):
    """One account and its tokens. `tell` answers a request; everything it was asked is in `requests`."""

    def __init__(self, clock: FakeClock | None = None, tokens: Iterable[Token] = ()) -> None:
        self.clock = clock or FakeClock()
        self.tokens = {token.secret: token for token in tokens or [Token()]}
        self.products = Products(lambda: rfc3339(self.clock()))
        self.faults: list[Fault] = []
        self.requests: list[Received] = []
        self.answers: list[tuple[Received, Told]] = []
        self.not_enabled: set[str] = set()
        self.accounts = [{"id": ACCOUNT, "name": "Example", "type": "standard"}]
        self.bare = True
        """Whether failures lack `messages` and `result`, as some live ones do."""
        self.quota = 1200
        self.invalid_status = 401
        self._times: deque[float] = deque()

    @property
    def writes(self) -> list[tuple[str, str]]:
        """Method and path of everything that was asked to change something."""
        return [(one.method, _path(one)) for one in self.requests if one.method != "GET"]

    def calls(self, method: str, part: str) -> int:
        """How many requests of a method had `part` in their path."""
        return sum(1 for one in self.requests if one.method == method and part in _path(one))

    def tell(self, request: Received) -> Told:
        """Answer a request."""
        self.requests.append(request)
        assert request.method != "DELETE", "nothing may ever be deleted"
        fault = next((one for one in self.faults if one.strikes(request)), None)
        if fault is not None and not fault.done and fault.tamper is None:
            return fault.told or Told(hang=True)
        told = self._truth(request)
        if fault is not None and fault.tamper is not None:
            body = json.loads(told.body)
            fault.tamper(body)
            return Told(told.status, json.dumps(body).encode(), told.headers)
        if fault is not None:
            return fault.told or Told(hang=True)
        self.answers.append((request, told))
        return told

    def _truth(self, request: Received) -> Told:
        headers = {"content-type": "application/json", **self._rate()}
        if len(self._times) > self.quota:
            headers["retry-after"] = "300"
            return refusal(429, 971, "Please wait and consider throttling your request speed", **headers)
        try:
            result = self._answer(request)
        except Refusal as error:
            body: Json = {"success": False, "errors": [error.error]}
            if not self.bare:
                body |= {"messages": [], "result": None}
            return Told(error.status, json.dumps(body).encode(), headers)
        result, info = result if isinstance(result, tuple) else (result, None)
        messages: list[Any] = []
        if _path(request).endswith("/verify"):
            # A success that carries what elsewhere is the code of a refusal.
            messages = [{"code": 10000, "message": "This API Token is valid and active", "type": None}]
        body = {"success": True, "errors": [], "messages": messages, "result": result}
        if info is not None:
            body["result_info"] = info
        return Told(200, json.dumps(body).encode(), headers)

    def _rate(self) -> dict[str, str]:
        now = self.clock()
        while self._times and self._times[0] <= now - 300:
            self._times.popleft()
        self._times.append(now)
        left = max(0, self.quota - len(self._times))
        return {
            "ratelimit": f'"default";r={left};t=300',
            "ratelimit-policy": f'"default";q={self.quota};w=300',
        }

    def _answer(self, request: Received) -> Any:
        url = urlsplit(request.path)
        path = url.path.removeprefix(ROOT)
        asked = Asked(dict(parse_qsl(url.query)), request.headers, request.body)
        token = self._token(request, path)
        for method, pattern, product, level, who in _ROUTES:
            match = pattern.fullmatch(path)
            if match and method == request.method:
                names = [unquote(one) for one in match.groups()]
                account = match.groupdict().get("account")
                if account is not None:
                    del names[0]
                    self._check_account(account)
                asked.names = tuple(names)
                return self._allowed(token, product, level, who, asked, path)
        if any(pattern.fullmatch(path) for _, pattern, *_ in _ROUTES):
            raise Refusal(405, 7001, f"Method {request.method} not available for that URI.")
        raise Refusal(404, 7003, f"Could not route to {path}, perhaps your object identifier is invalid?")

    def _token(self, request: Received, path: str) -> Token:
        """Return the token that a request carries: the gateway knows it before any product does."""
        verifies = path.endswith("/verify")
        value = request.headers.get("authorization", "")
        if not value:
            raise Refusal(
                400, 1001 if verifies else 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization"
            )
        secret = value.removeprefix("Bearer ")
        if secret == value or not re.fullmatch(r"[A-Za-z0-9_-]{40,80}", secret):
            chain = [{"code": 6111, "message": "Invalid format for Authorization header"}]
            raise Refusal(400, 6003, "Invalid request headers", error_chain=chain)
        token = self.tokens.get(secret)
        if token is None:
            if verifies:
                raise Refusal(self.invalid_status, 1000, "Invalid API Token")
            raise Refusal(400, 9106, "Authentication failed")
        if token.only_from and HERE not in token.only_from:
            raise Refusal(403, 9109, f"Cannot use the access token from location: {HERE}")
        if token.status != "active" and not verifies:
            raise Refusal(400, 9106, "Authentication failed")
        return token

    def _check_account(self, account: str) -> None:
        if re.fullmatch(r"[0-9a-f]{32}", account) is None:
            text = f"Could not route to /accounts/{account}, perhaps your object identifier is invalid?"
            raise Refusal(404, 7003, text)
        if account not in {one["id"] for one in self.accounts}:
            raise Refusal(403, 10000, "Authentication error")

    def _allowed(self, token: Token, product: str, level: str, who: str, asked: Asked, path: str) -> Any:
        """Answer if the token may have it: that is decided before the product looks at the request."""
        if product and not token.may(product, level):
            raise Refusal(403, 10000, "Authentication error")
        if product == "r2" and product in self.not_enabled:
            raise Refusal(403, 10042, "Please enable R2 through the Cloudflare Dashboard.")
        if product == "workers" and product in self.not_enabled:
            raise Refusal(403, 10015, "workers.api.error.not_authorized")
        if product in GROUPS and product != "account":
            return getattr(self.products, who)(asked)
        return getattr(self, f"_{who}")(token, asked, path)


class FakeTransport(httpx.AsyncBaseTransport):
    """Reaches the fake without a socket. `latency` is in seconds; `sleep` is what waits for it."""

    def __init__(self, fake: CloudflareFake, latency: float = 0.0) -> None:
        self._fake = fake
        self._latency = latency

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a request, or raise what httpx raises where no answer comes."""
        body = await request.aread()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if self._latency:
            await asyncio.sleep(self._latency)
        told = self._fake.tell(Received(request.method, request.url.raw_path.decode(), headers, body))
        if told.hang:
            raise httpx.ReadTimeout("the deadline passed", request=request)
        if told.cut:
            raise httpx.ReadError("the connection was closed", request=request)
        return httpx.Response(told.status, headers=told.headers, content=told.body, request=request)


@asynccontextmanager
async def on_loopback(fake: CloudflareFake) -> AsyncIterator[Upstream]:
    """Serve the fake over HTTP; its API root is `url` + `/client/v4`."""
    async with upstream() as server:
        server.tell = fake.tell
        yield server


def _path(request: Received) -> str:
    return request.path.partition("?")[0]
