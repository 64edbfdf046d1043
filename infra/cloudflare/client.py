"""The API calls we use, one method each, in the products' own words. There is no call that deletes.

Every method raises `CloudflareError` (see `infra.cloudflare.failures`); a list is whole or
raises `Incomplete`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from infra.cloudflare.failures import Garbled, Missing, WrongAccount
from infra.cloudflare.pages import Row, by_cursor, by_page, whole
from infra.cloudflare.wire import Answer, Call, Wire

_MANY = 1000
_QUEUES = 100
_ACCOUNTS = 50

MODULE = "worker.mjs"
_MODULE_TYPE = "application/javascript+module"


class Account:
    """The account all calls are about: the one configured, or the only one the token can see."""

    def __init__(self, wire: Wire, configured: str) -> None:
        self._wire = wire
        self._id = ""
        self.configured = configured

    @property
    def known(self) -> str:
        """The account's id as far as it is known, else empty."""
        return self.configured or self._id

    async def id(self) -> str:
        """Return the account's id. Raises `WrongAccount` where it is not to be told."""
        if self.configured:
            return self.configured
        if not self._id:
            seen = await self.visible()
            if len(seen) != 1:
                names = ", ".join(str(one.get("name", "?")) for one in seen[:5]) or "none"
                raise WrongAccount(
                    f"the token sees {len(seen)} accounts ({names}), so CF_ACCOUNT_ID has to name one",
                    hint="Set CF_ACCOUNT_ID to the id of the account to use.",
                )
            self._id = str(seen[0]["id"])
        return self._id

    async def visible(self) -> list[Row]:
        """Return every account that the token can see."""

        async def fetch(page: int) -> Answer:
            params = {"page": page, "per_page": _ACCOUNTS}
            return await self._wire.send(Call("accounts", "list", "GET", "/accounts", params))

        return await by_page(fetch, "id")

    async def path(self, rest: str = "") -> str:
        """Return a path within the account."""
        return f"/accounts/{quote(await self.id(), safe='')}{rest}"

    async def details(self) -> Row:
        """Return the account's own record."""
        return _record(await self._wire.send(Call("accounts", "get", "GET", await self.path())))


class Tokens:
    """What the token is. A user's token is unknown at the account's endpoint, and the reverse."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        self._account = account

    async def verify_user(self) -> Row:
        """Return `{id, status, not_before?, expires_on?}` of a user's token."""
        return _record(await self._wire.send(Call("tokens", "verify", "GET", "/user/tokens/verify")))

    async def verify_account(self) -> Row:
        """Return the same for a token that belongs to the account."""
        path = await self._account.path("/tokens/verify")
        return _record(await self._wire.send(Call("tokens", "verify", "GET", path)))

    async def details(self, kind: str, token_id: str) -> Row:
        """Return the policies and conditions of the token. `kind` is `user` or `account`."""
        rest = f"/tokens/{quote(token_id, safe='')}"
        path = f"/user{rest}" if kind == "user" else await self._account.path(rest)
        return _record(await self._wire.send(Call("tokens", "details", "GET", path)))


class Kv:
    """Workers KV namespaces."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        self._account = account

    async def rows(self) -> list[Row]:
        """Return `{id, title}` of every namespace."""
        path = await self._account.path("/storage/kv/namespaces")

        async def fetch(page: int) -> Answer:
            return await self._wire.send(Call("kv", "list", "GET", path, {"page": page, "per_page": _MANY}))

        return await by_page(fetch, "id")

    async def get(self, namespace: str) -> Row | None:
        """Return a namespace by its id, None where there is none."""
        path = await self._account.path(f"/storage/kv/namespaces/{quote(namespace, safe='')}")
        return await _record_or_none(self._wire, Call("kv", "get", "GET", path))

    async def create(self, title: str) -> Row:
        """Create a namespace."""
        path = await self._account.path("/storage/kv/namespaces")
        body = {"title": title}
        return _record(await self._wire.send(Call("kv", "create", "POST", path, json=body, repeatable=False)))


class R2:
    """R2 buckets. Each jurisdiction is a world of its own: a bucket of one is unknown in the others."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        self._account = account

    async def rows(self, jurisdiction: str = "default") -> list[Row]:
        """Return `{name, location, jurisdiction, …}` of every bucket in a jurisdiction."""
        path = await self._account.path("/r2/buckets")

        async def fetch(cursor: str) -> Answer:
            params: dict[str, str | int] = {"per_page": _MANY}
            if cursor:
                params["cursor"] = cursor
            return await self._wire.send(Call("r2", "list", "GET", path, params, _in(jurisdiction)))

        return await by_cursor(fetch, "buckets", "name")

    async def get(self, name: str, jurisdiction: str = "default") -> Row | None:
        """Return a bucket, None where that jurisdiction has none of the name."""
        path = await self._account.path(f"/r2/buckets/{quote(name, safe='')}")
        call = Call("r2", "get", "GET", path, headers=_in(jurisdiction))
        return await _record_or_none(self._wire, call)

    async def create(self, name: str, jurisdiction: str = "default", *, location: str = "") -> Row:
        """Create a bucket. `location` is a hint, and cannot be changed later."""
        path = await self._account.path("/r2/buckets")
        body = {"name": name, **({"locationHint": location} if location else {})}
        call = Call("r2", "create", "POST", path, headers=_in(jurisdiction), json=body, repeatable=False)
        return _record(await self._wire.send(call))


class Workers:
    """Worker scripts, and how they are reached."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        self._account = account
        self.etags: dict[str, str] = {}
        """As lists and uploads showed them last: a look at one script does not."""

    async def rows(self) -> list[Row]:
        """Return `{id, tags, etag, …}` of every script; its `id` is its name. There are no pages."""
        path = await self._account.path("/workers/scripts")
        rows = whole(await self._wire.send(Call("workers", "list", "GET", path)), "id")
        self.etags = {row["id"]: _etag(row) for row in rows}
        return rows

    async def upload(self, name: str, source: str, metadata: Mapping[str, Any]) -> Row:
        """Put a module Worker in place of what stands there. Repeating it changes nothing."""
        files = [
            ("metadata", (None, json.dumps({"main_module": MODULE, **metadata}), "application/json")),
            (MODULE, (MODULE, source.encode(), _MODULE_TYPE)),
        ]
        call = Call("workers", "upload", "PUT", await self._path(name), files=files)
        row = _record(await self._wire.send(call))
        self.etags[name] = _etag(row)
        return row

    async def settings(self, name: str) -> Row | None:
        """Return `{bindings, compatibility_date, annotations, …}` of a script, None where there is none."""
        return await _record_or_none(
            self._wire, Call("workers", "settings", "GET", await self._path(name, "/settings"))
        )

    async def subdomain(self) -> str:
        """Return the account's name under workers.dev. Raises `NotEnabled` where none was chosen."""
        path = await self._account.path("/workers/subdomain")
        record = _record(await self._wire.send(Call("workers", "subdomain", "GET", path)))
        return str(record.get("subdomain") or record.get("name") or "")

    async def routed(self, name: str) -> bool:
        """Whether a script answers under workers.dev."""
        call = Call("workers", "route", "GET", await self._path(name, "/subdomain"))
        return _record(await self._wire.send(call)).get("enabled") is True

    async def route(self, name: str, *, enabled: bool, patient: bool = True) -> None:
        """Let a script answer under workers.dev, or not.

        Right after an upload the script is not known everywhere: a `patient` call asks again.
        """
        call = Call(
            "workers",
            "route",
            "POST",
            await self._path(name, "/subdomain"),
            json={"enabled": enabled},
            awaits=Missing if patient else None,
        )
        await self._wire.send(call)

    async def schedules(self, name: str) -> list[str]:
        """Return the cron expressions that start a script."""
        call = Call("workers", "schedules", "GET", await self._path(name, "/schedules"))
        return _crons(_record(await self._wire.send(call)))

    async def schedule(self, name: str, crons: Sequence[str]) -> list[str]:
        """Set all cron expressions of a script."""
        call = Call(
            "workers",
            "schedules",
            "PUT",
            await self._path(name, "/schedules"),
            json=[{"cron": cron} for cron in crons],
            awaits=Missing,
        )
        return _crons(_record(await self._wire.send(call)))

    async def _path(self, name: str, rest: str = "") -> str:
        return await self._account.path(f"/workers/scripts/{quote(name, safe='')}{rest}")


class D1:
    """D1 databases."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        self._account = account

    async def rows(self) -> list[Row]:
        """Return `{uuid, name, jurisdiction}` of every database."""
        path = await self._account.path("/d1/database")

        async def fetch(page: int) -> Answer:
            return await self._wire.send(Call("d1", "list", "GET", path, {"page": page, "per_page": _MANY}))

        return await by_page(fetch, "uuid")

    async def create(self, name: str) -> Row:
        """Create a database."""
        body = {"name": name}
        path = await self._account.path("/d1/database")
        return _record(await self._wire.send(Call("d1", "create", "POST", path, json=body, repeatable=False)))


class Queues:
    """Queues."""

    def __init__(self, wire: Wire, account: Account) -> None:
        self._wire = wire
        self._account = account

    async def rows(self) -> list[Row]:
        """Return `{queue_id, queue_name}` of every queue."""
        path = await self._account.path("/queues")

        async def fetch(page: int) -> Answer:
            return await self._wire.send(
                Call("queues", "list", "GET", path, {"page": page, "per_page": _QUEUES})
            )

        return await by_page(fetch, "queue_id")

    async def create(self, name: str) -> Row:
        """Create a queue."""
        path = await self._account.path("/queues")
        body = {"queue_name": name}
        return _record(
            await self._wire.send(Call("queues", "create", "POST", path, json=body, repeatable=False))
        )


class Client:
    """Everything above with one token. `account_id` empty means the only account the token can see."""

    def __init__(self, wire: Wire, account_id: str = "") -> None:
        self.budget = wire.budget
        self.account = Account(wire, account_id)
        self.tokens = Tokens(wire, self.account)
        self.kv = Kv(wire, self.account)
        self.r2 = R2(wire, self.account)
        self.workers = Workers(wire, self.account)
        self.d1 = D1(wire, self.account)
        self.queues = Queues(wire, self.account)


def _in(jurisdiction: str) -> dict[str, str]:
    return {"cf-r2-jurisdiction": jurisdiction}


def _record(answer: Answer) -> Row:
    if not isinstance(answer.result, dict):
        raise Garbled("the answer holds no record")
    return answer.result


async def _record_or_none(wire: Wire, call: Call) -> Row | None:
    try:
        return _record(await wire.send(call))
    except Missing:
        return None


def _etag(row: Row) -> str:
    return str(row.get("etag") or "")


def _crons(record: Row) -> list[str]:
    listed = record.get("schedules")
    if not isinstance(listed, list):
        raise Garbled("the answer holds no schedules")
    return [str(one["cron"]) for one in listed if isinstance(one, dict) and "cron" in one]
