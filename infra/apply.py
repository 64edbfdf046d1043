"""Carries out a plan: what several do at the same time, or what fails half-way, is never made twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.ledger import Ledger
from infra.plan import Action, Entry, View
from infra.provider import Bound, Provider, ProviderFailed, Resource, Unread, Want, digest_of, unread
from router.errors import AutopilotError, Conflict, Stale

AT_ONCE = 8
"""How many calls to a provider may be under way."""

_POLL = 0.05


@dataclass
class Result:
    """What came of one action. `made`: it was created or updated here and now.

    A `bug` is an error that is none of ours.
    """

    action: Action
    resource: Resource | None = None
    error: Unread | None = None
    made: bool = False
    bug: Exception | None = None


class Application:
    """One plan while it is carried out.

    `patience` is how many seconds it waits for somebody else who is making the same thing; `may_go_on` is
    asked before each action.
    """

    def __init__(
        self,
        provider: Provider,
        ledger: Ledger,
        view: View,
        *,
        patience: float,
        by: str,
        may_go_on: Callable[[], bool],
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._entries = view.entries
        self._bound = {one.key: one for one in view.resources}
        self._patience = patience
        self._by = by
        self._may_go_on = may_go_on
        self._places = asyncio.Semaphore(AT_ONCE)
        self._closed: dict[str, Unread] = {}
        """By kind, empty for all: why nothing more of it can succeed now."""

    async def carry_out(self, plan: Sequence[Action]) -> list[Result]:
        """Do everything, first the storage, then the Workers bound to it; return what came of each line."""
        results = [Result(action, action.resource) for action in plan]
        self._bound.update((one.resource.key, one.resource) for one in results if one.resource)
        for workers in (False, True):
            phase = [one for one in results if (one.action.want.kind == "workers") is workers]
            await asyncio.gather(*(self._one(result) for result in phase))
        return results

    async def _one(self, result: Result) -> None:
        action = result.action
        if action.action == "blocked":
            result.error = action.unread
        if action.action in {"blocked", "keep"}:
            return
        async with self._places:
            try:
                await self._do(result)
            except AutopilotError as error:
                result.error = unread(error)
                self._heed(action.want.kind, error)
            except Exception as error:  # noqa: BLE001  kept, and raised once everything else had its chance
                result.bug = error
        if result.resource is not None:
            self._bound[result.resource.key] = result.resource

    async def _do(self, result: Result) -> None:
        action = result.action
        if closed := self._closed.get("") or self._closed.get(action.want.kind):
            result.error = closed
            return
        if not self._may_go_on():
            raise Conflict("the pass took too long and lost its lease; the next one goes on")
        for kind, name in action.want.targets:
            if (kind, name) not in self._bound:
                result.error = Unread("unbound", f"it is bound to {kind} {name}, which is not there", "")
                return
        if action.action == "create":
            await self._create(action.want, result)
        elif action.action == "update":
            result.resource = None  # until it is as it is wanted
            result.resource = await self._provider.update(action.want, self._bound)
            result.made = True
            await self._record(action.want, result)
        else:
            await self._record(action.want, result)

    def _heed(self, kind: str, error: AutopilotError) -> None:
        if isinstance(error, ProviderFailed) and error.reach != "one":
            why = unread(error)
            text = f"not tried, after another one failed: {why.message}"
            self._closed["" if error.reach == "all" else kind] = why._replace(message=text)

    async def _create(self, want: Want, result: Result) -> None:
        before = self._entries.get(want.key)
        try:
            intent = await self._ledger.intend(want.key, before, self._by)
        except Stale:
            result.resource = await self._of_another(want, before)
            return
        result.resource = await self._left_behind(want, intent, before)
        if result.resource is None:
            result.resource = await self._make(want, intent, before)
            result.made = True
        await self._record(want, result, intent)

    async def _left_behind(self, want: Want, intent: Entry, before: Entry | None) -> Resource | None:
        """Return what an earlier attempt made whose end nobody saw."""
        if before is None or before.state != "making":
            return None
        try:
            found = await self._provider.find(want, before.id)
        except AutopilotError:
            await self._ledger.withdraw(want.key, intent, before, absent=False)
            raise
        return found if found and _is_wanted(want, found, self._bound) else None

    async def _make(self, want: Want, intent: Entry, before: Entry | None) -> Resource:
        try:
            return await self._provider.create(want, self._bound)
        except AutopilotError as error:
            if not error.done:
                await self._ledger.withdraw(want.key, intent, before, absent=True)
                raise
            # It may be there, or come to be: the intent stays until that has shown itself.
            if (found := await self._found(want)) is None:
                raise
            return found

    async def _found(self, want: Want) -> Resource | None:
        try:
            found = await self._provider.find(want)
        except AutopilotError:
            return None
        return found if found and _is_wanted(want, found, self._bound) else None

    async def _of_another(self, want: Want, before: Entry | None) -> Resource:
        """Wait for whoever else is making it and return what they made. Raises `Conflict`."""
        waited = 0.0
        while (entry := await self._ledger.entry(want.key)) is not None:
            if entry.state != "making":
                if before is not None and before.id == entry.id:
                    break  # as it was before they tried
                version = entry.version
                return Resource(*want.key, entry.id, entry.digest, want.jurisdiction, version=version)
            if waited >= self._patience:
                raise Conflict("somebody else is making it, or did not come to an end; try again later")
            await asyncio.sleep(_POLL)
            waited += _POLL
        raise Conflict("somebody else tried to make it at the same moment, and it was not made")

    async def _record(self, want: Want, result: Result, before: Entry | None = None) -> None:
        before = before or self._entries.get(want.key)
        assert result.resource is not None
        made = result.made or (before is not None and before.state != "adopted")
        try:
            await self._ledger.record(want.key, result.resource, before, "made" if made else "adopted")
        except Stale:
            return  # whoever else looked has recorded it


def _is_wanted(want: Want, found: Resource, bound: Bound) -> bool:
    """Whether what was found is what was to be made: somebody else's Worker is not."""
    if want.kind == "workers":
        return found.ours is True and found.digest == digest_of(want, bound)
    return found.jurisdiction == want.jurisdiction
