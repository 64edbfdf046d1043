"""Checks what only ever gets stricter: the pins and what asks for them, exceptions, and the coverage gate."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from _requirements import ROOT, Asked, Pin, asked_by, needed_by, pins_of, project
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MOST_DIRECT = 10
"""Packages that the router itself may ask for."""
_AGAIN = "run scripts/pin"
_SILENCED = re.compile(r"#\s*nosec\b")
_EXPLAINED = re.compile(r"#\snosec B\d{3}(?: B\d{3})*  # \S+ \S+ \S+")


def main() -> int:
    """Print what is wrong and return the exit status."""
    document = project()
    files = {name: (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8") for name in ("run", "dev")}
    wrong = drift(asked_by(document), files)
    for pin in pins_of(files["dev"]):
        if pin.here and metadata.version(pin.name) != pin.version:
            wrong.append(
                f"{pin.name} is {metadata.version(pin.name)} here, not {pin.version}: run scripts/setup"
            )
    wrong += fallen_gate(float(document["tool"]["coverage"]["report"]["fail_under"]))
    for folder in ("router", "infra", "autopilots", "scripts"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in {"", ".py"}:
                wrong += unexplained(path)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode


def drift(asked: Asked, files: dict[str, str]) -> list[str]:
    """Return where pins and what asks for them are out of step. `files` are requirements by name."""
    wrong = []
    if len(asked.runtime) > MOST_DIRECT:
        wrong.append(f"the router asks for {len(asked.runtime)} packages; {MOST_DIRECT} is the most")
    for file, requirements in (("run", asked.run), ("dev", asked.dev)):
        text = files[file]
        wrong += [f"requirements/{file}.txt: {line.strip()}" for line in _strange(text)]
        found = pins_of(text)
        wrong += [f"{pin.name} is pinned without a hash" for pin in found if not pin.hashes]
        wrong += _unmet(file, requirements, found)
        needed = needed_by(requirements)
        wrong += [
            f"requirements/{file}.txt has {pin.name}, which nothing asks for: {_AGAIN}"
            for pin in found
            if pin.here and pin.name not in needed
        ]
    in_dev = pins_of(files["dev"])
    wrong += [
        f"{pin.name} differs between requirements/run.txt and dev.txt: {_AGAIN}"
        for pin in pins_of(files["run"])
        if pin not in in_dev
    ]
    return wrong


def _strange(text: str) -> list[str]:
    """Return the lines that are neither a pin, nor a hash of one, nor a comment."""
    usual = re.compile(r"\s*#.*|\s*--hash=sha256:[0-9a-f]{64}(?: \\)?|[A-Za-z0-9._\[\],-]+==[^:@]+|\s*")
    return [line for line in text.splitlines() if not usual.fullmatch(line) or "://" in line]


def _unmet(file: str, requirements: list[Requirement], found: list[Pin]) -> list[str]:
    wrong = []
    for one in requirements:
        pins = [pin for pin in found if pin.name == canonicalize_name(one.name)]
        if not pins:
            wrong.append(f"{one.name} is not pinned in requirements/{file}.txt: {_AGAIN}")
        wrong += [
            f"{one} is pinned as {pin.version} in requirements/{file}.txt: {_AGAIN}"
            for pin in pins
            if not one.specifier.contains(pin.version, prereleases=True)
        ]
    return wrong


def unexplained(path: Path) -> list[str]:
    """Return the lines of a file that silence bandit without naming a check and a reason."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [
        f"{path}:{number}: an exception names its check and says why: 'nosec B608  # the reason'"
        for number, line in enumerate(lines, start=1)
        if _SILENCED.search(line) and not _EXPLAINED.search(line)
    ]


def fallen_gate(gate: float) -> list[str]:
    """Return a complaint when the coverage gate is lower than it ever was in the history of this checkout."""
    log = ["git", "log", "-p", "--format=", "-G", "fail_under", "--", "pyproject.toml"]
    history = subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    before = [float(found) for found in re.findall(r"(?m)^[-+]fail_under = ([0-9.]+)", history)]
    highest = max(before, default=gate)
    return [f"the coverage gate fell from {highest} to {gate}"] if gate < highest else []


if __name__ == "__main__":
    sys.exit(main())
