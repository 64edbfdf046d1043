"""Measures what odd callers cost the router.

    bodies      the CPU time of a plan with each of the worst bodies of a mebibyte, in this process
    protocol    the CPU time of a request in our HTTP protocol, beside uvicorn's own, in this process
    slow        a server with 200 connections that trickle: how long they live, and what others notice

Exit code: 0; 1 when a bound was missed; 2 when the server cannot run here.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import uvicorn  # noqa: E402
from _figures import verdicts  # noqa: E402
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402

from router.api.http import WHOLE  # noqa: E402
from router.onewrite import OneWrite  # noqa: E402
from router.settings import read  # noqa: E402
from router.wiring import build, manifests  # noqa: E402
from tests.infra.test_body import WORST  # noqa: E402
from tests.process import serving  # noqa: E402

MAX_CPU_MS = 50.0
MAX_PEAK_MIB = 64.0
MAX_EXTRA_US = 0.0
MAX_HEALTH_MS = 500.0
MAX_LIFE_SECONDS = 15.0

Verdict = tuple[str, bool, str]

VALUES = {
    "499 long slow numbers": ("1.2345678901234567" + "1" * 900 + "e-300", 499),
    "4,900 integers": ("1" * 38, 4_900),
    "4,900 numbers between blanks": (" " * 200 + "1", 4_900),
    "4,900 texts": ('"' + "a" * 200 + '"', 4_900),
    "15 long texts of escapes": ('"' + r"\ud83d\ude00" * 5_300 + '"', 15),
    "15 long texts of markup": ('"' + "<b>&amp;" * 8_000 + '"', 15),
    "2,400 objects": ('{"a":1}', 2_400),
    "78 deep lists": ("[" * 60 + "]" * 60, 78),
}
"""What a body within all limits may hold: a value, and how often."""


def bodies() -> Iterator[tuple[str, bytes]]:
    """Give each body with its name: those that are refused, and the most that is taken."""
    yield from WORST.items()
    for name, (value, count) in VALUES.items():
        many = ",".join([value] * count)
        yield f"plan of {name}", f'{{"task":"nobody","meta":{{"a":[{many}]}}}}'.encode()
    keys = ",".join(f'"{number:0150x}":1' for number in range(4_900))
    yield "4,900 unknown fields", f"{{{keys}}}".encode()


async def measure_bodies() -> tuple[float, float]:
    """Print CPU time and memory of each body on each endpoint, and return the highest of both."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        system = build(read({"AUTOPILOT_DATA": folder}), url="http://127.0.0.1:8080")
        transport = httpx.ASGITransport(app=system.app, client=("127.0.0.1", 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            for manifest in manifests():
                await client.post("/autopilot/registry", json=manifest)
            for name, body in bodies():
                for path, key in (
                    ("/autopilot/plan", ""),
                    ("/autopilot/plan", f"key-{len(rows)}"),
                    ("/autopilot/registry", ""),
                    ("/autopilot/ensure-infra", ""),
                ):
                    row = await _measure_body(client, path, body, key)
                    rows.append((*row, f"{name}{' with a key' if key else ''}", path))
        await system.close()
    rows.sort(reverse=True)
    print("| CPU ms | peak MiB | status | body | endpoint |\n|--:|--:|--:|---|---|")
    for took, peak, status, name, path in rows[:12]:
        print(f"| {took:.1f} | {peak:.1f} | {status} | {name} | {path} |")
    print()
    return rows[0][0], max(row[1] for row in rows)


async def _measure_body(
    client: httpx.AsyncClient, path: str, body: bytes, key: str
) -> tuple[float, float, int]:
    headers = {"content-type": "application/json", **({"idempotency-key": key} if key else {})}
    took = []
    for _ in range(3):
        began = time.process_time()
        answer = await client.post(path, content=body, headers=headers)
        took.append((time.process_time() - began) * 1e3)
    tracemalloc.start()
    await client.post(path, content=body, headers=headers)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return min(took), peak, answer.status_code


class _Sink(asyncio.Transport):
    """A transport whose writes go nowhere."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8080)}.get(name, default)

    def write(self, data: Any) -> None:
        """Forget it."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Stay as it is."""


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """Do what the product does around every plan: look up headers, read the body, answer as a whole."""
    dict(scope["headers"])
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    whole = scope.get("extensions", {}).get(WHOLE)
    if whole is None or not whole(scope, 200, headers, b"{}"):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


async def measure_protocol(rounds: int, requests: int) -> float:
    """Print the CPU time of a request in both protocols, and return the difference in microseconds."""
    body = b'{"task":"generate_page","meta":{"pageType":"home","description":"Welcome page"}}'
    head = b"POST /autopilot/plan HTTP/1.1\r\nhost: 127.0.0.1:8080\r\naccept: */*\r\nuser-agent: bench\r\n"
    head += b"authorization: Bearer 0123456789abcdef\r\ncontent-type: application/json\r\n"
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    protocols: dict[str, HttpToolsProtocol] = {}
    for name, kind in (("uvicorn's", HttpToolsProtocol), ("ours", OneWrite)):
        config = uvicorn.Config(_answer, http=kind, lifespan="off", log_config=None, ws="none")
        config.load()
        protocols[name] = kind(config=config, server_state=ServerState(), app_state={})
        protocols[name].connection_made(_Sink())
    took: dict[str, list[float]] = {name: [] for name in protocols}
    for _ in range(rounds):
        for name, protocol in protocols.items():
            began = time.process_time()
            for _ in range(requests):
                protocol.data_received(request)
                await asyncio.sleep(0)
            took[name].append((time.process_time() - began) / requests * 1e6)
    for protocol in protocols.values():
        protocol.connection_lost(None)
    print("| protocol | µs a request, median | smallest |\n|---|--:|--:|")
    for name, values in took.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} |")
    print()
    return min(took["ours"]) - min(took["uvicorn's"])


async def measure_slow(seconds: float, count: int) -> tuple[float, float]:
    """Keep connections trickling and ask for /health meanwhile: the longest life, and the 99th percentile."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        port = int(server.url.rpartition(":")[2])
        until = time.monotonic() + seconds
        lives: list[float] = []
        tricklers = [asyncio.create_task(_trickle(port, until, lives)) for _ in range(count)]
        waits = []
        async with httpx.AsyncClient(base_url=server.url) as client:
            while time.monotonic() < until:
                began = time.perf_counter()
                assert (await client.get("/health")).status_code == 200
                waits.append((time.perf_counter() - began) * 1e3)
                await asyncio.sleep(0.02)
        await asyncio.gather(*tricklers)
    waits.sort()
    late = waits[int(len(waits) * 0.99)]
    print(f"{len(lives)} connections ended after {min(lives):.1f} to {max(lives):.1f} s;", end=" ")
    print(f"{len(waits)} calls of /health took {statistics.median(waits):.1f} ms, p99 {late:.1f} ms\n")
    return max(lives), late


async def _trickle(port: int, until: float, lives: list[float]) -> None:
    """Connect again and again, and send a byte a second until the server has enough."""
    head = b"POST /autopilot/plan HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\na: "
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        ended = asyncio.create_task(reader.read())
        writer.write(head)
        while not ended.done():
            writer.write(b"b")
            await asyncio.wait([ended], timeout=1.0)
        lives.append(time.monotonic() - began)
        writer.close()


async def run(options: argparse.Namespace) -> bool:
    """Measure what was asked for and print what came of it."""
    found: list[Verdict] = []
    if "bodies" in options.what:
        cpu, peak = await measure_bodies()
        found.append(
            (f"any body costs at most {MAX_CPU_MS:.0f} ms of CPU", cpu <= MAX_CPU_MS, f"{cpu:.1f} ms")
        )
        found.append((f"and {MAX_PEAK_MIB:.0f} MiB", peak <= MAX_PEAK_MIB, f"{peak:.1f} MiB"))
    if "protocol" in options.what:
        extra = await measure_protocol(options.rounds, 4_000)
        claim = "our protocol, strict and all, costs a request no more than uvicorn's"
        found.append((claim, extra <= MAX_EXTRA_US, f"{extra:+.2f} µs"))
    if "slow" in options.what:
        life, late = await measure_slow(options.seconds, options.connections)
        claim = f"no slow caller stays for more than {MAX_LIFE_SECONDS:.0f} s"
        found.append((claim, life <= MAX_LIFE_SECONDS, f"{life:.1f} s"))
        found.append(
            (f"others wait less than {MAX_HEALTH_MS:.0f} ms", late < MAX_HEALTH_MS, f"{late:.1f} ms")
        )
    return verdicts(found)


def main() -> int:
    """Run the bench as the command line says; answers the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench/edge", description=__doc__)
    everything = ["bodies", "protocol", "slow"]
    parser.add_argument("what", nargs="*", default=everything, help=f"any of {', '.join(everything)}")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of the protocols")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long slow callers come")
    parser.add_argument("--connections", type=int, default=200, help="how many at a time")
    try:
        return 0 if asyncio.run(run(parser.parse_args())) else 1
    except AssertionError as error:
        print(f"the server is absent: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
