"""What an answer may cost: a huge one and a packed one are given up without their weight in memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys

from tests.infra.scripted import ok, scripted, target_of
from tests.process import ROOT, environment

MIB = 1 << 20
CHILD = """
import asyncio, json, re, sys
import httpx
from infra.outbound import Guard, parse_allowed, parse_url
from infra.pool import ExchangeError, Pool
from infra.transport import GuardedTransport, carry

def peak():
    # Not what getrusage tells: that is the parent's until the child outgrows it.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10

async def through_pool(pool, url):
    parsed = parse_url(url)
    request = f"GET {parsed.target()} HTTP/1.1\\r\\nhost: {parsed.authority}\\r\\n\\r\\n".encode()
    deadline = asyncio.get_running_loop().time() + 5
    return len((await pool.exchange(parsed, request, deadline=deadline)).body)

async def through_carry(pool, url):
    return len((await carry(pool, "GET", url, [], b"", seconds=5)).body)

async def through_httpx(pool, url):
    async with httpx.AsyncClient(transport=GuardedTransport(pool), trust_env=False) as client:
        return len((await client.get(url)).content)

async def main(url):
    pool = Pool(Guard(parse_allowed(["127.0.0.1"])))
    ways = (through_pool, through_carry, through_httpx)
    for way in ways:
        await way(pool, url + "/small")
    before = peak()
    found = {}
    for path in ("/length", "/chunked", "/endless", "/gzip"):
        for way in ways:
            try:
                found[f"{way.__name__} {path}"] = await way(pool, url + path)
            except (ExchangeError, httpx.HTTPError) as error:
                found[f"{way.__name__} {path}"] = f"{type(error).__name__}: {error}"
    print(json.dumps({"grew": peak() - before, "found": found}))

asyncio.run(main(sys.argv[1]))
"""


async def _play(request: bytes, writer: asyncio.StreamWriter) -> bool:
    target = target_of(request)
    if target == "/small":
        writer.write(ok())
        return True
    if target == "/gzip":
        writer.write(ok(gzip.compress(bytes(10 * MIB)), b"content-encoding: gzip"))
        return True
    framing = b"content-length: %d" % (10 * MIB) if target == "/length" else b"transfer-encoding: chunked"
    writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    piece = bytes(MIB) if target == "/length" else b"100000\r\n" + bytes(MIB) + b"\r\n"
    sent = 0
    while sent < 10 or target == "/endless":
        writer.write(piece)
        sent += 1
        await writer.drain()
    return False


async def test_an_answer_costs_no_more_than_it_may_have() -> None:
    """10 MiB, chunks without end, and 10 MiB packed a thousandfold: the process grows by less than 16 MiB."""
    async with scripted(_play) as server:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, server.url,
            cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await child.communicate()
    assert child.returncode == 0
    told = json.loads(output)
    for path in ("/length", "/chunked", "/endless"):
        limit = f"the answer has more than {5 * MIB} bytes"
        assert told["found"].pop(f"through_pool {path}") == f"AnswerTooLarge: {limit}"
        assert told["found"].pop(f"through_carry {path}") == f"AnswerTooLarge: {limit}"
        assert told["found"].pop(f"through_httpx {path}") == f"ReadError: {limit}"
    # Packed, it is small: the pool passes on what came and unpacks nothing, client libraries get none of it.
    assert told["found"].pop("through_pool /gzip") < 20_000
    refusal = "the answer is compressed, though that was refused"
    assert told["found"] == {
        "through_carry /gzip": f"Unanswered: {refusal}",
        "through_httpx /gzip": f"ReadError: {refusal}",
    }
    assert told["grew"] < 16 * MIB
