"""Measures passes over an account of Cloudflare's: how many calls one makes, and how long it takes.

A running server talks over HTTP to the tests' fake of the API, which answers after a latency. Each
round has an empty account and a fresh server: a pass that makes 50 things, one that finds them, and one
over 1,000 more. Exit code: 0; 1 when a bound was missed or a pass failed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from _figures import verdicts  # noqa: E402

from tests.cloudflare_fake import ACCOUNT, USER_TOKEN, CloudflareFake, on_loopback  # noqa: E402
from tests.cloudflare_fake import ROOT as API  # noqa: E402
from tests.cloudflare_products import Script, Thing  # noqa: E402
from tests.process import serving  # noqa: E402
from tests.upstream import Received, Told  # noqa: E402

LATENCY = 0.05
READ_CALLS = 12
MAKE_CALLS = 70
MAKE_SECONDS = 2.0
EACH = 10
MORE = 200
"""Of each kind: 50 things are made, and 1,000 are put beside them."""


class Pass(NamedTuple):
    """What a pass cost: calls to the API, those of them that write, and seconds until it was answered."""

    calls: int
    writes: int
    seconds: float


def main() -> int:
    """Run the bench; answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=LATENCY, metavar="SECONDS")
    options = parser.parse_args()
    rounds = [asyncio.run(measure(options.latency)) for _ in range(options.rounds)]
    title = f"{options.rounds} rounds, {options.latency * 1000:.0f} ms latency"
    print(f"| {title} | calls | writes | s, median | s, worst |")
    print("|---|--:|--:|--:|--:|")
    for name in rounds[0]:
        passes = [one[name] for one in rounds]
        seconds = [one.seconds for one in passes]
        calls, writes = max(one.calls for one in passes), max(one.writes for one in passes)
        print(f"| {name} | {calls} | {writes} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")
    print()
    return 0 if verdicts(claims(rounds)) else 1


def claims(rounds: list[dict[str, Pass]]) -> list[tuple[str, bool, str]]:
    """Say what has to hold, whether it does in every round, and what was measured."""
    made = [one["50 are made"] for one in rounds]
    found = [one["50 are found"] for one in rounds]
    read = [one["1,050 are read"] for one in rounds]
    calls, seconds = max(one.calls for one in made), max(one.seconds for one in made)
    reads, writes = max(one.calls for one in read), max(one.writes for one in found + read)
    return [
        (f"a pass that makes 50 takes at most {MAKE_CALLS} calls", calls <= MAKE_CALLS, str(calls)),
        (f"and at most {MAKE_SECONDS:g} s", seconds <= MAKE_SECONDS, f"{seconds:.2f} s"),
        (f"a read pass over 1,000 takes at most {READ_CALLS} calls", reads <= READ_CALLS, str(reads)),
        ("a pass over what is there writes nothing", writes == 0, str(writes)),
    ]


async def measure(latency: float) -> dict[str, Pass]:
    """Run one round and return its passes by name."""
    fake = CloudflareFake()

    def tell(request: Received) -> Told:
        told = fake.tell(request)
        told.after = latency
        return told

    want: dict[str, list[Any]] = {
        member: [f"{letter * 3}-thing" for letter in "abcdefghij"]
        for member in ("kvNamespaces", "r2Buckets", "d1Databases", "queues")
    }
    want["workers"] = [{"name": name, "content": "export default {}"} for name in want["queues"]]
    with tempfile.TemporaryDirectory() as folder:
        async with on_loopback(fake) as api:
            api.tell = tell
            env = {"CF_API_TOKEN": USER_TOKEN, "CF_ACCOUNT_ID": ACCOUNT, "CF_API_BASE": api.url + API}
            server = serving(Path(folder), env={**env, "AUTOPILOT_HEAL_MAX_CREATIONS": "50"})
            one = await asyncio.to_thread(server.__enter__)
            try:
                async with httpx.AsyncClient(base_url=one.url, timeout=60) as client:
                    body = {
                        "name": "many",
                        "endpoint": "local:ai-stylist",
                        "capabilities": ["web.pages.generate"],
                    }
                    (
                        await client.post("/autopilot/registry", json={**body, "needs": want})
                    ).raise_for_status()
                    made = await one_pass(client, fake)
                    found = await one_pass(client, fake)
                    fill(fake, MORE)
                    read = await one_pass(client, fake)
            finally:
                await asyncio.to_thread(server.__exit__, None, None, None)
    products = fake.products
    kept = (products.kv, products.r2, products.scripts, products.d1, products.queues)
    if any(len(one) != EACH + MORE for one in kept):
        sys.exit("what was to be made is not there once")
    return {"50 are made": made, "50 are found": found, "1,050 are read": read}


async def one_pass(client: httpx.AsyncClient, fake: CloudflareFake) -> Pass:
    """Run one self-heal pass by hand."""
    calls, writes, started = len(fake.requests), len(fake.writes), time.perf_counter()
    answer = await client.post("/__scheduled")
    seconds = time.perf_counter() - started
    if not answer.is_success or not answer.json()["ok"]:
        sys.exit(f"the pass was answered {answer.status_code}: {answer.text[:500]}")
    return Pass(len(fake.requests) - calls, len(fake.writes) - writes, seconds)


def fill(fake: CloudflareFake, count: int) -> None:
    """Put as many things of each kind into the account, as if other people had."""
    for number in range(count):
        key, name = f"{number:032}", f"other-{number:03}"
        fake.products.kv[key] = Thing({"id": key, "title": name})
        fake.products.r2["default" if number % 2 else "eu", name] = Thing({"name": name})
        fake.products.scripts[name] = Script({"tags": []}, b"", "etag")
        fake.products.d1[name] = Thing({"uuid": key, "name": name})
        fake.products.queues[name] = Thing({"queue_id": key, "queue_name": name})


if __name__ == "__main__":
    sys.exit(main())
