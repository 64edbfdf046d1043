"""How names and texts are written, as JSON Schema, by the very expressions the router checks them with."""

from __future__ import annotations

import re
from typing import Any

from infra.outbound import _LABEL, MAX_URL
from router.model import _CAPABILITY, _FAMILY, _NAME, _TASK, _WORD
from router.needs import WORKER
from router.parse import _NAMED_ENDPOINT

Json = dict[str, Any]

_BLANK = r"\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What Python counts as white space: it is cut off a text before control characters are looked for."""
_SEEN = rf"[^{_BLANK}\x00-\x1f\x7f]"
_SENTENCE = rf"{_SEEN}(?:[^\x00-\x1f\x7f]*{_SEEN})?"
_LABEL_ANY_CASE = _LABEL.pattern.replace("a-z", "A-Za-z")


def whole(pattern: re.Pattern[str] | str) -> str:
    """Return an expression for `pattern` in a JSON Schema, which searches where the router matches all."""
    return f"^(?:{pattern if isinstance(pattern, str) else pattern.pattern})$"


def closed(properties: Json, *optional: str, **more: Any) -> Json:
    """Return the schema of an object that has these properties and no others, all but `optional` always."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
        **more,
    }


def listed(items: Json, **more: Any) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **more}


def ref(name: str) -> Json:
    """Return a reference to a component schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(most: int, *, said: bool = False) -> Json:
    """Return the schema of a text without control characters; one with something `said` is not blank."""
    sentence = _SENTENCE if said else f"(?:{_SENTENCE})?"
    return {"type": "string", "maxLength": most, "pattern": f"^[{_BLANK}]*{sentence}[{_BLANK}]*$"}


BLANK: Json = {"type": "string", "maxLength": 200, "pattern": f"^[{_BLANK}]*$"}
TIME: Json = {"type": "string", "format": "date-time", "pattern": "Z$", "description": "RFC 3339 in UTC."}
NAMES: Json = {
    "Name": {
        "description": "An autopilot's name.",
        "type": "string",
        "maxLength": 64,
        "pattern": whole(_NAME),
    },
    "Cursor": {"type": "string", "maxLength": 64, "pattern": whole(rf"(?:{_NAME.pattern})?")},
    "CapabilityName": {
        "description": "What an autopilot can do: 2 to 6 dotted lower-case words.",
        "type": "string",
        "maxLength": 128,
        "pattern": whole(_CAPABILITY),
        "examples": ["web.pages.generate"],
    },
    "Family": {
        "description": "Every capability of a first word: who offers one may be asked to add any of them.",
        "type": "string",
        "maxLength": 128,
        "pattern": whole(_FAMILY),
        "examples": ["web.*"],
    },
    "TaskName": {
        "description": "What a registration may call a task.",
        "type": "string",
        "maxLength": 64,
        "pattern": whole(_TASK),
    },
    "Endpoint": {
        "description": (
            "Where an autopilot is. Of a URL, whatever two parsers may read differently is refused, and what "
            "leads to an address that is not public unless the installation allows it; `http:` only there."
        ),
        "anyOf": [
            ref("WebUrl"),
            {
                "description": "`local:NAME` in the router's own process, or `lambda:FUNCTION` on AWS.",
                "type": "string",
                "pattern": whole(_NAMED_ENDPOINT),
            },
        ],
    },
    "WebUrl": {
        "description": "A URL; names in other scripts in their ASCII form.",
        "type": "string",
        "format": "uri",
        "maxLength": MAX_URL,
        "pattern": (
            rf"^https?://(?:{_LABEL_ANY_CASE}(?:\.{_LABEL_ANY_CASE})*\.?|\[[0-9A-Fa-f:.]+\])"
            r"(?::[0-9]{1,5})?(?:/[!-\"$->@-\[\]-~]*)?(?:\?[!-\"$-\[\]-~]*)?$"
        ),
    },
    "Scope": {
        "description": "What a key allows; `plan:` takes a capability, all under some words, or all.",
        "anyOf": [
            {"enum": ["read", "operate", "admin", "register"]},
            {"type": "string", "pattern": whole(f"register:{_NAME.pattern}")},
            {
                "type": "string",
                "maxLength": len("plan:") + 128,
                "pattern": whole(rf"plan:(?:\*|{_WORD}(?:\.{_WORD}){{0,4}}\.\*|{_CAPABILITY.pattern})"),
            },
        ],
    },
    "WorkerName": {"type": "string", "pattern": whole(WORKER)},
}
