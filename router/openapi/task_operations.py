"""What there is to say of the operations of asynchronous tasks."""

from __future__ import annotations

from collections.abc import Mapping

from router.openapi.grammar import Json, whole
from router.openapi.operation import LIMIT, PARAMETERS, STORE, Operation, query
from router.openapi.tasks import STATES
from router.task import TASK_ID

_TASK_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The asynchronous task, by the id that whoever submitted it was told.",
    "schema": {"type": "string", "pattern": whole(TASK_ID)},
}
LINKS: Json = {
    operation: {"operationId": operation, "parameters": {"id": "$response.body#/id"}}
    for operation in ("getTask", "cancelTask", "retryTask")
}

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/autopilot/tasks"): Operation(
        "listAsyncTasks",
        "tasks",
        {200: "Tasks"},
        (*PARAMETERS, STORE),
        parameters=(
            query("status", {"enum": STATES}, "Only those in this state."),
            LIMIT,
            query(
                "cursor",
                {"type": "string", "pattern": whole(f"(?:{TASK_ID.pattern})?")},
                "The `next` of an earlier page; empty for the first one.",
            ),
        ),
        description="Newest first. With `read` or `operate` everybody's, else one's own. Kept for 7 days.",
    ),
    ("GET", "/autopilot/tasks/{id}"): Operation(
        "getTask",
        "tasks",
        {200: "WholeTask"},
        (*PARAMETERS, "not_found", STORE),
        parameters=(_TASK_ID,),
        description="For whoever submitted it, and for those with the scope `read` or `operate`.",
    ),
    ("POST", "/autopilot/tasks/{id}/cancel"): Operation(
        "cancelTask",
        "tasks",
        {200: "WholeTask"},
        (*PARAMETERS, "not_found", "conflict", STORE),
        parameters=(_TASK_ID,),
        description=(
            "For whoever submitted it, and for those with the scope `operate`. What is being sent cannot be "
            "called back: the task is cancelled, and its answer is kept. 409 when it is over."
        ),
    ),
    ("POST", "/autopilot/tasks/{id}/retry"): Operation(
        "retryTask",
        "tasks",
        {200: "WholeTask"},
        (*PARAMETERS, "not_found", "conflict", STORE),
        parameters=(_TASK_ID,),
        description=(
            "For whoever submitted it, and for those with the scope `operate`. It is sent as the same task, "
            "with the same idempotency key. 409 unless it has failed."
        ),
    ),
}
