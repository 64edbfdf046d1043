"""The values everything speaks of: autopilots, capabilities, needs and plan requests, and their names."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

DEFAULT_DATE = "2026-04-01"
"""Which behaviour of the Workers runtime a Worker gets that names no compatibility date."""

MAX_CAPABILITIES = 32
"""How many an autopilot may have: each is a row, and all rows have to fit one transaction of the store."""

HIGH_RISK = (
    "payouts.*",
    "payment.*",
    "lms.enrollment.create",
    "files.intake.upload",
    "command.run",
    "file.change",
)
"""Capabilities that move money, enrol people, take in what strangers send or change the machine: each forward
is audited."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_WORD = r"[a-z0-9]+(?:[_-][a-z0-9]+)*"
_CAPABILITY = re.compile(rf"{_WORD}(?:\.{_WORD}){{1,5}}")
_FAMILY = re.compile(rf"{_WORD}\.\*")
_TASK = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")


def is_name(name: str) -> bool:
    """Whether `name` is an autopilot's name."""
    return _NAME.fullmatch(name) is not None


def is_capability(name: str) -> bool:
    """Whether `name` is a capability's name (a family is none)."""
    return len(name) <= 128 and _CAPABILITY.fullmatch(name) is not None


def is_family(name: str) -> bool:
    """Whether `name` is a family, such as `web.*`."""
    return len(name) <= 128 and _FAMILY.fullmatch(name) is not None


def is_task(name: str) -> bool:
    """Whether a registration may bring a task of that name."""
    return len(name) <= 64 and _TASK.fullmatch(name) is not None


class Capability(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something an autopilot can do, named by 2 to 6 dotted words: `web.pages.generate`.

    `family.*` offers to be configured for any capability of the family; so does `configure` for the
    family of a single capability. `input_schema` is the JSON Schema its `meta` has to satisfy. With
    `requires_approval` its tasks wait until somebody else approves them, whoever else offers it; that of a
    family goes for whatever is configured of it.
    """

    name: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    configure: bool = False
    requires_approval: bool = False

    @property
    def family(self) -> str:
        """The first dotted word."""
        return self.name.partition(".")[0]

    @property
    def extends_family(self) -> bool:
        """Whether the autopilot may be asked to add another capability of this family."""
        return self.configure or self.name.endswith(".*")


class Bucket(msgspec.Struct, frozen=True, omit_defaults=True):
    """An R2 bucket whose place matters. Without a `jurisdiction` it is in Cloudflare's default one.

    Names live in their jurisdiction: a bucket in `eu` is not the one of that name elsewhere. The
    `location_hint` counts when it is created and never again.
    """

    name: str
    jurisdiction: str = ""
    location_hint: str = ""


class Binding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a Worker finds under one name of its environment. Exactly one field is set, to a name."""

    kv: str = ""
    r2: str = ""
    d1: str = ""
    queue: str = ""

    @property
    def target(self) -> tuple[str, str]:
        """The kind and name of what is bound, as needs and reports call them."""
        kinds = (("kv", self.kv), ("r2", self.r2), ("d1", self.d1), ("queues", self.queue))
        return next((kind, name) for kind, name in kinds if name)


class Worker(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Cloudflare Worker that has to exist, with its module source and how it is to run.

    `workers_dev` asks for a route on workers.dev, `crons` for triggers (five fields, in UTC).
    """

    name: str
    content: str
    compatibility_date: str = DEFAULT_DATE
    bindings: dict[str, Binding] = {}
    workers_dev: bool = False
    crons: tuple[str, ...] = ()


class Needs(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What has to exist before an autopilot can work, by the names that storage gives it."""

    kv_namespaces: tuple[str, ...] = msgspec.field(name="kvNamespaces", default=())
    r2_buckets: tuple[str | Bucket, ...] = msgspec.field(name="r2Buckets", default=())
    workers: tuple[Worker, ...] = ()
    d1_databases: tuple[str, ...] = msgspec.field(name="d1Databases", default=())
    queues: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


class Autopilot(msgspec.Struct, frozen=True):
    """A registration: who, where, what it can do and what it needs.

    A lower `priority` comes first, as in DNS SRV records; `weight` shares load among equals. With
    `lease_seconds` it takes part only while it sends heartbeats.
    """

    name: str
    endpoint: str
    capabilities: tuple[Capability, ...]
    needs: Needs = Needs()
    tasks: dict[str, str] = {}
    priority: int = 100
    weight: int = 1
    lease_seconds: int | None = None
    description: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as JSON. A capability that has only a name is shown as that name."""
        shown: dict[str, Any] = msgspec.to_builtins(self)
        shown["capabilities"] = [
            one["name"] if set(one) == {"name"} else one for one in shown["capabilities"]
        ]
        return shown


class PlanRequest(msgspec.Struct, frozen=True):
    """What a caller asks for. `meta` is the JSON text of an object, as it came.

    `value` is that object decoded. `timeout_ms` bounds the whole call, of an asynchronous task each attempt;
    None leaves it to the settings. `callback_url` is told of an asynchronous task's end.
    """

    task: str | None
    capability: str | None
    meta: bytes
    value: dict[str, Any]
    mode: Literal["sync", "explain", "async"] = "sync"
    timeout_ms: int | None = None
    autopilot: str | None = None
    callback_url: str | None = None
