"""Which tasks wait for a person, whoever suggests them: what destroys, moves money, or cannot be taken back.

It is told by names and words. So it says yes too often rather than too seldom, and it is no proof that a task
without such words is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from autopilots.runbooks.forms import CHANGE, COMMAND, HTTP
from router.graph import Action
from router.model import HIGH_RISK

_WORDS = re.compile(
    r"(?<![a-z])(rm|rmdir|unlink|shred|mkfs|dd|del|kill|reset|drop|drops|truncate|delete|deletes|deleted|destroy"
    r"|erase|purge|wipe|prune|remove|uninstall|revoke|rollback|overwrite|force|refund|pay|payout|payouts|charge"
    r"|transfer|enroll|checkout)(?![a-z])",
    re.IGNORECASE,
)
_HELD = tuple(pattern for pattern in HIGH_RISK if pattern not in (COMMAND, CHANGE))
"""What is never done without a person. What commands and changes of files do is told by their words."""
_FIELDS = {"action": "delete", "method": "DELETE"}
_SECRET = ("secrets", "env")
"""Members by which the runner's tasks get at variables of their machine."""


def risk_of(action: Action) -> str:
    """Return why a task must not be done without a person, empty when nothing speaks against it."""
    named = action.capability or ""
    if any(fnmatchcase(named, pattern) for pattern in _HELD):
        return f"{named} is of high risk"
    for field, value in _FIELDS.items():
        if action.meta.get(field) == value:
            return f"its {field} is {value}"
    for text in (named, action.task or "", *_texts(action.meta)):
        if found := _WORDS.search(text):
            return f"it may not be reversible: it says {found[0]!r}"
    return ""


def reach_of(action: Action) -> str:
    """Return why a task that a model thought of, and nobody has listed, needs a person; empty for no reason.

    So does all that changes a machine or something outside, and all that asks for its secrets.
    """
    named = action.capability or ""
    if any(fnmatchcase(named, pattern) for pattern in HIGH_RISK):
        return f"{named} is of high risk"
    if named == HTTP and action.meta.get("method", "GET") not in ("GET", "HEAD"):
        return "its call may change something"
    for name in _SECRET:
        if action.meta.get(name):
            return f"it asks for {name}"
    return ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield str(name)
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
