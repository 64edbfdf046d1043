"""Measures POST /autopilot/plan beside peers that do the same job, all in one run.

Servers run on one core, load (wrk) and upstream (nginx) on another. In each round every target is
loaded in turn, the order moving on by one, and ratios are taken within a round: a machine that is
slower for a minute is slower for everyone. Exit code: 0; 1 when a request failed or a gate was
missed; 2 when the bench cannot run here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from _figures import GATES, Samples, comparison, figures, quietness, verdicts
from _load import Sample, Target, Upstream, shoot, shoot_in_quiet
from _servers import Absent, Rig
from _targets import BUILDERS, default_cache, start_upstream

WARM_SECONDS = 2


def main() -> int:
    """Run the bench as the command line says; answers the exit code."""
    options = _options()
    names = [name for name in BUILDERS if name in options.targets.split(",")]
    unknown = set(options.targets.split(",")) - set(BUILDERS)
    if unknown:
        print(
            f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(BUILDERS)}", file=sys.stderr
        )
        return 2
    with Rig(options.server_core, options.load_core) as rig:
        upstream = start_upstream(rig)
        targets, absent = present(rig, upstream, names, options.cache)
        samples = {} if not targets else measure(rig, upstream, targets, options)
    report(samples, absent, options)
    errors = sum(run.errors for runs in samples.values() for run in runs)
    if errors:
        print(f"FAIL  {errors} requests failed or were not forwarded; no figure above counts")
    kept = not options.gates or verdicts((str(gate), *gate.judge(samples)) for gate in GATES)
    return 0 if kept and not errors and samples else 1


def present(
    rig: Rig, upstream: Upstream, names: Sequence[str], cache: Path
) -> tuple[list[Target], dict[str, str]]:
    """Start the named targets; answers those that answer, and for each other one the reason."""
    targets, absent = [], {}
    for name in names:
        try:
            targets.append(BUILDERS[name](rig, upstream, cache).wait())
        except Absent as reason:
            absent[name] = str(reason)
        _progress(f"{name}: {absent.get(name, 'ready')}")
    return targets, absent


def measure(rig: Rig, upstream: Upstream, targets: Sequence[Target], options: argparse.Namespace) -> Samples:
    """Warm every target up, then load all of them in each round; answers the samples in table order."""
    levels: list[int] = options.concurrency
    samples: dict[tuple[str, int], list[Sample]] = {(one.name, at): [] for at in levels for one in targets}
    for target in targets:
        shoot(rig, upstream, target, max(levels), WARM_SECONDS)
    for turn in range(options.rounds):
        first = turn % len(targets)
        for connections in levels:
            for target in [*targets[first:], *targets[:first]]:
                samples[target.name, connections].append(
                    shoot_in_quiet(rig, upstream, target, connections, options.seconds)
                )
        _progress(f"round {turn + 1} of {options.rounds} done")
    return samples


def report(samples: Samples, absent: dict[str, str], options: argparse.Namespace) -> None:
    """Print the tables, who was absent and how quiet the machine was."""
    for connections in options.concurrency:
        print(f"\n### Concurrency {connections}, medians of {options.rounds} rounds of {options.seconds} s\n")
        print(figures(samples, connections))
        if (options.subject, connections) in samples and len(samples) > len(options.concurrency):
            print("\nRatios within a round: median [smallest to largest]\n")
            print(comparison(samples, options.subject, connections))
    for name, reason in absent.items():
        print(f"\nabsent: {name} ({reason})")
    print(f"\n{quietness(samples)}\n" if samples else "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default=",".join(BUILDERS), help="comma list (default: all)")
    parser.add_argument("--subject", default="router", help="the target whose ratios are printed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="load per target, concurrency and round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--gates", action="store_true", help="judge the numbers the router has to reach")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where workerd is kept")
    return parser.parse_args()


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
