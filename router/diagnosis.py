"""What to do about a step that failed: the question, the answers there are, and which of them may be taken.

Whoever answers may be a model that read hostile output. So an answer chooses among what the run allows: to
try again, to skip what is optional, to do what the step lists as a fix, or to leave it to a person. It
changes no parameter but those that the capability's own schema marks with `"x-adjustable": true`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from router.graph import Action, Fix, Step
from router.template import references

log = logging.getLogger("router")

ADJUSTABLE = "x-adjustable"
HEAL_SECONDS = 60.0


class StepFailed(msgspec.Struct, frozen=True):
    """A failure, as whoever diagnoses it is told. Nothing in it is a secret that is known to be one.

    `action` has its meta as the graph has it, with its references. `adjustable` is the JSON Schema of what
    may be changed in it.
    """

    run: str
    step: str
    title: str
    description: str
    action: Action | None
    attempts: int
    attempts_left: int
    error: dict[str, str]
    output: str
    fixes: tuple[Fix, ...]
    optional: bool
    adjustable: dict[str, Any]


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to do: `meta` are the parameters to change for `retry`, `fix` the name of one of the step's.

    `free` says that no model was asked for it, so that it does not count.
    """

    kind: Literal["retry", "skip", "fix", "escalate"]
    reason: str = ""
    meta: dict[str, Any] | None = None
    fix: str = ""
    source: str = ""
    free: bool = False


Heal = Callable[[StepFailed], Awaitable[Decision | None]]
"""Diagnoses a failure; None when it has nothing to say."""

SchemaOf = Callable[[Action], Awaitable[Mapping[str, Any] | None]]
"""Tells what the meta of an action has to be like, as its capability was registered."""


def adjusting(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the schema of what may be changed in a meta, which `schema` says what it has to be like."""
    members = (schema or {}).get("properties")
    found = {
        name: member
        for name, member in (members if isinstance(members, Mapping) else {}).items()
        if isinstance(member, Mapping) and member.get(ADJUSTABLE) is True
    }
    shared = {"$defs": (schema or {})["$defs"]} if found and "$defs" in (schema or {}) else {}
    return {"type": "object", "properties": found, "additionalProperties": False, **shared}


async def no_schema(_: Action) -> None:
    """Tell of no action what it has to be like: so nothing of it may be changed."""


async def ask(heal: Heal, failed: StepFailed, seconds: float = HEAL_SECONDS) -> Decision | None:
    """Return what is said about a failure in time, None when nothing useful is."""
    try:
        async with asyncio.timeout(seconds):
            decision = await heal(failed)
    except TimeoutError:
        log.warning("run %s: the diagnosis of %s took too long", failed.run, failed.step)
        return None
    except Exception as error:  # noqa: BLE001  whatever goes wrong with a diagnosis, there is none
        log.warning("run %s: the diagnosis of %s failed: %r", failed.run, failed.step, error)
        return None
    return decision if isinstance(decision, Decision) else None


def refusal(decision: Decision, failed: StepFailed) -> str:
    """Return why a decision may not be taken, empty when it may."""
    if decision.kind not in {"retry", "skip", "fix", "escalate"}:
        return f"{decision.kind!r} is nothing that can be done"
    if decision.kind == "skip" and not failed.optional:
        return "the step is not optional"
    if decision.kind == "fix" and decision.fix not in {fix.name for fix in failed.fixes}:
        return f"the step has no fix {decision.fix[:80]!r}"
    if decision.meta is None:
        return ""
    if decision.kind != "retry" or failed.action is None:
        return "there is nothing whose parameters could be changed"
    return _wrong_meta(decision.meta, failed)


def _wrong_meta(meta: dict[str, Any], failed: StepFailed) -> str:
    from router.schema import Schema  # loads jsonschema, which few processes need

    if problems := Schema(failed.adjustable).problems(meta):
        return "; ".join(f"{one.field}: {one.message}" for one in problems)[:300]
    if next(references(meta), None) is not None:
        return "changed parameters may not refer to anything"
    return ""


def changed(action: Action, meta: Mapping[str, Any] | None) -> Action:
    """Return an action with some members of its meta changed."""
    if not meta:
        return action
    return msgspec.structs.replace(action, meta={**action.meta, **meta})


def fix_of(step: Step, name: str) -> Action | None:
    """Return the action of a step's fix, None when it has none of that name."""
    return next((fix.action for fix in step.fixes if fix.name == name), None)
