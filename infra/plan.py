"""The plan: what has to be done so that all that is wanted exists. Pure: it reads nothing, does nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from infra.provider import Key, Resource, Unread, Want, digest_of
from router.model import Bucket

TITLES = {
    "kv": "KV namespaces",
    "r2": "R2 buckets",
    "workers": "Workers",
    "d1": "D1 databases",
    "queues": "queues",
}
_SHORT = 4
"""Names below this length are all like each other; that says nothing."""


class Entry(NamedTuple):
    """What is recorded of one thing. `id` is empty as long as it was never seen.

    `making`: somebody has begun to make it, and until `until` (epoch seconds) it is theirs to finish.
    """

    state: Literal["making", "made", "adopted"]
    id: str = ""
    digest: str = ""
    version: str = ""
    until: float = 0.0
    revision: int = 0


class Demand(NamedTuple):
    """A want with the names of those who need it. A `conflict` says how they contradict each other."""

    want: Want
    needed_by: tuple[str, ...] = ()
    conflict: str = ""


class Allowance(NamedTuple):
    """What an unattended pass may do."""

    max_creations: int = 20
    """How many things one pass may create; the rest waits for the next one."""
    recreate: bool = False
    """Whether storage that vanished, with all that was in it, may be replaced by an empty one."""
    meant: frozenset[str] = frozenset()
    """Names that are meant as they are written, though something else is called nearly so."""


@dataclass(frozen=True)
class View:
    """What exists, and what is recorded of it. Where `unread` names a kind, nothing is known of that kind.

    `unsure` has single things that were looked at again without an answer, `doubts` kinds whose list may
    lack something: what it has is there, but what it lacks may be there as well.
    """

    resources: Sequence[Resource]
    entries: Mapping[Key, Entry]
    unread: Mapping[str, Unread] = field(default_factory=dict)
    unsure: Mapping[Key, Unread] = field(default_factory=dict)
    doubts: Mapping[str, Unread] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """One line of a plan. What is blocked has a `code`, and maybe a `hint`; an `alert` asks for a person."""

    action: Literal["create", "keep", "adopt", "update", "blocked"]
    want: Want
    why: str
    needed_by: tuple[str, ...] = ()
    resource: Resource | None = None
    code: str = ""
    hint: str = ""
    alert: bool = False

    @property
    def unread(self) -> Unread:
        """Why it is blocked, as a report shows it."""
        return Unread(self.code, self.why, self.hint)

    def document(self) -> dict[str, Any]:
        """Return it as reports show it."""
        return {
            "action": self.action,
            "kind": self.want.kind,
            "name": self.want.name,
            "why": self.why,
            "needed_by": list(self.needed_by),
        }


def union(claims: Iterable[tuple[str, Want]]) -> list[Demand]:
    """Return what is wanted in the order of its first claim, each thing once. A claim: who, and what."""
    claimed: dict[Key, list[tuple[str, Want]]] = {}
    for claim in claims:
        claimed.setdefault(claim[1].key, []).append(claim)
    return [_united(claims) for claims in claimed.values()]


def _united(claims: list[tuple[str, Want]]) -> Demand:
    needed_by = tuple(dict.fromkeys(name for name, _ in claims if name))
    wanted = [want for _, want in claims]
    first = wanted[0]
    rivals = [want for want in wanted if not _agree(want, first)]
    # Where a bucket is to be created may be said by one of those who need it.
    hinted = (want for want in wanted if isinstance(want.spec, Bucket) and want.spec.location_hint)
    return Demand(next(hinted, first), needed_by, _CONFLICTS[first.kind == "r2"] if rivals else "")


_CONFLICTS = ("it is wanted with different contents", "it is wanted in different jurisdictions")


def _agree(one: Want, other: Want) -> bool:
    if one.kind == "workers":
        return one.spec == other.spec
    return one.jurisdiction == other.jurisdiction


def plan_of(
    demands: Sequence[Demand], view: View, allowance: Allowance, needed: Collection[Key] = ()
) -> list[Action]:
    """Return a line for each demand, in their order. Pure.

    `needed` has the keys of whatever anybody needs, demanded now or not: no other name is meant by those.
    Storage is decided before the Workers that are bound to it, and creations count in that order.
    """
    planning = _Planning(view, allowance, {*needed, *(demand.want.key for demand in demands)})
    for demand in sorted(demands, key=lambda demand: demand.want.kind == "workers"):
        planning.decided[demand.want.key] = planning.decide(demand)
    return [planning.decided[demand.want.key] for demand in demands]


def doubts_of(
    listed: Iterable[Resource], again: Collection[Key], entries: Mapping[Key, Entry], allowance: Allowance
) -> dict[str, Unread]:
    """Return the kinds whose list may lack something, and why. Pure.

    A list is doubted that is empty where there was something before, unless what vanished may be made anew,
    and one that lacks what was found when it was looked at `again`.
    """
    recorded = {kind for (kind, _), entry in entries.items() if entry.id}
    emptied = set() if allowance.recreate else recorded - {one.kind for one in listed}
    doubts = {}
    for kind in emptied:
        text = f"the list of {TITLES[kind]} is empty, and there were some before"
        doubts[kind] = Unread("emptied", text, _VANISHED)
    for kind, name in again:
        text = f"the list of {TITLES[kind]} lacks {name}, which is there"
        doubts[kind] = Unread("incomplete", text, "The next pass looks again.")
    return doubts


def is_near(one: str, other: str) -> bool:
    """Whether one of two different names may be the other one mistyped.

    They differ only in case, `-`, `_` and `.`, or by one letter: another, one more, one less, two swapped.
    """
    if _plain(one) == _plain(other):
        return True
    short, long = sorted((one.casefold(), other.casefold()), key=len)
    if len(long) < _SHORT or len(long) - len(short) > 1:
        return False
    same = next((at for at, letter in enumerate(short) if letter != long[at]), len(short))
    if len(short) < len(long):
        return short[same:] == long[same + 1 :]
    swapped = short[same : same + 2] == long[same : same + 2][::-1] and short[same + 2 :] == long[same + 2 :]
    return swapped or short[same + 1 :] == long[same + 1 :]


def _plain(name: str) -> str:
    return name.casefold().translate(str.maketrans("", "", "-_."))


class _Planning:
    """One plan in the making. Each rule gives the line for a demand, or None: then the next one is asked."""

    def __init__(self, view: View, allowance: Allowance, needed: set[Key]) -> None:
        self._view = view
        self._allowance = allowance
        self._needed = needed
        self._created = 0
        self._there: dict[Key, list[Resource]] = {}
        for resource in view.resources:
            self._there.setdefault(resource.key, []).append(resource)
        self.decided: dict[Key, Action] = {}

    def decide(self, demand: Demand) -> Action:
        rules = (
            self._contradicts,
            self._unknown,
            self._unbound,
            self._exists,
            self._elsewhere,
            self._doubted,
            self._vanished,
            self._mistyped,
            self._too_many,
        )
        for rule in rules:
            if (action := rule(demand)) is not None:
                return action
        self._created += 1
        entry = self._view.entries.get(demand.want.key)
        why = "it vanished" if entry and entry.id else "it does not exist"
        return Action("create", demand.want, why, demand.needed_by)

    def _contradicts(self, demand: Demand) -> Action | None:
        return _blocked(demand, "conflict", demand.conflict) if demand.conflict else None

    def _unknown(self, demand: Demand) -> Action | None:
        kind = demand.want.kind
        why = self._view.unread.get(kind) or self._view.unsure.get(demand.want.key)
        if why is None:
            return None
        text = f"whether it exists is unknown: {why.message}"
        return _blocked(demand, why.code, text, why.hint, alert=True)

    def _unbound(self, demand: Demand) -> Action | None:
        """Block a Worker that would be bound to something that will not be there."""
        for target in demand.want.targets:
            action = self.decided.get(target)
            if action.action == "blocked" if action else target not in self._there:
                text = (
                    f"it is bound to {target[0]} {target[1]}, which is {'blocked' if action else 'missing'}"
                )
                return _blocked(demand, "unbound", text)
        return None

    def _exists(self, demand: Demand) -> Action | None:
        want = demand.want
        resource = self._resource(want)
        if resource is None:
            return None
        entry = self._view.entries.get(want.key)
        if want.kind == "workers":
            if not resource.ours:
                who = "somebody else uploaded it since" if entry and entry.id else "it is not ours"
                text = f"it exists, and {who}: it carries no mark of this router and is not overwritten"
                return _blocked(demand, "not_ours", text, _NOT_OURS, alert=True)
            if (why := self._changed(want, resource, entry)) is not None:
                return Action("update", want, why, demand.needed_by, resource)
        if entry is None:
            return Action("adopt", want, "it exists already", demand.needed_by, resource)
        if entry.state == "making":
            return Action("adopt", want, "an earlier attempt made it after all", demand.needed_by, resource)
        if (entry.id, entry.version) != (resource.id, resource.version):
            return Action("adopt", want, "another one is in its place", demand.needed_by, resource)
        return Action("keep", want, "it exists", demand.needed_by, resource)

    def _changed(self, want: Want, resource: Resource, entry: Entry | None) -> str | None:
        bound: dict[Key, Resource] = {}
        for target in want.targets:
            action = self.decided.get(target)
            found = action.resource if action else self._there[target][0]
            if found is None:
                return f"{target[0]} {target[1]}, to which it is bound, is created anew"
            bound[target] = found
        if digest_of(want, bound) == resource.digest:
            return None
        by_us = entry is not None and entry.digest == resource.digest
        return "what is wanted changed" if by_us else "it is not as it is wanted"

    def _elsewhere(self, demand: Demand) -> Action | None:
        others = [one.jurisdiction or "the default one" for one in self._there.get(demand.want.key, ())]
        if not others:
            return None
        text = f"a bucket of that name is in another jurisdiction: {', '.join(others)}"
        return _blocked(demand, "elsewhere", text, _ELSEWHERE)

    def _doubted(self, demand: Demand) -> Action | None:
        why = self._view.doubts.get(demand.want.kind)
        return _blocked(demand, why.code, why.message, why.hint, alert=True) if why else None

    def _vanished(self, demand: Demand) -> Action | None:
        entry = self._view.entries.get(demand.want.key)
        if entry is None or not entry.id or self._allowance.recreate or demand.want.kind == "workers":
            return None
        text = "it was there and has vanished; what was in it would not come back with a new one"
        return _blocked(demand, "vanished", text, _VANISHED, alert=True)

    def _mistyped(self, demand: Demand) -> Action | None:
        kind, name = demand.want.key
        entry = self._view.entries.get(demand.want.key)
        if name in self._allowance.meant or (entry and entry.id):
            return None
        near = sorted(
            other
            for other_kind, other in self._there
            if other_kind == kind and (kind, other) not in self._needed and is_near(name, other)
        )
        if not near:
            return None
        text = f"it does not exist; did you mean {', '.join(near[:3])}?"
        return _blocked(demand, "did_you_mean", text, _MISTYPED)

    def _too_many(self, demand: Demand) -> Action | None:
        if self._created < self._allowance.max_creations:
            return None
        most = self._allowance.max_creations
        text = f"{most} creations are the most of one pass; it waits for the next pass"
        return _blocked(demand, "next_pass", text, _LATER)

    def _resource(self, want: Want) -> Resource | None:
        found = self._there.get(want.key, ())
        return next((one for one in found if one.jurisdiction == want.jurisdiction), None)


_NOT_OURS = "Register the Worker under another name, or remove the one that is there."
_ELSEWHERE = "A bucket cannot be moved. Want it where it is, or under another name."
_VANISHED = (
    "If it was removed on purpose, make it again by hand or set AUTOPILOT_RECREATE_VANISHED=yes; else find "
    "out who removed it, and whether CF_ACCOUNT_ID names the right account."
)
_MISTYPED = "If it is meant as it is written, pass it in `meant` of POST /autopilot/ensure-infra."
_LATER = "AUTOPILOT_HEAL_MAX_CREATIONS says how many one pass may create."


def _blocked(demand: Demand, code: str, why: str, hint: str = "", *, alert: bool = False) -> Action:
    return Action("blocked", demand.want, why, demand.needed_by, code=code, hint=hint, alert=alert)
