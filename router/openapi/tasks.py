"""What the endpoints of asynchronous tasks answer, as JSON Schema."""

from __future__ import annotations

from router.openapi.grammar import TIME, Json, closed, listed, ref, whole
from router.task import TASK_ID, CallState, State

STATES = [state.value for state in State]
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_ID: Json = {"type": "string", "pattern": whole(TASK_ID)}


def _or_null(schema: Json, description: str) -> Json:
    return {"anyOf": [schema, {"type": "null"}], "description": description}


_CALLBACK: Json = closed(
    {
        "url": _TEXT,
        "status": {"enum": [state.value for state in CallState]},
        "attempts": _COUNT,
        "last_error": _or_null(_TEXT, "Why the last call was not well."),
        "next_attempt_at": _or_null(TIME, "When it is called again."),
    }
)
_TASK: Json = {
    "id": _ID,
    "status": {"enum": STATES},
    "task": {"type": ["string", "null"], "description": "Null when a capability was asked for."},
    "capability": ref("CapabilityName"),
    "autopilot": _or_null(ref("Name"), "The only one that may get the task, if one was named."),
    "requested_by": {**_TEXT, "description": "The name of the key."},
    "submitted_at": TIME,
    "started_at": _or_null(TIME, "When it was sent for the first time."),
    "ended_at": _or_null(TIME, "When it was over."),
    "deadline": {**TIME, "description": "When no more is tried."},
    "attempts": {**_COUNT, "description": "How often it was sent."},
    "next_attempt_at": _or_null(TIME, "When its next turn is."),
    "approval_id": _or_null(_TEXT, "The approval it waits, or waited, for."),
    "error": _or_null(
        closed({"code": _TEXT, "detail": _TEXT}),
        "Why it failed, or why the last attempt did. `refused`: the autopilot answered 4xx, see `outcome`.",
    ),
    "callback": _or_null(_CALLBACK, "The call that tells of its end."),
    "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
SCHEMAS: Json = {
    "Queued": closed(
        {"id": _ID, "status": {"enum": STATES}},
        description="An asynchronous task that was taken: `Location` says where it is.",
    ),
    "Accepted": {"oneOf": [ref("Queued"), ref("Awaiting")]},
    "Task": closed(_TASK, description="An asynchronous task."),
    "WholeTask": closed(
        {**_TASK, "outcome": {"anyOf": [ref("Outcome"), {"type": "null"}]}},
        description="An asynchronous task, with what it was answered.",
    ),
    "Tasks": closed(
        {
            "tasks": listed(ref("Task")),
            "count": {**_COUNT, "description": "How many are on this page."},
            "next": {
                "type": ["string", "null"],
                "description": "The `cursor` of the next page, null on the last. A page of one `status` may "
                "hold none and yet not be the last.",
            },
        }
    ),
}
