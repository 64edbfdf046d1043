"""Writes dist/sbom.cdx.json: what an installation of the router is made of, as CycloneDX 1.6.

The same pins give the same bytes. A time is in it only when SOURCE_DATE_EPOCH gives one, and the serial
number is derived from the rest.
"""

import datetime
import json
import os
import sys
import uuid
from importlib import metadata
from typing import Any

from _requirements import ROOT, Asked, Pin, asked_by, needed_by, pins_in, project
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_expression, is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

TARGET = ROOT / "dist/sbom.cdx.json"
_OURS = uuid.UUID("5b0f3c1e-6f0b-4c0e-9d57-0b8f2f6f3a11")
"""The namespace of our serial numbers."""


def main() -> int:
    """Write the bill, and return the exit status: 1 when it does not satisfy the schema."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    bill = bill_of(project(), pins_in("run"), int(epoch) if epoch else None)
    text = json.dumps(bill, indent=2, ensure_ascii=False) + "\n"
    complaint = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if complaint is not None:
        print(f"the bill of materials is not valid: {complaint}", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {len(bill['components'])} components, valid CycloneDX 1.6")
    return 0


def bill_of(document: dict[str, Any], pins: list[Pin], epoch: int | None) -> dict[str, Any]:
    """Return the bill for a pyproject.toml and its pins; `epoch` are seconds, None for no time at all."""
    asked = asked_by(document)
    name, version = document["project"]["name"], document["project"]["version"]
    router = {
        "type": "application",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": document["project"]["license"]}}],
        "purl": f"pkg:pypi/{name}@{version}",
    }
    about: dict[str, Any] = {"component": router}
    if epoch is not None:
        about["timestamp"] = datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
    at_run_time = needed_by(asked.runtime)
    pins = sorted(pins)
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": about,
        "components": [_component(pin, _scope(pin, at_run_time)) for pin in pins],
        "dependencies": _dependencies(router["bom-ref"], asked, pins),
    }
    serial = uuid.uuid5(_OURS, json.dumps(bill, sort_keys=True))
    return {**bill, "serialNumber": serial.urn}


def _scope(pin: Pin, at_run_time: dict[str, set[str]]) -> str:
    """Return whether it is needed, may be on another platform, or only puts the router in place."""
    if not pin.here:
        return "optional"
    return "required" if pin.name in at_run_time else "excluded"


def _reference(pin: Pin) -> str:
    return f"pkg:pypi/{pin.name}@{pin.version}"


def _component(pin: Pin, scope: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _reference(pin),
        "name": pin.name,
        "version": pin.version,
        "scope": scope,
        "purl": _reference(pin),
        # A release is several files, and any of them may be the one that is installed.
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{pin.name}/{pin.version}/",
                "hashes": [{"alg": "SHA-256", "content": one} for one in sorted(pin.hashes)],
            }
        ],
    }
    if licenses := _licenses(pin.name):
        component["licenses"] = licenses
    return component


def _licenses(name: str) -> list[dict[str, Any]]:
    """Return what an installed package says of its licence: SPDX where it is that, else the words it uses."""
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    text = told.get("License-Expression") or told.get("License") or ""
    if is_supported_id(text):
        return [{"license": {"id": text}}]
    if is_expression(text):
        return [{"expression": text}]
    classes = [
        one.rpartition(" :: ")[2] for one in told.get_all("Classifier", []) if one.startswith("License ::")
    ]
    return [{"license": {"name": one}} for one in sorted(classes)]


def _dependencies(router: str, asked: Asked, pins: list[Pin]) -> list[dict[str, Any]]:
    references = {pin.name: _reference(pin) for pin in pins}
    needed = needed_by(asked.run)
    direct = sorted(canonicalize_name(one.name) for one in asked.runtime)
    rows = [{"ref": router, "dependsOn": [references[name] for name in direct if name in references]}]
    for pin in pins:
        inner = sorted(references[name] for name in needed.get(pin.name, ()) if name in references)
        rows.append({"ref": _reference(pin), "dependsOn": inner})
    return rows


if __name__ == "__main__":
    sys.exit(main())
