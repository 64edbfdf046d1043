"""The demo: a real server, the real registration script, and each documented task through the router.

Everything goes into a temporary folder (--data keeps it elsewhere). Exit status 0 when every task was ok.
"""

from __future__ import annotations

import argparse
import base64
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("AUTOPILOT_", "CF_", "DYNAMODB_", "OPENAI_", "STRIPE_")
EMAIL = """From: Ada Student <ada@example.com>
To: admissions@example.com
Subject: How do I enroll in the data course?
Message-ID: <demo-1@example.com>
Date: Mon, 05 Jan 2026 09:00:00 +0000

Hello, I would like to enroll in the data course in spring. What does it cost, and when does it start?
"""

PREPARATIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "onboard_affiliate",
        {
            "affiliate_id": "aff_demo",
            "email": "aff@example.com",
            "name": "Demo Affiliate",
            "payout_method": {"type": "bank_account", "last4": "6789"},
        },
    ),
    (
        "calculate_commission",
        {
            "affiliate_id": "aff_demo",
            "sale_id": "sale_demo",
            "amount": 19900,
            "currency": "usd",
            "rate_bps": 1000,
        },
    ),
]
"""Tasks that two of the documented ones build on: somebody to pay, and something to pay them for."""


def tasks(page: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the documented tasks in order; `page` is filled with the page once it is generated."""
    return [
        ("generate_page", {"pageType": "home", "description": "Welcome page for new students"}),
        ("deploy_page", page),
        ("generate_asset", {"assetType": "banner", "content": {"headline": "Spring courses are open"}}),
        ("process_email", {"raw": EMAIL}),
        ("create_lead", {"email": "ada@example.com", "name": "Ada Student", "interest": "data course"}),
        (
            "send_followup",
            {
                "to": "ada@example.com",
                "template": "enrollment_inquiry",
                "variables": {"name": "Ada", "course": "the data course"},
            },
        ),
        ("make_checkout", {"amount": 4900, "currency": "usd", "description": "Data course, first part"}),
        ("enroll_student", {"student_email": "ada@example.com", "course": "Data course"}),
        ("run_payout_batch", {}),
        ("pay_affiliate_now", {"affiliate_id": "aff_demo", "amount": 2500, "currency": "usd"}),
        (
            "ingest_intake_doc",
            {
                "filename": "application.txt",
                "content_type": "text/plain",
                "content_base64": base64.b64encode(b"I apply for the data course.").decode(),
            },
        ),
    ]


@contextmanager
def server(data: Path, port: int) -> Iterator[str]:
    """Run `autopilot serve` on `port` (0: any free one) and give its URL."""
    # Whatever is set up here is for real work: a demo opens no real checkout and asks no model that costs.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
    command = [sys.executable, "-m", "router.cli", "serve", "--port", str(port), "--data", str(data)]
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "listening on" not in line:
                sys.exit(f"the server did not start:\n{(data / 'server.log').read_text()}")
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def send(client: httpx.Client, task: str, meta: dict[str, Any]) -> dict[str, Any]:
    """Plan one task and print what came of it."""
    answer: dict[str, Any] = client.post("/autopilot/plan", json={"task": task, "meta": meta}).json()
    if "autopilot" not in answer or "result" not in answer:
        print(f"  {task:18} FAILED  {answer.get('error')}: {answer.get('detail')}")
        return {"ok": False}
    outcome = "ok" if answer["ok"] else "FAILED"
    print(
        f"  {task:18} {answer['autopilot']:14} {answer['capability']:24} "
        f"{outcome} {answer['status']} {answer['duration_ms']:8.1f} ms"
    )
    if not answer["ok"]:
        print(f"    {answer['result']}")
    return answer


def run(url: str, data: Path) -> bool:
    """Register, send every task, look at the page; return whether all of it worked."""
    subprocess.run(
        [str(ROOT / "scripts/register-autopilots"), "--url", url], check=True, stdout=subprocess.DEVNULL
    )
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        names = [one["name"] for one in client.get("/autopilot/list").json()["autopilots"]]
        print(f"registered {', '.join(names)}\n\nprepared with")
        ready = [send(client, task, meta)["ok"] for task, meta in PREPARATIONS]
        print("\nthe documented tasks")
        page: dict[str, Any] = {"slug": "welcome"}
        answers = {}
        for task, meta in tasks(page):
            answers[task] = send(client, task, meta)
            if task == "generate_page" and answers[task]["ok"]:
                page["html"] = answers[task]["result"]["page"]["html"]
        done = sum(answer["ok"] for answer in answers.values())
        print(f"\n{done} of {len(answers)} tasks ok")
        if not answers["deploy_page"]["ok"]:
            return False
        deployed = answers["deploy_page"]["result"]
        shown = client.get(deployed["url"])
        same = shown.status_code == 200 and shown.text == page["html"]
        file = data / "r2/autopilot-pages" / deployed["slug"] / f"versions/{deployed['version']}.html"
        verdict = "as generated" if same else "NOT as generated"
        print(f"page  {deployed['url']}  answers {shown.status_code}, {verdict}")
        print(f"file  {file}")
        return all(ready) and done == len(answers) and same and file.is_file()


def main() -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="keep the router running until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="the port to serve on (default: any free one)")
    parser.add_argument("--data", type=Path, help="the folder to work in (default: a temporary one)")
    parsed = parser.parse_args()
    data = parsed.data or Path(tempfile.mkdtemp(prefix="autopilot-demo-"))
    data.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the server too, as Ctrl-C does
    with server(data, parsed.port) as url:
        print(f"router at {url}")
        good = run(url, data)
        if parsed.keep:
            print(f"\nthe router stays up at {url} until Ctrl-C; admin page {url}/admin", flush=True)
            try:
                signal.pause()
            except KeyboardInterrupt:
                print()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
