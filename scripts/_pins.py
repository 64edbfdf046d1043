"""Checks what only ever gets stricter: pins with hashes for every requirement, and the coverage gate."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Print what is wrong and return the exit status."""
    text = (ROOT / "requirements/dev.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^\s*#.*\n?", "", text).strip())
    wrong = [block.split()[0] for block in blocks if "==" not in block or "--hash=sha256:" not in block]
    wrong += [line for line in text.splitlines() if "://" in line]
    pinned = {re.split(r"[\[=]", block, maxsplit=1)[0].lower() for block in blocks}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for requirement in project["project"]["dependencies"]:
        name = re.split(r"[\[<>=; ]", requirement, maxsplit=1)[0]
        if name.lower() not in pinned:
            wrong.append(f"{name} is not pinned: run scripts/pin")
        else:
            metadata.version(name)
    wrong += fallen_gate(float(project["tool"]["coverage"]["report"]["fail_under"]))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode


def fallen_gate(gate: float) -> list[str]:
    """Return a complaint when the coverage gate is lower than it ever was in the history of this checkout."""
    log = ["git", "log", "-p", "--format=", "-G", "fail_under", "--", "pyproject.toml"]
    history = subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    before = [float(found) for found in re.findall(r"(?m)^[-+]fail_under = ([0-9.]+)", history)]
    highest = max(before, default=gate)
    return [f"the coverage gate fell from {highest} to {gate}"] if gate < highest else []


if __name__ == "__main__":
    sys.exit(main())
