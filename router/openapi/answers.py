"""What the endpoints answer when all is well, as JSON Schema."""

from __future__ import annotations

from typing import get_args, get_type_hints

from infra.plan import Action
from infra.provider import KINDS, Permission
from router.health import State
from router.openapi import approvals, tasks
from router.openapi.grammar import TIME, Json, closed, listed, ref
from router.openapi.requests import REGISTRATION

STATES = [state.value for state in State]
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_FLAG: Json = {"type": "boolean"}
_MILLISECONDS: Json = {"type": "number", "minimum": 0}
_KIND: Json = {"enum": list(KINDS)}
_TRACE: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_NAME_OR_NULL: Json = {"anyOf": [ref("Name"), {"type": "null"}]}
_TASK: Json = {"type": ["string", "null"], "description": "Null when a capability was asked for."}
_BY_KIND: Json = closed({kind: listed(ref("Resource")) for kind in KINDS})
_TROUBLE: Json = closed({"kind": _KIND, "name": _TEXT, "code": _TEXT, "message": _TEXT, "hint": _TEXT})
_REPORT: Json = {
    "ok": {**_FLAG, "description": "Whether all that is wanted exists."},
    "created": _BY_KIND,
    "skipped": {**_BY_KIND, "description": "What existed already."},
    "errors": listed(_TROUBLE, description="What of it does not, and why."),
    "alerts": listed(_TROUBLE, description="What a person has to look at; without a name: a whole kind."),
    "plan": listed(
        closed(
            {
                "action": {"enum": list(get_args(get_type_hints(Action)["action"]))},
                "kind": _KIND,
                "name": _TEXT,
                "why": _TEXT,
                "needed_by": listed(ref("Name")),
            }
        )
    ),
    "dry_run": _FLAG,
}
_STATUS: Json = {
    "service": {"const": "autopilot-orchestrator"},
    "version": _TEXT,
    "uptime": {"type": "number", "minimum": 0, "description": "Seconds since the start."},
    "timestamp": TIME,
    "store": {"enum": ["sqlite", "dynamodb"]},
}


def _readable(part: Json) -> Json:
    """Return the schema of a part of diagnose, which may be the error that stood in the way."""
    return {"anyOf": [part, ref("Unread")]}


_STANDING = closed(
    {
        "autopilot": ref("Name"),
        "rank": {"type": "integer", "minimum": 1},
        "chosen": _FLAG,
        "reason": {**_TEXT, "description": "Why it was chosen, or why it was not."},
        "health": {"enum": STATES},
        "priority": _COUNT,
        "weight": {"type": "integer", "minimum": 1},
        "in_flight": _COUNT,
    }
)
_PLANNED: Json = {
    "Attempt": closed(
        {
            "autopilot": ref("Name"),
            "status": {"type": ["integer", "null"], "description": "Null when no answer came."},
            "duration_ms": _MILLISECONDS,
            "error": {"type": ["string", "null"]},
            "retry_after": {"type": "number", "minimum": 0, "description": "Seconds it asked to wait."},
        },
        "retry_after",
        description="One try.",
    ),
    "Outcome": closed(
        {
            "autopilot": ref("Name"),
            "ok": {**_FLAG, "description": "Whether the autopilot answered 2xx."},
            "status": {
                "type": "integer",
                "minimum": 200,
                "maximum": 499,
                "description": "What the autopilot answered.",
            },
            "task": _TASK,
            "capability": ref("CapabilityName"),
            "result": {"description": "The autopilot's JSON; other text comes as `{raw: text}`."},
            "attempts": listed(ref("Attempt"), minItems=1),
            "duration_ms": _MILLISECONDS,
            "trace_id": _TRACE,
            "idempotent_replay": _FLAG,
        },
        description="A task that was answered.",
    ),
    "Explanation": closed(
        {
            "mode": {"const": "explain"},
            "task": _TASK,
            "capability": ref("CapabilityName"),
            "autopilot": {**_NAME_OR_NULL, "description": "Who would get the task now."},
            "ready": {"type": ["boolean", "null"], "description": "Whether what it needs is known to exist."},
            "requires_approval": {**_FLAG, "description": "Whether the task would wait for approval."},
            "would_configure": listed(ref("Name"), description="Who would be asked to add the capability."),
            "candidates": listed(_STANDING, description="Best first."),
        },
        description="The decision a plan would take now. Nothing was sent.",
    ),
    "Planned": {"oneOf": [ref("Outcome"), ref("Explanation")]},
}
_SIGNING_SECRET: Json = {
    "type": "string",
    "pattern": "^whsec_[A-Za-z0-9+/=]+$",
    "description": "By which the autopilot tells that a task comes from here. Shown once.",
}
_REGISTERED: Json = {
    "Record": closed(
        {
            **REGISTRATION,
            "health": {"enum": STATES},
            "revision": {"type": "integer", "minimum": 1},
            "registered_at": TIME,
            "updated_at": TIME,
        },
        description="A registration as it is kept.",
    ),
    "Registered": closed(
        {
            "ok": {"const": True},
            "autopilot": ref("Record"),
            "message": _TEXT,
            "warnings": listed(_TEXT, minItems=1),
            "signing_secret": _SIGNING_SECRET,
        },
        "warnings",
        "signing_secret",
    ),
    "RotatedSecret": closed(
        {
            "ok": {"const": True},
            "autopilot": ref("Name"),
            "signing_secret": _SIGNING_SECRET,
            "previous_until": {**TIME, "description": "When the last of the earlier secrets ends."},
        }
    ),
    "One": closed({"ok": {"const": True}, "autopilot": ref("Record")}),
    "Page": closed(
        {
            "autopilots": listed(ref("Record")),
            "count": {**_COUNT, "description": "How many are on this page."},
            "next": {**_NAME_OR_NULL, "description": "The `cursor` of the next page, null on the last."},
        }
    ),
    "Lease": closed({"ok": {"const": True}, "lease_until": {"anyOf": [TIME, {"type": "null"}]}}),
    "AutopilotHealth": closed({"status": {"enum": STATES}, "autopilot": ref("Name")}),
    "Catalogue": closed(
        {
            "tasks": listed(
                closed(
                    {
                        "task": _TEXT,
                        "capability": ref("CapabilityName"),
                        "description": _TEXT,
                        "source": {**_TEXT, "description": "`built-in`, or the autopilot that brought it."},
                        "autopilots": listed(ref("Name"), description="Who can serve it now, best first."),
                    }
                )
            ),
            "count": _COUNT,
        }
    ),
}
_DIFFERING: Json = closed({"kind": _KIND, "name": _TEXT, "needed_by": listed(ref("Name")), "why": _TEXT})
_PERMISSION: Json = closed(
    {
        **dict.fromkeys(Permission._fields, _TEXT),
        "has": {"enum": list(get_args(get_type_hints(Permission)["has"]))},
        "evidence": {"enum": list(get_args(get_type_hints(Permission)["evidence"]))},
    }
)
_PROVIDED: Json = {
    "Resource": closed({"name": _TEXT, "id": _TEXT}),
    "Report": closed(_REPORT, description="What was found and done."),
    "Pass": closed({"id": _TEXT, "timestamp": TIME, **_REPORT}, description="A self-heal pass."),
    "Unread": closed(
        {"error": closed({"code": _TEXT, "message": _TEXT, "hint": _TEXT})},
        description="A part that could not be read.",
    ),
    "Diagnosis": closed(
        {
            "provider": {"enum": ["cloudflare", "local"]},
            "token": _readable(
                {
                    "type": "object",
                    "properties": {"id": {"type": ["string", "null"]}, "status": _TEXT, "kind": _TEXT},
                    "required": ["id", "status", "kind"],
                }
            ),
            "permissions": _readable(listed(_PERMISSION)),
            "missing": listed(_TEXT, description="Permission groups, named as the API names them."),
            "link": {**_TEXT, "description": "Where a token with what is missing can be created."},
            "note": _TEXT,
            "resources": closed(
                {
                    "kv": _readable(listed(closed({"id": _TEXT, "title": _TEXT}))),
                    "r2": _readable(listed(closed({"name": _TEXT, "jurisdiction": _TEXT}, "jurisdiction"))),
                    "workers": _readable(listed(_TEXT)),
                    "d1": _readable(listed(ref("Resource"))),
                    "queues": _readable(listed(ref("Resource"))),
                }
            ),
            "drift": _readable(
                closed(
                    {
                        "missing": listed(_DIFFERING),
                        "changed": listed(_DIFFERING),
                        "unmanaged": listed(closed({"kind": _KIND, "name": _TEXT})),
                        "unread": listed(_KIND, description="Kinds of which nothing is known."),
                    }
                )
            ),
            "timestamp": TIME,
        },
        "link",
        "note",
    ),
}
_TIME_OR_NULL: Json = {"anyOf": [TIME, {"type": "null"}]}


def _event(payload: Json) -> Json:
    """Return the schema of an event with such a payload."""
    return closed(
        {
            "id": _TEXT,
            "type": {**_TEXT, "description": "What was done: `autopilot.register`, `task.forward`, …"},
            "source": {**_TEXT, "description": "Who did it: the name of a key, or a part of the router."},
            "timestamp": TIME,
            "payload": payload,
            "trace_id": _TEXT,
        }
    )


_KEYS: Json = {
    "Key": closed(
        {
            "id": _TEXT,
            "name": _TEXT,
            "scopes": listed(_TEXT),
            "created_at": TIME,
            "expires_at": _TIME_OR_NULL,
            "revoked_at": _TIME_OR_NULL,
            "last_used_at": _TIME_OR_NULL,
        }
    ),
    "Audit": closed({"events": listed(ref("AuditRecord")), "next": {"type": ["string", "null"]}}),
    "AuditRecord": _event(
        {
            "type": "object",
            "properties": {"target": {**_TEXT, "description": "What it was done to."}},
            "required": ["target"],
        }
    ),
    "Event": _event({"type": "object", "description": "What there is to say, by type."}),
    "Events": closed({"events": listed(ref("Event")), "next": {"type": ["string", "null"]}}),
    "Keys": closed({"keys": listed(ref("Key")), "count": _COUNT}),
    "CreatedKey": closed(
        {
            "ok": {"const": True},
            "key": {"type": "string", "pattern": "^apr_[0-9A-Za-z]{38}$"},
            "record": ref("Key"),
        }
    ),
}


SCHEMAS: Json = {
    **_PLANNED,
    **approvals.SCHEMAS,
    **tasks.SCHEMAS,
    **_REGISTERED,
    **_PROVIDED,
    **_KEYS,
    "Healthy": closed({"status": {"const": "healthy"}, **_STATUS}),
    "Unhealthy": closed({"status": {"const": "unhealthy"}, **_STATUS, "reason": _TEXT}),
    "Ready": closed({"ready": {"const": True}}),
    "NotReady": closed({"ready": {"const": False}, "reason": _TEXT}),
    "Document": {
        "type": "object",
        "properties": {
            "openapi": {"const": "3.1.0"},
            "info": {"type": "object"},
            "paths": {"type": "object"},
        },
        "required": ["openapi", "info", "paths", "components"],
    },
}
