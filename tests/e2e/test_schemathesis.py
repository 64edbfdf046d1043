"""Schemathesis against a real server: whatever it makes up from the document, the answers keep to it.

FUZZ_EXAMPLES=1000 pytest tests/e2e/test_schemathesis.py is the long run.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from infra.signing import new_secret
from router.wiring import manifests
from tests.e2e.schemathesis_hooks import GUARDED
from tests.process import BIN, NOTHING, Served, run, serving

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
ALL = "examples,coverage,fuzzing,stateful"
FEW = ALL if "FUZZ_EXAMPLES" in os.environ else "examples,fuzzing,stateful"
"""Phases of a second run: coverage takes most of the time, and what it covers does not depend on keys."""
KEY = "a-key-of-32-characters-for-tests"
LOCKED = {
    "AUTOPILOT_AUTH": "required",
    "AUTOPILOT_API_KEY": KEY,
    "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.0/8",
}
SIGNED = {"Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("env", "headers", "phases"),
    [(NOTHING, NOTHING, ALL), (LOCKED, SIGNED, FEW)],
    ids=["local", "required"],
)
def test_every_answer_is_one_the_document_promises(
    tmp_path: Path, env: Mapping[str, str], headers: Mapping[str, str], phases: str
) -> None:
    """All checks, on every operation: valid calls get in, invalid ones do not, and nothing breaks."""
    with serving(tmp_path / "server", env={"AUTOPILOT_CALLBACK_SECRET": new_secret(), **env}) as server:
        schema, keys = prepare(server, headers, tmp_path)
        report = tmp_path / "report.ndjson"
        signed = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
        command = [
            *(str(BIN / "st"), "run", str(schema), "--url", server.url, "--checks", "all", *signed),
            *("--phases", phases),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic"),
            *(
                "--continue-on-failure",
                "--no-color",
                "--report",
                "ndjson",
                "--report-ndjson-path",
                str(report),
            ),
        ]
        hooks = {"SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks", "FUZZ_URL": server.url, **keys}
        done = run(*command, env=hooks, seconds=120.0 + 4.0 * EXAMPLES)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    described = json.loads(schema.read_bytes())["paths"]
    operations = {(method.upper(), path) for path, item in described.items() for method in item}
    answered = statuses(report)
    for operation in operations:
        assert any(200 <= status < 300 for status in answered[operation]), f"{operation} was never answered"


def prepare(server: Served, headers: Mapping[str, str], folder: Path) -> tuple[Path, dict[str, str]]:
    """Register the built-in autopilots and one whose tasks wait for approval. Return the document as a file,
    and as variables the keys of who asks for such tasks and who decides.

    A file, because Schemathesis leaves out the operation that a document was loaded from.
    """
    guarded = {
        "name": "guard",
        "endpoint": "http://127.0.0.1:9",
        "capabilities": [{"name": GUARDED, "requires_approval": True}],
    }
    with httpx.Client(base_url=server.url, headers=dict(headers), trust_env=False) as client:
        for manifest in [*manifests(), guarded]:
            assert client.post("/autopilot/registry", json=manifest).status_code == 201
        file = folder / "openapi.json"
        file.write_bytes(client.get("/openapi.json").content)
        keys = {}
        for name, scopes in (("FUZZ_ASKER", ["plan:*"]), ("FUZZ_DECIDER", ["operate", "read"])):
            made = client.post("/autopilot/keys", json={"name": name, "scopes": scopes})
            keys[name] = made.json()["key"]
    return file, keys


def statuses(report: Path) -> dict[tuple[str, str], set[int]]:
    """Return the statuses each operation was answered with, from a report of Schemathesis."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for line in report.read_text(encoding="utf-8").splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for name, interaction in recorder.get("interactions", {}).items():
            case = recorder["cases"][name]["value"]
            if interaction["response"]:
                found[case["method"], case["path"]].add(interaction["response"]["status_code"])
    return found
