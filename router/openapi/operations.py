"""What there is to say of each operation beyond its method, path, scope and summary."""

from __future__ import annotations

from collections.abc import Mapping

from router.approvals import APPROVAL_ID
from router.audit import RECORD_ID
from router.events import EVENT_ID
from router.headers import IDEMPOTENCY_KEY, REVISION
from router.openapi.answers import STATES
from router.openapi.approvals import STATES as APPROVAL_STATES
from router.openapi.grammar import Json, ref, whole
from router.openapi.operation import BODY, LIMIT, ONCE, PARAMETERS, STORE, Operation, query
from router.openapi.task_operations import LINKS as TASK_LINKS
from router.openapi.task_operations import OPERATIONS as TASK_OPERATIONS

_NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The autopilot.",
    "schema": ref("Name"),
}
_KEY_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The key, by the id that the list shows.",
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z]{8}$"},
}
_IF_MATCH: Json = {
    "name": "If-Match",
    "in": "header",
    "description": "The revision it must be at, as its `ETag` shows it; `*` asks that there is one at all.",
    "schema": {"type": "string", "pattern": whole(rf"\*|{REVISION.pattern}")},
}
_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Under one key the work is done once, and a repeat gets the same answer. Quoted or bare.",
    "schema": {
        "type": "string",
        "pattern": whole(f'"{IDEMPOTENCY_KEY.pattern}"|{IDEMPOTENCY_KEY.pattern}'),
    },
}
_ETAG: Json = {
    "ETag": {
        "required": True,
        "description": "The revision.",
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
    }
}
_REPLAYED: Json = {
    "Idempotent-Replayed": {
        "description": "That this is the answer to an earlier call with the same key.",
        "schema": {"type": "string", "const": "true"},
    }
}
_LINKS: Json = {
    operation: {"operationId": operation, "parameters": {"name": "$response.body#/autopilot/name"}}
    for operation in (
        "getAutopilot",
        "deleteAutopilot",
        "heartbeat",
        "probeAutopilot",
        "rotateSigningSecret",
    )
}


_KEY_LINKS: Json = {
    operation: {"operationId": operation, "parameters": {"id": "$response.body#/record/id"}}
    for operation in ("rotateKey", "revokeKey")
}


_APPROVAL_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The approval, by the id that whoever asked was told.",
    "schema": {"type": "string", "pattern": whole(APPROVAL_ID)},
}
_APPROVAL_LINKS: Json = {
    operation: {"operationId": operation, "parameters": {"id": "$response.body#/id"}}
    for operation in ("getApproval", "approveTask", "refuseTask")
}
_LOCATION: Json = {
    "Location": {
        "required": True,
        "description": "Where the task, or the approval, is.",
        "schema": {"type": "string", "pattern": "^/autopilot/(?:tasks|approvals)/"},
    }
}


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/autopilot/plan"): Operation(
        "plan",
        "tasks",
        {200: "Planned", 202: "Accepted"},
        (
            *BODY,
            *ONCE,
            "endpoint_refused",
            "task_required",
            "unknown_task",
            "no_autopilot",
            "not_ready",
            "forward_failed",
            "deadline",
            "loop",
            STORE,
        ),
        body="Plan",
        passed_on="Outcome",
        parameters=(_IDEMPOTENCY_KEY,),
        headers={200: _REPLAYED, 202: {**_LOCATION, **_REPLAYED}},
        links={202: {**_APPROVAL_LINKS, **TASK_LINKS}},
        description=(
            "An autopilot's own 4xx comes back in the envelope of a 200, with `ok` false. Refused are tasks "
            "nobody knows, capabilities nobody offers, and a `meta` that breaks the capability's schema. "
            "With 202 nothing was sent yet: the task is asynchronous, or somebody else has to approve it."
        ),
    ),
    **TASK_OPERATIONS,
    ("GET", "/autopilot/catalogue"): Operation(
        "listTasks", "tasks", {200: "Catalogue"}, (*PARAMETERS, STORE)
    ),
    ("POST", "/autopilot/registry"): Operation(
        "registerAutopilot",
        "autopilots",
        {201: "Registered", 200: "Registered"},
        (*BODY, *ONCE, "endpoint_refused", "stale", STORE),
        body="Autopilot",
        parameters=(_IF_MATCH, _IDEMPOTENCY_KEY),
        headers={201: {**_ETAG, **_REPLAYED}, 200: {**_ETAG, **_REPLAYED}},
        links={201: _LINKS, 200: _LINKS},
        description="A host that does not resolve yet is taken, with a line in `warnings`.",
    ),
    ("GET", "/autopilot/list"): Operation(
        "listAutopilots",
        "autopilots",
        {200: "Page"},
        (*PARAMETERS, STORE),
        parameters=(
            query("capability", ref("CapabilityName"), "Only those that offer it."),
            query("health", {"enum": STATES}, "Only those whose health is this."),
            LIMIT,
            query("cursor", ref("Cursor"), "The `next` of an earlier page; empty for the first one."),
        ),
    ),
    ("GET", "/autopilot/registry/{name}"): Operation(
        "getAutopilot",
        "autopilots",
        {200: "One"},
        ("not_found", STORE),
        parameters=(_NAME,),
        headers={200: _ETAG},
    ),
    ("DELETE", "/autopilot/registry/{name}"): Operation(
        "deleteAutopilot",
        "autopilots",
        {204: ""},
        (*PARAMETERS, "not_found", "stale", STORE),
        parameters=(_NAME, _IF_MATCH),
    ),
    ("POST", "/autopilot/registry/{name}/heartbeat"): Operation(
        "heartbeat",
        "autopilots",
        {200: "Lease"},
        ("not_found", "conflict", STORE),
        parameters=(_NAME,),
    ),
    ("GET", "/autopilot/registry/{name}/health"): Operation(
        "probeAutopilot",
        "autopilots",
        {200: "AutopilotHealth"},
        ("not_found", STORE),
        parameters=(_NAME,),
    ),
    ("GET", "/autopilot/events"): Operation(
        "listEvents",
        "audit",
        {200: "Events"},
        (*PARAMETERS, STORE),
        parameters=(
            query("after", {"type": "string", "pattern": whole(EVENT_ID.pattern)}, "Events after this id."),
            query("type", {"type": "string"}, "Only those of a type, such as `infra.heal`."),
            LIMIT,
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "Goes before `after`: a stream that broke off is taken up again.",
                "schema": {"type": "string", "pattern": whole(EVENT_ID.pattern)},
            },
        ),
        streams=True,
        description=(
            "What happened, oldest first; kept for 30 days. With `Accept: text/event-stream` it is sent "
            "while it happens."
        ),
    ),
    ("GET", "/autopilot/audit"): Operation(
        "listAudit",
        "audit",
        {200: "Audit"},
        (*PARAMETERS, STORE),
        parameters=(
            query("after", {"type": "string", "pattern": whole(RECORD_ID.pattern)}, "Those after this."),
            LIMIT,
        ),
        description=(
            "What was changed, every forward of a capability of high risk, and every call that a key was not "
            "for, oldest first. `autopilot audit verify` tells whether all is as it was written."
        ),
    ),
    ("POST", "/autopilot/registry/{name}/secret"): Operation(
        "rotateSigningSecret",
        "autopilots",
        {201: "RotatedSecret"},
        (*BODY, "not_found", "conflict", STORE),
        body="Rotation",
        body_required=False,
        parameters=(_NAME,),
        headers={201: _ETAG},
        description=(
            "The new secret is shown only in this answer, whatever `Idempotency-Key` says. While the overlap "
            "runs, tasks carry a signature of each; without one, every earlier secret ends at once."
        ),
    ),
    ("GET", "/autopilot/approvals"): Operation(
        "listApprovals",
        "approvals",
        {200: "Approvals"},
        (*PARAMETERS, STORE),
        parameters=(
            query("status", {"enum": APPROVAL_STATES}, "Only those in this state."),
            LIMIT,
            query(
                "cursor",
                {"type": "string", "pattern": whole(f"(?:{APPROVAL_ID.pattern})?")},
                "The `next` of an earlier page; empty for the first one.",
            ),
        ),
    ),
    ("GET", "/autopilot/approvals/{id}"): Operation(
        "getApproval",
        "approvals",
        {200: "OneApproval"},
        ("not_found", STORE),
        parameters=(_APPROVAL_ID,),
        description="For those with the scope `operate`, and for whoever asked for the task.",
    ),
    ("POST", "/autopilot/approvals/{id}/approve"): Operation(
        "approveTask",
        "approvals",
        {200: "Decided"},
        (*BODY, "not_found", "conflict", STORE),
        body="Decision",
        body_required=False,
        parameters=(_APPROVAL_ID,),
        description=(
            "Sends the task, once, with the approval's id as its idempotency key. 403 for whoever asked for "
            "it. `outcome` is null when there was no answer: then whoever approved may do so again."
        ),
    ),
    ("POST", "/autopilot/approvals/{id}/refuse"): Operation(
        "refuseTask",
        "approvals",
        {200: "Refused"},
        (*BODY, "not_found", "conflict", STORE),
        body="Decision",
        body_required=False,
        parameters=(_APPROVAL_ID,),
        description="403 for whoever asked for the task.",
    ),
    ("GET", "/autopilot/keys"): Operation("listKeys", "keys", {200: "Keys"}, (*PARAMETERS, STORE)),
    ("POST", "/autopilot/keys"): Operation(
        "createKey",
        "keys",
        {201: "CreatedKey"},
        (*BODY, "conflict", STORE),
        body="NewKey",
        links={201: _KEY_LINKS},
        description="The key is shown only in this answer.",
    ),
    ("DELETE", "/autopilot/keys/{id}"): Operation(
        "revokeKey", "keys", {204: ""}, ("not_found", STORE), parameters=(_KEY_ID,)
    ),
    ("POST", "/autopilot/keys/{id}/rotate"): Operation(
        "rotateKey",
        "keys",
        {201: "CreatedKey"},
        (*BODY, "not_found", "conflict", STORE),
        body="Rotation",
        body_required=False,
        parameters=(_KEY_ID,),
        links={201: _KEY_LINKS},
        description="The new key is shown only in this answer; the old one ends after the overlap.",
    ),
    ("GET", "/autopilot/diagnose"): Operation(
        "diagnose",
        "infrastructure",
        {200: "Diagnosis", 207: "Diagnosis", 502: "Diagnosis"},
        PARAMETERS,
        parameters=(
            query(
                "probe_writes",
                {"enum": ["true", "false"], "default": "false"},
                "Also find out what may be written, by creations that cannot succeed.",
            ),
        ),
        description="200 when every part could be read, 207 when some could, 502 when none could.",
    ),
    ("POST", "/autopilot/ensure-infra"): Operation(
        "ensureInfrastructure",
        "infrastructure",
        {200: "Report", 502: "Report"},
        (*BODY, *ONCE, STORE),
        body="Ensure",
        body_required=False,
        parameters=(_IDEMPOTENCY_KEY,),
        headers={200: _REPLAYED, 502: _REPLAYED},
        description="502 with the same body when something could not be created. Nothing is ever deleted.",
    ),
    ("POST", "/__scheduled"): Operation(
        "selfHeal",
        "infrastructure",
        {200: "Pass", 502: "Pass"},
        (*PARAMETERS, "conflict", STORE),
        description="What the schedule does every 15 minutes. 409 while another pass runs.",
    ),
    ("GET", "/health"): Operation("health", "process", {200: "Healthy", 503: "Unhealthy"}),
    ("GET", "/ready"): Operation("ready", "process", {200: "Ready", 503: "NotReady"}),
    ("GET", "/openapi.json"): Operation("describe", "process", {200: "Document"}),
}
