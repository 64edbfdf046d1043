"""The storage products of the fake Cloudflare: what each keeps, refuses, and shows of it."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from typing import Any

Json = dict[str, Any]

JURISDICTIONS = ("default", "eu", "us", "fedramp", "fedramp-high")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_SCRIPT = re.compile(r"[a-z0-9_][a-z0-9_-]*")
_DATABASE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_QUEUE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MODULES = {"application/javascript+module", "text/javascript+module", "text/x-python"}


class Refusal(Exception):
    """An answer that is a failure."""

    def __init__(self, status: int, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message, **more}


@dataclass
class Asked:
    """A request that passed the gateway."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    names: tuple[str, ...] = ()

    def json(self) -> Any:
        """Return the body's JSON. Raises `Refusal` where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refusal(400, 10026, "could not parse the request body") from None

    def number(self, name: str, default: int, most: int) -> int:
        """Return a number of the query, never more than the server gives."""
        text = self.query.get(name, "")
        return min(int(text), most) if text.isdigit() and int(text) > 0 else default


@dataclass
class Thing:
    """One thing that exists. `unseen` is how often it is yet to be overlooked."""

    row: Json
    unseen: int = 0

    def seen(self) -> bool:
        """Whether a look finds it: what was just created is not known everywhere."""
        if self.unseen:
            self.unseen -= 1
            return False
        return True


@dataclass
class Script:
    """A Worker as it stands."""

    metadata: Json
    source: bytes
    etag: str
    secrets: list[Json] = field(default_factory=list)
    enabled: bool = False
    crons: list[Json] = field(default_factory=list)
    unroutable: int = 0
    uploads: int = 1


def page_of(asked: Asked, rows: list[Json], default: int, most: int) -> tuple[list[Json], Json]:
    """Return one page of rows, and what the envelope says about it."""
    size = asked.number("per_page", default, most)
    page = asked.number("page", 1, 1 << 30)
    shown = rows[(page - 1) * size : page * size]
    total = len(rows)
    return shown, {
        "page": page,
        "per_page": size,
        "count": len(shown),
        "total_count": total,
        "total_pages": -(-total // size),
    }


class _Kept:
    """What is kept in one account. `date` gives the time as Cloudflare writes it."""

    def __init__(self, date: Callable[[], str]) -> None:
        self._date = date
        self.lag = 0
        """How often something new is overlooked before it shows."""
        self.route_lag = 0
        """How often a fresh script is unknown to the routes."""
        self.kv: dict[str, Thing] = {}
        self.r2: dict[tuple[str, str], Thing] = {}
        self.scripts: dict[str, Script] = {}
        self.d1: dict[str, Thing] = {}
        self.queues: dict[str, Thing] = {}
        self.entitled = set(JURISDICTIONS)
        self.most = {"kv": 1000, "r2": 1000, "d1": 10_000, "queues": 100}
        """The most rows a page has, whatever is asked for."""
        self.limits = {"r2": 1_000_000, "d1": 50_000}
        self.subdomain: str | None = "example"
        self.shows_tags = True
        self.off_limits: set[str] = set()
        """Things that the token may not bind a Worker to."""


class _Kv(_Kept):
    """Namespaces."""

    def kv_list(self, asked: Asked) -> tuple[Any, Json]:
        """List namespaces, 20 at a time unless told otherwise."""
        rows = [one.row for one in sorted(self.kv.values(), key=lambda one: one.row["id"]) if one.seen()]
        return page_of(asked, rows, 20, self.most["kv"])

    def kv_get(self, asked: Asked) -> Any:
        """Show a namespace."""
        one = self.kv.get(asked.names[0])
        if one is None or not one.seen():
            raise Refusal(404, 10013, "get namespace: 'namespace not found'")
        return one.row

    def kv_create(self, asked: Asked) -> Any:
        """Create a namespace: titles are unique within the account."""
        title = asked.json().get("title")
        if not isinstance(title, str) or not title:
            raise Refusal(400, 10019, "title is required")
        if len(title) > 512:
            raise Refusal(400, 10018, "title is too long")
        if any(one.row["title"] == title for one in self.kv.values()):
            raise Refusal(400, 10014, "a namespace with this account ID and title already exists")
        identity = hashlib.md5(title.encode()).hexdigest()
        row = {"id": identity, "title": title, "supports_url_encoding": True}
        self.kv[identity] = Thing(row, self.lag)
        return row


class _R2(_Kept):
    """Buckets, each in its jurisdiction."""

    def r2_place(self, asked: Asked) -> str:
        """Return the jurisdiction that is asked for."""
        place = asked.headers.get("cf-r2-jurisdiction", "default")
        if place not in self.entitled:
            raise Refusal(403, 10003, f"access to the jurisdiction {place} is denied")
        return place

    def r2_list(self, asked: Asked) -> tuple[Any, Json]:
        """List the buckets of a jurisdiction by cursor, 20 at a time unless told otherwise."""
        place = self.r2_place(asked)
        size = asked.number("per_page", 20, self.most["r2"])
        names = sorted(name for where, name in self.r2 if where == place)
        names = [name for name in names if name > asked.query.get("cursor", "")]
        names = [name for name in names if self.r2[place, name].seen()]
        info: Json = {"per_page": size}
        if len(names) > size:
            info["cursor"] = names[size - 1]
        return {"buckets": [self.r2[place, name].row for name in names[:size]]}, info

    def r2_get(self, asked: Asked) -> Any:
        """Show a bucket: one of another jurisdiction is not there."""
        one = self.r2.get((self.r2_place(asked), asked.names[0]))
        if one is None or not one.seen():
            raise Refusal(404, 10006, "The specified bucket does not exist.")
        return one.row

    def r2_create(self, asked: Asked) -> Any:
        """Create a bucket."""
        place, body = self.r2_place(asked), asked.json()
        name = body.get("name")
        if not isinstance(name, str) or _BUCKET.fullmatch(name) is None:
            raise Refusal(400, 10005, "The specified bucket name is not valid.")
        if (place, name) in self.r2:
            raise Refusal(409, 10004, "The bucket you tried to create already exists, and you own it.")
        if len(self.r2) >= self.limits["r2"]:
            raise Refusal(400, 10009, "You have attempted to create more buckets than you are allowed.")
        row = {
            "name": name,
            "creation_date": self._date(),
            "location": body.get("locationHint", "weur").upper(),
            "jurisdiction": place,
            "storage_class": body.get("storageClass", "Standard"),
        }
        self.r2[place, name] = Thing(row, self.lag)
        return row


class _Workers(_Kept):
    """Scripts."""

    def workers_list(self, asked: Asked) -> tuple[Any, None]:
        """List scripts, all at once and without a word about pages."""
        return [self._summary(name) for name in sorted(self.scripts)], None

    def workers_upload(self, asked: Asked) -> Any:
        """Take a script, or refuse what the validation finds."""
        name = asked.names[0]
        if _SCRIPT.fullmatch(name) is None:
            raise Refusal(400, 10004, "malformed URL parameter: script_name")
        metadata, source = _upload(asked)
        for binding in metadata.get("bindings", []):
            self._check_binding(binding)
        before = self.scripts.get(name)
        if before is None and self.subdomain is None:
            raise Refusal(400, 10063, "you need a workers.dev subdomain in order to proceed")
        kept = set(metadata.get("keep_bindings", []))
        etag = hashlib.sha256(source + json.dumps(metadata, sort_keys=True).encode()).hexdigest()
        script = Script({"compatibility_date": "2021-11-02", **metadata}, source, etag)
        if before is None:
            script.unroutable = self.route_lag
        else:
            # What is not kept is dropped without a word.
            script.secrets = [one for one in before.secrets if one["type"] in kept]
            script.enabled, script.crons = before.enabled, before.crons
            script.uploads = before.uploads + 1
        self.scripts[name] = script
        return {**self._summary(name), "startup_time_ms": 4}

    def workers_settings(self, asked: Asked) -> Any:
        """Show how a script is bound."""
        script = self._script(asked.names[0])
        shown = {
            "bindings": [*script.metadata.get("bindings", []), *script.secrets],
            "compatibility_date": script.metadata["compatibility_date"],
            "usage_model": "standard",
            "tags": script.metadata.get("tags"),
        }
        if "annotations" in script.metadata:
            shown["annotations"] = script.metadata["annotations"]
        return shown

    def workers_subdomain(self, asked: Asked) -> Any:
        """Show the account's name under workers.dev."""
        if self.subdomain is None:
            raise Refusal(404, 10007, "workers.api.error.subdomain_not_found")
        return {"subdomain": self.subdomain}

    def workers_route(self, asked: Asked) -> Any:
        """Show or set whether a script answers under workers.dev."""
        script = self._script(asked.names[0])
        if asked.body:
            if script.unroutable:
                script.unroutable -= 1
                raise Refusal(404, 10007, "This Worker does not exist on your account.")
            script.enabled = asked.json()["enabled"]
        return {"enabled": script.enabled, "previews_enabled": script.enabled}

    def workers_schedules(self, asked: Asked) -> Any:
        """Show or set what starts a script."""
        script = self._script(asked.names[0])
        if asked.body:
            now = self._date()
            script.crons = [
                {"cron": one["cron"], "created_on": now, "modified_on": now} for one in asked.json()
            ]
        return {"schedules": script.crons}

    def _script(self, name: str) -> Script:
        if name not in self.scripts:
            raise Refusal(404, 10007, "This Worker does not exist on your account.")
        return self.scripts[name]

    def _summary(self, name: str) -> Json:
        script = self.scripts[name]
        now = self._date()
        tags = script.metadata.get("tags") if self.shows_tags else None
        return {
            "id": name,
            "etag": script.etag,
            "handlers": ["fetch"],
            "created_on": now,
            "modified_on": now,
            "usage_model": "standard",
            "has_modules": True,
            "tags": tags,
        }

    def _check_binding(self, binding: Json) -> None:
        """Refuse a binding to what is not there, or not the token's to bind."""
        kind = binding.get("type")
        place = binding.get("jurisdiction", "default")
        there = {
            "kv_namespace": lambda: binding["namespace_id"] in self.kv,
            "r2_bucket": lambda: (place, binding["bucket_name"]) in self.r2,
            "d1": lambda: binding["id"] in {one.row["uuid"] for one in self.d1.values()},
            "queue": lambda: binding["queue_name"] in self.queues,
        }
        if kind in self.off_limits:
            raise Refusal(403, 10023, "workers.api.error.unauthorized")
        if kind not in there or not there[kind]():
            raise Refusal(400, 10021, f"binding {binding.get('name')} of type {kind} refers to nothing")


class _D1(_Kept):
    """Databases."""

    def d1_list(self, asked: Asked) -> tuple[Any, Json]:
        """List databases."""
        rows = [one.row for _, one in sorted(self.d1.items()) if one.seen()]
        wanted = asked.query.get("name")
        rows = [row for row in rows if wanted in {None, row["name"]}]
        return page_of(asked, rows, 1000, self.most["d1"])

    def d1_create(self, asked: Asked) -> Any:
        """Create a database."""
        name = asked.json().get("name")
        if not isinstance(name, str) or _DATABASE.fullmatch(name) is None:
            raise Refusal(400, 7400, "name: invalid property")
        if name in self.d1:
            raise Refusal(400, 7502, "A database with that name already exists")
        if len(self.d1) >= self.limits["d1"]:
            raise Refusal(400, 7406, "the limit of databases of this account is reached")
        identity = str(uuid.UUID(bytes=hashlib.md5(name.encode()).digest()))
        row = {"uuid": identity, "name": name, "version": "production", "created_at": self._date()}
        self.d1[name] = Thing(row, self.lag)
        return row


class _Queues(_Kept):
    """Queues."""

    def queues_list(self, asked: Asked) -> tuple[Any, Json]:
        """List queues."""
        rows = [one.row for _, one in sorted(self.queues.items()) if one.seen()]
        return page_of(asked, rows, 20, self.most["queues"])

    def queues_create(self, asked: Asked) -> Any:
        """Create a queue."""
        name = asked.json().get("queue_name")
        if not isinstance(name, str) or _QUEUE.fullmatch(name) is None:
            raise Refusal(400, 11003, "queue name is invalid")
        if name in self.queues:
            raise Refusal(409, 11009, "Queue name already taken")
        identity = hashlib.md5(name.encode()).hexdigest()
        row: Json = {"queue_id": identity, "queue_name": name, "created_on": self._date()}
        row |= {"modified_on": row["created_on"], "producers": [], "consumers": []}
        self.queues[name] = Thing(row, self.lag)
        return row


class Products(_Kv, _R2, _Workers, _D1, _Queues):
    """The storage of one account."""


def _upload(asked: Asked) -> tuple[Json, bytes]:
    """Return metadata and source of an upload, as strictly as the API reads it."""
    kind = asked.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise Refusal(415, 10001, "workers.api.error.unsupported_content_type")
    message = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + asked.body)
    parts = {
        str(one.get_param("name", header="content-disposition")): one
        for one in message.walk()
        if not one.is_multipart()
    }
    if "metadata" not in parts or parts["metadata"].get_content_type() != "application/json":
        raise Refusal(400, 10021, "could not read content for part metadata")
    metadata = json.loads(_payload(parts["metadata"]))
    main = metadata.get("main_module")
    module = next((one for one in parts.values() if main and one.get_filename() == main), None)
    if module is None:
        raise Refusal(400, 10021, "Uncaught Error: No such module as main_module names")
    if module.get_content_type() not in _MODULES:
        raise Refusal(400, 10021, f"{main} is no module: {module.get_content_type()}")
    source = _payload(module)
    if b"export default" not in source:
        raise Refusal(400, 10021, "Uncaught SyntaxError: the module has no default export")
    if len(source) > 10_000_000:
        raise Refusal(413, 10027, "Your Worker exceeded the size limit")
    if _DATE.fullmatch(metadata.get("compatibility_date", "2021-11-02")) is None:
        raise Refusal(400, 10021, "compatibility_date is no date")
    return metadata, source


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload
