"""What the samples of a bench say: tables in Markdown, ratios within a round, and the gates."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from _load import Sample

Samples = Mapping[tuple[str, int], Sequence[Sample]]
"""The samples of (target, connections), one a round, every list in the same order of rounds."""

RATIOS = ("rate", "p50", "p99", "cpu")


@dataclass(frozen=True)
class Gate:
    """A bound on the ratio of two (target, figure) pairs at a concurrency."""

    connections: int
    top: tuple[str, str]
    bottom: tuple[str, str]
    sense: str
    bound: float

    def __str__(self) -> str:
        top, bottom = " ".join(self.top), " ".join(self.bottom)
        return f"{top} / {bottom} at {self.connections} {self.sense} {self.bound:g}"

    def judge(self, samples: Samples) -> tuple[bool, str]:
        """Whether the median of the rounds keeps the bound, and what was measured."""
        values = ratios(samples, self.top, self.bottom, self.connections)
        if not values:
            return False, "not measured: a target was absent"
        middle = statistics.median(values)
        return middle >= self.bound if self.sense == ">=" else middle <= self.bound, spread(values)


GATES = (
    Gate(32, ("router", "rate"), ("workerd", "rate"), ">=", 2.0),
    Gate(32, ("router", "rate"), ("starlette-aiohttp", "rate"), ">=", 1.5),
    Gate(32, ("router-limited", "rate"), ("router", "rate"), ">=", 0.9),
    Gate(1, ("router", "p50"), ("nginx", "p50"), "<=", 2.2),
    Gate(1, ("router", "p99"), ("router", "p50"), "<=", 5.0),
    Gate(32, ("router", "p99"), ("router", "p50"), "<=", 5.0),
)


def ratios(samples: Samples, top: tuple[str, str], bottom: tuple[str, str], connections: int) -> list[float]:
    """The ratio of two (target, figure) pairs in each round; empty where either was not measured."""
    upper = samples.get((top[0], connections), ())
    lower = samples.get((bottom[0], connections), ())
    pairs = zip(upper, lower, strict=False)  # an absent target has no rounds at all
    values = ((getattr(one, top[1]), getattr(other, bottom[1])) for one, other in pairs)
    return [above / below for above, below in values if below > 0]


def spread(values: Sequence[float]) -> str:
    """The median with the smallest and the largest value."""
    return f"{statistics.median(values):.2f} [{min(values):.2f} to {max(values):.2f}]"


def figures(samples: Samples, connections: int) -> str:
    """The table of medians at one concurrency."""
    rows = []
    for (name, at), runs in samples.items():
        if at == connections:
            middle = {key: statistics.median(getattr(run, key) for run in runs) for key in (*RATIOS, "rss")}
            rows.append(
                f"| {name} | {middle['rate']:,.0f} | {middle['p50']:,.0f} | {middle['p99']:,.0f} "
                f"| {middle['cpu']:,.1f} | {middle['rss']:.0f} | {sum(run.errors for run in runs)} |"
            )
    head = "| target | requests/s | p50 µs | p99 µs | CPU µs/request | RSS MiB | errors |"
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|--:|", *rows])


def comparison(samples: Samples, subject: str, connections: int) -> str:
    """The table of *subject* divided by each other target at one concurrency."""
    rows = []
    for name, at in samples:
        if at == connections and name != subject:
            cells = [ratios(samples, (subject, key), (name, key), connections) for key in RATIOS]
            rows.append(f"| {name} | " + " | ".join(spread(cell) if cell else "-" for cell in cells) + " |")
    head = f"| {subject} / | requests/s | p50 | p99 | CPU/request |"
    return "\n".join([head, "|---|--:|--:|--:|--:|", *rows])


def quietness(samples: Samples) -> str:
    """One sentence on the other work of the machine: figures taken beside much of it mean little."""
    runs = [run for several in samples.values() for run in several]
    middle, most = statistics.median(run.alien for run in runs), max(run.alien for run in runs)
    again = sum(run.tries > 1 for run in runs)
    return (
        f"Other work on the two cores: median {middle:.2f}, at most {most:.2f} of a core;"
        f" {again} of {len(runs)} loads were repeated for it."
    )


def verdicts(results: Iterable[tuple[str, bool, str]]) -> bool:
    """Print one line per (claim, kept, measured); answers whether all were kept."""
    everything = True
    for claim, kept, measured in results:
        print(f"{'PASS' if kept else 'FAIL'}  {claim}: {measured}")
        everything = everything and kept
    return everything
