"""The example of an autopilot at the edge: its registration is good, and holds the Worker as it stands."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from router.parse import parse_autopilot
from tests.process import ROOT

EXAMPLE = ROOT / "autopilots/examples/edge-notes"
TO_UPDATE = """
import json, pathlib
place = pathlib.Path("autopilots/examples/edge-notes")
body = json.loads((place / "registration.json").read_text())
body["needs"]["workers"][0]["content"] = (place / "worker.mjs").read_text()
(place / "registration.json").write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\\n")
"""


@pytest.fixture
def body() -> Any:
    """Give the registration."""
    return json.loads((EXAMPLE / "registration.json").read_text())


def test_the_registration_holds_the_worker(body: Any) -> None:
    """The Worker that is uploaded is the one in the file beside it."""
    [worker] = body["needs"]["workers"]
    assert worker["content"] == (EXAMPLE / "worker.mjs").read_text(), f"run this with python:\n{TO_UPDATE}"


def test_the_registration_is_taken(body: Any) -> None:
    """It parses, is bound to what it lists, and its Worker names each binding and capability."""
    autopilot = parse_autopilot(body)
    [worker] = autopilot.needs.workers
    assert {name: one.target for name, one in worker.bindings.items()} == {
        "NOTES": ("kv", "EDGE_NOTES"),
        "TEXTS": ("r2", "edge-notes-texts"),
    }
    for name in [*worker.bindings, *(one.name for one in autopilot.capabilities)]:
        assert name in worker.content


def test_its_instructions_name_what_is_there() -> None:
    """The files in the text exist, and what is to be replaced is in the registration."""
    text = (EXAMPLE / "README.md").read_text()
    for path in re.findall(r"(?:autopilots|tests)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path
    assert "your-subdomain.workers.dev" in (EXAMPLE / "registration.json").read_text()


def test_the_runtime_is_pinned_without_a_host() -> None:
    """Each package of the lock file has one version and a digest, and none says where it is fetched from."""
    text = (ROOT / "tests/edge/package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    asked = packages.pop("")
    assert asked["dependencies"] == {"miniflare": packages["node_modules/miniflare"]["version"]}
    assert len(packages) > 20
    assert all(one["version"] and one["integrity"].startswith("sha512-") for one in packages.values())
    assert "://" not in text
