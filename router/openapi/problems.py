"""What the endpoints answer when something is wrong: one schema for each code (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from router.errors import AutopilotError
from router.openapi.grammar import Json, closed, listed, ref
from router.problem import MEDIA_TYPE, STATUS

_TEXT: Json = {"type": "string"}
_NAMES: Json = listed(_TEXT)
_ATTEMPTED: Json = {"autopilot": ref("Name"), "attempts": listed(ref("Attempt")), "hint": _TEXT}

_LATER: Json = {"retry_after": {"type": "integer", "minimum": 1, "description": "Seconds to wait."}}

LIMITS: Json = {
    "RateLimit-Policy": {
        "description": "How many calls a caller may make, `q`, in how many seconds, `w`.",
        "schema": {"type": "string", "pattern": '^"default";q=[0-9]+;w=[0-9]+$'},
    },
    "RateLimit": {
        "description": "How many are left, `r`, and in how many seconds, `t`, all of them are there again.",
        "schema": {"type": "string", "pattern": '^"default";r=[0-9]+;t=[0-9]+$'},
    },
}
_RETRY_AFTER: Json = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}

MORE: dict[str, tuple[Json, bool]] = {
    "invalid_body": (
        {"errors": listed(closed({"field": _TEXT, "message": _TEXT}), description="Every wrong field.")},
        True,
    ),
    "forbidden": ({"scope": {**_TEXT, "description": "What the key lacks."}}, False),
    "unknown_task": ({"availableTasks": _NAMES, "did_you_mean": {**_NAMES, "maxItems": 3}}, True),
    "no_autopilot": (
        {
            "hint": _TEXT,
            "registeredAutopilots": listed(closed({"name": ref("Name"), "capabilities": _NAMES})),
        },
        True,
    ),
    "not_ready": (
        {
            "details": listed(closed(dict.fromkeys(("kind", "name", "code", "message", "hint"), _TEXT))),
            "autopilot": ref("Name"),
            "hint": _TEXT,
        },
        True,
    ),
    "rate_limited": (_LATER, True),
    "overloaded": (_LATER, True),
    "forward_failed": (_ATTEMPTED, False),
    "deadline": (_ATTEMPTED, False),
}
"""What the problems of a code have beside the members all have, and whether always."""

HEADERS: dict[int, Json] = {
    401: {
        "WWW-Authenticate": {
            "required": True,
            "schema": {"type": "string", "pattern": "^Bearer "},
            "description": "How to sign in.",
        }
    },
    429: {"Retry-After": {**_RETRY_AFTER, "required": True}, **LIMITS},
    503: {"Retry-After": _RETRY_AFTER},
}

PROBLEM: Json = {
    "description": "A problem document of RFC 9457.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri", "pattern": "^urn:autopilot:problem:"},
        "title": _TEXT,
        "status": {"type": "integer", "enum": sorted(set(STATUS.values()))},
        "detail": {**_TEXT, "description": "What happened this time."},
        "code": {"enum": sorted(STATUS), "description": "The stable word for programs."},
        "error": {**_TEXT, "description": "The sentence of the API this one took over from."},
        "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "required": ["type", "title", "status", "detail", "code", "error", "trace_id"],
}


def schemas(codes: Iterable[str]) -> Json:
    """Return the component schemas of problems: the general one, and one for each code."""
    # An error that is a kind of another one has its code, and a title of its own.
    errors = {error.code: error for error in _tree(AutopilotError) if "code" in vars(error)}
    return {"Problem": PROBLEM, **{_name(code): _schema(code, errors[code].title) for code in sorted(codes)}}


def responses(codes: Iterable[str]) -> dict[int, Json]:
    """Return the response objects of problems by status."""
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    return {status: _response(status, group) for status, group in by_status.items()}


def _tree(error: type[AutopilotError]) -> Iterator[type[AutopilotError]]:
    yield error
    for kind in error.__subclasses__():
        yield from _tree(kind)


def _name(code: str) -> str:
    return "Problem." + "".join(word.title() for word in code.split("_"))


def _schema(code: str, title: str) -> Json:
    more, always = MORE.get(code, ({}, False))
    return {
        "allOf": [ref("Problem")],
        "properties": {
            "type": {"const": f"urn:autopilot:problem:{code}"},
            "title": {"const": title},
            "status": {"const": STATUS[code]},
            "code": {"const": code},
            **more,
        },
        **({"required": list(more)} if more and always else {}),
        "unevaluatedProperties": False,
    }


def _response(status: int, codes: list[str]) -> Json:
    kinds = [ref(_name(code)) for code in codes]
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        **({"headers": HEADERS[status]} if status in HEADERS else {}),
        "content": {MEDIA_TYPE: {"schema": kinds[0] if len(kinds) == 1 else {"oneOf": kinds}}},
    }
