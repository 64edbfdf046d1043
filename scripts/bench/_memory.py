"""Measures whether the router's memory stays flat while it routes plans.

Loads POST /autopilot/plan in bursts of a second and reads the resident memory after each, until
the count is reached. Exit code: 0; 1 when a plan failed or a bound was missed; 2 when the bench
cannot run here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from _figures import verdicts
from _load import Target, Upstream, shoot
from _servers import Absent, Rig
from _targets import default_cache, router, start_upstream

LIMIT_MIB = 90.0
SETTLED_AT = 20_000
# A log row or a span kept for every plan is some hundred bytes; 40 a plan is nothing kept.
GROWTH_BYTES_PER_PLAN = 40.0


@dataclass(frozen=True)
class Reading:
    """Plans answered so far, the resident memory then, and how many of them failed."""

    plans: int
    rss_mib: float
    errors: int


def main() -> int:
    """Run the bench as the command line says; answers the exit code."""
    options = _options()
    with Rig(options.server_core, options.load_core) as rig:
        upstream = start_upstream(rig)
        try:
            target = router(rig, upstream, default_cache()).wait()
        except Absent as reason:
            print(f"the router is absent: {reason}", file=sys.stderr)
            return 2
        started = Reading(0, target.server.rss_mib(), 0)
        readings = [started, *burst(rig, upstream, target, options.plans, options.connections)]
    print("| plans | RSS MiB |\n|--:|--:|")
    for reading in readings:
        print(f"| {reading.plans:,} | {reading.rss_mib:.1f} |")
    print()
    return 0 if verdicts(judge(readings)) else 1


def burst(rig: Rig, upstream: Upstream, target: Target, plans: int, connections: int) -> Iterator[Reading]:
    """Load the target a second at a time; a reading after each, until *plans* were answered."""
    done = errors = 0
    while done < plans:
        sample = shoot(rig, upstream, target, connections, 1)
        done += sample.requests
        errors += sample.errors
        yield Reading(done, sample.rss, errors)
        if sample.requests == 0:
            return


def judge(readings: list[Reading]) -> Iterator[tuple[str, bool, str]]:
    """The claims about failures, size and growth, each with whether it holds and what was measured."""
    last, highest = readings[-1], max(reading.rss_mib for reading in readings)
    yield "no plan failed", last.errors == 0, f"{last.errors} of {last.plans:,}"
    yield f"RSS below {LIMIT_MIB:.0f} MiB", highest < LIMIT_MIB, f"{highest:.1f} MiB at most"
    settled = next((reading for reading in readings if reading.plans >= SETTLED_AT), None)
    claim = f"flat: at most {GROWTH_BYTES_PER_PLAN:.0f} bytes of growth a plan"
    if settled is None or settled is last:
        yield claim, False, f"not measured: it takes more than {SETTLED_AT:,} plans"
        return
    grown = last.rss_mib - settled.rss_mib
    each = grown * 2**20 / (last.plans - settled.plans)
    between = f"between {settled.plans:,} and {last.plans:,} plans"
    yield claim, each <= GROWTH_BYTES_PER_PLAN, f"{each:.1f} bytes, {grown:+.2f} MiB {between}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plans", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
