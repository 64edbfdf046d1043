"""Measures the router over a large registry: planning, listing, and starting with a full store.

Two routers run side by side, one with 4 autopilots and one with many, and are loaded in turn; then
the long list is walked page by page, and the large store is started again five times. Exit code:
0; 1 when a request failed or a bound was missed; 2 when the bench cannot run here.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from _figures import Samples, figures, quietness, ratios, spread, verdicts
from _load import Sample, Target, Upstream, shoot, shoot_in_quiet
from _servers import Absent, Caller, Rig
from _targets import CAPABILITY, ill, register, spawn_router, start_router, start_upstream

SMALL = 4
PAGE = 200
PAGES_TIMED = 50
RESTARTS = 5
WRITERS = 8
PLAN_RATIO = 1.2
PAGE_MS = 20.0
START_SECONDS = 1.0

Claim = tuple[str, bool, str]


@dataclass(frozen=True)
class Start:
    """One stop and start: whether SIGTERM was enough, and seconds from spawning to two first answers."""

    ended: bool
    health: float
    plan: float


@dataclass(frozen=True)
class Walk:
    """The list read page by page: the names in the order they came, and milliseconds per page."""

    names: list[str]
    page_ms: list[float]


def main() -> int:
    """Run the bench as the command line says; answers the exit code."""
    options = _options()
    key = secrets.token_urlsafe(24)
    with Rig(options.server_core, options.load_core) as rig:
        upstream = start_upstream(rig)
        try:
            small = filled(rig, upstream, "small", SMALL, key)
            large = filled(rig, upstream, "large", options.autopilots, key)
            samples = measure(rig, upstream, (small, large), options)
            listed = walk(large)
            starts = list(restart(rig, large, rig.folder / "large", key))
        except Absent as reason:
            print(f"the bench stopped: {reason}", file=sys.stderr)
            return 2
    for at in options.concurrency:
        print(f"\n### Registries of {SMALL} and {options.autopilots:,}, concurrency {at}\n")
        print(figures(samples, at))
    print(f"\n{quietness(samples)}\n")
    claims = [*judge_plans(samples), *judge_list(listed, options.autopilots), *judge_starts(starts)]
    return 0 if verdicts(claims) else 1


def filled(rig: Rig, upstream: Upstream, name: str, count: int, key: str) -> Target:
    """Start a router and register *count* autopilots with it over HTTP; answers it ready for plans."""
    target = start_router(rig, name, rig.folder / name, key)
    register(target, "bench-target", upstream.endpoint, CAPABILITY)
    began = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        # list() raises what a writer raised.
        list(
            pool.map(
                lambda first: register_others(target, upstream, range(first, count - 1, WRITERS)),
                range(WRITERS),
            )
        )
    took = time.monotonic() - began
    print(
        f"{name}: {count:,} autopilots registered, {took / count * 1000:.2f} ms each",
        file=sys.stderr,
        flush=True,
    )
    return target.wait()


def register_others(target: Target, upstream: Upstream, numbers: Sequence[int]) -> None:
    """Register one autopilot per number over one connection, each with a capability of its own."""
    caller = Caller(target.server.port, target.headers)
    for number in numbers:
        endpoint = f"{upstream.endpoint}/other/{number}"
        register(target, f"other-{number}", endpoint, f"bench.{word(number)}.run", caller=caller)
    caller.close()


def word(number: int) -> str:
    """The number in letters, as a word of a capability needs them: 0 is `a`, 26 is `ba`."""
    rest, last = divmod(number, 26)
    return (word(rest) if rest else "") + chr(ord("a") + last)


def measure(rig: Rig, upstream: Upstream, targets: Sequence[Target], options: argparse.Namespace) -> Samples:
    """Load the targets in turn, the other one first in every other round."""
    samples: dict[tuple[str, int], list[Sample]]
    samples = {(one.name, at): [] for at in options.concurrency for one in targets}
    for target in targets:
        shoot(rig, upstream, target, max(options.concurrency), 2)
    for turn in range(options.rounds):
        for at in options.concurrency:
            for target in targets[:: -1 if turn % 2 else 1]:
                samples[target.name, at].append(shoot_in_quiet(rig, upstream, target, at, options.seconds))
    return samples


def walk(target: Target) -> Walk:
    """Read the whole list, and on from its start again until 50 pages were timed."""
    caller = Caller(target.server.port, target.headers)
    names: list[str] = []
    page_ms: list[float] = []
    cursor, first = None, True
    while first or len(page_ms) < PAGES_TIMED:
        path = f"/autopilot/list?limit={PAGE}" + (f"&cursor={quote(cursor)}" if cursor else "")
        began = time.perf_counter()
        status, body = caller.ask("GET", path)
        page_ms.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise Absent(f"GET {path} was answered {status}: {body[:300].decode(errors='replace')}")
        page = json.loads(body)
        names += [one["name"] for one in page["autopilots"]] if first else []
        cursor = page["next"]
        first = first and cursor is not None
    caller.close()
    return Walk(names, page_ms)


def restart(rig: Rig, target: Target, data: Path, key: str) -> Iterator[Start]:
    """Stop the router over *data* and start it again, five times."""
    server = target.server
    for _ in range(RESTARTS):
        ended = server.stop()
        began = time.monotonic()
        server = spawn_router(rig, target.name, data, key)
        server.wait_until_good(partial(ill, server))
        health = time.monotonic() - began
        Target(target.name, server, headers=target.headers, expects=target.expects).wait()
        yield Start(ended, health, time.monotonic() - began)


def judge_plans(samples: Samples) -> Iterator[Claim]:
    """The claims about planning over the two registries."""
    errors = sum(run.errors for runs in samples.values() for run in runs)
    yield "no plan failed", errors == 0, f"{errors} failed"
    at = min(connections for _, connections in samples)
    measured = ratios(samples, ("large", "p50"), ("small", "p50"), at)
    kept = bool(measured) and statistics.median(measured) <= PLAN_RATIO
    yield f"plan p50 at {at}, large / small <= {PLAN_RATIO}", kept, spread(measured)


def judge_list(listed: Walk, count: int) -> Iterator[Claim]:
    """The claims about the list: complete, in order, quick."""
    whole = len(listed.names) == len(set(listed.names)) == count
    yield f"the pages list each of {count:,} once", whole, f"{len(set(listed.names)):,} names"
    yield "in order of their names", listed.names == sorted(listed.names), f"{len(listed.names):,} rows"
    middle = statistics.median(listed.page_ms)
    measured = f"{middle:.1f} ms in the median of {len(listed.page_ms)}, {max(listed.page_ms):.1f} at most"
    yield f"a list page of {PAGE} < {PAGE_MS:.0f} ms", middle < PAGE_MS, measured


def judge_starts(starts: Sequence[Start]) -> Iterator[Claim]:
    """The claims about stopping and starting over the full store."""
    ended = sum(start.ended for start in starts)
    yield "SIGTERM ends it within 5 s", ended == len(starts), f"{ended} of {len(starts)} times"
    for what, seconds in (("answer", [one.health for one in starts]), ("plan", [one.plan for one in starts])):
        kept = statistics.median(seconds) < START_SECONDS
        yield f"start to first {what} < {START_SECONDS:.1f} s", kept, f"{spread(seconds)} s"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/registry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--autopilots", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="load per router, concurrency and round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
