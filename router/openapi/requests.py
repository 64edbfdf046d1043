"""What the endpoints take, as JSON Schema. Limits are those of `router.parse` and `infra.body`."""

from __future__ import annotations

from typing import get_args, get_type_hints

from infra.body import MAX_STRING
from router.approvals import DIGEST
from router.keys import _OURS, KEY_NAME, MAX_LIFE, MAX_OVERLAP, MAX_SCOPES
from router.model import DEFAULT_DATE, MAX_CAPABILITIES, PlanRequest
from router.needs import (
    BINDING,
    BINDINGS,
    CRON,
    DATE,
    JURISDICTIONS,
    LOCATIONS,
    MAX_CRONS,
    MAX_NEEDS,
    MAX_WORKER,
    STORAGE,
)
from router.openapi.grammar import BLANK, Json, closed, listed, ref, text, whole
from router.parse import MAX_FAMILIES, MAX_TASKS, MAX_TIMEOUT_MS

MODES = list(get_args(get_type_hints(PlanRequest)["mode"]))
_NEEDED = {
    "kvNamespaces": "Workers KV namespaces.",
    "r2Buckets": "R2 buckets.",
    "d1Databases": "D1 databases.",
    "queues": "Queues.",
}


def _number(least: int, most: int, default: int | None, description: str, *, null: bool = False) -> Json:
    kind = ["integer", "null"] if null else "integer"
    return {"type": kind, "minimum": least, "maximum": most, "default": default, "description": description}


def _asked(named: Json, *unsaid: str, **more: str) -> Json:
    """Return the schema of a plan request that says by `named` (but `unsaid`) what is to be done."""
    return closed(
        {
            **named,
            "meta": {
                "type": "object",
                "description": "What the capability needs to know; its `input_schema` says what that is.",
                "default": {},
            },
            "mode": {
                "enum": MODES,
                "default": MODES[0],
                "description": "`explain` sends nothing and tells the decision; `async` answers at once.",
            },
            "timeout_ms": _number(
                1,
                MAX_TIMEOUT_MS,
                None,
                "Bounds the whole call; of an asynchronous task, each attempt.",
                null=True,
            ),
            "autopilot": {
                "anyOf": [ref("Name"), {"type": "null"}],
                "default": None,
                "description": "Only this one may get the task.",
            },
            "callback_url": {
                "anyOf": [ref("WebUrl"), {"type": "null"}],
                "default": None,
                "description": (
                    "Told of an asynchronous task's end by a POST of the task, signed by Standard Webhooks."
                ),
            },
        },
        *("meta", "mode", "timeout_ms", "autopilot", "callback_url", *unsaid),
        **{
            "if": {"properties": {"callback_url": {"type": "string"}}, "required": ["callback_url"]},
            "then": {"properties": {"mode": {"const": "async"}}, "required": ["mode"]},
        },
        **more,
    )


def _storage(kind: str) -> Json:
    """Return the schema of one list of names; a bucket may say where it has to be."""
    _, pattern, rule = STORAGE[kind]
    name: Json = {"type": "string", "pattern": whole(pattern), "description": rule}
    return listed(
        {"anyOf": [name, ref("Bucket")]} if kind == "r2Buckets" else name,
        maxItems=MAX_NEEDS,
        uniqueItems=True,
        description=_NEEDED[kind],
    )


NEEDS: Json = {
    "Bucket": closed(
        {
            "name": {"type": "string", "pattern": whole(STORAGE["r2Buckets"][1])},
            "jurisdiction": {"enum": list(JURISDICTIONS), "description": "Names are apart in each."},
            "location_hint": {"enum": list(LOCATIONS), "description": "Counts at its creation only."},
        },
        "jurisdiction",
        "location_hint",
        description="A bucket that has to be somewhere.",
    ),
    "Worker": closed(
        {
            "name": ref("WorkerName"),
            "content": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_STRING,
                "description": f"The source of a module, at most {MAX_STRING} bytes as it is sent.",
            },
            "compatibility_date": {
                "type": "string",
                "pattern": whole(DATE),
                "default": DEFAULT_DATE,
                "description": "Which behaviour of the Workers runtime it gets.",
            },
            "bindings": {
                "type": "object",
                "maxProperties": MAX_NEEDS,
                "propertyNames": {"type": "string", "pattern": whole(BINDING)},
                "additionalProperties": {
                    "oneOf": [
                        closed({kind: {"type": "string", "description": f"One of these `{where}`."}})
                        for kind, where in BINDINGS.items()
                    ]
                },
                "default": {},
                "description": "What it finds in its environment, by name.",
            },
            "workers_dev": {
                "type": "boolean",
                "default": False,
                "description": "Whether it has a route on workers.dev.",
            },
            "crons": listed(
                {"type": "string", "pattern": whole(CRON)},
                maxItems=MAX_CRONS,
                uniqueItems=True,
                default=[],
                description="When it runs by itself, in UTC: five fields, days of the week from 1 = Sunday.",
            ),
        },
        "compatibility_date",
        "bindings",
        "workers_dev",
        "crons",
        description="A Worker that has to exist just so.",
    ),
    "Needs": closed(
        {
            **{kind: _storage(kind) for kind in STORAGE},
            "workers": listed(
                ref("Worker"),
                maxItems=MAX_NEEDS,
                uniqueItems=True,
                description=f"Each name once; at most {MAX_WORKER} characters of source together.",
            ),
        },
        *STORAGE,
        "workers",
        description="Storage that has to exist before an autopilot can work.",
    ),
}
REGISTRATION: Json = {
    "name": ref("Name"),
    "endpoint": ref("Endpoint"),
    "capabilities": listed(
        {"anyOf": [ref("CapabilityName"), ref("Family"), ref("Capability")]},
        minItems=1,
        maxItems=MAX_CAPABILITIES,
        uniqueItems=True,
        description=f"Each name once; at most {MAX_FAMILIES} families may be extended.",
    ),
    "needs": {**ref("Needs"), "default": {}},
    "tasks": {
        "type": "object",
        "maxProperties": MAX_TASKS,
        "propertyNames": ref("TaskName"),
        "additionalProperties": ref("CapabilityName"),
        "default": {},
        "description": "Tasks this autopilot brings, each with the capability among its own that does it.",
    },
    "priority": _number(0, 1_000_000, 100, "A lower number is chosen first."),
    "weight": _number(1, 1_000_000, 1, "The share of load among those of one priority."),
    "lease_seconds": _number(
        1, 86_400, None, "If given, it takes part only while it sends heartbeats.", null=True
    ),
    "description": {**text(2000), "default": ""},
}
SCHEMAS: Json = {
    **NEEDS,
    "Capability": closed(
        {
            "name": {"anyOf": [ref("CapabilityName"), ref("Family")]},
            "description": {**text(2000), "default": ""},
            "input_schema": {
                "type": ["object", "null"],
                "default": None,
                "description": "The JSON Schema (2020-12) of `meta`; it may refer to itself only.",
            },
            "configure": {
                "type": "boolean",
                "default": False,
                "description": "Whether it may be asked to add other capabilities of the family.",
            },
            "requires_approval": {
                "type": "boolean",
                "default": False,
                "description": "Whether its tasks wait until somebody else approves them.",
            },
        },
        "description",
        "input_schema",
        "configure",
        "requires_approval",
        description="A capability with what there is to say about it; the name alone will do as well.",
    ),
    "Autopilot": closed(
        REGISTRATION,
        *[name for name in REGISTRATION if name not in {"name", "endpoint", "capabilities"}],
        description="A registration.",
        examples=[
            {
                "name": "stylist",
                "endpoint": "https://stylist.example",
                "capabilities": [
                    "web.pages.generate",
                    {"name": "web.asset.generate", "description": "Generate a marketing image"},
                ],
                "needs": {"r2Buckets": ["assets"]},
                "tasks": {"generate_banner": "web.asset.generate"},
            }
        ],
    ),
    "Plan": {
        "description": "A task by its name, or by the capability that does it.",
        "oneOf": [
            _asked(
                {"task": {**text(200, said=True), "description": "One of `GET /autopilot/catalogue`."}},
                title="PlanTask",
            ),
            _asked(
                {
                    "capability": ref("CapabilityName"),
                    "task": {**BLANK, "description": "A blank one counts as none."},
                },
                "task",
                title="PlanCapability",
            ),
        ],
        "examples": [
            {"task": "generate_page", "meta": {"pageType": "home", "description": "A bakery"}},
            {"capability": "web.section.generate", "meta": {"sectionType": "faq"}, "mode": "explain"},
        ],
    },
    "Decision": closed(
        {
            "digest": {
                "type": ["string", "null"],
                "pattern": whole(DIGEST),
                "default": None,
                "description": "That of the task one has read: with another one nothing is decided.",
            }
        },
        "digest",
        description="A decision about a task that waits for approval.",
    ),
    "NewKey": closed(
        {
            "name": {
                "type": "string",
                "pattern": whole(KEY_NAME),
                "not": {"enum": sorted(_OURS)},
                "description": "Who it is for.",
            },
            "scopes": listed(ref("Scope"), minItems=1, maxItems=MAX_SCOPES),
            "expires_at": {
                "type": ["string", "null"],
                "format": "date-time",
                "default": None,
                "description": f"When it ends, within {MAX_LIFE / (365 * 86_400):.0f} years.",
            },
        },
        "expires_at",
        description="A key to create.",
        examples=[{"name": "page builder", "scopes": ["read", "plan:web.*"]}],
    ),
    "Rotation": closed(
        {
            "overlap_seconds": {
                "type": "integer",
                "minimum": 0,
                "maximum": int(MAX_OVERLAP),
                "default": 86_400,
            }
        },
        "overlap_seconds",
        description="How long the old one goes on.",
    ),
    "Ensure": closed(
        {
            "want": {
                "anyOf": [ref("Needs"), {"type": "null"}],
                "default": None,
                "description": "Without it: all that registered autopilots need.",
            },
            "dry_run": {"type": "boolean", "default": False, "description": "Plan, but create nothing."},
            "meant": listed(
                text(128),
                maxItems=MAX_NEEDS,
                default=[],
                description="New names that are no typing errors, though something else is called nearly so.",
            ),
        },
        "want",
        "dry_run",
        "meant",
        description="What has to exist.",
    ),
}
