"""What the product is made of: pins in step with what asks for them, an honest audit, a valid bill."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.process import ROOT

CONNECTION = """\
    raise ProxyError(e, request=request)
requests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded \
with url: /pypi/idna/3.20/json (Caused by ProxyError('Unable to connect to proxy'))
"""
UNKNOWN = "Dependency not found on PyPI and could not be audited: {} ({})"
SUMMARY = "No known vulnerabilities found\n"
Edit = Callable[[dict[str, Any], dict[str, str]], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Give what imports a module of the scripts."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


@pytest.fixture
def files() -> dict[str, str]:
    """Give the pins as they are."""
    return {name: (ROOT / f"requirements/{name}.txt").read_text() for name in ("run", "dev")}


# Pins


def test_the_pins_are_in_step(script: Callable[[str], Any], files: dict[str, str]) -> None:
    """What pyproject.toml asks for is what is pinned, and at most ten packages are asked for to run."""
    requirements = script("_requirements")
    asked = requirements.asked_by(requirements.project())
    assert script("_pins").drift(asked, files) == []
    assert len(asked.runtime) <= 10
    for text in files.values():
        pins = requirements.pins_of(text)
        assert len(pins) == sum("==" in line for line in text.splitlines()) > 25
        assert all(pin.hashes for pin in pins)


def _asks(name: str) -> Edit:
    return lambda document, _: document["project"]["dependencies"].append(name)


def _without(name: str) -> Edit:
    def edit(document: dict[str, Any], _: dict[str, str]) -> None:
        kept = [one for one in document["project"]["dependencies"] if not one.startswith(name)]
        document["project"]["dependencies"] = kept

    return edit


def _replaced(file: str, old: str, new: str) -> Edit:
    def edit(_: dict[str, Any], files: dict[str, str]) -> None:
        assert old in files[file]
        files[file] = files[file].replace(old, new, 1)

    return edit


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (_asks("left-pad"), "left-pad is not pinned in requirements/run.txt"),
        (_asks("httpx>=99"), "httpx>=99 is pinned as "),
        (_without("croniter"), "requirements/run.txt has croniter, which nothing asks for"),
        (_replaced("run", "httpx==0", "httpx==1"), "httpx differs between requirements/run.txt and dev.txt"),
        (_replaced("run", "croniter==", "croniter>="), "requirements/run.txt: croniter>="),
        (
            lambda _, files: files.update(dev="--index-url https://pypi.example/simple\n" + files["dev"]),
            "requirements/dev.txt: --index-url https://pypi.example/simple",
        ),
        (
            lambda _, files: files.update(dev=files["dev"] + "evil @ https://example.org/evil.whl\n"),
            "requirements/dev.txt: evil @ https",
        ),
        (
            lambda _, files: files.update(dev=files["dev"] + "unhashed==1.0\n"),
            "unhashed is pinned without a hash",
        ),
    ],
)
def test_drift_is_found(
    script: Callable[[str], Any], files: dict[str, str], edit: Edit, complaint: str
) -> None:
    """A requirement added, raised or dropped, and a pin changed by hand, are each named."""
    requirements = script("_requirements")
    document = copy.deepcopy(requirements.project())
    edit(document, files)
    wrong = script("_pins").drift(requirements.asked_by(document), files)
    assert any(line.startswith(complaint) for line in wrong), wrong


def test_the_eleventh_requirement_is_one_too_many(
    script: Callable[[str], Any], files: dict[str, str]
) -> None:
    """The number of packages that the router itself asks for has a ceiling."""
    requirements = script("_requirements")
    document = requirements.project()
    document["project"]["dependencies"] += ["anyio", "click"]
    wrong = script("_pins").drift(requirements.asked_by(document), files)
    assert wrong == [
        f"the router asks for {len(document['project']['dependencies'])} packages; 10 is the most"
    ]


@pytest.mark.parametrize(
    ("line", "fine"),
    [
        ("x = 1", True),
        ("x = sql()  # nosec B608  # only words of ours", True),
        ("x = sql()  # nosec", False),
        ("x = sql()  # nosec B608", False),
        ("x = sql()  #nosec B608  # only words of ours", False),
        ("x = sql()  # nosec  # only words of ours", False),
    ],
)
def test_an_exception_says_why(script: Callable[[str], Any], tmp_path: Any, line: str, fine: bool) -> None:
    """What silences the search for insecure code names the check and the reason."""
    (tmp_path / "a.py").write_text(f"import os\n{line}\n")
    wrong = script("_pins").unexplained(tmp_path / "a.py")
    assert len(wrong) == (0 if fine else 1)
    assert all(":2: an exception names" in one for one in wrong)


# The audit


def _row(name: str, version: str, *vulns: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": version, "vulns": list(vulns)}


def _skipped(name: str, version: str = "1.0") -> dict[str, Any]:
    return {"name": name, "skip_reason": UNKNOWN.format(name, version)}


def _output(*rows: dict[str, Any]) -> str:
    return json.dumps({"dependencies": rows, "fixes": []}) + "\n"


@pytest.fixture
def verdict(script: Callable[[str], Any]) -> Callable[..., Any]:
    """Give what judges a run of pip-audit over three pins, one of them for another platform."""
    pin = script("_requirements").Pin
    pins = [
        pin("idna", "3.20", "", ("0",)),
        pin("h11", "0.16.0", "", ("0",)),
        pin("colorama", "0.4.6", "sys_platform == 'nowhere'", ("0",)),
    ]
    return lambda status, output, errors: script("_audit").judged(status, output, errors, pins)


def test_an_audit_without_findings_is_good(verdict: Callable[..., Any]) -> None:
    """Each package of this machine was looked up; those of other platforms are said to be left out."""
    found = verdict(0, _output(_row("idna", "3.20"), _row("h11", "0.16.0")), SUMMARY)
    assert (found.good, found.reached) == (True, True)
    assert found.lines == [
        "not audited here, for they belong to other platforms: colorama",
        "2 of 3 packages audited: no known vulnerability",
    ]


def test_a_vulnerability_fails_the_check(verdict: Callable[..., Any]) -> None:
    """It is named with its package and the versions that are free of it."""
    hole = {"id": "PYSEC-2024-60", "fix_versions": ["3.21"], "aliases": [], "description": "Takes very long."}
    none = {"id": "GHSA-1", "fix_versions": [], "aliases": [], "description": ""}
    output = _output(_row("idna", "3.20", hole), _row("h11", "0.16.0", none))
    found = verdict(1, output, "Found 2 known vulnerabilities in 2 packages\n")
    assert not found.good
    assert found.lines[:2] == [
        "idna 3.20 has PYSEC-2024-60 (fixed in 3.21): Takes very long.",
        "h11 0.16.0 has GHSA-1 (no fix yet): ",
    ]
    assert found.lines[-1] == "2 of 3 packages audited: see above"


@pytest.mark.parametrize(
    ("status", "output", "errors"),
    [
        (0, _output(_skipped("idna"), _skipped("h11")), SUMMARY),
        (1, "", CONNECTION),
        (
            1,
            "",
            "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\nERROR:pip_audit._cli:Tip\n",
        ),
        (1, "", "ERROR:pip_audit._cli:PyPI is not redirecting properly\n"),
    ],
)
def test_an_audit_that_reached_nobody_says_so(
    verdict: Callable[..., Any], status: int, output: str, errors: str
) -> None:
    """Where the service does not answer, or knows no package, nothing was audited, in so many words."""
    found = verdict(status, output, errors)
    assert (found.good, found.reached) == (True, False)
    [line] = found.lines
    assert line.startswith("not audited: the vulnerability service cannot be reached (")
    assert line.endswith("3 packages unchecked")
    assert "No known" not in line


@pytest.mark.parametrize(
    ("status", "output", "errors", "line"),
    [
        (
            0,
            _output(_row("idna", "3.20"), _skipped("h11")),
            SUMMARY,
            "not audited: h11: Dependency not found on PyPI and could not be audited: h11 (1.0)",
        ),
        (0, _output(_row("idna", "3.20")), SUMMARY, "not audited: h11: pip-audit left it out"),
        (
            0,
            _output({"name": "h11", "skip_reason": "version is no version"}),
            SUMMARY,
            "not audited: h11: version is no version",
        ),
        (0, _output(), SUMMARY, "not audited: idna: pip-audit left it out"),
        (
            1,
            "",
            "ERROR:pip_audit._cli:requirement idna is not pinned\n",
            "pip-audit failed: ERROR:pip_audit._cli:re",
        ),
        (2, "", "", "pip-audit failed: "),
        (0, "null", "", "pip-audit failed: "),
        (
            3,
            _output(_row("idna", "3.20"), _row("h11", "0.16.0")),
            "out of memory",
            "pip-audit failed with status 3: out of memory",
        ),
    ],
)
def test_what_was_not_looked_up_was_not_audited(
    verdict: Callable[..., Any], status: int, output: str, errors: str, line: str
) -> None:
    """A package skipped or left out by a service that answers, and a run that broke, fail the check."""
    found = verdict(status, output, errors)
    assert (found.good, found.reached) == (False, True)
    assert any(one.startswith(line) for one in found.lines), found.lines
    assert not any("no known vulnerability" in one for one in found.lines)


# The bill of materials


def test_the_bill_is_valid_and_the_same_every_time(script: Callable[[str], Any]) -> None:
    """It satisfies the schema of CycloneDX 1.6, and the same pins give the same bytes, in any order."""
    requirements, sbom = script("_requirements"), script("_sbom")
    pins = requirements.pins_in("run")
    bill = sbom.bill_of(requirements.project(), pins, None)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    assert json.dumps(sbom.bill_of(requirements.project(), pins[::-1], None)) == json.dumps(bill)
    assert "timestamp" not in bill["metadata"]
    assert {one["name"]: one["version"] for one in bill["components"]} == {
        one.name: one.version for one in pins
    }
    for one, pin in zip(bill["components"], sorted(pins), strict=True):
        assert one["purl"] == f"pkg:pypi/{pin.name}@{pin.version}"
        [release] = one["externalReferences"]
        assert {found["content"] for found in release["hashes"]} == set(pin.hashes)


def test_the_bill_tells_what_needs_what(script: Callable[[str], Any]) -> None:
    """The router needs what it asks for; what only installs it is left out of the running product."""
    requirements, sbom = script("_requirements"), script("_sbom")
    bill = sbom.bill_of(requirements.project(), requirements.pins_in("run"), None)
    scopes = {one["name"]: one["scope"] for one in bill["components"]}
    assert (scopes["starlette"], scopes["h11"], scopes["hatchling"]) == ("required", "required", "excluded")
    needs = {row["ref"].partition("@")[0]: row["dependsOn"] for row in bill["dependencies"]}
    direct = {one.partition("@")[0] for one in needs["pkg:pypi/autopilot-router"]}
    asked = requirements.asked_by(requirements.project()).runtime
    assert direct == {f"pkg:pypi/{one.name}" for one in asked}
    assert any(one.startswith("pkg:pypi/h11@") for one in needs["pkg:pypi/httpcore"])
    licences = {one["name"]: one.get("licenses") for one in bill["components"]}
    assert licences["starlette"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert licences["packaging"] == [{"expression": "Apache-2.0 OR BSD-2-Clause"}]


def test_another_pin_or_a_time_makes_another_bill(script: Callable[[str], Any]) -> None:
    """The serial number goes with the contents, and a time is that of SOURCE_DATE_EPOCH."""
    requirements, sbom = script("_requirements"), script("_sbom")
    pins = requirements.pins_in("run")
    one = sbom.bill_of(requirements.project(), pins, None)
    other = sbom.bill_of(requirements.project(), pins[1:], None)
    timed = sbom.bill_of(requirements.project(), pins, 1_700_000_000)
    assert len({bill["serialNumber"] for bill in (one, other, timed)}) == 3
    assert timed["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
