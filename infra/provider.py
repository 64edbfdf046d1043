"""The provider port: who keeps the storage that autopilots need, and how missing storage is made.

A provider lists, looks, creates and updates. There is no verb that removes anything, here or in an adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from router.errors import AutopilotError
from router.model import Bucket, Needs, Worker

KINDS = ("kv", "r2", "workers", "d1", "queues")
"""The kinds of storage, as reports name them."""

Key = tuple[str, str]
"""A kind and a name. Whatever is wanted is known by these two."""


class Resource(NamedTuple):
    """Something that exists. `id` is the provider's.

    Of a Worker `digest` is what `digest_of` gave when it was uploaded, `ours` whether it carries our mark,
    and `version` changes whenever anybody uploads it (an etag). A list that does not tell leaves `ours` None
    and `digest` empty: then `find` tells. Of everything else all three stay as they are.
    """

    kind: str
    name: str
    id: str
    digest: str = ""
    jurisdiction: str = ""
    """Of a bucket, in lower case; empty for the default one."""
    ours: bool | None = None
    version: str = ""

    @property
    def key(self) -> Key:
        """Its kind and name."""
        return self.kind, self.name


Bound = Mapping[Key, Resource]
"""What exists, for Workers to be bound to: its id, and of a bucket its jurisdiction."""


class Want(NamedTuple):
    """Something that has to exist. `spec` says more of a bucket (if there is more to say) and of a Worker."""

    kind: str
    name: str
    spec: Bucket | Worker | None = None

    @property
    def key(self) -> Key:
        """Its kind and name."""
        return self.kind, self.name

    @property
    def jurisdiction(self) -> str:
        """Where a bucket has to be; empty for the default one, and for everything else."""
        return self.spec.jurisdiction if isinstance(self.spec, Bucket) else ""

    @property
    def targets(self) -> list[Key]:
        """What a Worker is bound to, each once; of everything else nothing."""
        bindings = self.spec.bindings if isinstance(self.spec, Worker) else {}
        return list(dict.fromkeys(binding.target for binding in bindings.values()))


class Unread(NamedTuple):
    """Why something could not be read. `code` is the provider's own where it gave one: `10000`."""

    code: str
    message: str
    hint: str


class ProviderFailed(AutopilotError):
    """Raise when a provider does not do what it was asked; adapters raise kinds of it.

    `word` is the code that reports show: the provider's own where it gave one. `reach` says what else cannot
    succeed now: nothing, the other things of that `kind` (a permission is missing), or `all` (the token is
    revoked, too many calls). `done`, as of every error: it exists now, or it may: look before you repeat.
    """

    code = "provider_failed"
    title = "The provider of storage did not do it"

    def __init__(
        self,
        detail: str = "",
        *,
        word: str = "",
        hint: str = "",
        reach: Literal["one", "kind", "all"] = "one",
        done: bool = False,
    ) -> None:
        super().__init__(detail)
        self.word = word or self.code
        self.hint = hint or self.title
        self.reach: Literal["one", "kind", "all"] = reach
        self.done = done


def unread(error: AutopilotError) -> Unread:
    """Return an error as a report shows it."""
    if isinstance(error, ProviderFailed):
        return Unread(error.word, error.detail, error.hint)
    return Unread(error.code, error.detail, error.title)


@dataclass(frozen=True)
class Inventory:
    """Everything that exists. A kind is listed to its very end, or it is in `unread` and not listed."""

    resources: Sequence[Resource]
    unread: Mapping[str, Unread] = field(default_factory=dict)


class Permission(NamedTuple):
    """What a token may do. `probe` says how that is known; `hint` and `link` lead to a token that may."""

    permission: str
    """As the dashboard calls it: `Workers KV Storage`."""
    needs: str
    """`Edit` or `Read`."""
    has: Literal["Edit", "Read", "None", "Unknown"]
    probe: str
    evidence: Literal["policy", "read", "write", "none"]
    """Where it is read from: the token's own policy, a list that was (not) answered, a write that could not
    succeed but was (not) allowed. A list that was answered proves that reading is allowed, and no more."""
    hint: str = ""
    link: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What a provider says of itself. `missing` names permission groups exactly as the API does."""

    token: Mapping[str, Any] | Unread
    """`id`, `status` and `kind`, and what else there is to say, such as `expires_at` or `warning`."""
    permissions: Sequence[Permission] | Unread = ()
    missing: Sequence[str] = ()
    link: str = ""
    """Where a token with everything that is missing can be created; empty for nowhere."""
    note: str = ""


class Provider(Protocol):
    """What an adapter has to do. `tests/contract/test_providers.py` holds all of them to it.

    `find`, `create` and `update` raise an `AutopilotError`; those with `done` set may have had an effect.
    `inventory` and `diagnose` raise nothing: what they cannot read they say.
    """

    name: str
    """`cloudflare` or `local`, as `diagnose` shows it."""

    @property
    def place(self) -> str:
        """Which storage this is: the same text for the same account, another one for any other."""
        ...

    async def inventory(self) -> Inventory:
        """Return everything that exists, kind by kind. What cannot be read to its end is told, not raised."""
        ...

    async def find(self, want: Want, id: str = "") -> Resource | None:  # noqa: A002  as in Resource
        """Look again at one thing, with everything there is to know of it; None: it is surely not there.

        `id` is the one it had when it was seen last, empty if it never was.
        """
        ...

    async def create(self, want: Want, bound: Bound) -> Resource:
        """Make one thing; `bound` has everything it is bound to.

        What exists already is not touched: raises with `done` set, also when whether it was made is unknown.
        """
        ...

    async def update(self, want: Want, bound: Bound) -> Resource:
        """Upload a Worker of ours again, as it is wanted now."""
        ...

    async def diagnose(self, found: Inventory, *, probe_writes: bool) -> Diagnosis:
        """Say what the token is and may do. `found` is what was just listed: which lists were answered.

        With `probe_writes`, also by creations that cannot succeed.
        """
        ...


def wants(needs: Needs) -> Iterator[Want]:
    """Give the single things that `needs` lists."""
    for name in needs.kv_namespaces:
        yield Want("kv", name)
    for bucket in needs.r2_buckets:
        yield Want("r2", bucket) if isinstance(bucket, str) else Want("r2", bucket.name, bucket)
    for worker in needs.workers:
        yield Want("workers", worker.name, worker)
    for name in needs.d1_databases:
        yield Want("d1", name)
    for name in needs.queues:
        yield Want("queues", name)


def digest_of(want: Want, bound: Bound) -> str:
    """Return the hash of all that is uploaded of a Worker; empty for every other kind.

    `bound` has everything it is bound to: what stands under another id is another thing.
    """
    if not isinstance(want.spec, Worker):
        return ""
    bindings = {
        name: [*one.target, bound[one.target].id, bound[one.target].jurisdiction]
        for name, one in sorted(want.spec.bindings.items())
    }
    settings = [want.spec.compatibility_date, want.spec.workers_dev, sorted(want.spec.crons)]
    return hashlib.sha256(msgspec.json.encode([want.spec.content, settings, bindings])).hexdigest()
