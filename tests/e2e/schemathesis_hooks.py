"""What Schemathesis cannot read off the document, told to it. Loaded by `st` through SCHEMATHESIS_HOOKS.

No check is turned off. Generated calls are changed in three ways before they are sent:

- An endpoint of a registration keeps its form, but leads to a port of this machine where nobody listens: the
  router looks hosts up and asks them for their health, and tests call nobody.
- Valid bodies are made to keep the rules that the document has in words only, so that more of them get in.
- Most valid plans are for a task that somebody does, most idempotency keys and names of API keys are used
  once, and most approvals and tasks that are seen or decided are there, by somebody who may.

And failures are dropped that say nothing against the document: refusals that depend on what is registered,
each by its code, or by field and words where the code says too little; and the gateway statuses of a plan,
which report somebody else's failure. The summary of a run counts what was dropped.
"""

from __future__ import annotations

import copy
import itertools
import os
import re
from typing import Any

import httpx
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure, ServerError
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData

from infra.outbound import parse_url
from router.errors import EndpointRefused
from router.needs import BINDINGS
from router.parse import MAX_FAMILIES

PRESENT = {
    "plan": {"unknown_task", "no_autopilot", "endpoint_refused"},
    "registerAutopilot": {"endpoint_refused", "stale"},
    "deleteAutopilot": {"stale"},
}
"""By operation: codes of refusals that depend on what is registered, allowed or in this process."""

GATEWAY = {"forward_failed", "not_ready", "deadline", "loop"}
"""Codes of a plan that the router understood and could not have done."""

KEY_TAKEN = r"Idempotency-Key: was used with another body"
NO_URL = r"(an IPv4 address must be|the host in brackets|the port must be|the host is no valid).*"
UNSAID: dict[str, tuple[str, ...]] = {
    "plan": (
        KEY_TAKEN,
        r"meta\b.*: .*",  # the schema of the capability, not ours
        rf"callback_url: {NO_URL}",
    ),
    "registerAutopilot": (
        KEY_TAKEN,
        rf"endpoint: {NO_URL}",
        r"capabilities\[\d+\]\.input_schema: .*",
        r"tasks\.\S+: already stands for \S+",
    ),
    "ensureInfrastructure": (KEY_TAKEN,),
    "createKey": (r"expires_at: must be in the next 100 years",),
    "listEvents": (r"Last-Event-ID: must be the id of an event",),  # it makes up "0" for a header's pattern
}
"""By operation: complaints about single fields that no JSON Schema can state."""

DONE: tuple[dict[str, Any], ...] = (
    {"task": "generate_page", "meta": {"pageType": "home", "description": "A bakery"}},
    {"task": "create_lead", "meta": {"email": "ada@example.com"}},
    {"task": "deploy_page", "meta": {"slug": "welcome", "html": "<h1>Welcome</h1>"}},
    {"capability": "web.section.generate", "meta": {"sectionType": "faq"}},
    {"capability": "payouts.batch.run"},
)
"""Plans that the built-in autopilots answer well."""

DECIDED = {"getApproval", "approveTask", "refuseTask"}
GUARDED = "guard.act"
"""A capability whose tasks wait for an approval."""

TASKS: dict[str, dict[str, Any]] = {
    "getTask": {"capability": GUARDED},
    "cancelTask": {"capability": GUARDED},
    "retryTask": {"capability": "web.pages.publish", "meta": {"slug": "nothing-there"}},
}
"""By operation: what to ask for asynchronously, so that there is a task that waits, or has failed."""

_number = itertools.count()


@schemathesis.hook
def before_call(_: Any, case: Any, __: dict[str, Any]) -> None:
    """Change a call as the module says."""
    valid = case.meta is not None and case.meta.generation.mode.is_positive
    number = next(_number)
    if valid and number % 4 and "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"call-{number}"
    if valid and number % 4:
        _name_what_is_there(case)
    if not isinstance(case.body, dict):
        return
    body = copy.deepcopy(case.body)
    match _operation(case):
        case "registerAutopilot":
            if isinstance(body.get("endpoint"), str):
                body["endpoint"] = _elsewhere(body["endpoint"])
            if valid:
                _keep_rules(body)
        case "ensureInfrastructure" if valid:
            _keep_needs(body.get("want") or {})
        case "plan" if valid and number % 4:
            body = {name: body[name] for name in ("mode", "timeout_ms") if name in body} | DONE[number % 5]
        case "createKey" if valid and number % 4:
            body["name"] = f"key {number}"
            if body.get("expires_at"):
                body["expires_at"] = "2099-12-31T23:59:59Z"
    if body != case.body:
        case.body = body


@schemathesis.hook
def filter_failure(_: Any, failure: Failure, case: Any, response: Response) -> bool:
    """Say whether a failure is one."""
    operation = _operation(case)
    if isinstance(failure, ServerError):
        told = _document(response)
        if operation in {"ensureInfrastructure", "selfHeal"}:
            return not told.get("errors")  # such as a name like that of something else
        return not (operation == "plan" and told.get("code") in GATEWAY)
    if isinstance(failure, AcceptedNegativeData):
        return response.status_code != 413  # which is a refusal too, of what is invalid and too large
    if isinstance(failure, RejectedPositiveData):
        return not _is_beyond_a_schema(operation, _document(response))
    return True


def _name_what_is_there(case: Any) -> None:
    """Let a call about a task or an approval be about one that there is, by somebody who may decide."""
    operation = _operation(case)
    if operation in TASKS and (task := _asked({**TASKS[operation], "mode": "async"})):
        case.path_parameters["id"] = task
    if operation in DECIDED and (approval := _asked({"capability": GUARDED})):
        case.path_parameters["id"] = approval
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {os.environ['FUZZ_DECIDER']}"}


def _asked(body: dict[str, Any]) -> str | None:
    """Ask for a task that waits, and return the id to see it by; None once a call took away what it needs."""
    asking = {"authorization": f"Bearer {os.environ['FUZZ_ASKER']}"}
    url = os.environ["FUZZ_URL"]
    answer = httpx.post(f"{url}/autopilot/plan", json=body, headers=asking, trust_env=False)
    if answer.status_code != 202:
        return None
    asked = str(answer.json()["id"])
    for _ in range(100) if body["capability"] != GUARDED else ():  # one that nobody waits for fails at once
        found = httpx.get(f"{url}/autopilot/tasks/{asked}", headers=asking, trust_env=False)
        if found.json().get("status") == "failed":
            break
    return asked


def _operation(case: Any) -> str:
    return str(case.operation.definition.raw["operationId"])


def _elsewhere(endpoint: str) -> str:
    """Return an endpoint of the same form that leads nowhere; what is no URL stays as it is."""
    try:
        parse_url(endpoint)
    except EndpointRefused:
        return endpoint
    return re.sub(r"//[^/?]*", "//127.0.0.1:9", endpoint, count=1)


def _keep_rules(body: dict[str, Any]) -> None:
    """Leave no name twice, not too many families, and give the tasks capabilities of the autopilot."""
    named = {_name(one): one for one in body["capabilities"]}
    families: set[str] = set()
    for name, one in list(named.items()):
        if name.endswith(".*") or (isinstance(one, dict) and one.get("configure")):
            families.add(name.partition(".")[0])
            if len(families) > MAX_FAMILIES:
                del named[name]
    body["capabilities"] = list(named.values())
    own = [name for name in named if not name.endswith(".*")]
    body["tasks"] = dict.fromkeys(body.get("tasks", {}), own[0]) if own else {}
    _keep_needs(body.get("needs") or {})


def _name(one: Any) -> str:
    return str(one if isinstance(one, str) else one["name"])


def _keep_needs(needs: dict[str, Any]) -> None:
    """Leave no name twice, and bind Workers to nothing but what the same needs list."""
    for kind in ("r2Buckets", "workers"):
        if kind in needs:
            needs[kind] = list({_name(one): one for one in needs[kind]}.values())
    for worker in needs.get("workers", ()):
        for name, binding in list(worker.get("bindings", {}).items()):
            [(kind, _)] = binding.items()
            if listed := needs.get(BINDINGS[kind]):
                worker["bindings"][name] = {kind: _name(listed[0])}
            else:
                del worker["bindings"][name]


def _document(response: Response) -> dict[str, Any]:
    document = response.json() if response.content else {}
    return document if isinstance(document, dict) else {}


def _is_beyond_a_schema(operation: str, document: dict[str, Any]) -> bool:
    """Whether valid data was refused for reasons that no schema could state."""
    if document.get("code") in PRESENT.get(operation, ()):
        return True
    complaints = [f"{one['field']}: {one['message']}" for one in document.get("errors", ())]
    allowed = UNSAID.get(operation, ())
    return bool(complaints) and all(any(re.fullmatch(rule, one) for rule in allowed) for one in complaints)
