"""An error as HTTP shows it: the one table of statuses, and the RFC 9457 document.

Only edges import this: the router's `app`, and the kit that autopilots are made with.
"""

from __future__ import annotations

from typing import Any

from router.errors import AutopilotError

MEDIA_TYPE = "application/problem+json"

STATUS: dict[str, int] = {
    "approval_required": 202,
    "task_required": 400,
    "unknown_task": 400,
    "malformed": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "conflict": 409,
    "stale": 412,
    "too_large": 413,
    "media_type": 415,
    "invalid_body": 422,
    "no_autopilot": 422,
    "endpoint_refused": 422,
    "unmet": 424,
    "rate_limited": 429,
    "forward_failed": 502,
    "model_unavailable": 503,
    "not_ready": 503,
    "overloaded": 503,
    "store_unavailable": 503,
    "deadline": 504,
    "loop": 508,
}


def status_of(error: AutopilotError) -> int:
    """Return the HTTP status of an error; one without a row is our own fault, 500."""
    return STATUS.get(error.code, 500)


def document_of(error: AutopilotError, trace_id: str = "") -> dict[str, Any]:
    """Return the problem document: the standard members, `code`, the seed's `error` and the extras."""
    document: dict[str, Any] = {
        "type": f"urn:autopilot:problem:{error.code}",
        "title": error.title,
        "status": status_of(error),
        "detail": error.detail,
        "code": error.code,
        "error": error.title,
    }
    if trace_id:
        document["trace_id"] = trace_id
    document.update(error.extra)
    return document
