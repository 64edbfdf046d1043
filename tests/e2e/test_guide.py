"""The seed's guide, word for word: each curl line, with the host replaced, gives what it documents."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import Any

import httpx
import pytest

from tests.process import ROOT, Served, autopilot, environment, run

ROUTER = "https://efh-autopilot-orchestrator.your-subdomain.workers.dev"
HOSTS = re.compile(r"https://efh-[a-z-]+\.your-subdomain\.workers\.dev")

HEALTH = f"curl {ROUTER}/health"
LIST = f"curl {ROUTER}/autopilot/list"
DIAGNOSE = f"curl {ROUTER}/autopilot/diagnose"
SCHEDULED = f"curl -X POST {ROUTER}/__scheduled"

REGISTER = f"""curl -X POST {ROUTER}/autopilot/registry \\
  -H "Content-Type: application/json" \\
  -d '{{
    "name": "ai-employee",
    "endpoint": "https://efh-agent.your-subdomain.workers.dev",
    "capabilities": [
      "email.process",
      "crm.lead.create",
      "email.send"
    ],
    "needs": {{
      "kvNamespaces": ["AI_EMPLOYEE_LOGS"],
      "r2Buckets": ["efh-private"]
    }}
  }}'"""

RUN_A_TASK = f"""curl -X POST {ROUTER}/autopilot/plan \\
  -H "Content-Type: application/json" \\
  -d '{{
    "task": "generate_page",
    "meta": {{
      "pageType": "home",
      "description": "Welcome page for new students"
    }}
  }}'"""

AUTO_FIX = f"""curl -X POST {ROUTER}/autopilot/ensure-infra \\
  -H "Content-Type: application/json" \\
  -d '{{
    "want": {{
      "kvNamespaces": ["REGISTRY", "AI_EMPLOYEE_LOGS"],
      "r2Buckets": ["efh-assets", "efh-images", "efh-pages"]
    }}
  }}'"""

AUTOPILOTS = [
    "curl https://efh-agent.your-subdomain.workers.dev/health",
    "curl https://efh-ai-stylist.your-subdomain.workers.dev/health",
    "curl https://efh-page-deployer.your-subdomain.workers.dev/health",
]

TASKS = {
    "generate_page": ("web.pages.generate", "ai-stylist"),
    "deploy_page": ("web.pages.deploy", "page-deployer"),
    "generate_asset": ("web.asset.generate", "ai-stylist"),
    "process_email": ("email.process", "ai-employee"),
    "create_lead": ("crm.lead.create", "ai-employee"),
    "send_followup": ("email.send", "ai-employee"),
    "make_checkout": ("payment.checkout.create", "ai-employee"),
    "enroll_student": ("lms.enrollment.create", "ai-employee"),
    "run_payout_batch": ("payouts.batch.run", "payout-batch"),
    "pay_affiliate_now": ("payouts.transfer.single", "payout-batch"),
}
"""The guide's table of tasks. Its code had an eleventh, `ingest_intake_doc`."""

NEEDS_EXAMPLE = {
    "name": "ai-employee",
    "endpoint": "https://efh-agent.workers.dev",
    "capabilities": [
        "email.process",
        "crm.lead.create",
        "crm.lead.update",
        "email.send",
        "payment.checkout.create",
        "lms.enrollment.create",
        "files.intake.upload",
        "task.schedule",
    ],
    "needs": {"kvNamespaces": ["AI_EMPLOYEE_LOGS"], "r2Buckets": ["efh-private"]},
}


def do(line: str, url: str) -> tuple[int, Any]:
    """Run one of the guide's lines against `url`; return the status and the JSON of the answer."""
    words = shlex.split(HOSTS.sub(url, line).replace("\\\n", " "))
    if shutil.which("curl"):
        command = [*words, "--silent", "--noproxy", "*", "--max-time", "20", "-w", "\n%{http_code}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    content = words[words.index("-d") + 1] if "-d" in words else None
    headers = {"content-type": "application/json"} if content else {}
    [where] = [word for word in words if word.startswith(url)]
    answer = httpx.request(method, where, content=content, headers=headers)
    return answer.status_code, answer.json()


def test_deployment_is_verified(served: Served) -> None:
    """After `bash scripts/register-autopilots.sh` health, list and diagnose answer as the guide says."""
    registered = run("bash", "scripts/register-autopilots.sh", env={"ORCHESTRATOR_URL": served.url})
    assert registered.returncode == 0, registered.stderr
    status, health = do(HEALTH, served.url)
    assert (status, health["status"], health["service"]) == (200, "healthy", "autopilot-orchestrator")
    status, listed = do(LIST, served.url)
    assert (status, listed["count"]) == (200, 4)
    assert do(DIAGNOSE, served.url)[0] == 200


def test_a_task_is_run(served: Served) -> None:
    """`generate_page` with the guide's meta comes back as a page, from the autopilot its table names."""
    status, answer = do(RUN_A_TASK, served.url)
    assert status == 200
    assert (answer["autopilot"], answer["ok"], answer["status"]) == ("ai-stylist", True, 200)
    page = answer["result"]["page"]
    assert page["pageType"] == "home"
    assert "Welcome page for new students" in page["html"]


def test_every_task_of_the_table_stands_for_its_capability(served: Served) -> None:
    """Task, capability and autopilot are those of the guide's table."""
    tasks = {one["task"]: one for one in httpx.get(f"{served.url}/autopilot/catalogue").json()["tasks"]}
    for task, (capability, name) in TASKS.items():
        assert (tasks[task]["capability"], tasks[task]["autopilots"]) == (capability, [name])
    assert tasks["ingest_intake_doc"]["capability"] == "files.intake.upload"


def test_infrastructure_is_fixed(served: Served) -> None:
    """The guide's want is created the first time and kept the second."""
    status, first = do(AUTO_FIX, served.url)
    assert (status, first["ok"], first["errors"]) == (200, True, [])
    assert {"REGISTRY"} <= {one["name"] for one in first["created"]["kv"]}
    assert [one["name"] for one in first["created"]["r2"]] == ["efh-assets", "efh-images", "efh-pages"]
    assert all(one["id"] for one in first["created"]["kv"])
    status, second = do(AUTO_FIX, served.url)
    assert (status, second["created"]["kv"], second["created"]["r2"]) == (200, [], [])
    assert len(second["skipped"]["kv"] + second["skipped"]["r2"]) == 5


def test_health_of_the_system_is_checked(served: Served) -> None:
    """diagnose has the guide's members: token, resources by kind in its spelling, timestamp."""
    do(AUTO_FIX, served.url)
    status, answer = do(DIAGNOSE, served.url)
    assert status == 200
    assert {"id", "status"} <= set(answer["token"])
    resources = answer["resources"]
    titles = {one["title"] for one in resources["kv"]}
    assert {"REGISTRY", "AI_EMPLOYEE_LOGS"} <= titles
    assert all(one["id"] for one in resources["kv"])
    assert {"efh-assets", "efh-images"} <= {one["name"] for one in resources["r2"]}
    assert isinstance(resources["workers"], list)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", answer["timestamp"])


def test_self_healing_is_triggered_by_hand(served: Served) -> None:
    """The cron's route runs a pass and answers its report."""
    status, report = do(SCHEDULED, served.url)
    assert (status, report["ok"]) == (200, True)
    assert report["plan"]


def test_activity_is_viewed(served: Served) -> None:
    """The list has what the dashboard shows; each health line answers healthy."""
    status, listed = do(LIST, served.url)
    assert status == 200
    assert listed["count"] == len(listed["autopilots"])
    for row in listed["autopilots"]:
        assert {"name", "endpoint", "capabilities", "needs"} <= set(row)
    for line in AUTOPILOTS:
        assert do(line, served.url)[1]["status"] == "healthy"
    for name in ("ai-employee", "ai-stylist", "page-deployer", "payout-batch"):
        answer = httpx.get(f"{served.url}/autopilot/registry/{name}/health").json()
        assert answer == {"status": "healthy", "autopilot": name}


def test_an_autopilot_is_registered(served: Served) -> None:
    """The guide's registration is taken with its message, and the list shows what was sent."""
    try:
        status, answer = do(REGISTER, served.url)
        assert status in {200, 201}
        assert answer["ok"] is True
        assert answer["message"] == "Autopilot 'ai-employee' registered successfully"
        assert answer["autopilot"]["needs"]["r2Buckets"] == ["efh-private"]
        _, listed = do(LIST, served.url)
        [row] = [one for one in listed["autopilots"] if one["name"] == "ai-employee"]
        assert row["capabilities"] == ["email.process", "crm.lead.create", "email.send"]
        assert row["endpoint"] == served.url
    finally:
        autopilot("register", "--built-in", "--url", served.url)


@pytest.mark.parametrize("body", [NEEDS_EXAMPLE, json.loads(REGISTER.partition("-d '")[2].removesuffix("'"))])
def test_an_autopilot_at_its_own_host_is_registered(served: Served, body: dict[str, Any]) -> None:
    """The guide's endpoints, whose hosts nobody has, are taken with a warning."""
    try:
        answer = httpx.post(f"{served.url}/autopilot/registry", json=body)
        assert answer.status_code in {200, 201}
        assert answer.json()["autopilot"]["endpoint"] == body["endpoint"]
        assert "does not resolve yet" in answer.json()["warnings"][0]
    finally:
        autopilot("register", "--built-in", "--url", served.url)


def test_troubleshooting_finds_its_texts(served: Served) -> None:
    """The three messages the guide explains are what those situations answer."""
    nobody = {"capability": "nobody.offers.this"}
    answer = httpx.post(f"{served.url}/autopilot/plan", json=nobody)
    assert answer.json()["error"] == "No autopilot currently supports nobody.offers.this"
    body: dict[str, Any] = {"name": "dead", "endpoint": "http://127.0.0.1:9", "capabilities": ["dead.end"]}
    httpx.post(f"{served.url}/autopilot/registry", json=body)
    answer = httpx.post(f"{served.url}/autopilot/plan", json={"capability": "dead.end"})
    assert (answer.status_code, answer.json()["error"]) == (502, "Failed to forward task")
    (served.log.parent / "r2").mkdir(exist_ok=True)
    (served.log.parent / "r2/in-the-way").write_text("a file")
    body = {**body, "needs": {"r2Buckets": ["in-the-way"]}}
    httpx.post(f"{served.url}/autopilot/registry", json=body)
    answer = httpx.post(f"{served.url}/autopilot/plan", json={"capability": "dead.end"})
    assert (answer.status_code, answer.json()["error"]) == (503, "Infrastructure not ready")
    httpx.delete(f"{served.url}/autopilot/registry/dead")


def test_the_script_has_the_name_the_guide_gives_it() -> None:
    """`scripts/register-autopilots.sh` is the registration script itself."""
    assert (ROOT / "scripts/register-autopilots.sh").samefile(ROOT / "scripts/register-autopilots")
