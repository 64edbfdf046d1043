"""Checks that every requirement is pinned with a hash, and that the pins satisfy pyproject.toml."""

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
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
