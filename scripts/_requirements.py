"""Reads requirements: those that pyproject.toml asks for, and the pins in requirements/*.txt."""

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r"(?m)^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)(?:\s*;\s*([^\\\n]+?))?\s*\\?$((?:\n\s+.*)*)"
)


class Pin(NamedTuple):
    """One pinned package. `marker` says where it is installed, empty for everywhere."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether it is installed on this machine."""
        return not self.marker or Marker(self.marker).evaluate()


class Asked(NamedTuple):
    """What pyproject.toml asks for: to run the router, and to develop it (that and more)."""

    runtime: list[Requirement]
    run: list[Requirement]
    dev: list[Requirement]


def pins_of(text: str) -> list[Pin]:
    """Return the pins in a requirements file."""
    return [
        Pin(
            canonicalize_name(name),
            version,
            marker or "",
            tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)),
        )
        for name, version, marker, rest in _BLOCK.findall(text)
    ]


def pins_in(name: str) -> list[Pin]:
    """Return the pins in `requirements/NAME.txt`."""
    return pins_of((ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def asked_by(document: dict[str, Any]) -> Asked:
    """Return what a pyproject.toml asks for, as `scripts/pin` divides it."""
    runtime = [Requirement(text) for text in document["project"]["dependencies"]]
    extras = [text for group in document["project"]["optional-dependencies"].values() for text in group]
    groups = document["dependency-groups"]
    build = [Requirement(text) for text in groups["build"]]
    dev = [Requirement(text) for text in [*extras, *_flat(groups, "dev")]]
    return Asked(runtime, [*runtime, *build], [*runtime, *dev])


def _flat(groups: dict[str, Any], name: str) -> Iterable[str]:
    for one in groups[name]:
        if isinstance(one, str):
            yield one
        else:
            yield from _flat(groups, one["include-group"])


def needed_by(requirements: Iterable[Requirement]) -> dict[str, set[str]]:
    """Return every package that requirements lead to here, each with the names of those it needs itself.

    It reads what is installed; what is not, because it belongs to another platform, leads nowhere.
    """
    found: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [one for one in requirements if one.marker is None or one.marker.evaluate()]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        found.setdefault(name, set())
        for extra in ("", *one.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for inner in _requirements_of(name, extra):
                found[name].add(canonicalize_name(inner.name))
                waiting.append(inner)
    return found


def _requirements_of(name: str, extra: str) -> list[Requirement]:
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    every = [Requirement(text) for text in texts]
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": extra})]
