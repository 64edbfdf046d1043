"""Puts the document together from the endpoints there are and what `operations` says of them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from infra.body import MAX_BODY, MAX_DEPTH, MAX_DIGITS, MAX_NODES, MAX_STRING
from router import __version__
from router.openapi import answers, problems, requests
from router.openapi.grammar import NAMES, Json, ref
from router.openapi.operation import WITH_KEY, Operation
from router.openapi.operations import OPERATIONS

_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key, sent as `Authorization: Bearer KEY`. `x-scope` names the scope it needs.",
}
_STRICT = (
    f"Strict JSON in UTF-8: no key twice, at most {MAX_BODY} bytes, {MAX_DEPTH} levels, {MAX_NODES} values, "
    f"{MAX_STRING} bytes a text and {MAX_DIGITS} digits an integer."
)
_TRACEPARENT: Json = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context: the call joins that trace. What is none starts a new one.",
    "schema": {"type": "string"},
}
_TAGS = {
    "tasks": "Have a task done.",
    "autopilots": "Who does tasks.",
    "keys": "Who may call what.",
    "audit": "Who did what, and what happened.",
    "approvals": "Tasks that wait until somebody else approves them.",
    "infrastructure": "The storage autopilots need.",
    "process": "How this process is.",
}


class Entry(NamedTuple):
    """An endpoint of the app. `scope` is `public` for one that needs no key."""

    method: str
    path: str
    scope: str
    summary: str


def document(entries: Iterable[Entry], *, local: bool) -> dict[str, Any]:
    """Return the OpenAPI document of the endpoints `entries`; `local` says that no key is needed here.

    Raises `KeyError` for an endpoint of which `operations` says nothing.
    """
    paths: dict[str, Json] = {}
    codes: set[str] = set()
    for entry in entries:
        operation = OPERATIONS[entry.method, entry.path]
        codes.update(_codes(operation, entry.scope))
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(operation, entry, local=local)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Autopilot router",
            "version": __version__,
            "description": "A registry of autopilots, a decision which one does a task, and a forward to it.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "Where this document comes from."}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**NAMES, **requests.SCHEMAS, **answers.SCHEMAS, **problems.schemas(codes)},
            "parameters": {"traceparent": _TRACEPARENT},
            "securitySchemes": {"bearer": _BEARER},
        },
    }


def _codes(operation: Operation, scope: str) -> tuple[str, ...]:
    return operation.codes if scope == "public" else (*operation.codes, *WITH_KEY)


def _operation(operation: Operation, entry: Entry, *, local: bool) -> Json:
    security: list[Json] = [] if entry.scope == "public" else [{"bearer": []}]
    if security and local:
        security.append({})  # this machine's own callers may leave the key out
    described: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": entry.summary,
        "security": security,
        "x-scope": entry.scope,
        "parameters": [*operation.parameters, {"$ref": "#/components/parameters/traceparent"}],
        "responses": _responses(operation, entry.scope),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body:
        described["requestBody"] = {
            "required": operation.body_required,
            "description": _STRICT,
            "content": {"application/json": {"schema": ref(operation.body)}},
        }
    return described


def _responses(operation: Operation, scope: str) -> Json:
    """Return the responses by status; one status may be a success and a problem, by its media type."""
    found: dict[int, Json] = {}
    for status, name in operation.answers.items():
        found[status] = {"description": HTTPStatus(status).phrase}
        if name:
            found[status]["content"] = {"application/json": {"schema": ref(name)}}
        if operation.streams:
            found[status]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
        headers = {**operation.headers.get(status, {}), **(problems.LIMITS if scope != "public" else {})}
        if headers:
            found[status]["headers"] = headers
        if links := operation.links.get(status):
            found[status]["links"] = links
    for status, problem in problems.responses(_codes(operation, scope)).items():
        content = {**found.get(status, {}).get("content", {}), **problem["content"]}
        found[status] = {**problem, "content": content}
    shown = {str(status): found[status] for status in sorted(found)}
    if operation.passed_on:
        # Any 4xx may be an autopilot's own, in the same envelope as its success.
        passed_on: Json = {"application/json": {"schema": ref(operation.passed_on)}}
        for status in found:
            if 400 <= status < 500:
                shown[str(status)]["content"] |= passed_on
        shown["4XX"] = {"description": "What the autopilot answered.", "content": passed_on}
    return shown
