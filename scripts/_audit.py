"""Asks whether a pinned package has a known vulnerability, and says so where nobody can be asked.

pip-audit calls a package that its source does not know "skipped" and then reports that nothing was found.
Here a package that was not looked up was not audited, and that is what is printed.
"""

import json
import re
import subprocess
import sys
from typing import NamedTuple

from _requirements import Pin, pins_in
from packaging.utils import canonicalize_name

_UNREACHED = re.compile(r"requests\.exceptions\.\w+|Could not connect to|is not redirecting properly")
_UNKNOWN = "not found on PyPI"


class Verdict(NamedTuple):
    """What came of asking. `reached` says whether anybody answered; `lines` are for people."""

    good: bool
    reached: bool
    lines: list[str]


def main() -> int:
    """Audit what runs, then what it is developed with, and return the exit status: 1 for any finding."""
    good = True
    for name in ("run", "dev"):
        file = f"requirements/{name}.txt"
        command = ["pip-audit", "--requirement", file, "--require-hashes", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        verdict = judged(done.returncode, done.stdout, done.stderr, pins_in(name))
        for line in verdict.lines:
            print(f"{file}: {line}", file=sys.stdout if verdict.good else sys.stderr)
        good = good and verdict.good
        if not verdict.reached:
            break  # the next file would not be looked up either
    return 0 if good else 1


def judged(status: int, output: str, errors: str, pins: list[Pin]) -> Verdict:
    """Return what a run of pip-audit over `pins` means."""
    try:
        rows = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = errors.strip().rpartition("\n")[2]
        if _UNREACHED.search(errors):
            return _not_audited(pins, last)
        return Verdict(good=False, reached=True, lines=[f"pip-audit failed: {last[:300]}"])
    skipped = {row["name"]: row.get("skip_reason", "no reason given") for row in rows if "vulns" not in row}
    asked = {canonicalize_name(row["name"]) for row in rows}
    audited = [row for row in rows if "vulns" in row]
    if not audited and skipped and all(_UNKNOWN in reason for reason in skipped.values()):
        return _not_audited(pins, f"it knows none of {len(skipped)} packages")
    lines = [_finding(row, one) for row in audited for one in row["vulns"]]
    lines += [f"not audited: {name}: {reason}" for name, reason in sorted(skipped.items())]
    lines += [
        f"not audited: {pin.name}: pip-audit left it out"
        for pin in pins
        if pin.here and pin.name not in asked
    ]
    if not lines and status:
        lines = [f"pip-audit failed with status {status}: {errors.strip()[-300:]}"]
    good = not lines
    elsewhere = sorted(pin.name for pin in pins if not pin.here)
    if elsewhere:
        lines.append(f"not audited here, for they belong to other platforms: {', '.join(elsewhere)}")
    found = "no known vulnerability" if good else "see above"
    return Verdict(
        good, reached=True, lines=[*lines, f"{len(audited)} of {len(pins)} packages audited: {found}"]
    )


def _not_audited(pins: list[Pin], why: str) -> Verdict:
    text = f"not audited: the vulnerability service cannot be reached ({why[:200]})"
    return Verdict(good=True, reached=False, lines=[f"{text}; {len(pins)} packages unchecked"])


def _finding(row: dict[str, str], one: dict[str, object]) -> str:
    fixed = one.get("fix_versions") or []
    way_out = f"fixed in {', '.join(map(str, fixed))}" if isinstance(fixed, list) and fixed else "no fix yet"
    return (
        f"{row['name']} {row['version']} has {one['id']} ({way_out}): {str(one.get('description', ''))[:200]}"
    )


if __name__ == "__main__":
    sys.exit(main())
