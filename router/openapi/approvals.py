"""What the endpoints of approvals answer, as JSON Schema."""

from __future__ import annotations

from router.approvals import DIGEST, State
from router.openapi.grammar import TIME, Json, closed, listed, ref, whole

STATES = [state.value for state in State]
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_FLAG: Json = {"type": "boolean"}
_TRACE: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_NAME_OR_NULL: Json = {"anyOf": [ref("Name"), {"type": "null"}]}
_TASK: Json = {"type": ["string", "null"], "description": "Null when a capability was asked for."}
_ASKED: Json = {
    "status": {"enum": STATES},
    "id": _TEXT,
    "task": _TASK,
    "capability": ref("CapabilityName"),
    "expires_at": {**TIME, "description": "Until when somebody may decide."},
}
_APPROVAL: Json = {
    **_ASKED,
    "autopilot": {**_NAME_OR_NULL, "description": "The only one that may get the task, if one was named."},
    "digest": {
        "type": "string",
        "pattern": whole(DIGEST),
        "description": "The SHA-256 of the task's text: what is approved is what is sent.",
    },
    "requested_by": {**_TEXT, "description": "The name of the key."},
    "requested_at": TIME,
    "decided_by": {"type": ["string", "null"]},
    "decided_at": {"anyOf": [TIME, {"type": "null"}]},
    "answered": {
        "type": ["integer", "null"],
        "minimum": 200,
        "maximum": 499,
        "description": "The status the autopilot answered; null as long as it did not.",
    },
    "error": {
        "anyOf": [closed({"code": _TEXT, "detail": _TEXT}), {"type": "null"}],
        "description": "Why there was no answer the last time it was sent.",
    },
}
SCHEMAS: Json = {
    "Awaiting": closed(
        {**_ASKED, "hint": _TEXT, "trace_id": _TRACE},
        description="The task waits until somebody else approves it. Nothing was sent.",
    ),
    "Approval": closed(_APPROVAL, description="A task that waits, or waited, for approval."),
    "Approvals": closed(
        {
            "approvals": listed(ref("Approval")),
            "count": {**_COUNT, "description": "How many are on this page."},
            "next": {
                "type": ["string", "null"],
                "description": "The `cursor` of the next page, null on the last.",
            },
        }
    ),
    "OneApproval": closed(
        {
            "ok": {"const": True},
            "approval": closed(
                {
                    **_APPROVAL,
                    "meta": {
                        "type": ["object", "null"],
                        "description": "Null once the task can no longer be sent.",
                    },
                    "text": {
                        "type": ["string", "null"],
                        "description": "The whole task, as `digest` stands for it when it is not redacted.",
                    },
                    "redacted": {**_FLAG, "description": "Whether secrets are left out of what is shown."},
                    "outcome": {"anyOf": [ref("Outcome"), {"type": "null"}]},
                }
            ),
        }
    ),
    "Decided": closed(
        {
            "ok": {**_FLAG, "description": "Whether the autopilot answered 2xx."},
            "approval": ref("Approval"),
            "outcome": {"anyOf": [ref("Outcome"), {"type": "null"}]},
        },
        description="An approved task, and what came of it: null when there was no answer.",
    ),
    "Refused": closed({"ok": {"const": True}, "approval": ref("Approval")}),
}
